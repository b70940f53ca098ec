//! Checks of what a run relies on.

use super::FilterCheck;
use crate::sample::{altered, reshaped, retyped, spoilt};
use crate::verdict::{Found, Verdict, fail, no_panic, refused, same, skip, tells_of, told};
use crate::watcher::Watcher;
use crate::{compare, memory, states};
use plugin_api::{Buffer, DType, Filter, Message, Params, Result, Tensor};

pub(super) const CALLS: [&str; 4] = ["apply", "answer", "state", "restore"];

pub(super) const NAMES: [&str; 13] = [
    "result-kept",
    "result-finite",
    "restores",
    "same-seed",
    "state-mid-way",
    "state-misfit",
    "wrong-shape",
    "wrong-dtype",
    "non-finite",
    "odd-messages",
    "cancellation",
    "logging",
    "memory",
];

impl FilterCheck {
    pub(super) fn calls(&self, verdict: &mut Verdict) -> bool {
        let [apply, answer, state, restore] = CALLS;
        let all = [
            verdict.run(apply, "a filter that fails drops the update of its client", || {
                self.sent(&mut *self.make()?, 0).map(drop)
            }),
            verdict.run(
                answer,
                "the first filter that answers a query is used, so the aggregator's own filter is not",
                || {
                    let watcher = Watcher::new();
                    let mut question = Message::default();
                    question.values.insert("no such question".to_owned(), 1.into());
                    match self.make()?.answer(&question, &Self::ctx(&watcher, 0))? {
                        None => Ok(()),
                        Some(message) => fail("no answer to a query of an unknown aggregator", format!("{message:?}")),
                    }
                },
            ),
            verdict.run(state, "a checkpoint contains it", || {
                let watcher = Watcher::new();
                let (mut filter, ctx) = (self.make()?, Self::ctx(&watcher, 0));
                self.sent(&mut *filter, 0)?;
                let first = filter.state(&ctx)?;
                same("the same when it is asked twice", compare::states(&first, &filter.state(&ctx)?))
            }),
            verdict.run(restore, "an interrupted run resumes from it", || {
                let watcher = Watcher::new();
                let (mut filter, ctx) = (self.make()?, Self::ctx(&watcher, 0));
                self.sent(&mut *filter, 0)?;
                let state = filter.state(&ctx)?;
                Ok(self.make()?.restore(&state, &ctx)?)
            }),
        ];
        all.into_iter().all(|fine| fine)
    }

    pub(super) fn behaviour(&self, verdict: &mut Verdict) {
        let mut run = |name, why, check: &dyn Fn(&Self) -> Found| verdict.run(name, why, || check(self));
        run("result-kept", "an empty message looks like a client with nothing to send", &Self::result_kept);
        run("result-finite", "one NaN in an update ends all training", &Self::result_finite);
        run("restores", "the server would aggregate other values than the clients sent", &Self::restores);
        run("same-seed", "an experiment could not be reproduced", &Self::same_seed);
        let why = "an interrupted run would end with another model than an uninterrupted one";
        run("state-mid-way", why, &Self::state_mid_way);
        run("state-misfit", "a damaged checkpoint would be used as if nothing were wrong", &Self::state_misfit);
        let why =
            "an error for a message that does not fit its base must name the tensor and leave the filter unchanged";
        run("wrong-shape", why, &|this| this.misfit(reshaped));
        run("wrong-dtype", why, &|this| this.misfit(retyped));
        run("non-finite", "training may diverge at one client", &Self::non_finite);
        run("odd-messages", "models and other filters send unforeseen messages", &Self::odd_messages);
        run("cancellation", "a user who stops a run would wait for the filter", &Self::cancellation);
        run("logging", "one client's lines would bury those of the others", &Self::logging);
        verdict.watch(|| self.memory());
    }

    fn apply(&self, filter: &mut dyn Filter, message: Message, base: &Message, round: u64) -> Result<Message> {
        let watcher = Watcher::new();
        filter.apply(message, base, &Self::ctx(&watcher, round))
    }

    /// The filtered message; in odd rounds, the message is altered first.
    fn sent(&self, filter: &mut dyn Filter, round: u64) -> Found<Message> {
        let mut message = self.message.clone();
        if round % 2 == 1 {
            for (name, tensor) in self.message.params.iter() {
                message.params.insert(name, altered(tensor)?);
            }
        }
        Ok(self.apply(filter, message, &self.base, round)?)
    }

    fn result_kept(&self) -> Found {
        let sent = self.sent(&mut *self.make()?, 0)?;
        if sent.params.is_empty() && sent.extra.is_empty() && !self.message.params.is_empty() {
            return fail("at least one tensor of the message, or an error", "the message is empty");
        }
        Ok(())
    }

    fn result_finite(&self) -> Found {
        if self.restored.is_some() {
            return skip("its output is encoded, and checked after it is restored");
        }
        let sent = self.sent(&mut *self.make()?, 0)?;
        compare::not_finite(&sent).map_or(Ok(()), |name| {
            fail("finite numbers of a message with finite numbers", format!("tensor `{name}` holds others"))
        })
    }

    fn restores(&self) -> Found {
        let Some((other, tolerance)) = &self.restored else {
            return skip("it is not said that another filter restores it");
        };
        let (mut filter, mut other) = (self.make()?, self.make_other(other)?);
        let sent = self.sent(&mut *filter, 0)?;
        let back = self.apply(&mut *other, sent, &self.base, 0)?;
        let far = |before: &Params, after: &Params| -> Result<Option<String>> {
            if !before.names().eq(after.names()) {
                return Ok(Some(format!("the tensors are {:?}", after.names().collect::<Vec<_>>())));
            }
            for ((name, before), (_, after)) in before.iter().zip(after.iter()) {
                if (before.dtype(), before.shape()) != (after.dtype(), after.shape()) {
                    return Ok(Some(format!("tensor `{name}` is {after:?}, and was {before:?}")));
                }
                if !before.is_float() {
                    continue;
                }
                let (before, after) = (before.to_f32()?, after.to_f32()?);
                let near = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).abs() <= *tolerance;
                if let Some(at) = before.iter().zip(after.iter()).position(|pair| !near(pair)) {
                    return Ok(Some(format!("tensor `{name}`: element {at} is {}, and was {}", after[at], before[at])));
                }
            }
            Ok(None)
        };
        let expected = format!("the same message, each element within {tolerance} of its original value");
        same(&expected, far(&self.message.params, &back.params)?)?;
        same(&expected, far(&self.message.extra, &back.extra)?)?;
        let values = (self.message.values != back.values).then(|| format!("the values are {:?}", back.values));
        same(expected, values)
    }

    fn rounds(&self, filter: &mut dyn Filter, rounds: std::ops::Range<u64>) -> Found<Vec<Message>> {
        rounds.map(|round| self.sent(filter, round)).collect()
    }

    fn same_seed(&self) -> Found {
        let [first, second] = [self.rounds(&mut *self.make()?, 0..3)?, self.rounds(&mut *self.make()?, 0..3)?];
        let difference = first.iter().zip(&second).find_map(|(a, b)| compare::messages(a, b));
        same("the same bits from two instances with the same seed, client and round", difference)
    }

    fn state_mid_way(&self) -> Found {
        let watcher = Watcher::new();
        let ctx = Self::ctx(&watcher, 1);
        let mut straight = self.make()?;
        self.rounds(&mut *straight, 0..2)?;
        let state = straight.state(&ctx)?;
        let mut resumed = self.make()?;
        resumed.restore(&state, &ctx)?;
        let expected = "a restored instance to have the state that it was given, bit for bit";
        same(expected, compare::states(&state, &resumed.state(&ctx)?))?;
        let [a, b] = [self.rounds(&mut *straight, 2..4)?, self.rounds(&mut *resumed, 2..4)?];
        let difference = a.iter().zip(&b).find_map(|(a, b)| compare::messages(a, b));
        same("a restored instance to continue like the one whose state it was given, bit for bit", difference)
    }

    fn state_misfit(&self) -> Found {
        let watcher = Watcher::new();
        let (mut filter, ctx) = (self.make()?, Self::ctx(&watcher, 0));
        self.sent(&mut *filter, 0)?;
        let state = filter.state(&ctx)?;
        refused(
            "a state of another component to be rejected with an error",
            filter.restore(&states::foreign()?, &ctx),
        )?;
        same("rejected input to change nothing", compare::states(&state, &filter.state(&ctx)?))
    }

    /// A message with one tensor that does not match its base. The filter must either return an error that names the
    /// tensor and leave its state unchanged, or not look at the base.
    fn misfit(&self, bend: fn(&Tensor) -> Result<Tensor>) -> Found {
        let watcher = Watcher::new();
        let ctx = Self::ctx(&watcher, 1);
        for (name, tensor) in self.message.params.iter() {
            let mut bent = self.message.clone();
            bent.params.insert(name, bend(tensor)?);
            let mut filter = self.make()?;
            self.sent(&mut *filter, 0)?;
            let before = filter.state(&ctx)?;
            let expected = format!("a message, or an error that names `{name}`, which does not fit its base");
            match filter.apply(bent, &self.base, &ctx) {
                Err(error) if *error.kind() == plugin_api::ErrorKind::Panic || !tells_of(&error, name) => {
                    return fail(expected, told(&error));
                }
                Err(_) => {
                    let expected = "rejected input to change nothing";
                    same(expected, compare::states(&before, &filter.state(&ctx)?))?;
                    let [after, usual] = [self.sent(&mut *filter, 2)?, {
                        let mut usual = self.make()?;
                        self.sent(&mut *usual, 0)?;
                        self.sent(&mut *usual, 2)?
                    }];
                    same(expected, compare::messages(&usual, &after))?;
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }

    fn non_finite(&self) -> Found {
        let expected = "a message or an error, but no panic, for NaN and infinity";
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            for (name, tensor) in self.message.params.iter().filter(|(_, tensor)| tensor.is_float()) {
                let mut spoiled = self.message.clone();
                spoiled.params.insert(name, spoilt(tensor, value)?);
                no_panic(expected, self.apply(&mut *self.make()?, spoiled.clone(), &self.base, 0))?;
                no_panic(expected, self.apply(&mut *self.make()?, self.message.clone(), &spoiled, 0))?;
            }
        }
        Ok(())
    }

    fn odd_messages(&self) -> Found {
        let all = [DType::F32, DType::F64, DType::F16, DType::BF16, DType::I64, DType::I32, DType::I8, DType::U8];
        let mut odd = vec![Message::default()];
        for shape in [&[][..], &[0], &[3, 0, 2], &[1], &[20]] {
            let tensor = |dtype: DType| -> Result<(String, Tensor)> {
                let bytes = shape.iter().product::<usize>() * dtype.size();
                Ok((format!("{dtype}"), Tensor::new(dtype, shape, Buffer::copy_of(&vec![0_u8; bytes]))?))
            };
            let params = all.into_iter().map(tensor).collect::<Result<Params>>()?;
            odd.push(Message { extra: params.clone(), ..Message::from(params) });
        }
        let mut values = self.message.clone();
        values.values.insert("no such value".to_owned(), serde_json::json!({ "a": [null, 1e300, ""] }));
        odd.push(values);
        let expected = "a message or an error, but no panic, for empty messages, scalars and all types";
        for message in odd {
            for base in [&message, &self.base, &Message::default()] {
                no_panic(expected, self.apply(&mut *self.make()?, message.clone(), base, 0))?;
            }
        }
        no_panic(expected, self.apply(&mut *self.make()?, self.message.clone(), &Message::default(), 0)).map(drop)
    }

    fn cancellation(&self) -> Found {
        let watcher = Watcher::new();
        self.make()?.apply(self.message.clone(), &self.base, &Self::ctx(&watcher, 0))?;
        if watcher.asked() == 0 {
            return skip("it never asks whether to stop, which is fine if it is quick");
        }
        let watcher = Watcher::stopping_after(0);
        let outcome = self.make()?.apply(self.message.clone(), &self.base, &Self::ctx(&watcher, 0));
        watcher.was_obeyed("apply", outcome)
    }

    fn logging(&self) -> Found {
        let watcher = Watcher::new();
        self.make()?.apply(self.message.clone(), &self.base, &Self::ctx(&watcher, 0))?;
        watcher.was_moderate("apply")
    }

    fn memory(&self) -> Found {
        let watcher = Watcher::new();
        let mut filter = self.make()?;
        memory::does_not_grow(|| {
            let ctx = Self::ctx(&watcher, 0);
            filter.apply(self.message.clone(), &self.base, &ctx)?;
            filter.state(&ctx).map(drop)
        })
    }
}
