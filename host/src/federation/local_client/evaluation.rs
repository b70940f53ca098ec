//! What a local client evaluates and predicts.

use std::sync::PoisonError;
use std::time::Instant;

use plugin_api::{Context, Error, Message, Model, Received, Table, TargetKind, Task};

use super::LocalClient;
use crate::artefacts::tracking::{Scalar, now};
use crate::federation::client::{Client as _, CrossEvaluation, EvaluationOutcome, Order};
use crate::federation::component_error::ComponentError;
use crate::federation::model_evaluation::{ClientTasks, ModelEvaluation};
use crate::federation::predictions::{Predicted, Rows};
use crate::federation::services::{CallScope, HostServices};
use crate::federation::usage::{Spent, Traffic};
use crate::plugins::validate;

impl LocalClient {
    /// Passes the filtered global model to the client's model.
    pub(super) fn receive(&mut self, base: &Message, ctx: &Context<'_>) -> Result<(), ComponentError> {
        let model = self.model.get_mut(ctx);
        let received = model.and_then(|model| model.receive(base, ctx)).map_err(|e| self.identity.fault(e))?;
        log_received(&received, ctx);
        Ok(())
    }

    /// Evaluates the model as it is.
    pub(super) fn evaluation(
        &mut self,
        ctx: &Context<'_>,
        services: &HostServices<'_>,
    ) -> Result<ModelEvaluation, ComponentError> {
        let model = self.model.get(ctx).map_err(|e| self.identity.fault(e))?;
        let begun = Instant::now();
        let found = evaluate(model, &self.tasks, ctx, services);
        self.spent.evaluation += begun.elapsed().as_secs_f64();
        found.map_err(|e| self.identity.fault(e))
    }

    /// Reports the evaluation of the `global` or the `local` model under `Loss/global_test`, `RMSE/global_validation` and
    /// so on. With several tasks, the task's name is appended.
    pub(super) fn report(&self, found: &ModelEvaluation, which: &str, round: u64, services: &HostServices<'_>) {
        let several = self.tasks.all.len() > 1;
        let all = found.named().into_iter().flat_map(|(rows, found)| found.iter().map(move |one| (rows, one)));
        for (rows, evaluation) in all {
            let tag = format!("{which}_{rows}");
            let suffix = if several { format!("_{}", evaluation.task) } else { String::new() };
            let scalar = |name: &str, value: f64| {
                let tag = validate::tag(&format!("{name}/{tag}{suffix}")).into_owned();
                let (client, step, time) = (Some(self.identity.index), self.position, now());
                // Only scalars of a round may have to be reported again after a resume.
                if self.round_start.is_some() {
                    let mut trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
                    trace.push(&tag, step, value, time);
                }
                services.reporter.scalar_of(Scalar { client, round, tag, step, value }, time);
            };
            scalar("Loss", evaluation.loss);
            for metric in &evaluation.metrics {
                scalar(&metric.name, metric.value);
            }
        }
    }

    /// Evaluates and reports the current model, unless the experiment turns reports off.
    pub(super) fn evaluate_in_round(
        &mut self,
        which: &str,
        scope: &CallScope<'_>,
        services: &HostServices<'_>,
    ) -> Result<ModelEvaluation, ComponentError> {
        if !services.terms.reports {
            return Ok(ModelEvaluation::default());
        }
        let scope = scope.calling("evaluate");
        let ctx = scope.context();
        let found = self.evaluation(&ctx, services)?;
        self.report(&found, which, ctx.round().unwrap_or_default(), services);
        Ok(found)
    }

    /// Evaluates the last global model. The model's own parameters are overwritten by those it receives.
    pub(super) fn evaluate_last(
        &mut self,
        order: &Order,
        services: &HostServices<'_>,
    ) -> Result<ModelEvaluation, ComponentError> {
        self.guarded(None, services, |client| {
            let me = client.identity.clone();
            let scope = me.scope(services, Some(order.round));
            let base = client.filters.input.apply(order.global.clone(), &order.global, &scope)?;
            client.receive(&base, &scope.context())?;
            let global = client.evaluation(&scope.context(), services)?;
            client.report(&global, "global", order.round, services);
            Ok(global)
        })
    }

    /// Evaluates a global model, then restores the client's filters and model.
    pub(super) fn evaluate_and_restore(
        &mut self,
        order: &Order,
        services: &HostServices<'_>,
    ) -> Result<EvaluationOutcome, ComponentError> {
        let me = self.identity.clone();
        let scope = me.scope(services, Some(order.round));
        let states = self.filters.input.states(&scope)?;
        let base = self.filters.input.apply(order.global.clone(), &order.global, &scope);
        self.filters.input.restore(&states, &scope)?;
        let (base, tasks, mut spent) = (base?, &self.tasks, Spent::default());
        let found = self.model.restoring(&scope, |model, ctx| {
            model.receive(&base, ctx)?;
            let begun = Instant::now();
            let found = evaluate(model, tasks, ctx, services);
            spent.evaluation = begun.elapsed().as_secs_f64();
            found
        });
        let global = found.map_err(|e| me.fault(e))?;
        self.report(&global, "global", order.round, services);
        let traffic = Traffic { received: order.global.bytes() as u64, sent: 0 };
        scope.context().scalar("Bytes/received", self.position, traffic.received as f64);
        self.release(services)?;
        Ok(EvaluationOutcome { global, traffic, spent })
    }

    /// Evaluates the order's model in place of the client's own, then restores the client's own.
    pub(super) fn evaluate_in_place(
        &mut self,
        order: &Order,
        services: &HostServices<'_>,
    ) -> Result<CrossEvaluation, ComponentError> {
        let me = self.identity.clone();
        let scope = me.scope(services, Some(order.round));
        let other = self.filters.input.apply(order.global.clone(), &order.global, &scope)?;
        let scope = me.scope(services, None);
        let ctx = scope.context();
        // Call `get` and not `get_mut`: the model is restored below, so its state on disk stays valid.
        let model = self.model.get(&ctx).map_err(|e| me.fault(e))?;
        let own = model.state(&ctx).map_err(|e| me.fault(e))?;
        let found = self.evaluate_received(&other, &ctx, services);
        self.model.get(&ctx).and_then(|model| model.restore(&own, &ctx)).map_err(|e| me.fault(e))?;
        found
    }

    /// Lets the client's model receive another one and evaluates it, unless the result would say nothing about that one.
    fn evaluate_received(
        &mut self,
        other: &Message,
        ctx: &Context<'_>,
        services: &HostServices<'_>,
    ) -> Result<CrossEvaluation, ComponentError> {
        let model = self.model.get(ctx);
        let received = model.and_then(|model| model.receive(other, ctx)).map_err(|e| self.identity.fault(e))?;
        log_received(&received, ctx);
        let unsupported = |what: &str| Err(ComponentError::new(String::new(), plugin_api::Error::unsupported(what)));
        if received.unexpected.len() == other.params.len() {
            return unsupported("none of its parameters are sent");
        }
        // Untrained parameters still have their initial values and would make any model look bad.
        if !received.missing.is_empty() && self.position == 0 {
            return unsupported("the client has not trained, so it has no parameters to complete the model with");
        }
        Ok(CrossEvaluation { evaluations: self.evaluation(ctx, services)?.test, own: received.missing })
    }

    /// Predicts the test rows of each task.
    pub(super) fn predictions(&mut self, services: &HostServices<'_>) -> Result<Vec<Predicted>, ComponentError> {
        let me = self.identity.clone();
        let scope = me.scope(services, None).calling("predict");
        let ctx = scope.context();
        let model = self.model.get(&ctx).map_err(|e| me.fault(e))?;
        let predicted = |Task { spec, train, test }: &Task| {
            if spec.target_kind == TargetKind::None {
                return Err(Error::unsupported("the tasks have no target to predict"));
            }
            let values = match test.rows() {
                0 => Table::new(),
                _ => validate::predictions(&spec.name, test, model.predict(&spec.name, test, &ctx)?)?,
            };
            let (train, test) = (Rows::of(train, &spec.target)?, Rows::of(test, &spec.target)?);
            Ok(Predicted { task: spec.name.clone(), train, test, values })
        };
        self.tasks.all.iter().map(predicted).collect::<plugin_api::Result<_>>().map_err(|e| me.fault(e))
    }
}

/// Evaluates a model on the test rows and on the rows for validation.
fn evaluate(
    model: &mut dyn Model,
    tasks: &ClientTasks,
    ctx: &Context<'_>,
    services: &HostServices<'_>,
) -> plugin_api::Result<ModelEvaluation> {
    let mut on = |tasks: &[Task]| {
        let found = model.evaluate(tasks, ctx)?;
        validate::evaluations(tasks, found, services.terms.score.as_deref())
    };
    let test = on(&tasks.all)?;
    let validation = if tasks.validation.is_empty() { Vec::new() } else { on(&tasks.validation)? };
    Ok(ModelEvaluation { test, validation })
}

/// Logs which tensors of a message the model ignored and which were missing.
fn log_received(received: &Received, ctx: &Context<'_>) {
    ctx.debug(format_args!("ignored {:?} and did not get {:?}", received.unexpected, received.missing));
}
