//! The client side: [`Mask`].

use plugin_api::{Context, Error, Filter, Message, Params, Result, State, Tensor};

use crate::account::Account;
use crate::config::FilterConfig;
use crate::dealing::{Dealt, Held, Keys, Shown};
use crate::identities::{Identity, Sent, Transcript, digest};
use crate::letters::{self, Mark, NO_PROTECTION, Question};
use crate::limits;
use crate::noise::{Noise, Plan};
use crate::numbers::{Count, encoded};
use crate::secrets::Source;
use crate::terms::{Bounds, Terms};

/// Agrees on masks with the other clients and adds them to the client's update. It clears its state at the end of a
/// round and on any failure: a client that failed in a round takes no further part in it.
pub struct Mask {
    reproducible: bool,
    bounds: Bounds,
    identity: Option<Identity>,
    /// The number of rounds in the account.
    rounds: u64,
    at: At,
}

/// The step that the client has reached in a round.
enum At {
    /// No query yet, or the round is over for this client.
    Rest,
    /// Has sent its public keys.
    Told(Keys, Source),
    /// Has signed what it was shown.
    Signed(Keys, Source, Transcript),
    /// Has dealt its shares.
    Dealt(Keys, Dealt),
    /// Has the others' shares and may send its update.
    Ready(Keys, Dealt, Held),
    /// Has sent its update, and may reveal the shares that it holds, once.
    Sent(Dealt, Held, Sent),
    /// Has signed whose updates arrived.
    Agreed(Dealt, Held, Sent, Vec<usize>),
}

/// The state from which a client sends its update.
type Sending<'a> = (&'a Keys, &'a mut Dealt, &'a Held);

impl Mask {
    /// Creates a filter with no round in progress.
    ///
    /// # Errors
    /// If a long-term key is missing or invalid, or keys of the table require one another and one is missing.
    pub fn new(config: FilterConfig, ctx: &Context<'_>) -> Result<Self> {
        let identity = Identity::of(&config, ctx)?;
        let FilterConfig { minimum, threshold, noise_multiplier, colluding, reproducible, .. } = config;
        if let (Some(_), None) = (colluding, noise_multiplier) {
            return Err(Error::config("goes with `noise-multiplier`, which is missing").at_key("colluding"));
        }
        let bounds = Bounds { minimum, threshold, noise_multiplier, colluding: colluding.unwrap_or_default() };
        Ok(Self { reproducible, bounds, identity, rounds: 0, at: At::Rest })
    }

    fn tell_keys(&mut self, ctx: &Context<'_>) -> Result<Message> {
        let mut source = Source::new(self.reproducible, ctx);
        let keys = Keys::new(&mut source)?;
        let mut answer = letters::with_rows(Message::default(), &keys.public())?;
        if self.reproducible {
            ctx.note("secure aggregation", format_args!("{NO_PROTECTION}"));
            Mark::Reproducible.set(&mut answer);
        }
        if self.identity.is_some() {
            Mark::Signed.set(&mut answer);
        }
        self.at = At::Told(keys, source);
        Ok(answer)
    }

    /// Deals shares of the client's secrets to the members that signed.
    fn deal(&mut self, keys: Keys, mut source: Source, shown: Shown, signed: Vec<bool>) -> Result<Message> {
        let (dealt, answer) = keys.deal(&mut source, shown, signed)?;
        self.at = At::Dealt(keys, dealt);
        Ok(answer)
    }

    /// Answers the query, if it is the one due at this step.
    fn respond(&mut self, asked: Question, at: At, question: &Message, ctx: &Context<'_>) -> Result<Message> {
        let own = (self.bounds, self.identity.as_ref());
        let client = ctx.client().unwrap_or_default();
        match (asked, at, &self.identity) {
            (Question::Keys, _, _) => self.tell_keys(ctx),
            (Question::Sign { .. }, At::Told(..), None) => {
                Err(Error::config("other clients sign their keys, but this one has no `identities`")
                    .help("either all clients of a round sign, or none: see `identities` and `key-file`"))
            }
            (Question::Sign { members, terms }, At::Told(keys, source), Some(identity)) => {
                let shown = keys.look(members, terms, question, own, ctx)?;
                let signature = identity.sign_keys(&shown.transcript, client);
                self.at = At::Signed(keys, source, shown.transcript);
                letters::with_rows(Message::default(), &[signature])
            }
            (Question::Shares { .. }, At::Told(..), Some(_)) => {
                Err(Error::other("the aggregator asks for shares before the members signed their keys")
                    .help("either all clients of a round sign, or none: see `identities` and `key-file`"))
            }
            (Question::Shares { members, terms }, At::Told(keys, source), None) => {
                let shown = keys.look(members, terms, question, own, ctx)?;
                let signed = shown.who_signed(None, question)?;
                self.deal(keys, source, shown, signed)
            }
            (Question::Shares { members, terms }, At::Signed(keys, source, transcript), _) => {
                let shown = keys.look(members, terms, question, own, ctx)?;
                if shown.transcript != transcript {
                    return Err(Error::other("the members, keys or terms differ from those that this client signed"));
                }
                let signed = shown.who_signed(own.1, question)?;
                self.deal(keys, source, shown, signed)
            }
            (Question::Keep { senders }, At::Dealt(keys, dealt), _) => {
                let held = keys.keep(&dealt, &senders, question)?;
                self.at = At::Ready(keys, dealt, held);
                Ok(Message::default())
            }
            (Question::Agree { arrived }, At::Sent(dealt, held, sent), Some(identity)) => {
                dealt.accept(&held, &arrived, self.bounds)?;
                let agreed = identity.sign_arrived(&dealt.shown.transcript, client, &arrived, &sent);
                self.at = At::Agreed(dealt, held, sent, arrived);
                letters::with_rows(Message::default(), &[agreed])
            }
            // The state is gone now, so both shares of a client are never revealed.
            (Question::Unmask { arrived }, At::Sent(dealt, held, _), None) => {
                dealt.accept(&held, &arrived, self.bounds)?;
                dealt.give(&held, &arrived)
            }
            (Question::Unmask { arrived }, At::Agreed(_, _, _, signed), Some(_)) if arrived != signed => {
                Err(Error::other("the list of updates that arrived differs from the one that this client signed"))
            }
            (Question::Unmask { arrived }, At::Agreed(dealt, held, sent, _), Some(identity)) => {
                dealt.agreed(identity, (&arrived, sent.global), question, self.bounds)?;
                dealt.give(&held, &arrived)
            }
            _ => Err(Error::other("the aggregator sent a query that is not due in this round")),
        }
    }
}

impl Mask {
    /// Counts a round of `values` values, and reports the cost of all rounds so far.
    fn account(&mut self, plan: &Plan, noise: Noise, values: usize, ctx: &Context<'_>) -> Result<()> {
        // Includes rounds whose messages may have left before an interruption.
        let begun: Option<u64> = ctx.property("attempts")?;
        self.rounds = (self.rounds + 1).max(begun.unwrap_or_default());
        let epsilon = Account::new(plan, noise, values).epsilon(self.rounds);
        ctx.scalar("Secure/epsilon", ctx.round().unwrap_or_default(), epsilon);
        limits::note_account((epsilon, self.rounds), noise, (self.reproducible, self.identity.is_some()), ctx);
        Ok(())
    }

    /// A client's masked numbers, and whether it trained.
    fn masked(
        &mut self,
        message: &Message,
        base: &Message,
        sending: Sending<'_>,
        ctx: &Context<'_>,
    ) -> Result<(Params, bool)> {
        let (keys, dealt, held) = sending;
        let mut masks = keys.masks(dealt, held)?;
        let Terms { clip, noise, .. } = dealt.shown.terms;
        let grid = dealt.shown.terms.grid();
        // The streams continue from one parameter to the next, so all clients need the same order: sorted by name.
        let mut params: Vec<(&str, &Tensor)> = message.params.iter().collect();
        params.sort_unstable_by_key(|(name, _)| *name);
        let mut noisy = match (&mut dealt.noise, noise) {
            (Some((plan, rng)), Some(noise)) => {
                let encoded = plan.encoded(&params, base, rng, ctx)?;
                self.account(plan, noise, encoded.values, ctx)?;
                Some((encoded.tensors.into_iter(), encoded.moved))
            }
            _ => None,
        };
        let mut count = Count::default();
        let mut masked = Params::new();
        for (name, tensor) in params {
            ctx.check()?;
            let mut numbers = match &mut noisy {
                Some((tensors, _)) => tensors.next().unwrap_or_default(),
                None => encoded(name, tensor, base, grid, &mut count)?,
            };
            masks.iter_mut().for_each(|(stream, sign)| stream.mask(&mut numbers, *sign));
            masked.insert(
                name,
                Tensor::build(tensor.shape(), |out: &mut [i32]| {
                    out.iter_mut().zip(&numbers).for_each(|(out, number)| *out = number.cast_signed());
                }),
            );
        }
        if let Some((_, moved)) = noisy {
            return Ok((masked, moved));
        }
        let Count { all, clamped, moved } = count;
        if clamped > 0 {
            ctx.warn(format_args!("{clamped} of {all} values changed by more than `clip`, {clip}, and were clamped"));
        }
        ctx.scalar("Secure/clamped", ctx.round().unwrap_or_default(), clamped as f64);
        ctx.note("privacy.clear", format_args!("how many values of an update were clamped"));
        Ok((masked, moved > 0))
    }
}

impl Filter for Mask {
    fn apply(&mut self, message: Message, base: &Message, ctx: &Context<'_>) -> Result<Message> {
        let At::Ready(keys, mut dealt, held) = std::mem::replace(&mut self.at, At::Rest) else {
            return Err(Error::unsupported("nobody asked this client to agree on masks")
                .help("the filter `secure` belongs at `client-output`, with the aggregator `secure`"));
        };
        if !message.extra.is_empty() || !message.values.is_empty() {
            let names: Vec<_> = message.extra.names().chain(message.values.keys().map(String::as_str)).collect();
            return Err(Error::unsupported(format!("only parameters can be masked, not `{}`", names.join("`, `")))
                .help("a method that sends more than parameters cannot be used with secure aggregation"));
        }
        let (masked, trained) = self.masked(&message, base, (&keys, &mut dealt, &held), ctx)?;
        let global = if self.identity.is_some() { digest(base) } else { [0; 32] };
        self.at = At::Sent(dealt, held, Sent { trained, global });
        Ok(masked.into())
    }

    fn answer(&mut self, question: &Message, ctx: &Context<'_>) -> Result<Option<Message>> {
        let Some(asked) = Question::of(question)? else { return Ok(None) };
        // A failure below ends the round for this client.
        let at = std::mem::replace(&mut self.at, At::Rest);
        self.respond(asked, at, question, ctx).map(Some)
    }

    fn state(&mut self, _: &Context<'_>) -> Result<State> {
        let mut state = State::default();
        if self.rounds > 0 {
            state.values.insert("rounds".to_owned(), self.rounds.into());
        }
        Ok(state)
    }

    fn restore(&mut self, state: &State, _: &Context<'_>) -> Result<()> {
        self.rounds = if state.is_empty() { 0 } else { state.value("rounds")? };
        Ok(())
    }
}
