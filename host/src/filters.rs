//! Chains of filters at the four places of a message's way.

use plugin_api::{Context, Filter, Message, State};

use crate::client::Fault;

/// The filters at one place, in the file's order.
#[derive(Default)]
pub struct Chain(Vec<(String, Box<dyn Filter>)>);

impl Chain {
    /// Adds a filter, with the name to tell of it.
    pub fn push(&mut self, name: String, filter: Box<dyn Filter>) {
        self.0.push((name, filter));
    }

    /// Passes a message through. If a filter fails the message is gone: nothing passes unfiltered.
    ///
    /// # Errors
    /// If a filter fails.
    pub fn apply(&mut self, mut message: Message, ctx: &Context<'_>) -> Result<Message, Fault> {
        for (name, filter) in &mut self.0 {
            message = filter.apply(message, ctx).map_err(|e| Fault::new(format!("filter `{name}`"), e))?;
        }
        Ok(message)
    }

    /// The filters' states, in order.
    ///
    /// # Errors
    /// If a filter cannot tell.
    pub fn states(&mut self, ctx: &Context<'_>) -> Result<Vec<State>, Fault> {
        let state = |(name, filter): &mut (String, Box<dyn Filter>)| {
            filter.state(ctx).map_err(|e| Fault::new(format!("filter `{name}`"), e))
        };
        self.0.iter_mut().map(state).collect()
    }

    /// Takes the filters back to their states.
    ///
    /// # Errors
    /// If there are not as many states as filters, or one does not fit.
    pub fn restore(&mut self, states: &[State], ctx: &Context<'_>) -> Result<(), Fault> {
        if states.len() != self.0.len() {
            let message = format!("the checkpoint holds the states of {} filters, not {}", states.len(), self.0.len());
            return Err(Fault::new("filters".to_owned(), plugin_api::Error::config(message)));
        }
        for ((name, filter), state) in self.0.iter_mut().zip(states) {
            filter.restore(state, ctx).map_err(|e| Fault::new(format!("filter `{name}`"), e))?;
        }
        Ok(())
    }
}
