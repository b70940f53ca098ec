//! Chains of filters at the four positions that a message passes.

use plugin_api::{Filter, Message, State};

use crate::federation::component_error::ComponentError;
use crate::federation::services::CallScope;
use crate::plugins::validate;

/// The filters at one position, in the order of the experiment file.
#[derive(Default)]
pub struct FilterChain(Vec<NamedFilter>);

/// The filters at one end: at the server, or at a client.
#[derive(Default)]
pub(crate) struct Filters {
    /// On incoming messages.
    pub input: FilterChain,
    /// On outgoing messages.
    pub output: FilterChain,
}

impl Filters {
    /// Returns the filters' states.
    ///
    /// # Errors
    /// If a filter cannot return its state.
    pub(crate) fn states(&mut self, scope: &CallScope<'_>) -> Result<FilterStates, ComponentError> {
        Ok(FilterStates { input: self.input.states(scope)?, output: self.output.states(scope)? })
    }
}

/// The states of [`Filters`], in the order of the experiment file.
#[derive(Clone, Debug, Default)]
pub(crate) struct FilterStates {
    /// Of the filters on incoming messages.
    pub input: Vec<State>,
    /// Of the filters on outgoing messages.
    pub output: Vec<State>,
}

/// A filter with its plugin's name and the key path of its table in the experiment file.
struct NamedFilter {
    name: String,
    table: Vec<String>,
    filter: Box<dyn Filter>,
}

impl NamedFilter {
    fn fault(&self, error: plugin_api::Error) -> ComponentError {
        ComponentError::new(format!("filter `{}`", self.name), error).of_table(&self.table)
    }
}

impl FilterChain {
    /// Adds a filter. Errors show its `name` and refer to the `table` at this key path.
    pub fn push(&mut self, name: String, table: Vec<String>, filter: Box<dyn Filter>) {
        self.0.push(NamedFilter { name, table, filter });
    }

    /// The number of filters.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Passes a message through the filters, with the global model `base` that it is relative to. If a filter fails,
    /// the message is dropped: nothing passes unfiltered.
    ///
    /// # Errors
    /// If a filter fails.
    pub fn apply(
        &mut self,
        mut message: Message,
        base: &Message,
        scope: &CallScope<'_>,
    ) -> Result<Message, ComponentError> {
        for named in &mut self.0 {
            let was_empty = validate::is_empty(&message);
            message = named
                .filter
                .apply(message, base, &scope.of(&named.name).calling("apply").context())
                .and_then(|filtered| validate::filtered(was_empty, filtered))
                .map_err(|e| named.fault(e))?;
        }
        Ok(message)
    }

    /// Returns the answer of the first filter that has one.
    ///
    /// # Errors
    /// If a filter fails, or none answers.
    pub fn answer(&mut self, question: &Message, scope: &CallScope<'_>) -> Result<Message, ComponentError> {
        for named in &mut self.0 {
            let answer = named.filter.answer(question, &scope.of(&named.name).context());
            if let Some(answer) = answer.map_err(|e| named.fault(e))? {
                return Ok(answer);
            }
        }
        let error = plugin_api::Error::config("no filter answers the aggregator's queries to the clients").help(
            "such an aggregator needs a filter at the clients: a `[[filter]]` table with its name \
             and `at = \"client-output\"`",
        );
        Err(ComponentError::new("filters".to_owned(), error))
    }

    /// Returns the filters' states, in order.
    ///
    /// # Errors
    /// If a filter cannot return its state.
    pub fn states(&mut self, scope: &CallScope<'_>) -> Result<Vec<State>, ComponentError> {
        let state = |named: &mut NamedFilter| {
            let state = named.filter.state(&scope.of(&named.name).context());
            state.map_err(|e| named.fault(e))
        };
        self.0.iter_mut().map(state).collect()
    }

    /// Restores the filters' states.
    ///
    /// # Errors
    /// If the number of states differs from the number of filters, or a state does not fit.
    pub fn restore(&mut self, states: &[State], scope: &CallScope<'_>) -> Result<(), ComponentError> {
        if states.len() != self.0.len() {
            let message = format!("the checkpoint holds the states of {} filters, not {}", states.len(), self.0.len());
            return Err(ComponentError::new("filters".to_owned(), plugin_api::Error::config(message)));
        }
        for (named, state) in self.0.iter_mut().zip(states) {
            let restored = named.filter.restore(state, &scope.of(&named.name).context());
            restored.map_err(|e| named.fault(e))?;
        }
        Ok(())
    }
}
