//! Sends fewer bytes between server and clients: half precision, blockwise 8-bit, 4-bit NormalFloat, and top-k with
//! error feedback.
//!
//! The filter stands at both ends of a way, in one table: what sends encodes, what receives restores. An encoded message
//! says of itself how to restore it, so a filter that gets one restores it, and one that gets a plain message encodes it.
//!
//! ```toml
//! [[filter]]
//! plugin = "compress"
//! at = ["client-output", "server-input"]  # the way to the server; to the clients: ["server-output", "client-input"]
//! method = "int8"                         # or "fp16", "bf16", "nf4", "top-k"
//! block-size = 4096                       # of int8 (4096 if not given) and nf4 (64)
//! of = "update"                           # or "values"
//! # keep = 0.01                           # of top-k
//! ```
//!
//! # Methods
//!
//! `u` is what is encoded of a tensor, an element each; the error is that of `u`, to which the sum with the base adds a
//! rounding of the tensor's type.
//!
//! | method | bits an element | what is sent | largest error |
//! |---|---|---|---|
//! | `fp16` | 16 | `u` rounded to IEEE 754 binary16, ties to even | `2⁻¹¹ abs(u)`, or 2⁻²⁵ below 2⁻¹⁴ |
//! | `bf16` | 16 | `u` rounded to bfloat16, ties to even | `2⁻⁸ abs(u)` |
//! | `int8` | 8 + 32/block | `q = round(u / s)` in [−127, 127], `s = max abs(u) / 127` of the block | `s / 2` |
//! | `nf4` | 4 + 32/block | the nearest of 16 levels to `u / m`, `m = max abs(u)` of the block | `0.152 m` |
//! | `top-k` | 64 · `keep` | places and values of the largest `abs(u)` | what is not sent is sent later |
//!
//! A value that fp16 or bf16 would round to infinity is an error. A block of int8 whose largest magnitude is below
//! 1.5e-36 is sent as zeros.
//!
//! - `int8` is the blockwise absmax quantisation of Dettmers, Lewis, Shleifer and Zettlemoyer, *8-bit Optimizers via
//!   Block-wise Quantization*, ICLR 2022, section 2, with linear levels in place of their dynamic ones.
//! - `nf4` has the levels of Dettmers, Pagnoni, Holtzman and Zettlemoyer, *QLoRA: Efficient Finetuning of Quantized
//!   LLMs*, NeurIPS 2023, appendix E. Its scales are not quantised once more.
//! - `top-k` is Stich, Cordonnier and Jaggi, *Sparsified SGD with Memory*, NeurIPS 2018, Algorithm 1, on the update of a
//!   round in place of a gradient. A client `i` that trained from the global model `x` to `xᵢ` and owes `mᵢ` sends
//!   `gᵢ = top(xᵢ − x + mᵢ)`, and owes `mᵢ ← xᵢ − x + mᵢ − gᵢ` from then on; the server gets `x + gᵢ`. From each tensor
//!   the nearest number to `keep` times its elements is taken, one at least; of equal magnitudes the first; zeros never.
//!   With `keep` above 0.5 it sends more than it saves.
//!
//! # What is encoded
//!
//! With `of = "update"` it is the difference of a parameter to the global model of the round, so that the error is
//! relative to how far a client went, and not to where it is. This is the default of `int8` and `nf4`, and all that
//! `top-k` does. With `of = "values"` it is the parameter itself, the default of `fp16` and `bf16`. On the way to the
//! clients there is no update, since both ends know no earlier model: `of` must be `"values"` there, and anything else is
//! an error in the first round.
//!
//! The client subtracts the global model as its model received it, and the server adds the global model as it was before
//! the server's filters. With nothing or a lossless filter on the way to the clients these are equal. With a lossy one,
//! such as this filter there, the server restores its own exact global model plus the client's update: not the client's
//! parameters, but what they are plus what the client's global model lacked.
//!
//! Sent as they are: integers, tensors of fewer than 16 elements, with the half types tensors of 16-bit floats, with
//! top-k parameters that the global model of the round lacks. The other methods send the values of what it lacks. Tensors
//! in [`Message::extra`] have no base: their values are encoded, and sent as they are by top-k. f64 is rounded to f32
//! before it is encoded. NaN and infinity are errors, wherever they stand in a message.
//!
//! # Where to write the table
//!
//! What is encoded is no model any more, so the filter must be the last before the way and the first after it. Filters
//! run in the file's order at every place: tables with `client-output` come before this one, tables with `server-input`
//! after it. If another filter has both in one table, write this one twice, with the same `method`:
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
//! A message that is encoded and never restored is refused: its first parameter is one that no model has, a NaN whose name
//! says what is missing, and encoded tensors are bytes, so that a model refuses them. `fedplug check` finds that.
//!
//! # Messages
//!
//! A tensor keeps its name and place and becomes one of u8: scales as f32 and then codes, or places as u32 and then
//! values as f32, all little-endian. `values["compress"]` holds version, method, end, block size, and each encoded
//! tensor's type, shape, and whether it is an update. This header is not in the bytes that are counted.
//!
//! # What it says, and keeps
//!
//! For each message to the server the scalars `Bytes/saved` (bytes of tensors before, less those after) and
//! `Bytes/ratio` (before, divided by after), at the round as the step; `Bytes/saved_received` and
//! `Bytes/ratio_received` for each to a client. The summary has the totals under `sent` and `received`. Totals are state;
//! so is what top-k owes, 4 bytes a parameter at each client.
//!
//! # Memory and time
//!
//! Encoding and restoring hold the tensors that come and those that go, and a block; top-k besides 4 bytes for each
//! element of the tensor at work. One thread does it.
//!
//! # What it does not do
//!
//! Entropy coding; error feedback for other methods than top-k; the answers that filters give to an aggregator's
//! questions. If a client's update is lost after it was encoded, top-k does not know: what was in it is not sent again.
//!
//! [`Message::extra`]: plugin_api::Message::extra

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod filter;
mod header;
mod nf4;
mod quantizer;
mod real;
mod tensors;
mod top_k;
mod totals;

pub use config::{Config, Method, Of};
pub use filter::Compress;
use plugin_api::Component;

/// What this plugin offers.
pub fn component() -> Component {
    Component::filter("compress", "sends fewer bytes: fp16, bf16, int8, nf4, top-k with error feedback", Compress::new)
}

plugin_api::export_plugin!(component());
