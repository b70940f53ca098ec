//! What keeps a client's steps from drifting away from the other clients': FedProx, SCAFFOLD, and the anchor of Ditto.
//!
//! Each changes the gradient `g` of a step before the optimiser sees it:
//!
//! - FedProx (Li et al. 2020, *Federated Optimization in Heterogeneous Networks*, equation 2) adds the gradient of
//!   `μ/2 ‖w − w_t‖²`, with `w_t` what came with the round's message: `g + μ (w − w_t)`.
//! - Ditto (Li et al. 2021, *Ditto: Fair and Robust Federated Learning Through Personalization*, equation 1) does the
//!   same to a client's personal model, with `λ` for `μ`.
//! - SCAFFOLD (Karimireddy et al. 2020, *SCAFFOLD: Stochastic Controlled Averaging for Federated Learning*, Algorithm 1)
//!   takes `g − c_i + c`, with the control variates of the client and of the server. After the round the client's is
//!   `c_i⁺`, the paper's option II: `c_i − c + (w_t − y_i) / (K η)`. With plain gradient steps that is the mean of the
//!   round's uncorrected gradients, and this mean is what is taken here, since under AdamW the way that was gone says
//!   little of the gradients.
//!
//! A parameter that did not come with the message, such as a private head, has no anchor and no control variate of the
//! server, and its gradient stays as it is.

use plugin_api::{Error, Message, Params, Result, State};
use tch::Tensor;

use crate::bridge;
use crate::device::Place;

/// Names of control variates in a message's extra tensors: this, and the parameter's name.
const CONTROL: &str = "scaffold.";
/// Names of a client's own ones in its state.
const OWN: &str = "scaffold.own.";

/// The corrections of a client's gradients.
#[derive(Debug)]
pub(crate) struct Drift {
    proximal: f64,
    scaffold: bool,
    slots: Vec<Slot>,
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
    /// The round's uncorrected gradients, and how many they are.
    sum: Option<(Tensor, u32)>,
}

impl Drift {
    /// For the parameters that learn, in the optimiser's order.
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
            sum: None,
        };
        Self { proximal, scaffold, slots: parameters.map(slot).collect() }
    }

    /// A round begins with this message. Changes nothing after an error.
    pub(crate) fn receive(&mut self, message: &Message) -> Result<()> {
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
        let trained = self.slots.iter().any(|slot| slot.own.is_some());
        if self.scaffold && trained && next.iter().all(|(_, server)| server.is_none()) {
            let error = Error::config("the server sends no control variates").at_key("scaffold");
            return Err(error.help("SCAFFOLD takes both sides: `plugin = \"scaffold\"` in `[aggregator]`"));
        }
        for (slot, (anchor, server)) in self.slots.iter_mut().zip(next) {
            (slot.anchor, slot.server, slot.sum) = (anchor, server, None);
        }
        Ok(())
    }

    /// Corrects the gradient of a step, of one slot.
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

    /// Ends a round: what SCAFFOLD sends besides the parameters, `c_i⁺ − c_i` of each parameter that took steps. Of a
    /// client that took none it is 0 for all, in memory that nobody touches.
    pub(crate) fn send(&mut self, place: &Place) -> Result<Params> {
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
            let own = sum / f64::from(count);
            changes.push(slot.own.as_ref().map_or_else(|| own.shallow_clone(), |before| &own - before));
            names.push(format!("{CONTROL}{}", slot.name));
            slot.own = Some(own);
        }
        Ok(names.into_iter().zip(bridge::fetch(changes.iter(), place)?).collect())
    }

    /// Adds the client's control variates to a state.
    pub(crate) fn save(&self, place: &Place, state: &mut State) -> Result<()> {
        let there = || self.slots.iter().filter_map(|slot| Some((&slot.name, slot.own.as_ref()?)));
        for ((name, _), own) in there().zip(bridge::fetch(there().map(|(_, own)| own), place)?) {
            state.tensors.insert(format!("{OWN}{name}"), own);
        }
        Ok(())
    }

    /// Reads those of a state, for [`Drift::restore`].
    pub(crate) fn read(&self, state: &State) -> Result<Vec<Option<Tensor>>> {
        let read = |slot: &Slot| {
            let name = format!("{OWN}{}", slot.name);
            let there = self.scaffold && state.tensors.get(&name).is_some();
            there.then(|| bridge::fresh_like(&state.tensors, &name, &slot.parameter)).transpose()
        };
        self.slots.iter().map(read).collect()
    }

    /// Goes on from there, between two rounds.
    pub(crate) fn restore(&mut self, own: Vec<Option<Tensor>>) {
        for (slot, own) in self.slots.iter_mut().zip(own) {
            (slot.own, slot.sum, slot.anchor, slot.server) = (own, None, None, None);
        }
    }
}

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
        let mut drift = Drift::new([("w", &held), ("head", &private)].into_iter(), 0.5, false);
        let mut before = Tensor::from_slice(&[1.0_f32, 1.0]);
        drift.correct(0, &mut before);
        assert_eq!(values(&before), [1.0, 1.0]); // nothing was received yet
        drift.receive(&named("w", &[1.0, 2.0]).into()).unwrap();
        let mut gradients = [Tensor::from_slice(&[1.0_f32, 1.0]), Tensor::from_slice(&[2.0_f32])];
        gradients.iter_mut().enumerate().for_each(|(number, gradient)| drift.correct(number, gradient));
        assert_eq!((values(&gradients[0]), values(&gradients[1])), (vec![2.0, 0.5], vec![2.0]));
        assert!(drift.send(&Place::cpu()).unwrap().is_empty());
    }

    /// With plain gradient steps the mean of the gradients is the paper's option II.
    #[test]
    fn control_variates_are_those_of_the_paper() {
        let _guard = tch::no_grad_guard();
        let mut w = Tensor::from_slice(&[0.0_f32, 0.0]);
        let mut drift = Drift::new([("w", &w)].into_iter(), 0.0, true);
        let (rate, steps, mut own) = (0.1_f32, 5, [0.0_f32; 2]);
        for (round, server) in [[0.0_f32, 0.0], [0.3, -0.2], [-1.0, 0.5]].into_iter().enumerate() {
            let start = [round as f32, -1.0];
            let extra = if round == 0 { Params::new() } else { named("scaffold.w", &server) };
            drift.receive(&Message { params: named("w", &start), extra, ..Message::default() }).unwrap();
            w.copy_(&Tensor::from_slice(&start));
            for _ in 0..steps {
                let mut gradient = &w * 2.0 - Tensor::from_slice(&[4.0_f32, 1.0]);
                drift.correct(0, &mut gradient);
                let _ = w.g_sub_(&(&gradient * f64::from(rate)));
            }
            let sent = drift.send(&Place::cpu()).unwrap();
            for (i, (end, change)) in
                values(&w).into_iter().zip(sent.elements::<f32>("scaffold.w", &[2]).unwrap()).enumerate()
            {
                let next: f32 = own[i] - server[i] + (start[i] - end) / (steps as f32 * rate);
                let expected: f32 = next - own[i];
                assert!((change - expected).abs() < 2e-5, "round {round}: {change} is not {expected}");
                own[i] = next;
            }
        }
        let mut state = State::default();
        drift.save(&Place::cpu(), &mut state).unwrap();
        let saved = state.tensors.elements::<f32>("scaffold.own.w", &[2]).unwrap();
        assert!(saved.iter().zip(own).all(|(a, b)| (a - b).abs() < 2e-5));
        let error = drift.receive(&named("w", &[0.0, 0.0]).into()).unwrap_err();
        assert_eq!(error.to_string(), "`scaffold`: the server sends no control variates");
    }
}
