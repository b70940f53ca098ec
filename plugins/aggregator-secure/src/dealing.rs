//! A client's keys and shares: it deals its own, stores the others', and reveals them once.

use plugin_api::{Context, Error, Message, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use crate::identities::{AGREED, Identity, SIGNATURE, Transcript};
use crate::letters;
use crate::noise::Plan;
use crate::secrets::{Pair, Public, SEALED, Source};
use crate::shamir::{self, Secret};
use crate::stream::{Sign, Stream};
use crate::terms::{Bounds, Terms};

/// A client's keys for one round.
pub(crate) struct Keys {
    /// Seals shares.
    pub(crate) sealing: Pair,
    /// Agrees on masks.
    pub(crate) masking: Pair,
}

/// What the aggregator showed a client of a round, and the client accepted.
pub(crate) struct Shown {
    /// The client's position among the members.
    me: usize,
    members: Vec<String>,
    public: Vec<[Public; 2]>,
    pub(crate) terms: Terms,
    pub(crate) transcript: Transcript,
}

/// A client's state after it has dealt its shares.
pub(crate) struct Dealt {
    pub(crate) shown: Shown,
    /// Which members take part: those that signed, if clients sign.
    signed: Vec<bool>,
    /// The seed of the client's own mask.
    seed: Secret,
    /// The client's own shares of its own secrets.
    own: [Secret; 2],
    /// The noise to add, and the generator it is drawn from.
    pub(crate) noise: Option<(Plan, ChaCha20Rng)>,
}

/// The shares of each sender's seed and masking secret, by the sender's position.
pub(crate) type Held = Vec<(usize, [Secret; 2])>;

impl Keys {
    pub(crate) fn new(source: &mut Source) -> Result<Self> {
        Ok(Self { sealing: Pair::of(&source.secret()?), masking: Pair::of(&source.secret()?) })
    }

    pub(crate) fn public(&self) -> [Public; 2] {
        [self.sealing.public, self.masking.public]
    }

    /// Reads what the aggregator shows of the round, and checks that this client accepts it.
    ///
    /// # Errors
    /// If the client is not among the members with its own keys, a member is listed twice or is unknown, or the terms
    /// are below the client's bounds.
    pub(crate) fn look(
        &self,
        members: Vec<String>,
        terms: Terms,
        question: &Message,
        (bounds, identity): (Bounds, Option<&Identity>),
        ctx: &Context<'_>,
    ) -> Result<Shown> {
        bounds.accept(terms, members.len())?;
        identity.map_or(Ok(()), |identity| identity.know(&members))?;
        if let Some((at, name)) = members.iter().enumerate().find(|(at, name)| members[..*at].contains(name)) {
            return Err(Error::other(format!("client `{name}` is listed twice, also as number {at}")));
        }
        let public = letters::rows::<64>(question, members.len())?.iter().map(|row| {
            let [sealing, masking] = [&row[..32], &row[32..]].map(|key| Public::try_from(key).unwrap_or_default());
            [sealing, masking]
        });
        let public: Vec<[Public; 2]> = public.collect();
        let own = self.public();
        let me = members.iter().position(|name| ctx.client() == Some(name)).filter(|&me| public[me] == own);
        let me = me.ok_or_else(|| Error::other("this client's keys are not among those that the aggregator sent"))?;
        let transcript = Transcript::of(ctx.round().unwrap_or_default(), terms, &members, &public);
        Ok(Shown { me, members, public, terms, transcript })
    }

    /// Draws the client's seed, splits its secrets, and returns the message with the other members' shares.
    pub(crate) fn deal(&self, source: &mut Source, shown: Shown, signed: Vec<bool>) -> Result<(Dealt, Message)> {
        let clients = shown.terms.check(shown.members.len())?;
        let seed = source.secret()?;
        let mut shares = |secret: &Secret| -> Result<Vec<Secret>> {
            let coefficients = (1..shown.terms.threshold).map(|_| source.secret()).collect::<Result<Vec<_>>>()?;
            Ok(shamir::split(secret, clients, &coefficients))
        };
        let (seeds, secrets) = (shares(&seed)?, shares(&self.masking.secret())?);
        let seal = |place: usize| match place == shown.me || !signed[place] {
            true => Ok([0; SEALED]),
            false => self.sealing.seal(&shown.public[place][0], [&seeds[place], &secrets[place]]),
        };
        let sealed = (0..shown.members.len()).map(seal).collect::<Result<Vec<_>>>()?;
        let own = [seeds[shown.me].clone(), secrets[shown.me].clone()];
        let noise = match shown.terms.plan(shown.members.len())? {
            Some(plan) => Some((plan, ChaCha20Rng::from_seed(*source.secret()?))),
            None => None,
        };
        Ok((Dealt { shown, signed, seed, own, noise }, letters::with_rows(Message::default(), &sealed)?))
    }

    /// Opens the other members' shares.
    pub(crate) fn keep(&self, dealt: &Dealt, senders: &[usize], question: &Message) -> Result<Held> {
        let (shown, me) = (&dealt.shown, dealt.shown.me);
        let sealed = letters::rows::<SEALED>(question, senders.len())?;
        let known = senders.is_sorted_by(|a, b| a < b) && senders.last().is_some_and(|&last| last < shown.public.len());
        if !known || senders.len() < shown.terms.threshold || !senders.contains(&me) {
            return Err(Error::other("the shares are not from enough clients, including this one"));
        }
        if let Some(&stranger) = senders.iter().find(|&&sender| !dealt.signed[sender]) {
            return Err(Error::other(format!("client `{}` has not signed its keys", shown.members[stranger])));
        }
        let open = |(&sender, sealed): (&usize, &[u8; SEALED])| {
            let shares = match sender == me {
                true => dealt.own.clone(),
                false => self.sealing.open(&shown.public[sender][0], sealed)?,
            };
            Ok((sender, shares))
        };
        senders.iter().zip(sealed).map(open).collect()
    }

    /// The client's masks: its own, and one for each other client that dealt shares.
    pub(crate) fn masks(&self, dealt: &Dealt, held: &Held) -> Result<Vec<(Stream, Sign)>> {
        let me = dealt.shown.me;
        let others = held.iter().map(|(place, _)| *place).filter(|place| *place != me);
        let shared = others.map(|place| {
            let key = self.masking.mask_key(&dealt.shown.public[place][1])?;
            Ok((Stream::new(&key), Sign::between(me, place)))
        });
        [Ok((Stream::new(&dealt.seed), Sign::Plus))].into_iter().chain(shared).collect()
    }
}

impl Shown {
    /// Which members take part: all that signed the same data, or all if nobody signs.
    pub(crate) fn who_signed(&self, identity: Option<&Identity>, question: &Message) -> Result<Vec<bool>> {
        let Some(identity) = identity else { return Ok(vec![true; self.members.len()]) };
        let rows = letters::signatures::<SIGNATURE>(question, self.members.len())
            .map_err(|e| Error::other("the members' signatures do not come with their keys").because(&e))?;
        let signed = identity.who_signed(&self.transcript, &self.members, rows)?;
        let count = signed.iter().filter(|signed| **signed).count();
        let least = self.terms.threshold.max(self.terms.minimum);
        match (signed[self.me], count >= least) {
            (false, _) => Err(Error::other("this client's own signature is not among those that the aggregator sent")),
            (_, false) => {
                Err(Error::other(format!("only {count} of the members signed their keys, but {least} are needed")))
            }
            _ => Ok(signed),
        }
    }
}

impl Dealt {
    /// Checks that enough updates arrived, all from senders, and this client's among them.
    pub(crate) fn accept(&self, held: &Held, arrived: &[usize], bounds: Bounds) -> Result<()> {
        let known = arrived.iter().all(|place| held.iter().any(|(sender, _)| sender == place));
        if !known || !arrived.is_sorted_by(|a, b| a < b) || !arrived.contains(&self.shown.me) {
            return Err(Error::other(
                "the list of updates that arrived is out of order, lacks this client or names clients that dealt no \
                 shares",
            ));
        }
        let least = self.shown.terms.threshold.max(bounds.minimum);
        if arrived.len() < least {
            let count = format!("the updates of {} clients arrived, fewer than {least}", arrived.len());
            return Err(Error::other(count));
        }
        Ok(())
    }

    /// Checks that enough clients signed the same list of arrived updates as this client.
    pub(crate) fn agreed(
        &self,
        identity: &Identity,
        (arrived, global): (&[usize], [u8; 32]),
        question: &Message,
        bounds: Bounds,
    ) -> Result<()> {
        let rows = letters::signatures::<AGREED>(question, arrived.len())
            .map_err(|e| Error::other("the clients' signatures do not come with the list of updates").because(&e))?;
        let Shown { transcript, members, terms, .. } = &self.shown;
        let (agreed, trained) = identity.who_agreed(transcript, members, (arrived, global), rows)?;
        for (count, least, did) in [
            (agreed, terms.threshold, "signed the same list of updates"),
            (trained, terms.minimum.max(bounds.minimum), "signed that they trained"),
        ] {
            if count < least {
                return Err(Error::other(format!("only {count} of the members {did}, but {least} are needed"))
                    .help("this client withholds its shares, so the sum stays masked"));
            }
        }
        Ok(())
    }

    /// For each sender, one of the two shares that this client holds.
    pub(crate) fn give(&self, held: &Held, arrived: &[usize]) -> Result<Message> {
        let share = |(sender, [seed, secret]): &(usize, [Secret; 2])| {
            if arrived.contains(sender) { **seed } else { **secret }
        };
        letters::with_rows(Message::default(), &held.iter().map(share).collect::<Vec<_>>())
    }
}
