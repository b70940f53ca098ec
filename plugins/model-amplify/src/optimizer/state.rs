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
        let read = |slot: &Slot| {
            let Some(steps) = steps.get(&slot.name).and_then(serde_json::Value::as_i64) else { return Ok(None) };
            let ours = &parameters.at(slot.index).tensor;
            let [first, second] = state_names(&slot.name);
            let values = if parameters.context().on_host {
                let shared = |name| bridge::get_like(&state.tensors, name, ours).map(CowBuffer::shared);
                MomentValues::Host([shared(&first)?, shared(&second)?])
            } else {
                let fresh = |name| bridge::fresh_like(&state.tensors, name, ours);
                MomentValues::Device([fresh(&first)?, fresh(&second)?])
            };
            Ok(Some(Moments { values, steps: steps as i32 }))
        };
        self.slots.iter().map(read).collect::<Result<_>>().map(SavedMoments)
    }

    /// Continues from what [`read`](Self::read) returned.
    pub fn restore(&mut self, saved: SavedMoments) {
        for (slot, moments) in self.slots.iter_mut().zip(saved.0) {
            slot.moments = moments;
        }
    }
}

fn state_names(parameter: &str) -> [String; 2] {
    ["first", "second"].map(|moment| format!("optimizer.{moment}.{parameter}"))
}
