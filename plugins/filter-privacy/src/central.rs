//! The aggregator: adds noise once, to the sum. See the [crate's page](crate#the-aggregator).

mod account;
mod clipping;
mod config;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use plugin_api::{Aggregator, Cohort, Context, Error, Message, Params, Result, Sampling, State, Update as Sent};

use self::account::Account;
use self::clipping::Clipping;
pub use self::config::{AdaptiveClip, CentralConfig, Clip};
use crate::lattice::{Lattice, NoiseKind};
use crate::noise::Noise;
use crate::update::Update;

/// Sums in lattice steps stay below this, and so are exact in f64.
const LARGEST_SUM: f64 = (1_u64 << 52) as f64;

/// Sums clipped updates, and adds noise to the sum.
pub struct Central {
    config: CentralConfig,
    lattice: Lattice,
    clipping: Clipping,
    noise: Noise,
    account: Account,
    round: Round,
    told: bool,
}

/// The state of a round.
#[derive(Default)]
struct Round {
    global: Message,
    /// The offset of each floating-point parameter's elements in the sum.
    starts: BTreeMap<String, usize>,
    sum: Vec<i64>,
    /// The clients whose updates may still arrive.
    waiting: BTreeSet<String>,
    sampling: Option<Sampling>,
    /// The expected number of clients in a round; the sum is divided by it, whoever took part.
    expected: f64,
    /// The parameters that some client sent.
    sent: BTreeSet<String>,
    /// Whether every client takes part.
    everybody: bool,
}

impl Central {
    /// Creates an aggregator before the first round.
    ///
    /// # Errors
    /// If there is too much noise, or the operating system has no entropy.
    pub fn new(config: CentralConfig, _: &Context<'_>) -> Result<Self> {
        let (clipping, rest) = Clipping::new(config.clip, config.noise_multiplier, config.noise)?;
        let noise = Noise::new(config.reproducible)?;
        let lattice = Lattice::new(rest, config.noise)?;
        let (account, round) = (Account::default(), Round::default());
        Ok(Self { config, lattice, clipping, noise, account, round, told: false })
    }

    /// The next global model: the old one plus the noisy mean.
    pub(crate) fn release(&mut self, ctx: &Context<'_>) -> Result<Params> {
        let rng = self.noise.generator(ctx);
        let round = &self.round;
        let step = self.config.learning_rate * self.clipping.norm / f64::from(self.lattice.steps()) / round.expected;
        let mut sums = round.sum.iter();
        let params = Update::of(&round.global, &round.global)?
            .changed(ctx, |_| self.lattice.noisy(sums.next().copied().unwrap_or_default(), rng) * step)?;
        if self.clipping.is_adaptive() {
            ctx.scalar("Privacy/clip", ctx.round().unwrap_or_default(), self.clipping.norm);
            self.clipping.adapt(round.expected, rng)?;
        }
        Ok(self.without_private(params, ctx))
    }

    /// Reports the guarantee so far.
    fn report(&self, sampling: Sampling, ctx: &Context<'_>) {
        let note = |text: &str| {
            if self.config.reproducible {
                ctx.note("privacy", format_args!("no protection, since the noise is reproducible; else {text}"));
            } else {
                ctx.note("privacy", format_args!("{text}"));
            }
        };
        let multiplier = self.clipping.joint(&self.lattice);
        let epsilon = self.account.epsilon(multiplier, sampling, self.config.delta);
        if !epsilon.is_finite() {
            return note("clipped without noise: epsilon is infinite");
        }
        ctx.scalar("Privacy/epsilon", ctx.round().unwrap_or_default(), epsilon);
        let (delta, rounds) = (self.config.delta, counted(self.account.rounds()));
        let how = match sampling {
            Sampling::Poisson(rate) => format!("each client took part in each with probability {rate}, in secret"),
            Sampling::Fixed => {
                format!("the draw is predictable, and no client was in more than {}", counted(self.account.most()))
            }
        };
        note(&format!(
            "epsilon {epsilon:.4} at delta {delta:e} for the global models of {rounds}, for all of a client's updates against \
             none; {how}{}. The server is trusted: it receives unprotected updates",
            self.account.explained()
        ));
        if self.config.noise == NoiseKind::Gaussian {
            ctx.note("privacy.clear", format_args!("the low bits of floating-point noise"));
        }
    }

    /// Removes private parameters from the next global model: those that no client sent although every client took
    /// part. If some clients are absent, by a draw that may be secret, a parameter cannot be known to be private.
    fn without_private(&mut self, params: Params, ctx: &Context<'_>) -> Params {
        let Round { sent, everybody, waiting, starts, .. } = &self.round;
        let unsent = || starts.keys().filter(|name| !sent.contains(*name));
        let Some(first) = unsent().next() else { return params };
        if *everybody && waiting.is_empty() {
            let stays = |name: &str| !starts.contains_key(name) || sent.contains(name);
            let params = params.iter().filter(|(name, _)| stays(name));
            return params.map(|(name, tensor)| (name, tensor.clone())).collect();
        }
        if !sent.is_empty() && !std::mem::replace(&mut self.told, true) {
            let more = unsent().count() - 1;
            ctx.warn(format_args!(
                "no client of this round sent `{first}`, nor {more} other parameters, which get noise nevertheless; if \
                 clients keep them to themselves, `exclude-params` must also be at `server-output`"
            ));
        }
        params
    }
}

fn counted(rounds: u64) -> String {
    format!("{rounds} round{}", if rounds == 1 { "" } else { "s" })
}

impl Aggregator for Central {
    fn begin(&mut self, global: &Message, cohort: &Cohort, ctx: &Context<'_>) -> Result<()> {
        let sampling = ctx.property("sampling")?.unwrap_or(Sampling::Fixed);
        #[expect(clippy::cast_precision_loss, reason = "a number of clients")]
        let (expected, most) = match sampling {
            Sampling::Fixed => (cohort.clients.len() as f64, cohort.clients.len() as f64),
            Sampling::Poisson(rate) => (rate * cohort.population as f64, cohort.population as f64),
        };
        if most * f64::from(self.lattice.steps()) >= LARGEST_SUM {
            return Err(Error::config(format!("the sum over {most} clients does not fit in 52 bits"))
                .at_key("noise-multiplier")
                .help("more noise takes fewer bits"));
        }
        let update = Update::of(global, global)?;
        let mut starts = BTreeMap::new();
        let mut size = 0;
        for pair in update.pairs().filter(|pair| pair.is_float()) {
            starts.insert(pair.name().to_owned(), size);
            size += pair.len();
        }
        self.account.begin(&cohort.clients, sampling, ctx)?;
        self.clipping.begin();
        let everybody = match sampling {
            Sampling::Fixed => cohort.clients.len() == cohort.population,
            Sampling::Poisson(rate) => rate >= 1.0,
        };
        self.round = Round {
            global: global.clone(),
            starts,
            sum: vec![0; size],
            waiting: cohort.clients.iter().cloned().collect(),
            sampling: Some(sampling),
            expected,
            sent: BTreeSet::new(),
            everybody,
        };
        Ok(())
    }

    fn add(&mut self, sent: Sent, ctx: &Context<'_>) -> Result<()> {
        let round = &mut self.round;
        // A second update from one client would move the sum by more than the account covers.
        if !round.waiting.contains(&sent.client) {
            return Err(Error::other(format!("client `{}` has sent an update, or was not selected", sent.client)));
        }
        let update = Update::of(&sent.message, &round.global)?;
        let norm = update.norm()?;
        ctx.check()?;
        let rounding = self.lattice.rounding(&update, norm, self.clipping.norm)?;
        for pair in update.pairs() {
            let Some(&start) = round.starts.get(pair.name()) else { continue };
            let mut sums = round.sum[start..].iter_mut();
            pair.each(|x| {
                if let Some(sum) = sums.next() {
                    *sum += rounding.integer(x);
                }
            })?;
            round.sent.insert(pair.name().to_owned());
        }
        self.clipping.count(norm);
        round.waiting.remove(&sent.client);
        Ok(())
    }

    fn finish(&mut self, ctx: &Context<'_>) -> Result<Message> {
        let Some(sampling) = self.round.sampling else {
            return Err(Error::other("`finish` was called before `begin`"));
        };
        let params = self.release(ctx)?;
        self.report(sampling, ctx);
        self.round = Round::default();
        Ok(params.into())
    }

    fn state(&mut self, _: &Context<'_>) -> Result<State> {
        let mut state = State::default();
        if self.account != Account::default() {
            let account = serde_json::to_value(&self.account);
            let account = account.map_err(|e| Error::other("the account cannot be written").because(&e))?;
            state.values.insert("account".to_owned(), account);
            state.values.insert("clip".to_owned(), self.clipping.norm.into());
        }
        Ok(state)
    }

    fn restore(&mut self, state: &State, ctx: &Context<'_>) -> Result<()> {
        if state.is_empty() {
            let noise = std::mem::replace(&mut self.noise, Noise::new(self.config.reproducible)?);
            *self = Self { noise, ..Self::new(self.config.clone(), ctx)? };
            return Ok(());
        }
        let (account, norm) = (state.value("account")?, state.value("clip")?);
        (self.account, self.clipping.norm, self.round) = (account, norm, Round::default());
        Ok(())
    }
}
