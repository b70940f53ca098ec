//! Filters across the boundary: the wire trait, its exporting side and its importing side.

use fedplug_abi::{
    FilterBox, ROption, RStr, TD_Opaque, WireContext, WireFilter, WireFilter_TO, WireMessage, WireState, Wired,
};

use super::context::{borrow, lend};
use super::guard::Guarded;
use super::wire::*;
use crate::{Context, Filter, Message, Result, State};

pub(crate) fn export(filter: Box<dyn Filter>) -> FilterBox {
    WireFilter_TO::from_value(Guarded::new(filter), TD_Opaque)
}

pub(crate) fn import(wire: FilterBox) -> Box<dyn Filter> {
    Box::new(Imported(wire))
}

impl WireFilter for Guarded<dyn Filter> {
    fn apply(&mut self, message: WireMessage, base: WireMessage, ctx: &WireContext<'_>) -> Wired<WireMessage> {
        self.call("apply", |filter| {
            let (message, base) = (import_message(message)?, import_message(base)?);
            Ok(export_message(&borrow(ctx, |ctx| filter.apply(message, &base, ctx))?))
        })
    }
    fn answer(&mut self, question: WireMessage, ctx: &WireContext<'_>) -> Wired<ROption<WireMessage>> {
        self.call("answer", |filter| {
            let question = import_message(question)?;
            Ok(borrow(ctx, |ctx| filter.answer(&question, ctx))?.as_ref().map(export_message).into())
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
    fn extension(&mut self, name: RStr<'_>, input: WireMessage, ctx: &WireContext<'_>) -> Wired<WireMessage> {
        self.call("extension", |inner| {
            let input = import_message(input)?;
            Ok(export_message(&borrow(ctx, |ctx| inner.extension(name.as_str(), &input, ctx))?))
        })
    }
}

struct Imported(FilterBox);

impl Filter for Imported {
    fn apply(&mut self, message: Message, base: &Message, ctx: &Context<'_>) -> Result<Message> {
        let (message, base) = (export_message(&message), export_message(base));
        import_message(lend(ctx, |ctx| self.0.apply(message, base, ctx)).into_result()?)
    }
    fn answer(&mut self, question: &Message, ctx: &Context<'_>) -> Result<Option<Message>> {
        let answer = lend(ctx, |ctx| self.0.answer(export_message(question), ctx)).into_result()?;
        answer.into_option().map(import_message).transpose()
    }
    fn state(&mut self, ctx: &Context<'_>) -> Result<State> {
        import_state(lend(ctx, |ctx| self.0.state(ctx)).into_result()?)
    }
    fn restore(&mut self, state: &State, ctx: &Context<'_>) -> Result<()> {
        Ok(lend(ctx, |ctx| self.0.restore(export_state(state), ctx)).into_result()?)
    }
    fn extension(&mut self, name: &str, input: &Message, ctx: &Context<'_>) -> Result<Message> {
        let input = export_message(input);
        import_message(lend(ctx, |ctx| self.0.extension(name.into(), input, ctx)).into_result()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Silent;
    use crate::{Error, Params, Tensor};

    /// Counts its messages, marks them, and fails on the third.
    struct Marking(u64);

    impl Filter for Marking {
        fn apply(&mut self, mut message: Message, base: &Message, ctx: &Context<'_>) -> Result<Message> {
            self.0 += 1;
            if self.0 == 3 {
                return Err(Error::tensor("w", "is one too many").help("send two"));
            }
            message.values.insert("by".to_owned(), format!("{:?} {:?}", ctx.client(), ctx.round()).into());
            message.extra.insert("mark", Tensor::from_slice(&[1], &[self.0 as f32])?);
            message
                .extra
                .insert("base", base.params.get("w").cloned().unwrap_or_else(|| Tensor::build::<f32>(&[0], |_| {})));
            Ok(message)
        }
        fn answer(&mut self, question: &Message, _: &Context<'_>) -> Result<Option<Message>> {
            Ok(question.values.contains_key("for me").then(|| question.clone()))
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
        let message = there.apply(params.clone().into(), &params.clone().into(), &ctx).unwrap();
        assert_eq!(message.values["by"], "Some(\"tm\") Some(7)");
        assert_eq!(message.extra.elements::<f32>("mark", &[1]).unwrap(), [1.0]);
        let (sent, back) = (params.get("w").unwrap().buffer(), message.params.get("w").unwrap().buffer());
        assert!(sent.is_same(back), "a tensor was copied on its way");
        assert!(sent.is_same(message.extra.get("base").unwrap().buffer()), "the base did not arrive as it is");
        assert!(there.answer(&Message::default(), &ctx).unwrap().is_none());
        let question =
            Message { values: [("for me".to_owned(), 1.into())].into_iter().collect(), ..Message::default() };
        assert_eq!(there.answer(&question, &ctx).unwrap().unwrap().values, question.values);

        let mut other = import(export(Box::new(Marking(0))));
        other.restore(&there.state(&ctx).unwrap(), &ctx).unwrap();
        other.apply(Message::default(), &Message::default(), &ctx).unwrap();
        let error = other.apply(Message::default(), &Message::default(), &ctx).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.hint()), ("tensor `w`: is one too many", Some("send two")));
    }
}
