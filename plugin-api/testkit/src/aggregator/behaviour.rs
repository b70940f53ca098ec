//! Checks of what a run relies on.

use super::AggregatorCheck;
use super::round::{Broken, Plan, Table};
use crate::subject::{OTHER_SEED, SEED, context};
use crate::verdict::{Found, Trouble, Verdict, fail, no_panic, refused, same, skip, tells_of, told};
use crate::watcher::Watcher;
use crate::{compare, memory, states};
use plugin_api::{ErrorKind, Message, Params, Result, State, Tensor};

pub(super) const CALLS: [&str; 6] = ["begin", "ask", "add", "finish", "state", "restore"];

pub(super) const NAMES: [&str; 14] = [
    "result-kept",
    "result-finite",
    "same-seed",
    "state-mid-way",
    "state-misfit",
    "begins-again",
    "refusal",
    "nobody",
    "nobody-trained",
    "one-update",
    "no-tensors",
    "cancellation",
    "logging",
    "memory",
];

/// The client that sends an unknown tensor. Not the first, so that other updates precede it.
const BAD: usize = 2;

/// The unknown tensor that it sends besides its parameters.
const FOREIGN: &str = "testkit.foreign";

impl From<Broken> for Trouble {
    fn from(Broken { call, error }: Broken) -> Self {
        let expected = if *error.kind() == ErrorKind::Panic { "no panic" } else { "no error" };
        Self::Failed { expected: expected.to_owned(), came: format!("from `{call}`, {}", told(&error)) }
    }
}

impl AggregatorCheck {
    /// Plays one round and reports which calls failed, then checks state and restore.
    pub(super) fn calls(&self, verdict: &mut Verdict) -> bool {
        let why = "each round needs it";
        let first = self.table(SEED).map_err(|error| Broken { call: "new", error });
        let played =
            first.and_then(|mut table| self.play(&mut table, &Plan::default(), &Watcher::new()).map(|_| table));
        let broken = played.as_ref().err().map(|broken| (broken.call, told(&broken.error)));
        if let Some(("a question", _)) = &broken {
            verdict.skip(&CALLS, "it queries the clients, and no filter was given to answer: `with_filter`");
            return false;
        }
        let place = broken.as_ref().map(|(call, _)| CALLS.iter().position(|name| name == call).unwrap_or(1));
        for (k, name) in CALLS[..4].iter().enumerate() {
            match (&broken, place) {
                (Some((call, error)), Some(place)) if place == k => {
                    verdict.run(name, why, || fail("a round to complete", format!("from `{call}`, {error}")));
                }
                (_, Some(place)) if place < k => verdict.skip(&[name], "the calls before it have to work"),
                _ => {
                    verdict.run(name, why, || Ok(()));
                }
            }
        }
        let Ok(mut table) = played else {
            verdict.skip(&CALLS[4..], "the calls before it have to work");
            return false;
        };
        let watcher = Watcher::new();
        let ctx = context(&watcher, SEED);
        let mut state = State::default();
        let saved = verdict.run("state", "a checkpoint contains it", || {
            state = table.aggregator.state(&ctx)?;
            let again = table.aggregator.state(&ctx)?;
            same("the same when it is asked twice", compare::states(&state, &again))
        });
        saved
            && verdict.run("restore", "an interrupted run resumes from it", || {
                Ok(self.make(OTHER_SEED)?.restore(&state, &ctx)?)
            })
    }

    pub(super) fn behaviour(&self, verdict: &mut Verdict) {
        let mut run = |name, why, check: &dyn Fn(&Self) -> Found| verdict.run(name, why, || check(self));
        run("result-kept", "a parameter that the next global model lacks would not be trained", &Self::result_kept);
        run("result-finite", "one NaN in the global model ends all training", &Self::result_finite);
        run("same-seed", "an experiment could not be reproduced", &Self::same_seed);
        let why = "an interrupted run would end with another model than an uninterrupted one";
        run("state-mid-way", why, &Self::state_mid_way);
        run("state-misfit", "a damaged checkpoint would be used as if nothing were wrong", &Self::state_misfit);
        run("begins-again", "updates of a failed round would count in the next one", &Self::begins_again);
        run("refusal", "the round continues without a client whose update was rejected", &Self::refusal);
        run("nobody", "every client may fail", &|this| this.odd(&Plan { nobody: true, ..Plan::default() }));
        run("nobody-trained", "clients may have no data", &Self::nobody_trained);
        run("one-update", "all others may fail", &Self::one_update);
        run("no-tensors", "a filter may remove everything", &Self::no_tensors);
        run("cancellation", "a user who stops a run would wait for the end of the round", &Self::cancellation);
        run("logging", "the lines would bury all others", &Self::logging);
        verdict.watch(|| self.memory());
    }

    /// Plays a round with a new aggregator.
    fn result(&self, plan: &Plan<'_>) -> Found<Message> {
        Ok(self.play(&mut self.table(SEED)?, plan, &Watcher::new())?)
    }

    fn result_kept(&self) -> Found {
        let result = self.result(&Plan::default())?;
        for (name, before) in self.global.params.iter() {
            let sent = self.updates.iter().all(|update| update.params.get(name).is_some());
            match result.params.get(name) {
                None if sent => {
                    return fail(
                        format!("tensor `{name}`, which is global and which all clients sent"),
                        "it is not there",
                    );
                }
                Some(after) if (after.dtype(), after.shape()) != (before.dtype(), before.shape()) => {
                    return fail(
                        format!("tensor `{name}` as {before:?}, as in the global model"),
                        format!("{after:?}"),
                    );
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn result_finite(&self) -> Found {
        match compare::not_finite(&self.result(&Plan::default())?) {
            None => Ok(()),
            Some(name) => fail("finite numbers of finite updates", format!("tensor `{name}` holds others")),
        }
    }

    /// Plays several rounds with one aggregator.
    fn rounds(&self, table: &mut Table, rounds: std::ops::Range<u64>) -> Found<Vec<Message>> {
        let one = |round| Ok(self.play(table, &Plan { round, ..Plan::default() }, &Watcher::new())?);
        rounds.map(one).collect()
    }

    fn same_seed(&self) -> Found {
        let [first, second] = [self.rounds(&mut self.table(SEED)?, 0..3)?, self.rounds(&mut self.table(SEED)?, 0..3)?];
        let difference = first.iter().zip(&second).find_map(|(a, b)| compare::messages(a, b));
        same("the same bits from two instances with the same seed", difference)
    }

    fn state_mid_way(&self) -> Found {
        let watcher = Watcher::new();
        let ctx = context(&watcher, SEED);
        let mut straight = self.table(SEED)?;
        self.rounds(&mut straight, 0..2)?;
        let state = straight.aggregator.state(&ctx)?;
        let mut resumed = self.table(OTHER_SEED)?;
        resumed.aggregator.restore(&state, &ctx)?;
        let expected = "a restored instance to have the state that it was given, bit for bit";
        same(expected, compare::states(&state, &resumed.aggregator.state(&ctx)?))?;
        let [a, b] = [self.rounds(&mut straight, 2..4)?, self.rounds(&mut resumed, 2..4)?];
        let difference = a.iter().zip(&b).find_map(|(a, b)| compare::messages(a, b));
        same("a restored instance to continue like the one whose state it was given, bit for bit", difference)
    }

    fn state_misfit(&self) -> Found {
        let watcher = Watcher::new();
        let ctx = context(&watcher, SEED);
        let mut table = self.table(SEED)?;
        self.rounds(&mut table, 0..1)?;
        let state = table.aggregator.state(&ctx)?;
        refused(
            "a state of another component to be rejected with an error",
            table.aggregator.restore(&states::foreign()?, &ctx),
        )?;
        same("rejected input to change nothing", compare::states(&state, &table.aggregator.state(&ctx)?))
    }

    fn begins_again(&self) -> Found {
        let mut table = self.table(SEED)?;
        // A lost update ends the round in the middle.
        let lost = |k: usize, message: Message| {
            if k == BAD { Err(plugin_api::Error::other("lost")) } else { Ok(message) }
        };
        let broken = Plan { on_the_way: Some(&lost), ..Plan::default() };
        let _ = self.play(&mut table, &broken, &Watcher::new());
        let again = self.play(&mut table, &Plan::default(), &Watcher::new())?;
        same(
            "a round after a failed one to be as if that had not happened",
            compare::messages(&self.result(&Plan::default())?, &again),
        )
    }

    /// One client sends an unknown tensor. The aggregator must either ignore it, or return an error that names it and
    /// still aggregate the others.
    fn refusal(&self) -> Found {
        let on_the_way = |k: usize, mut message: Message| -> Result<Message> {
            if k == BAD {
                message.extra.insert(FOREIGN, Tensor::from_slice(&[1], &[1.0_f32])?);
            }
            Ok(message)
        };
        let plan = |goes_on| Plan { on_the_way: Some(&on_the_way), goes_on, ..Plan::default() };
        match self.play(&mut self.table(SEED)?, &plan(false), &Watcher::new()) {
            Ok(result) => {
                let difference = compare::messages(&self.result(&Plan::default())?, &result);
                same("messages that the aggregator ignores to change nothing", difference)
            }
            Err(Broken { call: "add", error }) if tells_of(&error, FOREIGN) => {
                let without = self.result(&Plan { absent: Some(BAD), goes_on: true, ..Plan::default() })?;
                let after = self.result(&plan(true))?;
                same("a rejected update to change nothing", compare::messages(&without, &after))
            }
            Err(Broken { call, error }) => {
                fail(format!("an error of `add` that names `{FOREIGN}`"), format!("from `{call}`, {}", told(&error)))
            }
        }
    }

    /// Plays a round that may fail, but must neither panic nor return non-finite values.
    fn odd(&self, plan: &Plan<'_>) -> Found {
        let outcome = self.play(&mut self.table(SEED)?, plan, &Watcher::new()).map_err(|broken| broken.error);
        let expected = "an error, or a model with finite numbers";
        match no_panic(expected, outcome)? {
            Some(result) => compare::not_finite(&result)
                .map_or(Ok(()), |name| fail(expected, format!("tensor `{name}` holds others"))),
            None => Ok(()),
        }
    }

    fn nobody_trained(&self) -> Found {
        let before = |_: usize, message: Message| Ok(Message { params: self.global.params.clone(), ..message });
        self.odd(&Plan { before: Some(&before), idle: true, ..Plan::default() })
    }

    fn one_update(&self) -> Found {
        let lost = |k: usize, message: Message| {
            if k == 0 { Ok(message) } else { Ok(Message { params: Params::new(), ..message }) }
        };
        self.odd(&Plan { on_the_way: Some(&lost), goes_on: true, ..Plan::default() })
    }

    fn no_tensors(&self) -> Found {
        let nothing = |_: usize, _: Message| Ok(Message::default());
        self.odd(&Plan { on_the_way: Some(&nothing), ..Plan::default() })
    }

    fn cancellation(&self) -> Found {
        let watcher = Watcher::new();
        self.play(&mut self.table(SEED)?, &Plan::default(), &watcher)?;
        if watcher.asked() == 0 {
            return skip("it never asks whether to stop, which is fine if a round is quick");
        }
        for noes in [0, watcher.asked() / 2] {
            let watcher = Watcher::stopping_after(noes);
            let outcome = self.play(&mut self.table(SEED)?, &Plan::default(), &watcher);
            let call = outcome.as_ref().err().map_or("finish", |broken| broken.call);
            watcher.was_obeyed(call, outcome.map_err(|broken| broken.error))?;
        }
        Ok(())
    }

    fn logging(&self) -> Found {
        let watcher = Watcher::new();
        self.play(&mut self.table(SEED)?, &Plan::default(), &watcher)?;
        watcher.was_moderate("a round")
    }

    fn memory(&self) -> Found {
        let mut table = self.table(SEED)?;
        let watcher = Watcher::new();
        memory::does_not_grow(|| {
            self.play(&mut table, &Plan::default(), &watcher).map_err(|broken| broken.error)?;
            table.aggregator.state(&context(&watcher, SEED)).map(drop)
        })
    }
}
