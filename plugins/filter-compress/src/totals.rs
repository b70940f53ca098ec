//! Counts the bytes that compression saves.

use std::collections::BTreeMap;
use std::fmt;

use plugin_api::Context;
use serde::{Deserialize, Serialize};

use crate::header::Side;

/// Totals by client; the filter at the server has those of all clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Totals(BTreeMap<String, Total>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Total {
    messages: u64,
    before: u64,
    after: u64,
}

impl Totals {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Counts a message, records its saving as scalars, and notes the totals.
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 bytes")]
    pub(crate) fn add(&mut self, side: Side, before: usize, after: usize, ctx: &Context<'_>) {
        let total = self.0.entry(ctx.client().unwrap_or_default().to_owned()).or_default();
        total.messages += 1;
        total.before += before as u64;
        total.after += after as u64;
        // Named like the host's own counts of bytes.
        let (key, suffix) = match side {
            Side::Client => ("sent", ""),
            Side::Server => ("received", "_received"),
        };
        if let Some(round) = ctx.round() {
            ctx.scalar(&format!("Bytes/saved{suffix}"), round, before as f64 - after as f64);
            ctx.scalar(&format!("Bytes/ratio{suffix}"), round, before as f64 / after as f64);
        }
        ctx.note(key, format_args!("{total}"));
    }
}

impl fmt::Display for Total {
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 bytes")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (self.before as f64, self.after as f64);
        let s = if self.messages == 1 { "" } else { "s" };
        write!(f, "{} in place of {}, ", Bytes(after), Bytes(before))?;
        write!(f, "{:.2} times fewer, in {} message{s}", before / after, self.messages)
    }
}

/// A number of bytes, formatted for people.
struct Bytes(f64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 1e9 => write!(f, "{:.2} GB", n / 1e9),
            n if n >= 1e6 => write!(f, "{:.2} MB", n / 1e6),
            n if n >= 1e3 => write!(f, "{:.2} kB", n / 1e3),
            n => write!(f, "{n} bytes"),
        }
    }
}
