//! Aggregators across the boundary: the wire trait, an aggregator behind it, and it as an aggregator again.

use abi_stable::StableAbi;
use abi_stable::sabi_trait;
use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RBox, RString, RVec};

use super::context::{WireContext, borrow, lend};
use super::guard::Guarded;
use super::wire::*;
use crate::{Aggregator, Cohort, Context, Letter, Message, Result, Stage, State, Update};

/// [`Update`] on its way.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireUpdate {
    client: RString,
    message: WireMessage,
    steps: u64,
    examples: u64,
}

/// [`Letter`] on its way.
#[repr(C)]
#[derive(StableAbi)]
pub struct WireLetter {
    client: RString,
    message: WireMessage,
}

fn export_letters(letters: Vec<Letter>) -> RVec<WireLetter> {
    let letter = |l: Letter| WireLetter { client: l.client.into(), message: export_message(&l.message) };
    letters.into_iter().map(letter).collect()
}

fn import_letters(wire: RVec<WireLetter>) -> Result<Vec<Letter>> {
    let letter = |l: WireLetter| Ok(Letter { client: l.client.into(), message: import_message(l.message)? });
    wire.into_iter().map(letter).collect()
}

/// [`Aggregator`] as the other side sees it.
#[sabi_trait]
pub trait WireAggregator: Send {
    /// As [`Aggregator::begin`].
    fn begin(&mut self, global: WireMessage, cohort: RString, ctx: &WireContext<'_>) -> Wired<()>;
    /// As [`Aggregator::ask`], with stage 0 opening, 1 closing.
    fn ask(&mut self, stage: u8, answers: RVec<WireLetter>, ctx: &WireContext<'_>) -> Wired<RVec<WireLetter>>;
    /// As [`Aggregator::add`].
    fn add(&mut self, update: WireUpdate, ctx: &WireContext<'_>) -> Wired<()>;
    /// As [`Aggregator::finish`].
    fn finish(&mut self, ctx: &WireContext<'_>) -> Wired<WireMessage>;
    /// As [`Aggregator::state`].
    fn state(&mut self, ctx: &WireContext<'_>) -> Wired<WireState>;
    /// As [`Aggregator::restore`].
    #[sabi(last_prefix_field)]
    fn restore(&mut self, state: WireState, ctx: &WireContext<'_>) -> Wired<()>;
}

/// An aggregator on its way.
pub type AggregatorBox = WireAggregator_TO<'static, RBox<()>>;

pub(crate) fn export(aggregator: Box<dyn Aggregator>) -> AggregatorBox {
    WireAggregator_TO::from_value(Guarded::new(aggregator), TD_Opaque)
}

pub(crate) fn import(wire: AggregatorBox) -> Box<dyn Aggregator> {
    Box::new(Imported(wire))
}

impl WireAggregator for Guarded<dyn Aggregator> {
    fn begin(&mut self, global: WireMessage, cohort: RString, ctx: &WireContext<'_>) -> Wired<()> {
        self.call("begin", |aggregator| {
            let (global, cohort) = (import_message(global)?, from_json(&cohort)?);
            borrow(ctx, |ctx| aggregator.begin(&global, &cohort, ctx))
        })
    }
    fn ask(&mut self, stage: u8, answers: RVec<WireLetter>, ctx: &WireContext<'_>) -> Wired<RVec<WireLetter>> {
        self.call("ask", |aggregator| {
            let stage = if stage == 0 { Stage::Opening } else { Stage::Closing };
            let answers = import_letters(answers)?;
            Ok(export_letters(borrow(ctx, |ctx| aggregator.ask(stage, answers, ctx))?))
        })
    }
    fn add(&mut self, update: WireUpdate, ctx: &WireContext<'_>) -> Wired<()> {
        self.call("add", |aggregator| {
            let WireUpdate { client, message, steps, examples } = update;
            let update = Update { client: client.into(), message: import_message(message)?, steps, examples };
            borrow(ctx, |ctx| aggregator.add(update, ctx))
        })
    }
    fn finish(&mut self, ctx: &WireContext<'_>) -> Wired<WireMessage> {
        self.call("finish", |aggregator| Ok(export_message(&borrow(ctx, |ctx| aggregator.finish(ctx))?)))
    }
    fn state(&mut self, ctx: &WireContext<'_>) -> Wired<WireState> {
        self.call("state", |aggregator| Ok(export_state(&borrow(ctx, |ctx| aggregator.state(ctx))?)))
    }
    fn restore(&mut self, state: WireState, ctx: &WireContext<'_>) -> Wired<()> {
        self.call("restore", |aggregator| {
            let state = import_state(state)?;
            borrow(ctx, |ctx| aggregator.restore(&state, ctx))
        })
    }
}

struct Imported(AggregatorBox);

impl Aggregator for Imported {
    fn begin(&mut self, global: &Message, cohort: &Cohort, ctx: &Context<'_>) -> Result<()> {
        Ok(lend(ctx, |ctx| self.0.begin(export_message(global), to_json(cohort), ctx)).into_result()?)
    }
    fn ask(&mut self, stage: Stage, answers: Vec<Letter>, ctx: &Context<'_>) -> Result<Vec<Letter>> {
        let stage = u8::from(stage == Stage::Closing);
        import_letters(lend(ctx, |ctx| self.0.ask(stage, export_letters(answers), ctx)).into_result()?)
    }
    fn add(&mut self, update: Update, ctx: &Context<'_>) -> Result<()> {
        let Update { client, message, steps, examples } = update;
        let update = WireUpdate { client: client.into(), message: export_message(&message), steps, examples };
        Ok(lend(ctx, |ctx| self.0.add(update, ctx)).into_result()?)
    }
    fn finish(&mut self, ctx: &Context<'_>) -> Result<Message> {
        import_message(lend(ctx, |ctx| self.0.finish(ctx)).into_result()?)
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
    use crate::{Params, Tensor};

    /// Takes down what it is told.
    #[derive(Default)]
    struct Noting(Vec<String>);

    impl Aggregator for Noting {
        fn begin(&mut self, global: &Message, cohort: &Cohort, ctx: &Context<'_>) -> Result<()> {
            self.0.push(format!("{:?} {cohort:?} {:?}", global.params, ctx.round()));
            Ok(())
        }
        fn ask(&mut self, stage: Stage, answers: Vec<Letter>, _: &Context<'_>) -> Result<Vec<Letter>> {
            self.0.push(format!("{stage:?} {answers:?}"));
            Ok(answers)
        }
        fn add(&mut self, update: Update, _: &Context<'_>) -> Result<()> {
            self.0.push(format!("{} {} {} {:?}", update.client, update.steps, update.examples, update.message.params));
            Ok(())
        }
        fn finish(&mut self, _: &Context<'_>) -> Result<Message> {
            let values = [("told".to_owned(), self.0.clone().into())].into_iter().collect();
            Ok(Message { values, ..Message::default() })
        }
    }

    #[test]
    fn an_aggregator_is_the_same_behind_the_boundary() {
        let ctx = Context::new(&Silent).with_round(2);
        let params: Params = [("w", Tensor::from_slice(&[0, 3], &[0_i64; 0]).unwrap())].into_iter().collect();
        let update = Update { client: "a".to_owned(), message: params.clone().into(), steps: u64::MAX, examples: 7 };
        let told = |mut aggregator: Box<dyn Aggregator>| {
            let cohort = Cohort::new(vec!["a".to_owned(), "b".to_owned()], 5);
            aggregator.begin(&params.clone().into(), &cohort, &ctx).unwrap();
            for stage in [Stage::Opening, Stage::Closing] {
                let letter = Letter { client: "b".to_owned(), message: params.clone().into() };
                let asked = aggregator.ask(stage, vec![letter.clone()], &ctx).unwrap();
                assert_eq!(format!("{asked:?}"), format!("{:?}", [letter]));
            }
            aggregator.add(update.clone(), &ctx).unwrap();
            let state = aggregator.state(&ctx).unwrap();
            aggregator.restore(&state, &ctx).unwrap();
            aggregator.finish(&ctx).unwrap().values
        };
        let here = told(Box::<Noting>::default());
        assert_eq!(here["told"][3], "a 18446744073709551615 7 Params({\"w\": i64[0, 3]})");
        assert_eq!(told(import(export(Box::<Noting>::default()))), here);
    }
}
