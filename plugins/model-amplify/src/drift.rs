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

use std::collections::{BTreeMap, HashMap};

use plugin_api::{Error, Message, Params, Result, State};
use tch::{TchError, Tensor};

use crate::bridge::{self, torch_error};
use crate::device::DeviceContext;
use crate::{memory, transfer};

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
    pub(crate) fn receive(
        &mut self,
        message: &Message,
        taken: Option<Option<u64>>,
        context: &DeviceContext,
    ) -> Result<()> {
        let lost = self.sent.is_some() && taken.is_some_and(|taken| taken != self.sent);
        let next: Vec<_> = {
            let anchors = Found::of(&message.params, "", self.slots.iter().filter(|_| self.proximal > 0.0))?;
            let servers = Found::of(&message.extra, CONTROL, self.slots.iter().filter(|_| self.scaffold))?;
            let (mut anchors, mut servers) = (anchors.load(context)?, servers.load(context)?);
            let names = self.slots.iter().map(|slot| slot.name.as_str());
            names.map(|name| (anchors.remove(name), servers.remove(name))).collect()
        };
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
    ///
    /// # Errors
    /// If libtorch fails.
    pub(crate) fn correct(&mut self, number: usize, gradient: &mut Tensor) -> Result<()> {
        if !self.scaffold && self.proximal == 0.0 {
            return Ok(());
        }
        let _guard = tch::no_grad_guard();
        let context = DeviceContext::new(gradient.device());
        let (slot, proximal) = (&mut self.slots[number], self.proximal);
        if self.scaffold {
            match &mut slot.sum {
                Some((sum, count)) => {
                    let _ = sum.f_add_(gradient).map_err(torch_error)?;
                    *count += 1;
                }
                None => {
                    let copy = || gradient.f_detach_copy().map_err(torch_error);
                    slot.sum = Some((memory::retry(&context, "batch-size", copy)?, 1));
                }
            }
        }
        let corrected =
            memory::retry(&context, "batch-size", || slot.corrected(gradient, proximal).map_err(torch_error))?;
        if let Some(corrected) = corrected {
            *gradient = corrected;
        }
        Ok(())
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
        let change = |slot: &Slot| -> Result<Option<[Tensor; 2]>, TchError> {
            let Some((sum, count)) = &slot.sum else { return Ok(None) };
            let next = sum.f_div_scalar(f64::from(*count))?;
            let change = slot.own.as_ref().map_or_else(|| next.f_detach_copy(), |before| next.f_sub(before))?;
            Ok(Some([next, change]))
        };
        let compute = || self.slots.iter().map(change).collect::<Result<Vec<_>, _>>().map_err(torch_error);
        let computed = memory::retry(context, "batch-size", compute)?;
        let changes = computed.iter().flatten().map(|[_, change]| change);
        // It waits for the device, so the sums can be dropped from here on.
        let fetched = transfer::fetch(changes, context)?;
        let mut names = Vec::new();
        for (slot, computed) in self.slots.iter_mut().zip(computed) {
            let Some([next, _]) = computed else { continue };
            names.push(format!("{CONTROL}{}", slot.name));
            (slot.next, slot.sum) = (Some(next), None);
        }
        self.sent = round.filter(|_| !names.is_empty());
        Ok(names.into_iter().zip(fetched).collect())
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
        for (name, tensor) in names.into_iter().zip(transfer::fetch(tensors.into_iter(), context)?) {
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
    pub(crate) fn read(&self, state: &State, context: &DeviceContext) -> Result<(Vec<Held>, Option<u64>)> {
        let sent = if state.values.contains_key(SENT) { Some(state.value(SENT)?) } else { None };
        let counts: BTreeMap<String, u32> =
            if state.values.contains_key(SUM) { state.value(SUM)? } else { BTreeMap::new() };
        let tensors = |wanted: bool, prefix| {
            Found::of(&state.tensors, prefix, self.slots.iter().filter(|_| wanted))?.load(context)
        };
        let (mut own, mut next) = (tensors(self.scaffold, OWN)?, tensors(self.scaffold, NEXT)?);
        let (mut server, mut sums) = (tensors(self.scaffold, SERVER)?, tensors(self.scaffold, SUM)?);
        let mut anchors = tensors(self.proximal > 0.0, ANCHOR)?;
        let mut read = |slot: &Slot| {
            let name = slot.name.as_str();
            let sum = match (sums.remove(name), counts.get(name)) {
                (Some(sum), Some(count)) => Some((sum, *count)),
                (None, None) => None,
                _ => {
                    return Err(Error::tensor(
                        format!("{SUM}{}", slot.name),
                        "is there without its count, or the count without it",
                    ));
                }
            };
            let [own, next, server] = [&mut own, &mut next, &mut server].map(|all| all.remove(name));
            Ok(Held { own, next, anchor: anchors.remove(name), server, sum })
        };
        Ok((self.slots.iter().map(&mut read).collect::<Result<_>>()?, sent))
    }

    /// Continues from that state, between two rounds or two epochs.
    pub(crate) fn restore(&mut self, (held, sent): (Vec<Held>, Option<u64>)) {
        for (slot, Held { own, next, anchor, server, sum }) in self.slots.iter_mut().zip(held) {
            (slot.own, slot.next, slot.anchor, slot.server, slot.sum) = (own, next, anchor, server, sum);
        }
        self.sent = sent;
    }
}

/// Tensors of a message or a state for slots, by the names of their parameters.
struct Found<'a>(Vec<(&'a str, (&'a plugin_api::Tensor, &'a Tensor))>);

impl<'a> Found<'a> {
    /// Those of names that start with `prefix`. One that does not fit is an error, one that is missing is not.
    fn of(params: &'a Params, prefix: &str, slots: impl Iterator<Item = &'a Slot>) -> Result<Self> {
        let find = |slot: &'a Slot| {
            let name = format!("{prefix}{}", slot.name);
            let tensor = params.get(&name)?;
            let fits = bridge::expect_like(&name, tensor, &slot.parameter);
            Some(fits.map(|()| (slot.name.as_str(), (tensor, &slot.parameter))))
        };
        slots.filter_map(find).collect::<Result<_>>().map(Self)
    }

    /// Copies of them on the device.
    fn load(self, context: &DeviceContext) -> Result<HashMap<&'a str, Tensor>> {
        let (names, sources): (Vec<&str>, Vec<_>) = self.0.into_iter().unzip();
        Ok(names.into_iter().zip(transfer::fresh(&sources, context)?).collect())
    }
}

impl Slot {
    /// The corrected gradient, if it is another one.
    fn corrected(&self, gradient: &Tensor, proximal: f64) -> Result<Option<Tensor>, TchError> {
        let mut corrected = None;
        if let Some(server) = &self.server {
            let sum = gradient.f_add(server)?;
            corrected = Some(self.own.as_ref().map_or_else(|| Ok(sum.shallow_clone()), |own| sum.f_sub(own))?);
        }
        if let Some(anchor) = &self.anchor {
            let distance = self.parameter.f_detach()?.f_sub(anchor)?.f_mul_scalar(proximal)?;
            corrected = Some(corrected.as_ref().unwrap_or(gradient).f_add(&distance)?);
        }
        Ok(corrected)
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
mod tests;
