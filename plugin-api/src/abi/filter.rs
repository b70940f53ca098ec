//! Filters across the boundary: the wire trait, a filter behind it, and it as a filter again.

use abi_stable::sabi_trait;
use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::RBox;

use super::context::{WireContext, borrow, lend};
use super::guard::Guarded;
use super::wire::*;
use crate::{Context, Filter, Message, Result, State};

/// [`Filter`] as the other side sees it.
#[sabi_trait]
pub trait WireFilter: Send {
    /// As [`Filter::apply`].
    fn apply(&mut self, message: WireMessage, ctx: &WireContext<'_>) -> Wired<WireMessage>;
    /// As [`Filter::state`].
    fn state(&mut self, ctx: &WireContext<'_>) -> Wired<WireState>;
    /// As [`Filter::restore`].
    #[sabi(last_prefix_field)]
    fn restore(&mut self, state: WireState, ctx: &WireContext<'_>) -> Wired<()>;
}

/// A filter on its way.
pub type FilterBox = WireFilter_TO<'static, RBox<()>>;

pub(crate) fn export(filter: Box<dyn Filter>) -> FilterBox {
    WireFilter_TO::from_value(Guarded::new(filter), TD_Opaque)
}

pub(crate) fn import(wire: FilterBox) -> Box<dyn Filter> {
    Box::new(Imported(wire))
}

impl WireFilter for Guarded<dyn Filter> {
    fn apply(&mut self, message: WireMessage, ctx: &WireContext<'_>) -> Wired<WireMessage> {
        self.call("apply", |filter| {
            let message = import_message(message)?;
            Ok(export_message(&borrow(ctx, |ctx| filter.apply(message, ctx))?))
        })
    }
    fn state(&mut self, ctx: &WireContext<'_>) -> Wired<WireState> {
        self.call("state", |filter| Ok(export_state(&borrow(ctx, |ctx| filter.state(ctx))?)))
    }
    fn restore(&mut self, state: WireState, ctx: &WireContext<'_>) -> Wired<()> {
        self.call("restore", |filter| {
            let state = import_state(state)?;
            borrow(ctx, |ctx| filter.restore(&state, ctx))
        })
    }
}

struct Imported(FilterBox);

impl Filter for Imported {
    fn apply(&mut self, message: Message, ctx: &Context<'_>) -> Result<Message> {
        import_message(lend(ctx, |ctx| self.0.apply(export_message(&message), ctx)).into_result()?)
    }
    fn state(&mut self, ctx: &Context<'_>) -> Result<State> {
        import_state(lend(ctx, |ctx| self.0.state(ctx)).into_result()?)
    }
    fn restore(&mut self, state: &State, ctx: &Context<'_>) -> Result<()> {
        Ok(lend(ctx, |ctx| self.0.restore(export_state(state), ctx)).into_result()?)
    }
}
