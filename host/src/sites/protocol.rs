//! What the server asks of a site, and what the site answers: plain data, with tensors beside it.

use plugin_api::{ClientSpec, Scale, Source};
use plugin_api::{Message, Params, TaskSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::federation::client::{CrossEvaluation, EvaluationOutcome, Order, Outcome};
use crate::federation::component_error::ComponentError;
use crate::federation::exact;
use crate::federation::model_evaluation::ModelEvaluation;
use crate::federation::notes::Note;
use crate::federation::trace::Trace;

/// A call or its reply as it travels: JSON, and tensors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Payload {
    /// The JSON part.
    pub body: Value,
    /// A message's parameters.
    pub params: Params,
    /// A message's other tensors.
    pub extra: Params,
}

impl Payload {
    fn new(body: &impl Serialize, message: Option<&mut Message>) -> plugin_api::Result<Self> {
        let body = serde_json::to_value(body).map_err(|e| unreadable(&e))?;
        let (params, extra) = message.map(|m| (m.params.clone(), m.extra.clone())).unwrap_or_default();
        Ok(Self { body, params, extra })
    }

    fn attach(self, message: Option<&mut Message>) -> plugin_api::Result<()> {
        match message {
            Some(message) => (message.params, message.extra) = (self.params, self.extra),
            None if self.params.is_empty() && self.extra.is_empty() => {}
            None => return Err(plugin_api::Error::data("tensors came with a message that has none")),
        }
        Ok(())
    }
}

fn unreadable(error: &serde_json::Error) -> plugin_api::Error {
    plugin_api::Error::data("a message between server and site cannot be read").because(error)
}

/// A call of the server to a site.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    /// What the site is to do.
    pub request: Request,
    /// The last round in which the site's update was aggregated into the global model.
    #[serde(default)]
    pub last_aggregated: Option<u64>,
}

/// What a site is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Consider an experiment, and describe the data.
    Describe(Offer),
    /// Get ready for the first round, or to resume.
    Start(Start),
    /// Train.
    Train(Order),
    /// Evaluate the global model of a round without training.
    EvaluateIdle(Order),
    /// Answer the aggregator's question.
    Answer {
        /// The round, from zero.
        round: u64,
        /// The question.
        #[serde(with = "exact::without_tensors")]
        question: Message,
    },
    /// Send the site's own model, filtered like an update.
    Publish(Order),
    /// Evaluate another site's model.
    EvaluateOther(Order),
    /// Write the site's own model to the site's own folder.
    SaveModel,
    /// Evaluate the last global model, and write predictions to the site's own folder.
    Finish(Order),
    /// Forget the run; nothing more will be asked.
    Leave,
}

impl Request {
    fn message(&mut self) -> Option<&mut Message> {
        match self {
            Self::Train(order)
            | Self::EvaluateIdle(order)
            | Self::Publish(order)
            | Self::EvaluateOther(order)
            | Self::Finish(order) => Some(&mut order.global),
            Self::Answer { question, .. } => Some(question),
            Self::Describe(_) | Self::Start(_) | Self::SaveModel | Self::Leave => None,
        }
    }

    /// The request's name, for logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Describe(_) => "describe",
            Self::Start(_) => "start",
            Self::Train(_) => "train",
            Self::EvaluateIdle(_) => "evaluate",
            Self::Answer { .. } => "answer",
            Self::Publish(_) => "publish",
            Self::EvaluateOther(_) => "evaluate_other",
            Self::SaveModel => "save_model",
            Self::Finish(_) => "finish",
            Self::Leave => "leave",
        }
    }

    /// The round that the request belongs to, if it is part of one.
    pub(crate) fn round(&self) -> Option<u64> {
        match self {
            Self::Train(order) => Some(order.round),
            Self::Answer { round, .. } => Some(*round),
            _ => None,
        }
    }
}

impl Call {
    /// The form that travels.
    ///
    /// # Errors
    /// If a value cannot be serialised.
    pub(crate) fn into_payload(mut self) -> plugin_api::Result<Payload> {
        let body = serde_json::to_value(&self).map_err(|e| unreadable(&e))?;
        Payload::new(&body, self.request.message())
    }

    /// Reads a call.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn read(mut payload: Payload) -> plugin_api::Result<Self> {
        let mut call: Self = serde_json::from_value(payload.body.take()).map_err(|e| unreadable(&e))?;
        payload.attach(call.request.message())?;
        Ok(call)
    }
}

/// An experiment that the server offers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Offer {
    /// The effective experiment as TOML.
    pub experiment: String,
    /// The SHA-256 of this text.
    pub digest: String,
    /// The names of all clients, in the order of aggregation.
    pub clients: Vec<String>,
    /// The version of the server's program.
    pub version: String,
}

/// What a site has for an experiment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Contribution {
    /// The tasks of the site's dataset, in its order.
    pub tasks: Vec<TaskSpec>,
    /// The site's own tasks with their numbers of rows.
    pub client: ClientSpec,
    /// The scales of standardised targets.
    pub scales: BTreeMap<String, Scale>,
    /// The files, without their folders.
    pub sources: Vec<Source>,
    /// The plugins with version and SHA-256, as in a manifest but without paths.
    pub plugins: Value,
    /// The device on which the site computes.
    pub device: String,
    /// The name of the model's score, if the model names it.
    pub score: Option<String>,
}

/// What all sites agree on before the first round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The digest of the experiment.
    pub digest: String,
    /// The tasks of all sites.
    pub tasks: Vec<TaskSpec>,
    /// The data type and shape of each of the model's parameters, by name.
    pub layout: Value,
    /// The number of the site's rounds in the checkpoint that the server resumes from.
    pub resume: Option<u64>,
}

/// A site that is ready for the first round.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// The parameters that the site's filters withhold.
    pub withheld: Vec<String>,
}

/// A site's reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// What its components reported meanwhile.
    #[serde(default)]
    pub report: Report,
    /// The result.
    pub result: Result<Response, ComponentError>,
}

/// The result of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Response {
    /// Of [`Request::Describe`].
    Contribution(Contribution),
    /// Of [`Request::Start`].
    Ready(Ready),
    /// Of [`Request::Train`].
    Outcome(Outcome),
    /// Of [`Request::EvaluateIdle`].
    Evaluated(EvaluationOutcome),
    /// Of [`Request::Answer`] and [`Request::Publish`].
    Message(#[serde(with = "exact::without_tensors")] Message),
    /// Of [`Request::EvaluateOther`].
    CrossEvaluated(CrossEvaluation),
    /// Of [`Request::Finish`].
    Finished(ModelEvaluation),
    /// Of [`Request::SaveModel`] and [`Request::Leave`].
    Done,
}

impl Reply {
    /// A reply without a report.
    pub(crate) fn plain(result: Result<Response, ComponentError>) -> Self {
        Self { report: Report::default(), result }
    }

    fn message(&mut self) -> Option<&mut Message> {
        match &mut self.result {
            Ok(Response::Outcome(outcome)) => Some(&mut outcome.message),
            Ok(Response::Message(message)) => Some(message),
            _ => None,
        }
    }

    /// The form that travels.
    ///
    /// # Errors
    /// If a value cannot be serialised.
    pub(crate) fn into_payload(mut self) -> plugin_api::Result<Payload> {
        let body = serde_json::to_value(&self).map_err(|e| unreadable(&e))?;
        Payload::new(&body, self.message())
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn read(mut payload: Payload) -> plugin_api::Result<Self> {
        let mut reply: Self = serde_json::from_value(payload.body.take()).map_err(|e| unreadable(&e))?;
        payload.attach(reply.message())?;
        Ok(reply)
    }
}

/// What a site's components reported during a call.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Scalars, by round.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scalars: Vec<(u64, Trace)>,
    /// Notes for the summary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// Warnings, each with its component.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use plugin_api::{Error, ErrorKind, Tensor};

    use super::*;

    fn message(values: &[f32]) -> Message {
        let tensor = Tensor::from_slice(&[values.len()], values).unwrap();
        let extra: Params = [("mask", tensor.clone())].into_iter().collect();
        let values = [("scale".to_owned(), Value::from(0.1))].into_iter().collect();
        Message { params: [("w", tensor)].into_iter().collect(), extra, values }
    }

    #[test]
    fn a_call_comes_back_with_its_tensors() {
        let order = Order { round: 7, epochs: 2, global: message(&[1.5, f32::NAN]) };
        let call = Call { request: Request::Train(order), last_aggregated: Some(6) };
        let payload = call.clone().into_payload().unwrap();
        // Tensors travel beside the JSON.
        assert!(!payload.body.to_string().contains("1.5"), "{}", payload.body);
        let back = Call::read(payload).unwrap();
        assert_eq!(format!("{back:?}"), format!("{call:?}"));
        assert_eq!(back.request.round(), Some(7));
    }

    #[test]
    fn a_failure_at_a_site_keeps_its_kind_and_its_words() {
        let error = Error::new(ErrorKind::Panic, "`train` panicked").because_of("at lib.rs:3");
        let fault = ComponentError::new("model `x`".to_owned(), error);
        let back = Reply::read(Reply::plain(Err(fault)).into_payload().unwrap()).unwrap();
        let fault = back.result.unwrap_err();
        assert!(fault.is_panic());
        assert_eq!(fault.report("round 1").line(), "round 1, model `x`: `train` panicked: at lib.rs:3");
    }

    #[test]
    fn what_is_no_call_or_has_tensors_too_many_is_an_error() {
        let payload = Payload { body: serde_json::json!({"request": "shout"}), ..Payload::default() };
        assert!(Call::read(payload).is_err());
        let body = serde_json::json!({"request": "leave"});
        assert!(Call::read(Payload { body: body.clone(), ..Payload::default() }).is_ok());
        let params = message(&[1.0]).params;
        assert!(Call::read(Payload { body, params, ..Payload::default() }).is_err());
    }
}
