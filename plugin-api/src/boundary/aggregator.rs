//! Aggregators across the boundary: the wire trait, its exporting side and its importing side.

use fedplug_abi::{
    AggregatorBox, RStr, RString, RVec, TD_Opaque, WireAggregator, WireAggregator_TO, WireClientMessage, WireContext,
    WireMessage, WireState, WireUpdate, Wired,
};

use super::context::{borrow, lend};
use super::guard::Guarded;
use super::wire::*;
use crate::{Aggregator, Cohort, Context, Message, Query, Reply, Result, Stage, State, Trained, Update};

fn wired(client: String, message: &Message) -> WireClientMessage {
    WireClientMessage { client: client.into(), message: export_message(message) }
}

fn export_queries(queries: Vec<Query>) -> RVec<WireClientMessage> {
    queries.into_iter().map(|query| wired(query.client, &query.message)).collect()
}

fn import_queries(wire: RVec<WireClientMessage>) -> Result<Vec<Query>> {
    let query = |w: WireClientMessage| Ok(Query { client: w.client.into(), message: import_message(w.message)? });
    wire.into_iter().map(query).collect()
}

fn export_replies(replies: Vec<Reply>) -> RVec<WireClientMessage> {
    replies.into_iter().map(|reply| wired(reply.client, &reply.message)).collect()
}

fn import_replies(wire: RVec<WireClientMessage>) -> Result<Vec<Reply>> {
    let reply = |w: WireClientMessage| Ok(Reply { client: w.client.into(), message: import_message(w.message)? });
    wire.into_iter().map(reply).collect()
}

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
    fn ask(
        &mut self,
        stage: u8,
        replies: RVec<WireClientMessage>,
        ctx: &WireContext<'_>,
    ) -> Wired<RVec<WireClientMessage>> {
        self.call("ask", |aggregator| {
            let stage = if stage == 0 { Stage::Opening } else { Stage::Closing };
            let replies = import_replies(replies)?;
            Ok(export_queries(borrow(ctx, |ctx| aggregator.ask(stage, replies, ctx))?))
        })
    }
    fn add(&mut self, update: WireUpdate, ctx: &WireContext<'_>) -> Wired<()> {
        self.call("add", |aggregator| {
            let WireUpdate { client, message, trained } = update;
            let Trained { steps, examples } = from_json(&trained)?;
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
    fn extension(&mut self, name: RStr<'_>, input: WireMessage, ctx: &WireContext<'_>) -> Wired<WireMessage> {
        self.call("extension", |inner| {
            let input = import_message(input)?;
            Ok(export_message(&borrow(ctx, |ctx| inner.extension(name.as_str(), &input, ctx))?))
        })
    }
}

struct Imported(AggregatorBox);

impl Aggregator for Imported {
    fn begin(&mut self, global: &Message, cohort: &Cohort, ctx: &Context<'_>) -> Result<()> {
        Ok(lend(ctx, |ctx| self.0.begin(export_message(global), to_json(cohort), ctx)).into_result()?)
    }
    fn ask(&mut self, stage: Stage, replies: Vec<Reply>, ctx: &Context<'_>) -> Result<Vec<Query>> {
        let stage = u8::from(stage == Stage::Closing);
        import_queries(lend(ctx, |ctx| self.0.ask(stage, export_replies(replies), ctx)).into_result()?)
    }
    fn add(&mut self, update: Update, ctx: &Context<'_>) -> Result<()> {
        let Update { client, message, steps, examples } = update;
        let trained = to_json(&Trained { steps, examples });
        let update = WireUpdate { client: client.into(), message: export_message(&message), trained };
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
    fn extension(&mut self, name: &str, input: &Message, ctx: &Context<'_>) -> Result<Message> {
        let input = export_message(input);
        import_message(lend(ctx, |ctx| self.0.extension(name.into(), input, ctx)).into_result()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Silent;
    use crate::{Params, Tensor};

    /// Records the calls it gets.
    #[derive(Default)]
    struct Noting(Vec<String>);

    impl Aggregator for Noting {
        fn begin(&mut self, global: &Message, cohort: &Cohort, ctx: &Context<'_>) -> Result<()> {
            self.0.push(format!("{:?} {cohort:?} {:?}", global.params, ctx.round()));
            Ok(())
        }
        fn ask(&mut self, stage: Stage, replies: Vec<Reply>, _: &Context<'_>) -> Result<Vec<Query>> {
            self.0.push(format!("{stage:?} {replies:?}"));
            Ok(replies.into_iter().map(|Reply { client, message }| Query { client, message }).collect())
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
                let (client, message) = ("b".to_owned(), Message::from(params.clone()));
                let replies = vec![Reply { client: client.clone(), message: message.clone() }];
                let asked = aggregator.ask(stage, replies, &ctx).unwrap();
                assert_eq!(format!("{asked:?}"), format!("{:?}", [Query { client, message }]));
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
