//! The clients' side: [`Mask`].

use plugin_api::{Context, Error, Filter, Message, Params, Result, Tensor};

use crate::config::FilterConfig;
use crate::fixed::{Grid, wide};
use crate::letters::{self, NO_PROTECTION, Question, Terms};
use crate::secrets::{Pair, Public, SEALED, Source};
use crate::shamir::{self, Secret};
use crate::stream::{Sign, Stream};

/// Agrees on masks with the other clients and adds them to the client's update. It forgets everything at the end of a
/// round, and whenever something fails: a client that failed in a round takes no further part in it.
pub struct Mask {
    reproducible: bool,
    at: At,
}

/// How far the client is in a round.
enum At {
    /// Nobody asked yet, or the round is over for this client.
    Rest,
    /// It has told its public keys.
    Told(Keys, Source),
    /// It has dealt its shares.
    Dealt(Keys, Dealt),
    /// It has the others' shares and may send its update.
    Ready(Keys, Dealt, Held),
    /// It has sent its update and may give the shares that it holds, once.
    Sent(Dealt, Held),
}

struct Keys {
    /// To seal shares with.
    sealing: Pair,
    /// To agree on masks with.
    masking: Pair,
}

struct Dealt {
    /// The client's place among the members.
    me: usize,
    public: Vec<[Public; 2]>,
    terms: Terms,
    grid: Grid,
    /// The seed of the client's own mask.
    seed: Secret,
    /// The client's own shares of its own secrets.
    own: [Secret; 2],
}

/// The shares of each sender's seed and masking secret, by the sender's place.
type Held = Vec<(usize, [Secret; 2])>;

impl Mask {
    /// A filter outside of all rounds.
    ///
    /// # Errors
    /// Never; the contract asks for a result.
    pub fn new(config: FilterConfig, _: &Context<'_>) -> Result<Self> {
        Ok(Self { reproducible: config.reproducible, at: At::Rest })
    }

    fn tell_keys(&mut self, ctx: &Context<'_>) -> Result<Message> {
        let mut source = Source::new(self.reproducible, ctx);
        let keys = Keys { sealing: Pair::of(&source.secret()?), masking: Pair::of(&source.secret()?) };
        let rows = [keys.sealing.public, keys.masking.public];
        self.at = At::Told(keys, source);
        let mut answer = Message::default();
        if self.reproducible {
            ctx.note("secure aggregation", format_args!("{NO_PROTECTION}"));
            letters::mark_reproducible(&mut answer);
        }
        letters::with_rows(answer, &rows)
    }

    fn keep(&mut self, keys: Keys, dealt: Dealt, senders: &[usize], question: &Message) -> Result<Message> {
        let sealed = letters::rows::<SEALED>(question, senders.len())?;
        let known = senders.is_sorted_by(|a, b| a < b) && senders.last().is_some_and(|&last| last < dealt.public.len());
        if !known || senders.len() < dealt.terms.threshold || !senders.contains(&dealt.me) {
            return Err(Error::other("the shares are not of enough clients, this one among them"));
        }
        let open = |(&sender, sealed): (&usize, &[u8; SEALED])| {
            let shares = match sender == dealt.me {
                true => dealt.own.clone(),
                false => keys.sealing.open(&dealt.public[sender][0], sealed)?,
            };
            Ok((sender, shares))
        };
        let held = senders.iter().zip(sealed).map(open).collect::<Result<_>>()?;
        self.at = At::Ready(keys, dealt, held);
        Ok(Message::default())
    }
}

impl Keys {
    /// The client's seed and its shares, and the message with those for the others.
    fn deal(
        &self,
        mut source: Source,
        members: &[String],
        terms: Terms,
        question: &Message,
        ctx: &Context<'_>,
    ) -> Result<(Dealt, Message)> {
        let grid = Grid { clip: letters::clip(question)?, bits: terms.bits };
        // What a client is told must protect it and the sum must fit, whoever asks.
        let clients = terms.check(members.len())?;
        if !(2..=30).contains(&grid.bits) || grid.largest_sum(members.len()).is_none() || !grid.step().is_normal() {
            return Err(Error::other(format!("numbers of {} bits do not suit {clients} clients", grid.bits)));
        }
        let public = letters::rows::<64>(question, members.len())?.iter().map(|row| {
            let [sealing, masking] = [&row[..32], &row[32..]].map(|key| Public::try_from(key).unwrap_or_default());
            [sealing, masking]
        });
        let public: Vec<[Public; 2]> = public.collect();
        let own = [self.sealing.public, self.masking.public];
        let me = members.iter().position(|name| ctx.client() == Some(name)).filter(|&me| public[me] == own);
        let me = me.ok_or_else(|| Error::other("this client's keys are not among those that the aggregator gives"))?;

        let seed = source.secret()?;
        let mut shares = |secret: &Secret| -> Result<Vec<Secret>> {
            let coefficients = (1..terms.threshold).map(|_| source.secret()).collect::<Result<Vec<_>>>()?;
            Ok(shamir::split(secret, clients, &coefficients))
        };
        let (seeds, secrets) = (shares(&seed)?, shares(&self.masking.secret())?);
        let seal = |place: usize| match place == me {
            true => Ok([0; SEALED]),
            false => self.sealing.seal(&public[place][0], [&seeds[place], &secrets[place]]),
        };
        let sealed = (0..members.len()).map(seal).collect::<Result<Vec<_>>>()?;
        let own = [seeds[me].clone(), secrets[me].clone()];
        Ok((Dealt { me, public, terms, grid, seed, own }, letters::with_rows(Message::default(), &sealed)?))
    }

    /// The client's masks: its own, and one for each other client that has dealt shares.
    fn masks(&self, dealt: &Dealt, held: &Held) -> Result<Vec<(Stream, Sign)>> {
        let others = held.iter().map(|(place, _)| *place).filter(|place| *place != dealt.me);
        let shared = others.map(|place| {
            let key = self.masking.mask_key(&dealt.public[place][1])?;
            Ok((Stream::new(&key), Sign::between(dealt.me, place)))
        });
        [Ok((Stream::new(&dealt.seed), Sign::Plus))].into_iter().chain(shared).collect()
    }
}

impl Dealt {
    /// For each sender one of the two shares that this client holds.
    fn give(&self, held: &Held, arrived: &[usize]) -> Result<Message> {
        let known = arrived.iter().all(|place| held.iter().any(|(sender, _)| sender == place));
        if !known || !arrived.is_sorted_by(|a, b| a < b) || !arrived.contains(&self.me) {
            return Err(Error::other("those whose updates arrived are not some of those who dealt shares"));
        }
        if arrived.len() < self.terms.threshold {
            let count =
                format!("the updates of {} clients arrived, fewer than {}", arrived.len(), self.terms.threshold);
            return Err(Error::other(count));
        }
        let share = |(sender, [seed, secret]): &(usize, [Secret; 2])| {
            if arrived.contains(sender) { **seed } else { **secret }
        };
        letters::with_rows(Message::default(), &held.iter().map(share).collect::<Vec<_>>())
    }
}

impl Filter for Mask {
    fn apply(&mut self, message: Message, base: &Message, ctx: &Context<'_>) -> Result<Message> {
        let At::Ready(keys, dealt, held) = std::mem::replace(&mut self.at, At::Rest) else {
            return Err(Error::unsupported("nobody asked this client to agree on masks")
                .help("the filter `secure` belongs at `client-output`, with the aggregator `secure`"));
        };
        if !message.extra.is_empty() || !message.values.is_empty() {
            let names: Vec<_> = message.extra.names().chain(message.values.keys().map(String::as_str)).collect();
            return Err(Error::unsupported(format!("only parameters can be masked, not `{}`", names.join("`, `")))
                .help("a method that sends more than parameters cannot be used with secure aggregation"));
        }
        let mut masks = keys.masks(&dealt, &held)?;
        let (mut clamped, mut count) = (0_usize, 0_usize);
        let mut masked = Params::new();
        // The streams run on from one parameter to the next, so that all clients need the same order: that of the names.
        let mut params: Vec<(&str, &Tensor)> = message.params.iter().collect();
        params.sort_unstable_by_key(|(name, _)| *name);
        for (name, tensor) in params {
            ctx.check()?;
            let mut numbers = numbers(name, tensor, base, dealt.grid, &mut clamped)?;
            masks.iter_mut().for_each(|(stream, sign)| stream.mask(&mut numbers, *sign));
            count += numbers.len();
            masked.insert(
                name,
                Tensor::build(tensor.shape(), |out: &mut [i32]| {
                    out.iter_mut().zip(&numbers).for_each(|(out, number)| *out = number.cast_signed());
                }),
            );
        }
        if clamped > 0 {
            let clip = dealt.grid.clip;
            ctx.warn(format_args!("{clamped} of {count} values changed by more than `clip`, {clip}, and were clamped"));
        }
        ctx.scalar("Secure/clamped", ctx.round().unwrap_or_default(), clamped as f64);
        ctx.note("privacy.clear", format_args!("how many values of an update were clamped"));
        self.at = At::Sent(dealt, held);
        Ok(masked.into())
    }

    fn answer(&mut self, question: &Message, ctx: &Context<'_>) -> Result<Option<Message>> {
        let Some(asked) = Question::of(question)? else { return Ok(None) };
        // Whatever fails below ends the round for this client.
        let answer = match (asked, std::mem::replace(&mut self.at, At::Rest)) {
            (Question::Keys, _) => self.tell_keys(ctx)?,
            (Question::Shares { members, terms }, At::Told(keys, source)) => {
                let (dealt, answer) = keys.deal(source, &members, terms, question, ctx)?;
                self.at = At::Dealt(keys, dealt);
                answer
            }
            (Question::Keep { senders }, At::Dealt(keys, dealt)) => self.keep(keys, dealt, &senders, question)?,
            // The state is gone now: for no client are both shares ever given.
            (Question::Unmask { arrived }, At::Sent(dealt, held)) => dealt.give(&held, &arrived)?,
            _ => return Err(Error::other("the aggregator asks what is not due in this round")),
        };
        Ok(Some(answer))
    }
}

/// A parameter's update in fixed point, modulo 2³².
fn numbers(name: &str, tensor: &Tensor, base: &Message, grid: Grid, clamped: &mut usize) -> Result<Vec<u32>> {
    let Some(before) = base.params.get(name) else {
        return Err(Error::tensor(name, "is not of the global model").help(
            "what is private to a client must be taken out by a filter before this one, such as `exclude-params`",
        ));
    };
    if (before.dtype(), before.shape()) != (tensor.dtype(), tensor.shape()) {
        return Err(Error::tensor(name, format!("is {tensor:?}, and {before:?} in the global model")));
    }
    let (Some(after), Some(earlier)) = (wide(tensor)?, wide(before)?) else {
        return match before.buffer().as_slice() == tensor.buffer().as_slice() {
            true => Ok(vec![0; tensor.len()]),
            false => Err(Error::tensor(name, format!("has other {} values than the global model", tensor.dtype()))
                .help("integers have no mean: they must stay as they are or be kept private")),
        };
    };
    let mut number = |(after, earlier): (&f64, &f64)| {
        let update = after - earlier;
        let (number, beyond) = grid.encode(update);
        *clamped += usize::from(beyond);
        if update.is_finite() { Some(number.cast_unsigned()) } else { None }
    };
    after.iter().zip(&earlier).map(&mut number).collect::<Option<Vec<u32>>>().ok_or_else(|| {
        Error::tensor(name, "its update holds a value that is not finite")
            .help("its training may have diverged: a lower learning rate may help")
    })
}
