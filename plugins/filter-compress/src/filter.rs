//! The filter at either end.

use plugin_api::{Context, Error, Filter, Message, Params, Result, State, Tensor};

use crate::config::{Config, Method, Of, Plan};
use crate::header::{Entry, GUARD, Header, Side};
use crate::quantizer::Quantizer;
use crate::tensors::{base_of, densify, dequantize, finite, quantize, sparsify};
use crate::totals::Totals;

/// Tensors with fewer elements are sent as they are: there is nothing to save.
const FEWEST: usize = 16;

/// Encodes a plain message and restores an encoded one.
#[derive(Debug)]
pub struct Compress {
    method: Method,
    plan: Plan,
    side: Side,
    totals: Totals,
    /// Of top-k at a client: what of earlier updates was not sent, as f32.
    residuals: Params,
}

impl Compress {
    /// A filter at the client's end if the context is a client's, else at the server's.
    ///
    /// # Errors
    /// If a key does not go with the method.
    pub fn new(config: Config, ctx: &Context<'_>) -> Result<Self> {
        let side = if ctx.client().is_some() { Side::Client } else { Side::Server };
        let (totals, residuals) = (Totals::default(), Params::new());
        Ok(Self { method: config.method, plan: config.plan()?, side, totals, residuals })
    }

    fn encode(&mut self, message: Message, base: &Message, ctx: &Context<'_>) -> Result<Message> {
        if (self.side, self.plan.of()) == (Side::Server, Of::Update) {
            return Err(self.no_update());
        }
        let before = message.bytes();
        let block_size = if let Plan::Quantize(quantizer, _) = self.plan { quantizer.block_size() } else { None };
        let mut header = Header::new(self.method, self.side, block_size);
        let mut sent = Message { values: message.values, ..Message::default() };
        sent.params.insert(GUARD, Tensor::from_slice(&[], &[f32::NAN])?);
        // A failure on the way leaves the residuals as they were.
        let mut residuals = self.residuals.clone();
        for (name, tensor) in message.params.iter() {
            ctx.check()?;
            let encoded = self.encode_param(name, tensor, &base.params, &mut residuals).map_err(|e| at(e, name))?;
            insert(&mut sent.params, &mut header.params, name, tensor, encoded);
        }
        for (name, tensor) in message.extra.iter() {
            ctx.check()?;
            let encoded = match self.plan {
                Plan::Quantize(quantizer, _) if is_worth_it(quantizer, tensor) => {
                    quantize(quantizer, tensor, None).map(|payload| Some((payload, Of::Values)))
                }
                _ => finite(tensor).map(|()| None),
            };
            insert(&mut sent.extra, &mut header.extra, name, tensor, encoded.map_err(|e| at(e, name))?);
        }
        header.put(&mut sent)?;
        self.residuals = residuals;
        self.totals.add(self.side, before, sent.bytes(), ctx);
        Ok(sent)
    }

    /// The bytes of a parameter and what they are of, or nothing where it is sent as it is.
    fn encode_param(
        &self,
        name: &str,
        tensor: &Tensor,
        base: &Params,
        residuals: &mut Params,
    ) -> Result<Option<(Tensor, Of)>> {
        let base = || base_of(base, name, tensor.dtype(), tensor.shape());
        match self.plan {
            Plan::Quantize(quantizer, of) if is_worth_it(quantizer, tensor) => {
                // What has no global value yet has no update: its values are sent.
                let base = if of == Of::Update { base()? } else { None };
                let of = if base.is_some() { Of::Update } else { Of::Values };
                Ok(Some((quantize(quantizer, tensor, base)?, of)))
            }
            Plan::TopK { keep } if tensor.is_float() && tensor.len() >= FEWEST => match base()? {
                Some(base) => {
                    let residual = residuals.get(name).map(|_| residuals.elements::<f32>(name, tensor.shape()));
                    let (payload, residual) = sparsify(keep, tensor, base, residual.transpose()?)?;
                    residuals.insert(name, residual);
                    Ok(Some((payload, Of::Update)))
                }
                None => {
                    // All of it is sent, so nothing is owed any more.
                    residuals.remove(name);
                    finite(tensor).map(|()| None)
                }
            },
            _ => finite(tensor).map(|()| None),
        }
    }

    fn restore_message(&self, header: &Header, message: Message, base: &Message, ctx: &Context<'_>) -> Result<Message> {
        if header.from == self.side {
            return Err(Error::config("the message was encoded already at this end of its way")
                .help("one table with `plugin = \"compress\"` is enough for each way"));
        }
        if header.method != self.method {
            let (theirs, ours) = (header.method.as_str(), self.method.as_str());
            let message = format!("the message was encoded by `{theirs}`, and the table at this end says `{ours}`");
            let help = "name both ends of a way in one table, such as `at = [\"client-output\", \"server-input\"]`";
            return Err(Error::config(message).at_key("method").help(help));
        }
        let mut restored = Message { values: message.values, ..Message::default() };
        for (name, tensor) in message.params.iter().filter(|(name, _)| *name != GUARD) {
            ctx.check()?;
            let tensor = match header.params.get(name) {
                Some(entry) => restore_tensor(header, entry, name, tensor, &base.params).map_err(|e| at(e, name))?,
                None => tensor.clone(),
            };
            restored.params.insert(name, tensor);
        }
        for (name, tensor) in message.extra.iter() {
            ctx.check()?;
            let tensor = match header.extra.get(name) {
                Some(entry) => restore_tensor(header, entry, name, tensor, &base.extra).map_err(|e| at(e, name))?,
                None => tensor.clone(),
            };
            restored.extra.insert(name, tensor);
        }
        for (entries, tensors) in [(&header.params, &restored.params), (&header.extra, &restored.extra)] {
            if let Some(name) = entries.keys().find(|name| tensors.get(name).is_none()) {
                let error = Error::tensor(name, "was encoded, and did not arrive");
                return Err(error.help("`compress` must be the last filter before the way and the first after it"));
            }
        }
        Ok(restored)
    }

    fn no_update(&self) -> Error {
        let error = Error::config("what is sent to the clients is the global model itself: there is no update of it");
        match self.plan {
            Plan::TopK { .. } => error.at_key("method").help(
                "`top-k` is of updates: it can stand at `client-output` and `server-input`; for the way to the clients \
                 take another method",
            ),
            Plan::Quantize(..) => error.at_key("of").help("write `of = \"values\"` in the table of this way"),
        }
    }
}

impl Filter for Compress {
    fn apply(&mut self, mut message: Message, base: &Message, ctx: &Context<'_>) -> Result<Message> {
        match Header::take(&mut message)? {
            Some(header) => self.restore_message(&header, message, base, ctx),
            None => self.encode(message, base, ctx),
        }
    }

    fn state(&mut self, _: &Context<'_>) -> Result<State> {
        if self.totals.is_empty() {
            return Ok(State::default());
        }
        let totals = serde_json::to_value(&self.totals);
        let totals = totals.map_err(|e| Error::other("the totals cannot be written").because(&e))?;
        let values = [("totals".to_owned(), totals)].into_iter().collect();
        Ok(State { tensors: self.residuals.clone(), values })
    }

    fn restore(&mut self, state: &State, _: &Context<'_>) -> Result<()> {
        let totals = if state.is_empty() { Totals::default() } else { state.value("totals")? };
        for (name, tensor) in state.tensors.iter() {
            if !matches!(self.plan, Plan::TopK { .. }) {
                let message =
                    format!("the checkpoint holds what `top-k` owes, and the method is `{}`", self.method.as_str());
                return Err(Error::config(message).at_key("method"));
            }
            tensor.elements::<f32>().and_then(|_| finite(tensor)).map_err(|e| at(e, name))?;
        }
        self.totals = totals;
        self.residuals = state.tensors.clone();
        Ok(())
    }
}

/// Whether there is something to save with a tensor.
fn is_worth_it(quantizer: Quantizer, tensor: &Tensor) -> bool {
    tensor.is_float() && tensor.len() >= FEWEST && !(quantizer.is_half() && tensor.dtype().size() <= 2)
}

/// Adds an encoded tensor with its entry, or a tensor as it is.
fn insert(
    sent: &mut Params,
    entries: &mut std::collections::BTreeMap<String, Entry>,
    name: &str,
    tensor: &Tensor,
    encoded: Option<(Tensor, Of)>,
) {
    match encoded {
        Some((payload, of)) => {
            entries.insert(name.to_owned(), Entry::new(tensor, of));
            sent.insert(name, payload);
        }
        None => {
            sent.insert(name, tensor.clone());
        }
    }
}

fn restore_tensor(header: &Header, entry: &Entry, name: &str, payload: &Tensor, base: &Params) -> Result<Tensor> {
    let base = match entry.of {
        Of::Values => None,
        Of::Update => {
            let base = base_of(base, name, entry.dtype()?, &entry.shape)?;
            Some(base.ok_or_else(|| Error::tensor(name, "came as an update, and the global model here lacks it"))?)
        }
    };
    match (header.method, base) {
        (Method::TopK, Some(base)) => densify(payload, base),
        (Method::TopK, None) => Err(Error::tensor(name, "came from `top-k`, and not as an update")),
        (method, base) => dequantize(Quantizer::new(method, header.block_size)?, payload, entry, base),
    }
}

/// The error with the tensor that it is about.
fn at(error: Error, name: &str) -> Error {
    if error.place().is_some() || *error.kind() == plugin_api::ErrorKind::Cancelled {
        return error;
    }
    error.at_tensor(name)
}
