//! The server side: [`Secure`].

use plugin_api::{Aggregator, Cohort, Context, Error, Message, Params, Query, Reply, Result, Stage, Tensor, Update};

use crate::config::{AggregatorConfig, Numbers};
use crate::fixed::{Grid, narrow, wide};
use crate::round::Round;
use crate::terms::Terms;

/// Sums masked updates, and unmasks the sum with the clients' answers at the end of a round.
pub struct Secure {
    config: AggregatorConfig,
    numbers: Numbers,
    at: At,
    pub(crate) round: Round,
}

/// The step that a round has reached: which query the next answers belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Rest,
    Begun,
    Keys,
    Sign,
    Shares,
    Keep,
    Updates,
    Agree,
    Unmask,
    Unmasked,
}

impl Secure {
    /// Creates an aggregator with no round in progress.
    ///
    /// # Errors
    /// If a key is missing that another one requires, or two exclude each other.
    pub fn new(config: AggregatorConfig, _: &Context<'_>) -> Result<Self> {
        let numbers = config.numbers()?;
        Ok(Self { config, numbers, at: At::Rest, round: Round::default() })
    }

    /// The terms of a round of `count` clients whose updates have `values` values.
    fn terms(&self, count: usize, values: usize) -> Result<Terms> {
        let Numbers { clip, bits, noise } = self.numbers;
        let threshold = self.config.threshold.unwrap_or(2 * count / 3 + 1);
        let minimum = self.config.minimum.unwrap_or(threshold);
        let terms = Terms { threshold, minimum, clip, bits, noise };
        terms.check(count).map_err(|e| e.at_key("threshold"))?;
        if minimum > count {
            let message = format!("the round has only {count} clients, fewer than {minimum}");
            return Err(Error::config(message).at_key("minimum").help(format!("must be from 2 to {count}")));
        }
        if let Some(plan) = terms.plan(count)? {
            return plan.fits(count, values).map(|()| terms);
        }
        if terms.grid().largest_sum(count).is_none() {
            let most = (2..bits).rev().find(|&bits| Grid { clip, bits }.largest_sum(count).is_some());
            let message = format!("the sum of {count} numbers of {bits} bits does not fit in 32");
            return Err(Error::config(message)
                .at_key("bits")
                .help(format!("at most {} fit", most.unwrap_or_default())));
        }
        Ok(terms)
    }
}

impl Aggregator for Secure {
    fn begin(&mut self, global: &Message, cohort: &Cohort, _: &Context<'_>) -> Result<()> {
        (self.at, self.round) = (At::Rest, Round::default());
        let count = cohort.clients.len();
        if !(3..=255).contains(&count) {
            return Err(Error::config(format!("a round has {count} clients, but needs from 3 to 255"))
                .help("in a sum of two, each client knows the other's part; shares are numbered up to 255"));
        }
        self.round = Round {
            global: global.clone(),
            cohort: cohort.clients.clone(),
            terms: self.terms(count, floats(global))?,
            ..Round::default()
        };
        self.at = At::Begun;
        Ok(())
    }

    fn ask(&mut self, stage: Stage, answers: Vec<Reply>, ctx: &Context<'_>) -> Result<Vec<Query>> {
        let (questions, next) = match (stage, std::mem::replace(&mut self.at, At::Rest)) {
            (Stage::Opening, At::Begun) => self.ask_keys()?,
            (Stage::Opening, At::Keys) => self.take_keys(&answers, ctx)?,
            (Stage::Opening, At::Sign) => self.take_signatures(&answers)?,
            (Stage::Opening, At::Shares) => self.take_shares(&answers)?,
            (Stage::Opening, At::Keep) => {
                self.round.enough(answers.len(), "got their shares")?;
                (Vec::new(), At::Updates)
            }
            (Stage::Closing, At::Updates) => self.close(ctx)?,
            (Stage::Closing, At::Agree) => self.take_agreements(&answers)?,
            (Stage::Closing, At::Unmask) => self.unmask(&answers, ctx)?,
            (stage, at) => return Err(Error::other(format!("was called at {stage:?} after {at:?}"))),
        };
        self.at = next;
        Ok(questions)
    }

    fn add(&mut self, update: Update, ctx: &Context<'_>) -> Result<()> {
        let place = self.round.place(&update.client)?;
        if self.at != At::Updates || !self.round.senders.contains(&place) || self.round.arrived.contains(&place) {
            return Err(Error::other(format!("an update of client `{}` is not due", update.client)));
        }
        self.round.check(&update)?;
        let first = self.round.arrived.is_empty();
        for (index, (name, tensor)) in update.message.params.iter().enumerate() {
            let masked = tensor.elements::<i32>()?.iter().map(|number| number.cast_unsigned());
            if first {
                self.round.sum.push((name.to_owned(), tensor.shape().to_vec(), masked.collect()));
            } else {
                let sum = self.round.sum[index].2.iter_mut();
                sum.zip(masked).for_each(|(sum, number)| *sum = sum.wrapping_add(number));
            }
        }
        // In the order of positions, as the queries need it.
        self.round.arrived.push(place);
        self.round.arrived.sort_unstable();
        if update.steps == 0 {
            ctx.debug(format_args!("client `{}` did not train in this round and is not counted", update.client));
        }
        self.round.trained += usize::from(update.steps > 0);
        Ok(())
    }

    fn finish(&mut self, ctx: &Context<'_>) -> Result<Message> {
        let (at, round) = (std::mem::replace(&mut self.at, At::Rest), std::mem::take(&mut self.round));
        if at != At::Unmasked {
            return Err(Error::other("the masks were not taken off"));
        }
        if round.trained == 0 {
            ctx.warn(format_args!("no client trained in this round: the global model is unchanged"));
            return Ok(round.global);
        }
        let grid = round.terms.grid();
        // With noise, a client counts whether or not it trained, as in the account.
        let count = if round.terms.noise.is_some() { round.arrived.len() } else { round.trained };
        let moved = |name: &str, tensor: &Tensor| -> Result<Option<(String, Tensor)>> {
            let Some((_, shape, sum)) = round.sum.iter().find(|(summed, _, _)| summed == name) else { return Ok(None) };
            let Some(mut values) = wide(tensor)? else { return Ok(Some((name.to_owned(), tensor.clone()))) };
            let mean = |number: &u32| grid.mean(number.cast_signed(), count);
            values.iter_mut().zip(sum).for_each(|(value, number)| *value += mean(number));
            Ok(Some((name.to_owned(), narrow(tensor.dtype(), shape, &values)?)))
        };
        let params = round.global.params.iter().filter_map(|(name, tensor)| moved(name, tensor).transpose());
        Ok(params.collect::<Result<Params>>()?.into())
    }
}

/// The number of floating-point values in a message's parameters.
fn floats(message: &Message) -> usize {
    message.params.iter().filter(|(_, tensor)| tensor.is_float()).map(|(_, tensor)| tensor.len()).sum()
}
