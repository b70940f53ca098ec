//! The filter, at either end of a connection.

use plugin_api::{Context, Error, Filter, Message, Params, Result, State, Tensor};

use crate::config::{Config, Method, Plan, Quantity};
use crate::header::{Entry, GUARD, Header, Side};
use crate::quantizer::Quantizer;
use crate::tensors::{base_of, check_finite, densify, dequantize, quantize, sparsify};
use crate::totals::Totals;

/// Tensors with fewer elements are sent unchanged, since there is nothing to save.
const MIN_ELEMENTS: usize = 16;

/// Encodes plain messages and restores encoded ones.
#[derive(Debug)]
pub struct Compress {
    method: Method,
    plan: Plan,
    side: Side,
    totals: Totals,
    /// For top-k at a client: the parts of earlier updates that have not been sent, as f32.
    residuals: Params,
}

impl Compress {
    /// A filter for the client's end if the context has a client, else for the server's.
    ///
    /// # Errors
    /// If a key does not belong to the method.
    pub fn new(config: Config, ctx: &Context<'_>) -> Result<Self> {
        let side = if ctx.client().is_some() { Side::Client } else { Side::Server };
        let (totals, residuals) = (Totals::default(), Params::new());
        Ok(Self { method: config.method, plan: config.plan()?, side, totals, residuals })
    }

    fn encode(&mut self, message: Message, base: &Message, ctx: &Context<'_>) -> Result<Message> {
        if (self.side, self.plan.of()) == (Side::Server, Quantity::Update) {
            return Err(self.no_update());
        }
        let before = message.bytes();
        let block_size = if let Plan::Quantize(quantizer, _) = self.plan { quantizer.block_size() } else { None };
        let mut header = Header::new(self.method, self.side, block_size);
        let mut sent = Message { values: message.values, ..Message::default() };
        sent.params.insert(GUARD, Tensor::from_slice(&[], &[f32::NAN])?);
        // After an error the residuals are unchanged.
        let mut residuals = self.residuals.clone();
        for (name, tensor) in message.params.iter() {
            ctx.check()?;
            let encoded = self.encode_param(name, tensor, &base.params, &mut residuals).map_err(|e| at(e, name))?;
            insert(&mut sent.params, &mut header.params, name, tensor, encoded);
        }
        for (name, tensor) in message.extra.iter() {
            ctx.check()?;
            let encoded = match self.plan {
                Plan::Quantize(quantizer, _) if is_worth_encoding(quantizer, tensor) => {
                    quantize(quantizer, tensor, None).map(|payload| Some((payload, Quantity::Values)))
                }
                _ => check_finite(tensor).map(|()| None),
            };
            insert(&mut sent.extra, &mut header.extra, name, tensor, encoded.map_err(|e| at(e, name))?);
        }
        header.put(&mut sent)?;
        self.residuals = residuals;
        self.totals.add(self.side, before, sent.bytes(), ctx);
        Ok(sent)
    }

    /// The encoded bytes of a parameter and what they encode, or `None` if it is sent unchanged.
    fn encode_param(
        &self,
        name: &str,
        tensor: &Tensor,
        base: &Params,
        residuals: &mut Params,
    ) -> Result<Option<(Tensor, Quantity)>> {
        let base = || base_of(base, name, tensor.dtype(), tensor.shape());
        match self.plan {
            Plan::Quantize(quantizer, of) if is_worth_encoding(quantizer, tensor) => {
                // Without a global value there is no update, so values are sent.
                let base = if of == Quantity::Update { base()? } else { None };
                let of = if base.is_some() { Quantity::Update } else { Quantity::Values };
                Ok(Some((quantize(quantizer, tensor, base)?, of)))
            }
            Plan::TopK { keep } if tensor.is_float() && tensor.len() >= MIN_ELEMENTS => match base()? {
                Some(base) => {
                    let residual = residuals.get(name).map(|_| residuals.elements::<f32>(name, tensor.shape()));
                    let (payload, residual) = sparsify(keep, tensor, base, residual.transpose()?)?;
                    residuals.insert(name, residual);
                    Ok(Some((payload, Quantity::Update)))
                }
                None => {
                    // The whole parameter is sent.
                    residuals.remove(name);
                    check_finite(tensor).map(|()| None)
                }
            },
            _ => check_finite(tensor).map(|()| None),
        }
    }

    fn restore_message(&self, header: &Header, message: Message, base: &Message, ctx: &Context<'_>) -> Result<Message> {
        if header.from == self.side {
            return Err(Error::config("the message was already encoded at this end")
                .help("use one table with `plugin = \"compress\"` per direction"));
        }
        if header.method != self.method {
            let (theirs, ours) = (header.method.as_str(), self.method.as_str());
            let message = format!("the message was encoded by `{theirs}`, but the method at this end is `{ours}`");
            let help =
                "put both ends of a direction in one table, such as `at = [\"client-output\", \"server-input\"]`";
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
                let error = Error::tensor(name, "was encoded, but did not arrive");
                return Err(
                    error.help("`compress` must be the last filter before sending and the first after receiving")
                );
            }
        }
        Ok(restored)
    }

    fn no_update(&self) -> Error {
        let error = Error::config("the server sends the global model itself, not an update");
        match self.plan {
            Plan::TopK { .. } => error.at_key("method").help(
                "`top-k` encodes updates: use it at `client-output` and `server-input`, and another method for messages to the \
                 clients",
            ),
            Plan::Quantize(..) => error.at_key("of").help("write `of = \"values\"` in the table for this direction"),
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
                    format!("the checkpoint has residuals of `top-k`, but the method is `{}`", self.method.as_str());
                return Err(Error::config(message).at_key("method"));
            }
            tensor.elements::<f32>().and_then(|_| check_finite(tensor)).map_err(|e| at(e, name))?;
        }
        self.totals = totals;
        self.residuals = state.tensors.clone();
        Ok(())
    }
}

/// Whether encoding a tensor saves bytes.
fn is_worth_encoding(quantizer: Quantizer, tensor: &Tensor) -> bool {
    tensor.is_float() && tensor.len() >= MIN_ELEMENTS && !(quantizer.is_half() && tensor.dtype().size() <= 2)
}

/// Adds an encoded tensor with its entry, or an unchanged tensor.
fn insert(
    sent: &mut Params,
    entries: &mut std::collections::BTreeMap<String, Entry>,
    name: &str,
    tensor: &Tensor,
    encoded: Option<(Tensor, Quantity)>,
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
        Quantity::Values => None,
        Quantity::Update => {
            let base = base_of(base, name, entry.dtype()?, &entry.shape)?;
            Some(base.ok_or_else(|| Error::tensor(name, "is an update, but the global model at this end lacks it"))?)
        }
    };
    match (header.method, base) {
        (Method::TopK, Some(base)) => densify(payload, base),
        (Method::TopK, None) => Err(Error::tensor(name, "was encoded by `top-k`, but not as an update")),
        (method, base) => dequantize(Quantizer::new(method, header.block_size)?, payload, entry, base),
    }
}

/// Adds the tensor to an error.
fn at(error: Error, name: &str) -> Error {
    if error.place().is_some() || *error.kind() == plugin_api::ErrorKind::Cancelled {
        return error;
    }
    error.at_tensor(name)
}
