//! Methods against client drift: FedProx, SCAFFOLD, and the anchor of Ditto.
//!
//! Each changes the gradient `g` of a step before the optimiser sees it:
//!
//! - FedProx (Li et al. 2020, *Federated Optimization in Heterogeneous Networks*, equation 2) adds the gradient of
//!   `μ/2 ‖w − w_t‖²`, with `w_t` the parameters of the round's message: `g + μ (w − w_t)`.
//! - Ditto (Li et al. 2021, *Ditto: Fair and Robust Federated Learning Through Personalization*, equation 1) does the
//!   same to a client's personal model, with `λ` for `μ`.
//! - SCAFFOLD (Karimireddy et al. 2020, *SCAFFOLD: Stochastic Controlled Averaging for Federated Learning*,
//!   Algorithm 1) uses `g − c_i + c`, with the control variates of the client and of the server. After the round the client's is
//!   `c_i⁺`, the paper's option II: `c_i − c + (w_t − y_i) / (K η)`. With plain gradient steps this is the mean of the
//!   round's uncorrected gradients. That mean is what this module uses, since under AdamW the distance moved says
//!   little about the gradients. The client adopts `c_i⁺` once it knows that the server has `c_i⁺ − c_i`: at its next
//!   message. An update may be lost in transit, and a client that adopted it anyway would leave the server's `c` behind
//!   the clients' mean permanently.
//!
//! A parameter that did not come with the message, such as a private head, has no anchor and no control variate from
//! the server, and its gradient is unchanged.

use std::collections::BTreeMap;

use plugin_api::{Error, Message, Params, Result, State};
use tch::Tensor;

use crate::bridge;
use crate::device::DeviceContext;

/// The prefix of control variates in a message's extra tensors; the parameter's name follows.
const CONTROL: &str = "scaffold.";
/// The prefix of a client's own control variates in its state.
const OWN: &str = "scaffold.own.";
/// The prefix of the control variates that replace them once the server has the update.
const NEXT: &str = "scaffold.next.";
/// The key of the round in which the update was sent.
const SENT: &str = "scaffold.sent";
/// The prefixes of data that lives within one round, in a state between two of its epochs.
const ANCHOR: &str = "drift.anchor.";
const SERVER: &str = "scaffold.server.";
const SUM: &str = "scaffold.sum.";

/// The corrections of a client's gradients.
#[derive(Debug)]
pub(crate) struct GradientCorrection {
    proximal: f64,
    scaffold: bool,
    slots: Vec<Slot>,
    /// The round in which changes of control variates were sent that the server has not acknowledged yet.
    sent: Option<u64>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    parameter: Tensor,
    /// `w_t`.
    anchor: Option<Tensor>,
    /// `c`.
    server: Option<Tensor>,
    /// `c_i`.
    own: Option<Tensor>,
    /// `c_i⁺` of the round that was sent.
    next: Option<Tensor>,
    /// The sum of the round's uncorrected gradients, and their number.
    sum: Option<(Tensor, u32)>,
}

impl GradientCorrection {
    /// Creates the corrections for the trainable parameters, in the optimiser's order.
    pub(crate) fn new<'a>(
        parameters: impl Iterator<Item = (&'a str, &'a Tensor)>,
        proximal: f64,
        scaffold: bool,
    ) -> Self {
        let slot = |(name, parameter): (&str, &Tensor)| Slot {
            name: name.to_owned(),
            parameter: parameter.shallow_clone(),
            anchor: None,
            server: None,
            own: None,
            next: None,
            sum: None,
        };
        Self { proximal, scaffold, slots: parameters.map(slot).collect(), sent: None }
    }

    /// Starts a round with this message. `taken` is the last round for which the server has this client's update, if
    /// there is one. If the host does not report it, nothing counts as lost. On an error nothing changes.
    pub(crate) fn receive(&mut self, message: &Message, taken: Option<Option<u64>>) -> Result<()> {
        let lost = self.sent.is_some() && taken.is_some_and(|taken| taken != self.sent);
        let read = |slot: &Slot, wanted: bool, params: &Params, name: &str| {
            let there = wanted && params.get(name).is_some();
            there.then(|| bridge::fresh_like(params, name, &slot.parameter)).transpose()
        };
        let mut next = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let anchor = read(slot, self.proximal > 0.0, &message.params, &slot.name)?;
            let server = read(slot, self.scaffold, &message.extra, &format!("{CONTROL}{}", slot.name))?;
            next.push((anchor, server));
        }
        let trained = self.slots.iter().any(|slot| slot.own.is_some() || (slot.next.is_some() && !lost));
        if self.scaffold && trained && next.iter().all(|(_, server)| server.is_none()) {
            let error = Error::config("the server sends no control variates").at_key("scaffold");
            return Err(error.help("SCAFFOLD needs both sides: `plugin = \"scaffold\"` in `[aggregator]`"));
        }
        for (slot, (anchor, server)) in self.slots.iter_mut().zip(next) {
            (slot.anchor, slot.server, slot.sum) = (anchor, server, None);
            let next = slot.next.take().filter(|_| !lost);
            slot.own = next.or_else(|| slot.own.take());
        }
        self.sent = None;
        Ok(())
    }

    /// Corrects a step's gradient for one slot.
    pub(crate) fn correct(&mut self, number: usize, gradient: &mut Tensor) {
        if !self.scaffold && self.proximal == 0.0 {
            return;
        }
        let _guard = tch::no_grad_guard();
        let slot = &mut self.slots[number];
        if self.scaffold {
            match &mut slot.sum {
                Some((sum, count)) => {
                    let _ = sum.g_add_(gradient);
                    *count += 1;
                }
                None => slot.sum = Some((gradient.copy(), 1)),
            }
        }
        if let Some(server) = &slot.server {
            let corrected = &*gradient + server;
            *gradient = slot.own.as_ref().map_or_else(|| corrected.shallow_clone(), |own| &corrected - own);
        }
        if let Some(anchor) = &slot.anchor {
            *gradient = &*gradient + (&slot.parameter.detach() - anchor) * self.proximal;
        }
    }

    /// Ends a round and returns what SCAFFOLD sends besides the parameters: `c_i⁺ − c_i` of each parameter that took
    /// steps. For a client that took none it is 0 for all, in untouched memory.
    pub(crate) fn send(&mut self, context: &DeviceContext, round: Option<u64>) -> Result<Params> {
        let _guard = tch::no_grad_guard();
        if self.scaffold && self.slots.iter().all(|slot| slot.sum.is_none()) {
            let zeros = |slot: &Slot| {
                let shape = bridge::shape_of(&slot.parameter);
                (format!("{CONTROL}{}", slot.name), plugin_api::Tensor::build::<f32>(&shape, |_| {}))
            };
            return Ok(self.slots.iter().map(zeros).collect());
        }
        let (mut names, mut changes) = (Vec::new(), Vec::new());
        for slot in &mut self.slots {
            let Some((sum, count)) = slot.sum.take() else { continue };
            let next = sum / f64::from(count);
            changes.push(slot.own.as_ref().map_or_else(|| next.shallow_clone(), |before| &next - before));
            names.push(format!("{CONTROL}{}", slot.name));
            slot.next = Some(next);
        }
        self.sent = round.filter(|_| !names.is_empty());
        Ok(names.into_iter().zip(bridge::fetch(changes.iter(), context)?).collect())
    }

    /// Ends a round: drops the data of its message.
    pub(crate) fn close(&mut self) {
        self.slots.iter_mut().for_each(|slot| (slot.anchor, slot.server, slot.sum) = (None, None, None));
    }

    /// Adds the client's control variates to a state and, within a round, the data of its message.
    pub(crate) fn save(&self, context: &DeviceContext, state: &mut State) -> Result<()> {
        let mut all: Vec<(String, &Tensor)> = Vec::new();
        let mut counts = serde_json::Map::new();
        for slot in &self.slots {
            let sum = slot.sum.as_ref().map(|(sum, _)| sum);
            for (prefix, tensor) in [
                (OWN, slot.own.as_ref()),
                (NEXT, slot.next.as_ref()),
                (ANCHOR, slot.anchor.as_ref()),
                (SERVER, slot.server.as_ref()),
                (SUM, sum),
            ] {
                all.extend(tensor.map(|tensor| (format!("{prefix}{}", slot.name), tensor)));
            }
            counts.extend(slot.sum.as_ref().map(|(_, count)| (slot.name.clone(), (*count).into())));
        }
        let (names, tensors): (Vec<String>, Vec<&Tensor>) = all.into_iter().unzip();
        for (name, tensor) in names.into_iter().zip(bridge::fetch(tensors.into_iter(), context)?) {
            state.tensors.insert(name, tensor);
        }
        if let Some(round) = self.sent {
            state.values.insert(SENT.to_owned(), round.into());
        }
        if !counts.is_empty() {
            state.values.insert(SUM.to_owned(), counts.into());
        }
        Ok(())
    }

    /// Reads these tensors from a state, for [`GradientCorrection::restore`].
    pub(crate) fn read(&self, state: &State) -> Result<(Vec<Held>, Option<u64>)> {
        let sent = if state.values.contains_key(SENT) { Some(state.value(SENT)?) } else { None };
        let counts: BTreeMap<String, u32> =
            if state.values.contains_key(SUM) { state.value(SUM)? } else { BTreeMap::new() };
        let read = |slot: &Slot| {
            let tensor = |wanted: bool, prefix: &str| {
                let name = format!("{prefix}{}", slot.name);
                let there = wanted && state.tensors.get(&name).is_some();
                there.then(|| bridge::fresh_like(&state.tensors, &name, &slot.parameter)).transpose()
            };
            let sum = tensor(self.scaffold, SUM)?;
            let sum = match (sum, counts.get(&slot.name)) {
                (Some(sum), Some(count)) => Some((sum, *count)),
                (None, None) => None,
                _ => {
                    return Err(Error::tensor(
                        format!("{SUM}{}", slot.name),
                        "is there without its count, or the count without it",
                    ));
                }
            };
            let [own, next, server] = [OWN, NEXT, SERVER].map(|prefix| tensor(self.scaffold, prefix));
            Ok(Held { own: own?, next: next?, anchor: tensor(self.proximal > 0.0, ANCHOR)?, server: server?, sum })
        };
        Ok((self.slots.iter().map(read).collect::<Result<_>>()?, sent))
    }

    /// Continues from that state, between two rounds or two epochs.
    pub(crate) fn restore(&mut self, (held, sent): (Vec<Held>, Option<u64>)) {
        for (slot, Held { own, next, anchor, server, sum }) in self.slots.iter_mut().zip(held) {
            (slot.own, slot.next, slot.anchor, slot.server, slot.sum) = (own, next, anchor, server, sum);
        }
        self.sent = sent;
    }
}

/// The state of one parameter.
pub(crate) struct Held {
    own: Option<Tensor>,
    next: Option<Tensor>,
    anchor: Option<Tensor>,
    server: Option<Tensor>,
    sum: Option<(Tensor, u32)>,
}

#[cfg(test)]
mod nvflare;

#[cfg(test)]
mod tests {
    use super::*;

    fn one(values: &[f32]) -> plugin_api::Tensor {
        plugin_api::Tensor::from_slice(&[values.len()], values).unwrap()
    }

    fn named(name: &str, values: &[f32]) -> Params {
        [(name, one(values))].into_iter().collect()
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor).unwrap()
    }

    #[test]
    fn the_proximal_term_pulls_towards_what_was_received() {
        let (held, private) = (Tensor::from_slice(&[3.0_f32, 1.0]), Tensor::from_slice(&[7.0_f32]));
        let mut drift = GradientCorrection::new([("w", &held), ("head", &private)].into_iter(), 0.5, false);
        let mut before = Tensor::from_slice(&[1.0_f32, 1.0]);
        drift.correct(0, &mut before);
        assert_eq!(values(&before), [1.0, 1.0]); // nothing was received yet
        drift.receive(&named("w", &[1.0, 2.0]).into(), None).unwrap();
        let mut gradients = [Tensor::from_slice(&[1.0_f32, 1.0]), Tensor::from_slice(&[2.0_f32])];
        gradients.iter_mut().enumerate().for_each(|(number, gradient)| drift.correct(number, gradient));
        assert_eq!((values(&gradients[0]), values(&gradients[1])), (vec![2.0, 0.5], vec![2.0]));
        assert!(drift.send(&DeviceContext::cpu(), Some(0)).unwrap().is_empty());
    }

    /// With plain gradient steps the mean of the gradients is the paper's option II.
    #[test]
    fn control_variates_are_those_of_the_paper() {
        let _guard = tch::no_grad_guard();
        let mut w = Tensor::from_slice(&[0.0_f32, 0.0]);
        let mut drift = GradientCorrection::new([("w", &w)].into_iter(), 0.0, true);
        let (rate, steps, mut own) = (0.1_f32, 5, [0.0_f32; 2]);
        for (round, server) in [[0.0_f32, 0.0], [0.3, -0.2], [-1.0, 0.5]].into_iter().enumerate() {
            let start = [round as f32, -1.0];
            let extra = if round == 0 { Params::new() } else { named("scaffold.w", &server) };
            let taken = Some((round as u64).checked_sub(1));
            drift.receive(&Message { params: named("w", &start), extra, ..Message::default() }, taken).unwrap();
            w.copy_(&Tensor::from_slice(&start));
            for _ in 0..steps {
                let mut gradient = &w * 2.0 - Tensor::from_slice(&[4.0_f32, 1.0]);
                drift.correct(0, &mut gradient);
                let _ = w.g_sub_(&(&gradient * f64::from(rate)));
            }
            let sent = drift.send(&DeviceContext::cpu(), Some(round as u64)).unwrap();
            for (i, (end, change)) in
                values(&w).into_iter().zip(sent.elements::<f32>("scaffold.w", &[2]).unwrap()).enumerate()
            {
                let next: f32 = own[i] - server[i] + (start[i] - end) / (steps as f32 * rate);
                let expected: f32 = next - own[i];
                assert!((change - expected).abs() < 2e-5, "round {round}: {change} is not {expected}");
                own[i] = next;
            }
        }
        // Between two epochs a state holds the round's data; after the round it no longer does.
        drift
            .receive(&Message { extra: named("scaffold.w", &[0.5, 0.5]), ..Message::default() }, Some(Some(2)))
            .unwrap();
        drift.correct(0, &mut Tensor::from_slice(&[1.0_f32, 2.0]));
        let state_of = |drift: &GradientCorrection| {
            let mut state = State::default();
            drift.save(&DeviceContext::cpu(), &mut state).unwrap();
            state
        };
        let within = state_of(&drift);
        let mut other = GradientCorrection::new([("w", &w)].into_iter(), 0.0, true);
        let held = other.read(&within).unwrap();
        other.restore(held);
        let [mine, others] = [&mut drift, &mut other].map(|drift| {
            let mut gradient = Tensor::from_slice(&[4.0_f32, 4.0]);
            drift.correct(0, &mut gradient);
            (
                values(&gradient),
                drift
                    .send(&DeviceContext::cpu(), Some(3))
                    .unwrap()
                    .elements::<f32>("scaffold.w", &[2])
                    .unwrap()
                    .to_vec(),
            )
        });
        assert_eq!(mine, others);
        drift.close();
        let state = state_of(&drift);
        assert_eq!(state.tensors.names().collect::<Vec<_>>(), ["scaffold.own.w", "scaffold.next.w"]);
        own.iter_mut().zip(mine.1).for_each(|(own, change)| *own += change);
        let saved = state.tensors.elements::<f32>("scaffold.next.w", &[2]).unwrap();
        assert!(saved.iter().zip(own).all(|(a, b)| (a - b).abs() < 2e-5));
        let error = drift.receive(&named("w", &[0.0, 0.0]).into(), Some(Some(3))).unwrap_err();
        assert_eq!(error.to_string(), "`scaffold`: the server sends no control variates");
    }

    /// The server's `c` is the sum of what it received, so a client whose update was lost must not continue from that
    /// update.
    #[test]
    fn a_control_variate_that_the_server_does_not_have_is_not_taken_over() {
        let w = Tensor::from_slice(&[0.0_f32]);
        let mut drift = GradientCorrection::new([("w", &w)].into_iter(), 0.0, true);
        let mut server = 0.0_f32;
        let own = |drift: &GradientCorrection| {
            let mut state = State::default();
            drift.save(&DeviceContext::cpu(), &mut state).unwrap();
            state.tensors.get("scaffold.own.w").map_or(0.0, |own| own.elements::<f32>().unwrap()[0])
        };
        // Round, gradient, and whether the update arrives. With a single client, c always equals its own variate.
        let (mut taken, mut lost_once) = (None, false);
        for (round, gradient, arrives) in
            [(0, 4.0, false), (1, 2.0, true), (4, 8.0, false), (5, 6.0, true), (6, 1.0, true)]
        {
            let extra = if taken.is_none() { Params::new() } else { named("scaffold.w", &[server]) };
            drift.receive(&Message { extra, ..Message::default() }, Some(taken)).unwrap();
            assert_eq!(own(&drift), server, "round {round}");
            drift.correct(0, &mut Tensor::from_slice(&[gradient]));
            let sent = drift.send(&DeviceContext::cpu(), Some(round)).unwrap();
            drift.close();
            // A checkpoint here changes nothing.
            let mut state = State::default();
            drift.save(&DeviceContext::cpu(), &mut state).unwrap();
            let held = drift.read(&state).unwrap();
            drift = GradientCorrection::new([("w", &w)].into_iter(), 0.0, true);
            drift.restore(held);
            let change = sent.elements::<f32>("scaffold.w", &[1]).unwrap()[0];
            assert_eq!(server + change, gradient, "round {round}");
            if arrives {
                (server, taken) = (server + change, Some(round));
            }
            lost_once |= !arrives;
        }
        assert!(lost_once);
        // The host does not report what it received: nothing counts as lost.
        drift.receive(&Message { extra: named("scaffold.w", &[server]), ..Message::default() }, None).unwrap();
        assert_eq!(own(&drift), 1.0);
    }
}
