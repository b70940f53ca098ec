//! The optimiser's part of a saved state.

use plugin_api::{Result, State};
use serde_json::{Map, json};

use super::{AdamW, MomentValues, Moments, Slot};
use crate::bridge;
use crate::cow_buffer::CowBuffer;
use crate::device::DeviceContext;
use crate::parameters::Parameters;
use crate::transfer;

/// The value of a state that holds the step counts.
const STEPS: &str = "optimizer-steps";

/// The moments of each slot.
#[derive(Debug)]
pub struct SavedMoments(Vec<Option<Moments>>);

impl AdamW {
    /// Adds moments and step counts to a state.
    ///
    /// # Errors
    /// If they cannot be copied to the host.
    pub fn save(&mut self, context: &DeviceContext, state: &mut State) -> Result<()> {
        let on_device = self.slots.iter().filter_map(|slot| match &slot.moments.as_ref()?.values {
            MomentValues::Device(both) => Some(both),
            MomentValues::Host(_) => None,
        });
        let mut fetched = transfer::fetch(on_device.flatten(), context)?;
        let mut steps = Map::new();
        for slot in &mut self.slots {
            let Some(moments) = &mut slot.moments else { continue };
            let both = match &mut moments.values {
                MomentValues::Host(both) => both.each_mut().map(|moment| Some(moment.share(&slot.shape))),
                MomentValues::Device(_) => [fetched.next(), fetched.next()],
            };
            for (name, moment) in state_names(&slot.name).into_iter().zip(both) {
                state.tensors.insert(name, moment.expect("every moment on the device was fetched"));
            }
            steps.insert(slot.name.clone(), json!(moments.steps));
        }
        state.values.insert(STEPS.to_owned(), steps.into());
        Ok(())
    }

    /// Reads moments and step counts from a state, for [`restore`](Self::restore).
    ///
    /// # Errors
    /// If something is missing, or has another shape or type.
    pub fn read(&self, parameters: &Parameters, state: &State) -> Result<SavedMoments> {
        let steps: Map<String, serde_json::Value> = state.value(STEPS)?;
        let saved = |slot: &Slot| steps.get(&slot.name).and_then(serde_json::Value::as_i64);
        let saved: Vec<Option<i64>> = self.slots.iter().map(saved).collect();
        let with_steps = || self.slots.iter().zip(&saved).filter_map(|(slot, steps)| steps.map(|_| slot));
        let [firsts, seconds] = [0, 1].map(|which| {
            let tensors = with_steps().map(|slot| {
                let ours = &parameters.at(slot.index).tensor;
                bridge::get_like(&state.tensors, &state_names(&slot.name)[which], ours).map(|tensor| (tensor, ours))
            });
            tensors.collect::<Result<Vec<_>>>()
        });
        let (firsts, seconds) = (firsts?, seconds?);
        let values: Vec<MomentValues> = if parameters.context().on_host {
            let both = firsts.iter().zip(&seconds);
            both.map(|(first, second)| MomentValues::Host([first.0, second.0].map(CowBuffer::shared))).collect()
        } else {
            let fresh = |tensors: &[_]| transfer::fresh(tensors, parameters.context());
            let both = fresh(&firsts)?.into_iter().zip(fresh(&seconds)?);
            both.map(|(first, second)| MomentValues::Device([first, second])).collect()
        };
        let mut values = values.into_iter();
        let moments = |steps: Option<i64>| {
            let steps = steps?;
            values.next().map(|values| Moments { values, steps: steps as i32 })
        };
        Ok(SavedMoments(saved.into_iter().map(moments).collect()))
    }

    /// Continues from what [`read`](Self::read) returned.
    pub fn restore(&mut self, saved: SavedMoments) {
        self.moves += 1;
        for (slot, moments) in self.slots.iter_mut().zip(saved.0) {
            slot.moments = moments;
        }
    }
}

fn state_names(parameter: &str) -> [String; 2] {
    ["first", "second"].map(|moment| format!("optimizer.{moment}.{parameter}"))
}
