//! Filters, which change messages in transit.

use crate::{Context, Error, Message, Result, State};

/// Changes messages between server and clients. The host creates one instance for each client on the client side, and
/// one for all clients on the server side. [`Context::client`] gives the client of a message, [`Context::round`] its
/// round.
///
/// The constructor's context names the client that the instance is for, and no client for the server's instance. So an
/// instance knows its side from the start. Before a run the host creates instances for a rehearsal. They get the
/// messages of two rounds with an untrained model, in which large tensors may be cut to their first rows, and are then
/// dropped.
///
/// If a filter fails, the message is dropped: no message passes unfiltered.
///
/// ```no_run
/// //! No value of an update is farther from the global model than `most`.
/// use plugin_api::{Component, Context, Filter, JsonSchema, Message, Params, Result, Tensor};
///
/// /// The keys of the `[[filter]]` table, besides `plugin` and `at`.
/// #[derive(serde::Deserialize, JsonSchema)]
/// #[schemars(crate = "plugin_api::schemars")]
/// #[serde(deny_unknown_fields)]
/// struct Config {
///     /// The largest change of a value.
///     most: f32,
/// }
///
/// struct Clamp(f32);
///
/// impl Filter for Clamp {
///     fn apply(&mut self, mut message: Message, base: &Message, _: &Context<'_>) -> Result<Message> {
///         let clamped = |(name, sent): (&str, &Tensor)| -> Result<(String, Tensor)> {
///             let old = base.params.elements::<f32>(name, sent.shape())?;
///             let near = |(x, old): (&f32, &f32)| old + (x - old).clamp(-self.0, self.0);
///             let new: Vec<f32> = sent.to_f32()?.iter().zip(old).map(near).collect();
///             Ok((name.to_owned(), Tensor::from_f32(sent.dtype(), sent.shape(), &new)?))
///         };
///         message.params = message.params.iter().map(clamped).collect::<Result<Params>>()?;
///         Ok(message)
///     }
/// }
///
/// fn clamp(config: Config, _: &Context<'_>) -> Result<Clamp> {
///     Ok(Clamp(config.most))
/// }
/// plugin_api::export_plugin!(Component::filter("clamp", "Bounds each value's change", clamp));
/// # fn main() {}
/// ```
pub trait Filter: Send {
    /// Returns the filtered message.
    ///
    /// `base` is the global model at the start of this round, as known at the filter's position: at a client, as its
    /// model received it; at the server, as it was before any filter. So `message - base` is a client's update. On the
    /// way to a client, `base` is the message itself before the first filter at that position.
    ///
    /// # Errors
    /// If the message is not what the filter was set up for. The client's round then fails.
    fn apply(&mut self, message: Message, base: &Message, ctx: &Context<'_>) -> Result<Message>;

    /// At `client-output` only: the client's answer to an aggregator's [query](crate::Aggregator::ask), or `None` if
    /// the query is not for this filter. The first filter in file order that answers is used.
    ///
    /// # Errors
    /// If it cannot answer. The client's round then fails.
    fn answer(&mut self, question: &Message, ctx: &Context<'_>) -> Result<Option<Message>> {
        let _ = (question, ctx);
        Ok(None)
    }

    /// The state to keep from round to round; empty by default.
    ///
    /// # Errors
    /// If it cannot be read.
    fn state(&mut self, ctx: &Context<'_>) -> Result<State> {
        let _ = ctx;
        Ok(State::default())
    }

    /// Restores a state between two messages.
    ///
    /// # Errors
    /// If the state does not fit.
    fn restore(&mut self, state: &State, ctx: &Context<'_>) -> Result<()> {
        let _ = ctx;
        state.expect_empty()
    }

    /// A call that this trait does not define: tensors and values in, tensors and values out. It lets later or custom
    /// hosts ask for more without a new interface. No names are known by default.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for unknown names.
    fn extension(&mut self, name: &str, input: &Message, ctx: &Context<'_>) -> Result<Message> {
        let _ = (input, ctx);
        Err(Error::unsupported(format!("this filter does not know the extension `{name}`")))
    }
}
