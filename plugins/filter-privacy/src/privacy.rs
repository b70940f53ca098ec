//! The client side: one update is protected by the configured mechanism.

use plugin_api::{Context, Error, Filter, Message, Params, Result, State};

use crate::budget::Limit;
use crate::config::{Config, Plan};
use crate::counts::Counts;
use crate::gaussian::Gaussian;
use crate::noise::Noise;
use crate::percentile::Percentile;
use crate::sparse_vector::SparseVector;
use crate::update::Update;

/// Protects a client's update by the configured mechanism.
pub struct Privacy {
    plan: Plan,
    /// The limit of the mechanism `gaussian`, if there is one.
    limit: Option<Limit>,
    noise: Noise,
    counts: Counts,
}

impl Privacy {
    /// Creates a filter before the first round.
    ///
    /// # Errors
    /// If the keys do not fit the mechanism, the filter is at a position where no client's update passes, or the
    /// operating system has no entropy.
    pub fn new(config: Config, ctx: &Context<'_>) -> Result<Self> {
        let position: Option<String> = ctx.property("filter.position")?;
        if let Some(position) = position.filter(|at| !["client-output", "server-input"].contains(&at.as_str())) {
            let error = Error::config(format!("protects nothing at `{position}`, where no client's update passes"));
            return Err(error
                .at_key("at")
                .help("place it at `client-output`, or at `server-input` of a trusted server"));
        }
        let noise = Noise::new(config.reproducible.unwrap_or(false))?;
        let plan = config.plan()?;
        let limit = match (&plan, &config.budget) {
            (Plan::Gaussian(gaussian), Some(budget)) => Some(Limit::new(budget, gaussian, noise.reproducible())?),
            _ => None,
        };
        Ok(Self { plan, limit, noise, counts: Counts::default() })
    }
}

impl Filter for Privacy {
    fn apply(&mut self, message: Message, base: &Message, ctx: &Context<'_>) -> Result<Message> {
        let (Some(client), Some(round)) = (ctx.client(), ctx.round()) else {
            return Err(Error::unsupported("protects the update of a client in a round, but there is none"));
        };
        let update = Update::of(&message, base)?;
        let mut call = Call { update: &update, client, round, noise: &mut self.noise, counts: &mut self.counts, ctx };
        let params = match &self.plan {
            Plan::Gaussian(gaussian) => call.gaussian(gaussian, self.limit.as_ref())?,
            Plan::SparseVector(sparse_vector) => call.sparse_vector(sparse_vector)?,
            Plan::Percentile(percentile) => call.percentile(percentile)?,
        };
        Ok(Message { params, ..message })
    }

    fn state(&mut self, _: &Context<'_>) -> Result<State> {
        self.counts.state()
    }

    fn restore(&mut self, state: &State, _: &Context<'_>) -> Result<()> {
        self.counts = Counts::of(state)?;
        Ok(())
    }
}

/// One client's update in one round, with what a mechanism draws from and counts in.
struct Call<'a> {
    update: &'a Update<'a>,
    client: &'a str,
    round: u64,
    noise: &'a mut Noise,
    counts: &'a mut Counts,
    ctx: &'a Context<'a>,
}

impl Call<'_> {
    fn gaussian(&mut self, gaussian: &Gaussian, limit: Option<&Limit>) -> Result<Params> {
        let (round, ctx) = (self.round, self.ctx);
        let (params, norm) = gaussian.apply(self.update, self.noise.generator(ctx), ctx)?;
        if let Some(limit) = limit {
            limit.spend(gaussian, self.counts.next(self.client, ctx)?, ctx)?;
        }
        let clipped = gaussian.clips(norm);
        let count = self.counts.add(self.client, ctx)?;
        let epsilon = gaussian.epsilon(count.rounds);
        ctx.scalar("Privacy/norm", round, norm);
        ctx.scalar("Privacy/clipped", round, f64::from(u8::from(clipped)));
        if epsilon.is_finite() {
            ctx.scalar("Privacy/epsilon", round, epsilon);
        }
        let text = gaussian.guarantee(count.rounds) + &count.explained();
        let was = if clipped { "clipped" } else { "not clipped" };
        ctx.debug(format_args!("round {}: the update's norm of {norm:.4e} was {was}; {text}", round + 1));
        self.note(&text);
        ctx.note("privacy.clear", format_args!("norms of updates before noise, and whether they were clipped"));
        Ok(params)
    }

    fn sparse_vector(&mut self, sparse_vector: &SparseVector) -> Result<Params> {
        let (params, shared) = sparse_vector.apply(self.update, self.noise.generator(self.ctx), self.ctx)?;
        let count = self.counts.add(self.client, self.ctx)?;
        self.report_shared(shared);
        let epsilon = sparse_vector.textbook_epsilon(self.update.len());
        let (rounds, plural) = (count.rounds, if count.rounds == 1 { "" } else { "s" });
        let text = format!(
            "no proven guarantee after {rounds} round{plural}; a textbook sparse vector with this noise would have epsilon \
             {epsilon:.4} in each{}",
            count.explained()
        );
        self.note(&text);
        Ok(params)
    }

    fn percentile(&self, percentile: &Percentile) -> Result<Params> {
        let (params, shared) = percentile.apply(self.update, self.ctx)?;
        self.report_shared(shared);
        self.note("the largest updates are sent without noise: no differential privacy");
        Ok(params)
    }

    fn report_shared(&self, shared: usize) {
        let count = self.update.len();
        self.ctx.debug(format_args!("round {}: {shared} of {count} updates are shared", self.round + 1));
        #[expect(clippy::cast_precision_loss, reason = "a number of elements that lie in memory")]
        self.ctx.scalar("Privacy/shared", self.round, shared as f64);
    }

    /// Adds a note to the summary, which also says if the noise is reproducible and so gives no protection.
    fn note(&self, text: &str) {
        if self.noise.reproducible() {
            self.ctx.note("privacy", format_args!("no protection, since the noise is reproducible; else {text}"));
        } else {
            self.ctx.note("privacy", format_args!("{text}"));
        }
    }
}
