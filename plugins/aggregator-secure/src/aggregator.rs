//! The server's side: [`Secure`].

use plugin_api::{Aggregator, Cohort, Context, Error, Message, Params, Query, Reply, Result, Stage, Tensor, Update};

use crate::config::AggregatorConfig;
use crate::fixed::{Grid, narrow, wide};
use crate::letters::{self, NO_PROTECTION, Question, Terms};
use crate::round::{Round, of};
use crate::secrets::{Public, SEALED};
use crate::shamir::{self, Secret};

/// Adds masked updates, and takes the masks off the sum with what the clients tell at the end of a round.
pub struct Secure {
    config: AggregatorConfig,
    at: At,
    round: Round,
}

/// How far a round is: what the next answers are to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Rest,
    Begun,
    Keys,
    Shares,
    Keep,
    Updates,
    Unmask,
    Unmasked,
}

impl Secure {
    /// An aggregator between two rounds.
    ///
    /// # Errors
    /// Never; the contract asks for a result.
    pub fn new(config: AggregatorConfig, _: &Context<'_>) -> Result<Self> {
        Ok(Self { config, at: At::Rest, round: Round::default() })
    }

    fn grid(&self) -> Grid {
        Grid { clip: self.config.clip, bits: self.config.bits }
    }

    fn ask_shares(&mut self, answers: &[Reply], ctx: &Context<'_>) -> Result<Vec<Query>> {
        let member = |reply: &Reply| {
            let rows = rows::<32>(reply, 2)?;
            Ok((reply.client.clone(), [rows[0], rows[1]]))
        };
        self.round.members = answers.iter().map(member).collect::<Result<_>>()?;
        self.round.enough(self.round.members.len(), "told their keys")?;
        let (threshold, cohort) = (self.round.threshold, self.round.cohort.len());
        if answers.iter().any(|answer| letters::is_reproducible(&answer.message)) {
            ctx.note("secure aggregation", format_args!("{NO_PROTECTION}"));
        } else {
            let text = "the server sees sums of the updates of at least";
            ctx.note(
                "secure aggregation",
                format_args!("{text} {threshold} of a round's {cohort} clients, and none alone"),
            );
        }
        let keys: Vec<[u8; 64]> = self.round.members.iter().map(|(_, [a, b])| pair(a, b)).collect();
        let terms = Terms { threshold, bits: self.config.bits };
        let members = self.round.members.iter().map(|(name, _)| name.clone()).collect();
        let question = Question::Shares { members, terms }.message()?;
        let question = letters::with_clip(letters::with_rows(question, &keys)?, self.config.clip);
        Ok(self.round.members.iter().map(|(name, _)| query(name, question.clone())).collect())
    }

    fn ask_to_keep(&mut self, answers: &[Reply]) -> Result<Vec<Query>> {
        let round = &mut self.round;
        round.senders = answers.iter().map(|reply| round.place(&reply.client)).collect::<Result<_>>()?;
        round.enough(round.senders.len(), "dealt shares")?;
        let dealt =
            answers.iter().map(|reply| rows::<SEALED>(reply, round.members.len())).collect::<Result<Vec<_>>>()?;
        let question = Question::Keep { senders: round.senders.clone() }.message()?;
        let keep = |&place: &usize| {
            let rows: Vec<[u8; SEALED]> = dealt.iter().map(|rows| rows[place]).collect();
            Ok(query(&round.members[place].0, letters::with_rows(question.clone(), &rows)?))
        };
        round.senders.iter().map(keep).collect()
    }

    fn ask_to_unmask(&self, ctx: &Context<'_>) -> Result<Vec<Query>> {
        let round = &self.round;
        round.enough(round.arrived.len(), "sent an update")?;
        ctx.scalar(
            "Secure/dropped",
            ctx.round().unwrap_or_default(),
            (round.cohort.len() - round.arrived.len()) as f64,
        );
        let question = Question::Unmask { arrived: round.arrived.clone() }.message()?;
        Ok(round.arrived.iter().map(|&place| query(&round.members[place].0, question.clone())).collect())
    }

    fn unmask(&mut self, answers: &[Reply], ctx: &Context<'_>) -> Result<()> {
        let round = &mut self.round;
        round.enough(answers.len(), "told what it takes to unmask")?;
        let given = |reply: &Reply| {
            let rows = rows::<32>(reply, round.senders.len())?;
            let secrets: Vec<Secret> = rows.iter().map(|row| Secret::new(*row)).collect();
            Ok((u8::try_from(round.place(&reply.client)? + 1).unwrap_or(u8::MAX), secrets))
        };
        let given = answers.iter().map(given).collect::<Result<Vec<_>>>()?;
        let mut masks = Vec::new();
        for (row, &sender) in round.senders.iter().enumerate() {
            let shares: Vec<(u8, &Secret)> = given.iter().map(|(client, shares)| (*client, &shares[row])).collect();
            let secret = shamir::join(&shares, round.threshold).map_err(|e| of(&round.members[sender].0, e))?;
            masks.extend(round.masks_of(sender, &secret)?);
        }
        // A mask at a time in blocks of one parameter: no copy of the model is made.
        for (_, _, sum) in &mut round.sum {
            ctx.check()?;
            masks.iter_mut().for_each(|(stream, sign)| stream.mask(sum, *sign));
        }
        let largest = self.grid().largest_sum(self.round.arrived.len()).unwrap_or_default();
        let beyond = |sum: &[u32]| sum.iter().any(|number| number.cast_signed().unsigned_abs() > largest);
        match self.round.sum.iter().find(|(_, _, sum)| beyond(sum)) {
            Some((name, _, _)) => Err(Error::tensor(name, "the masks do not cancel: what some client sent is wrong")),
            None => Ok(()),
        }
    }
}

impl Aggregator for Secure {
    fn begin(&mut self, global: &Message, cohort: &Cohort, _: &Context<'_>) -> Result<()> {
        (self.at, self.round) = (At::Rest, Round::default());
        let count = cohort.clients.len();
        if !(3..=255).contains(&count) {
            return Err(Error::config(format!("a round of {count} clients: it takes from 3 to 255")).help(
                "of a sum of two each client knows the other's part; 255 are as many as the shares have numbers",
            ));
        }
        let threshold = self.config.threshold.unwrap_or(2 * count / 3 + 1);
        Terms { threshold, bits: self.config.bits }.check(count).map_err(|e| e.at_key("threshold"))?;
        if self.grid().largest_sum(count).is_none() {
            let most =
                (2..self.config.bits).rev().find(|&bits| Grid { bits, ..self.grid() }.largest_sum(count).is_some());
            let message = format!("the sum of {count} numbers of {} bits does not fit in 32", self.config.bits);
            return Err(Error::config(message)
                .at_key("bits")
                .help(format!("at most {} fit", most.unwrap_or_default())));
        }
        self.round = Round { global: global.clone(), cohort: cohort.clients.clone(), threshold, ..Round::default() };
        self.at = At::Begun;
        Ok(())
    }

    fn ask(&mut self, stage: Stage, answers: Vec<Reply>, ctx: &Context<'_>) -> Result<Vec<Query>> {
        let (questions, next) = match (stage, std::mem::replace(&mut self.at, At::Rest)) {
            (Stage::Opening, At::Begun) => {
                let question = Question::Keys.message()?;
                let ask = |name: &String| query(name, question.clone());
                (self.round.cohort.iter().map(ask).collect(), At::Keys)
            }
            (Stage::Opening, At::Keys) => (self.ask_shares(&answers, ctx)?, At::Shares),
            (Stage::Opening, At::Shares) => (self.ask_to_keep(&answers)?, At::Keep),
            (Stage::Opening, At::Keep) => {
                self.round.enough(answers.len(), "got their shares")?;
                (Vec::new(), At::Updates)
            }
            (Stage::Closing, At::Updates) => (self.ask_to_unmask(ctx)?, At::Unmask),
            (Stage::Closing, At::Unmask) => {
                self.unmask(&answers, ctx)?;
                (Vec::new(), At::Unmasked)
            }
            (stage, at) => return Err(Error::other(format!("asked at {stage:?} after {at:?}"))),
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
        // In the order of the places, as the questions need it.
        self.round.arrived.push(place);
        self.round.arrived.sort_unstable();
        if update.steps == 0 {
            ctx.debug(format_args!("client `{}` did not train in this round and counts nothing", update.client));
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
            ctx.warn(format_args!("no client trained in this round: the global model stays as it was"));
            return Ok(round.global);
        }
        let grid = self.grid();
        let moved = |name: &str, tensor: &Tensor| -> Result<Option<(String, Tensor)>> {
            let Some((_, shape, sum)) = round.sum.iter().find(|(summed, _, _)| summed == name) else { return Ok(None) };
            let Some(mut values) = wide(tensor)? else { return Ok(Some((name.to_owned(), tensor.clone()))) };
            let mean = |number: &u32| grid.mean(number.cast_signed(), round.trained);
            values.iter_mut().zip(sum).for_each(|(value, number)| *value += mean(number));
            Ok(Some((name.to_owned(), narrow(tensor.dtype(), shape, &values)?)))
        };
        let params = round.global.params.iter().filter_map(|(name, tensor)| moved(name, tensor).transpose());
        Ok(params.collect::<Result<Params>>()?.into())
    }
}

fn query(client: &str, message: Message) -> Query {
    Query { client: client.to_owned(), message }
}

/// So many rows of bytes of an answer.
fn rows<const N: usize>(reply: &Reply, count: usize) -> Result<&[[u8; N]]> {
    letters::rows(&reply.message, count).map_err(|e| of(&reply.client, e))
}

fn pair(a: &Public, b: &Public) -> [u8; 64] {
    let mut both = [0; 64];
    both[..32].copy_from_slice(a);
    both[32..].copy_from_slice(b);
    both
}
