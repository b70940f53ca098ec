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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Silent;
    use crate::{Error, Params, Tensor};

    /// Counts its messages, marks them, and fails at the third.
    struct Marking(u64);

    impl Filter for Marking {
        fn apply(&mut self, mut message: Message, ctx: &Context<'_>) -> Result<Message> {
            self.0 += 1;
            if self.0 == 3 {
                return Err(Error::tensor("w", "is one too many").help("send two"));
            }
            message.values.insert("by".to_owned(), format!("{:?} {:?}", ctx.client(), ctx.round()).into());
            message.extra.insert("mark", Tensor::from_slice(&[1], &[self.0 as f32])?);
            Ok(message)
        }
        fn state(&mut self, _: &Context<'_>) -> Result<State> {
            Ok(State { values: [("count".to_owned(), self.0.into())].into_iter().collect(), ..State::default() })
        }
        fn restore(&mut self, state: &State, _: &Context<'_>) -> Result<()> {
            self.0 = state.value("count")?;
            Ok(())
        }
    }

    #[test]
    fn a_filter_is_the_same_behind_the_boundary() {
        let ctx = Context::new(&Silent).with_client("tm").with_round(7);
        let params: Params = [("w", Tensor::from_slice(&[2], &[1.0_f32, 2.0]).unwrap())].into_iter().collect();
        let mut there = import(export(Box::new(Marking(0))));
        let message = there.apply(params.clone().into(), &ctx).unwrap();
        assert_eq!(message.values["by"], "Some(\"tm\") Some(7)");
        assert_eq!(message.extra.elements::<f32>("mark", &[1]).unwrap(), [1.0]);
        let (sent, back) = (params.get("w").unwrap().buffer(), message.params.get("w").unwrap().buffer());
        assert!(sent.is_same(back), "a tensor was copied on its way");

        let mut other = import(export(Box::new(Marking(0))));
        other.restore(&there.state(&ctx).unwrap(), &ctx).unwrap();
        other.apply(Message::default(), &ctx).unwrap();
        let error = other.apply(Message::default(), &ctx).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.hint()), ("tensor `w`: is one too many", Some("send two")));
    }
}
