//! A client at its own site, as the server sees it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plugin_api::Message;

use crate::artefacts::tracking::Scalar;
use crate::federation::admission::Admission;
use crate::federation::client::{
    Client, ClientState, CrossEvaluation, EvaluationOutcome, LastEvaluation, Order, Outcome,
};
use crate::federation::component_error::ComponentError;
use crate::federation::services::HostServices;
use crate::plugins::validate;
use crate::sites::protocol::{Call, Payload, Reply, Report, Request, Response};
use crate::sites::transport::{Parcel, Transport, never};
use crate::terminal::signals::Pause;

/// A client at its own site.
pub(crate) struct RemoteClient {
    name: String,
    index: usize,
    transport: Arc<dyn Transport>,
    admission: Arc<Admission>,
    /// The last round in which this client's update was aggregated into the global model.
    last_aggregated: Option<u64>,
    /// The number of rounds after which the site has its state: the last one that it trained, plus one.
    trained: u64,
    /// The number of calls since the site last trained.
    calls: AtomicU64,
}

impl RemoteClient {
    /// Creates the client of a site.
    pub(crate) fn new(name: String, index: usize, transport: Arc<dyn Transport>, admission: Arc<Admission>) -> Self {
        Self { name, index, transport, admission, last_aggregated: None, trained: 0, calls: AtomicU64::new(0) }
    }

    /// Its index in the order of aggregation.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Calls the site. `stops` ends the wait, as does the end of the run.
    pub(crate) fn call(
        &self,
        request: Request,
        stops: &(dyn Fn() -> bool + Sync),
        services: &HostServices<'_>,
    ) -> Result<Response, ComponentError> {
        let (stop, what) = (services.stop, request.name());
        let call = Call { request, last_aggregated: self.last_aggregated };
        let cancelled = || stop.load(Ordering::Relaxed) || stops();
        let admit = || self.admission.wait(self.index);
        let called = call.into_payload().map_err(|e| self.fault(e)).and_then(|payload| {
            let parcel = Parcel { site: &self.name, what, key: self.key(what), payload };
            self.transport.call(parcel, &cancelled, &admit).map_err(|e| self.fault(e.into_error()))
        });
        let Reply { report, result } = called.and_then(|payload: Payload| {
            Reply::read(payload).map_err(|e| self.fault(e.because_of(format!("in the reply to `{what}`"))))
        })?;
        self.pass_on(report, services);
        result.map_err(ComponentError::of_another_host)
    }

    /// Tells a call from all others: it holds what the site has done before.
    fn key(&self, what: &str) -> String {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        format!("{what}-{}-{calls}", self.trained)
    }

    /// Passes on what the site's components reported.
    fn pass_on(&self, report: Report, services: &HostServices<'_>) {
        for (round, trace) in &report.scalars {
            for (tag, step, value, time) in trace.iter() {
                let tag = validate::tag(tag).into_owned();
                let scalar = Scalar { client: Some(self.index), round: *round, tag, step, value };
                services.reporter.scalar_of(scalar, time);
            }
        }
        for note in report.notes {
            services.notes.set(&self.name, &note.who, &validate::tag(&note.key), &validate::line(&note.text));
        }
        for line in report.warnings {
            let line = validate::line(&line);
            services.console.log_from(plugin_api::Level::Warn, &format!("site {}, ", self.name), &line);
        }
    }

    fn fault(&self, error: plugin_api::Error) -> ComponentError {
        ComponentError::new(format!("site `{}`", self.name), error)
    }

    fn unexpected(&self) -> ComponentError {
        self.fault(plugin_api::Error::data("its reply answers another question"))
    }
}

impl Client for RemoteClient {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&mut self, _: u64, _: &HostServices<'_>) {}

    fn round(
        &mut self,
        order: &Order,
        pause: &Pause,
        services: &HostServices<'_>,
    ) -> Result<Option<Outcome>, ComponentError> {
        // The site works while the server waits, so there is nothing to save in a pause, but a stop ends the wait.
        if pause.is_stop() {
            return Ok(None);
        }
        let place = self.admission.enter(self.index);
        match self.call(Request::Train(order.clone()), &|| pause.is_stop(), services) {
            Ok(Response::Outcome(outcome)) => {
                self.trained = order.round + 1;
                self.calls.store(0, Ordering::Relaxed);
                for _ in 0..order.epochs {
                    services.console.epoch_done(self.index);
                }
                Ok(Some(Outcome { place: Some(Arc::new(place)), ..outcome }))
            }
            Ok(_) => Err(self.unexpected()),
            Err(fault) if fault.is_cancelled() && pause.is_stop() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn close(&mut self) {}

    fn evaluate_idle(
        &mut self,
        order: &Order,
        services: &HostServices<'_>,
    ) -> Result<EvaluationOutcome, ComponentError> {
        match self.call(Request::EvaluateIdle(order.clone()), &never, services)? {
            Response::Evaluated(found) => Ok(found),
            _ => Err(self.unexpected()),
        }
    }

    fn answer(
        &mut self,
        question: &Message,
        round: u64,
        services: &HostServices<'_>,
    ) -> Result<Message, ComponentError> {
        match self.call(Request::Answer { round, question: question.clone() }, &never, services)? {
            Response::Message(message) => Ok(message),
            _ => Err(self.unexpected()),
        }
    }

    fn publish(&mut self, order: &Order, services: &HostServices<'_>) -> Result<Message, ComponentError> {
        match self.call(Request::Publish(order.clone()), &never, services)? {
            Response::Message(message) => Ok(message),
            _ => Err(self.unexpected()),
        }
    }

    fn evaluate_other(
        &mut self,
        order: &Order,
        services: &HostServices<'_>,
    ) -> Result<CrossEvaluation, ComponentError> {
        match self.call(Request::EvaluateOther(order.clone()), &never, services)? {
            Response::CrossEvaluated(found) => Ok(found),
            _ => Err(self.unexpected()),
        }
    }

    fn update_aggregated(&mut self, round: u64) {
        self.last_aggregated = Some(round);
    }

    fn save_model(&mut self, _: &Path, services: &HostServices<'_>) -> Result<(), ComponentError> {
        match self.call(Request::SaveModel, &never, services)? {
            Response::Done => Ok(()),
            _ => Err(self.unexpected()),
        }
    }

    fn finish(&mut self, order: &Order, services: &HostServices<'_>) -> Result<LastEvaluation, ComponentError> {
        match self.call(Request::Finish(order.clone()), &never, services)? {
            Response::Finished(evaluation) => Ok(LastEvaluation { evaluation, predictions: None }),
            _ => Err(self.unexpected()),
        }
    }

    fn leave(&mut self, services: &HostServices<'_>) {
        // The results stand whether or not the site hears that the run is over.
        if let Err(fault) = self.call(Request::Leave, &never, services) {
            let line = fault.report("end of the run").line();
            services.console.log(plugin_api::Level::Warn, &line);
        }
    }

    fn save(&mut self, _: &HostServices<'_>) -> Result<ClientState, ComponentError> {
        let last_aggregated = self.last_aggregated;
        Ok(ClientState { trained_at_site: Some(self.trained), last_aggregated, ..ClientState::default() })
    }

    fn restore(&mut self, saved: ClientState, _: &HostServices<'_>) -> Result<(), ComponentError> {
        // The site itself was asked to return to this state when the run started.
        self.last_aggregated = saved.last_aggregated;
        self.trained = saved.trained_at_site.unwrap_or_default();
        Ok(())
    }

    fn release(&mut self, _: &HostServices<'_>) -> Result<(), ComponentError> {
        Ok(())
    }
}
