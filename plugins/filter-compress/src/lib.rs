//! Sends fewer bytes between server and clients: half precision, blockwise 8-bit, 4-bit NormalFloat, and top-k with error
//! feedback.
//!
//! The filter is used at both ends of a connection, in one table: the sender encodes and the receiver restores. An encoded
//! message says how to restore it, so a filter restores an encoded message and encodes a plain one.
//!
//! ```toml
//! [[filter]]
//! plugin = "compress"
//! at = ["client-output", "server-input"]  # to the server; for messages to the clients: ["server-output", "client-input"]
//! method = "int8"                         # or "fp16", "bf16", "nf4", "top-k"
//! block-size = 4096                       # for int8 (default 4096) and nf4 (default 64)
//! of = "update"                           # or "values"
//! # keep = 0.01                           # for top-k
//! ```
//!
//! # Methods
//!
//! `u` is the encoded element of a tensor. The error is that of `u`; adding the base rounds once more to the tensor's type.
//!
//! | method | bits per element | what is sent | largest error |
//! |---|---|---|---|
//! | `fp16` | 16 | `u` rounded to IEEE 754 binary16, ties to even | `2⁻¹¹ abs(u)`, or 2⁻²⁵ below 2⁻¹⁴ |
//! | `bf16` | 16 | `u` rounded to bfloat16, ties to even | `2⁻⁸ abs(u)` |
//! | `int8` | 8 + 32/block | `q = round(u / s)` in [−127, 127], `s = max abs(u) / 127` of the block | `s / 2` |
//! | `nf4` | 4 + 32/block | the level, of 16, nearest to `u / m`, `m = max abs(u)` of the block | `0.152 m` |
//! | `top-k` | 64 · `keep` | indices and values of the largest `abs(u)` | the rest is sent in later rounds |
//!
//! A value that fp16 or bf16 would round to infinity is an error. A block of int8 whose largest magnitude is less than 1.5e-36
//! is sent as zeros.
//!
//! - `int8` is the blockwise absmax quantisation of Dettmers, Lewis, Shleifer and Zettlemoyer, *8-bit Optimizers via
//!   Block-wise Quantization*, ICLR 2022, section 2, with linear levels instead of their dynamic ones.
//! - `nf4` has the levels of Dettmers, Pagnoni, Holtzman and Zettlemoyer, *QLoRA: Efficient Finetuning of Quantized
//!   LLMs*, NeurIPS 2023, appendix E, without double quantisation.
//! - `top-k` is Stich, Cordonnier and Jaggi, *Sparsified SGD with Memory*, NeurIPS 2018, Algorithm 1, applied to the update of a
//!   round instead of a gradient. A client `i` that trained from the global model `x` to `xᵢ` with the residual `mᵢ` sends
//!   `gᵢ = top(xᵢ − x + mᵢ)`, and its new residual is `xᵢ − x + mᵢ − gᵢ`; the server gets `x + gᵢ`. Of each tensor, `keep`
//!   times its elements, rounded but at least one, are sent; of equal magnitudes the first; never zeros. With `keep` above 0.5
//!   it sends more bytes than no compression.
//!
//! # What is encoded
//!
//! With `of = "update"` it is the difference of a parameter from the global model of the round, so that the error is relative
//! to the change of a parameter and not to its value. This is the default of `int8` and `nf4`, and the only choice of `top-k`.
//! With `of = "values"` it is the parameter itself, the default of `fp16` and `bf16`. Messages to the clients contain no update,
//! since the ends share no earlier model: `of` must be `"values"` there, and anything else is an error in the first round.
//!
//! The client subtracts the global model as its model received it, and the server adds the global model before the server's
//! filters. With no filter, or a lossless one, on messages to the clients these are equal. With a lossy one, such as this
//! filter, the server restores its own exact global model plus the client's update: the client's parameters plus what its
//! global model lost.
//!
//! Sent unchanged: integers, tensors with fewer than 16 elements, with the half types tensors of 16-bit floats, and with top-k
//! parameters that the global model of the round lacks. The other methods send the values of the latter. Tensors in
//! [`Message::extra`] have no base: their values are encoded, or sent unchanged by top-k. f64 is rounded to f32 before it is
//! encoded. NaN and infinity anywhere in a message are errors.
//!
//! # Where to put the table
//!
//! An encoded message is not a model any more, so the filter must be the last before sending and the first after receiving.
//! Filters run in the order of the file: tables with `client-output` come before this one, tables with `server-input` after it.
//! If another filter has both in one table, use two tables of this one, with the same `method`:
//!
//! ```toml
//! [[filter]]
//! plugin = "compress"
//! at = "server-input"       # the first at the server
//! method = "int8"
//!
//! [[filter]]
//! plugin = "another"
//! at = ["client-output", "server-input"]
//!
//! [[filter]]
//! plugin = "compress"
//! at = "client-output"      # the last at the client
//! method = "int8"
//! ```
//!
//! A message that is encoded and never restored is refused: its first parameter is a NaN that no model has, whose name says
//! what is missing, and encoded tensors contain bytes, which a model refuses. `fedplug check` detects this.
//!
//! # Messages
//!
//! A tensor keeps its name and position and becomes one of u8: scales as f32 and then codes, or indices as u32 and then values
//! as f32, all little-endian. `values["compress"]` has the version, method, end, block size, and for each encoded tensor its
//! type, its shape, and whether it is an update. This header is not included in the counts of bytes.
//!
//! # Scalars, notes and state
//!
//! For each message to the server it records the scalars `Bytes/saved` (bytes of tensors before minus after) and `Bytes/ratio`
//! (before divided by after) at the step of the round, and for each message to a client `Bytes/saved_received` and
//! `Bytes/ratio_received`. The summary has the totals under `sent` and `received`. Totals are state, and so are the residuals of
//! top-k, 4 bytes per parameter at each client.
//!
//! # Memory and time
//!
//! Encoding and restoring need memory for the tensors before and after, and one block; top-k also needs 4 bytes per element of
//! the current tensor. They use one thread.
//!
//! # Limits
//!
//! No entropy coding; no error feedback for other methods than top-k; answers of filters to an aggregator's questions are not
//! compressed. If a client's update is lost after encoding, top-k does not send its contents again.
//!
//! [`Message::extra`]: plugin_api::Message::extra

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod filter;
mod float;
mod header;
mod nf4;
mod quantizer;
mod tensors;
mod top_k;
mod totals;

pub use config::{Config, Method, Quantity};
pub use filter::Compress;
use plugin_api::Component;

/// The component of this plugin.
pub fn component() -> Component {
    Component::filter("compress", "sends fewer bytes: fp16, bf16, int8, nf4, top-k with error feedback", Compress::new)
}

plugin_api::export_plugin!(component());
