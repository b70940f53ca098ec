//! Filters: what changes a message on its way.

use crate::{Context, Error, Message, Result, State};

/// Changes messages between server and clients. The host makes one instance for each client at the clients' side and
/// one for all at the server's side; [`Context::client`] says whose message it is, [`Context::round`] when.
///
/// The context of the constructor says for which client the instance is made, and names none where it is made for the
/// server: so an instance knows its side from the start. Before a run the host makes instances for a rehearsal: they get messages
/// of two rounds with an untrained model, in which large tensors may be cut to their first rows, and are dropped.
///
/// A filter that fails drops the message: nothing passes it unfiltered.
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
    /// The message as it shall go on.
    ///
    /// `base` is the global model that this round began with, as it is known where the filter stands: at a client as
    /// its model received it, at the server as it was before any filter. So `message - base` is a client's update. On
    /// the way to a client `base` is the message itself, as it was before the first filter at that place.
    ///
    /// # Errors
    /// If the message is not what the filter was set up for; the client's round then fails.
    fn apply(&mut self, message: Message, base: &Message, ctx: &Context<'_>) -> Result<Message>;

    /// At `client-output` only: the client's answer to what the aggregator [asks](crate::Aggregator::ask), if the
    /// question is for this filter. The first filter in the file's order that answers is heard.
    ///
    /// # Errors
    /// If it cannot answer; the client's round then fails.
    fn answer(&mut self, question: &Message, ctx: &Context<'_>) -> Result<Option<Message>> {
        let _ = (question, ctx);
        Ok(None)
    }

    /// What lives from round to round; nothing by default.
    ///
    /// # Errors
    /// If it cannot be read.
    fn state(&mut self, ctx: &Context<'_>) -> Result<State> {
        let _ = ctx;
        Ok(State::default())
    }

    /// Goes back to a state between two messages.
    ///
    /// # Errors
    /// If the state does not fit.
    fn restore(&mut self, state: &State, ctx: &Context<'_>) -> Result<()> {
        let _ = ctx;
        state.expect_empty()
    }

    /// A call that this trait does not name: tensors and values in, tensors and values out. So later hosts may ask for more,
    /// and plugins for one another's host, without another interface. No name is known by default.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for names that it does not know.
    fn extension(&mut self, name: &str, input: &Message, ctx: &Context<'_>) -> Result<Message> {
        let _ = (input, ctx);
        Err(Error::unsupported(format!("this filter does not know the extension `{name}`")))
    }
}
