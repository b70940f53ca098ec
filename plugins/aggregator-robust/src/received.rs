//! The updates of a round, and which of them to skip.

use plugin_api::{Context, Error, Params, Result, Tensor};

/// A client's update. Its tensors may be shared with other holders.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) client: String,
    pub(crate) params: Params,
}

/// The updates received in a round, in the order of clients.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) held: Vec<Held>,
    /// The number of skipped updates.
    pub(crate) left_out: usize,
}

impl Received {
    /// The number of clients that trained and sent an update, skipped or not.
    pub(crate) fn clients(&self) -> usize {
        self.held.len() + self.left_out
    }

    /// The names of all parameters, in order of first appearance.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = Params::new();
        for (name, tensor) in self.held.iter().flat_map(|held| held.params.iter()) {
            if names.get(name).is_none() {
                names.insert(name, tensor.clone());
            }
        }
        names.names().map(str::to_owned).collect()
    }

    /// A parameter's tensors from the clients that sent it, in the order of clients.
    pub(crate) fn column(&self, name: &str) -> Vec<&Tensor> {
        self.held.iter().filter_map(|held| held.params.get(name)).collect()
    }

    /// Skips clients whose set of parameters differs from that of most clients, as long as no more than `tolerated` do.
    ///
    /// # Errors
    /// If more than `tolerated` clients differ: then the clients are not at fault.
    pub(crate) fn settle_names(&mut self, tolerated: usize, method: &str, ctx: &Context<'_>) -> Result<()> {
        let sets: Vec<Vec<&str>> = self.held.iter().map(|held| sorted(held.params.names())).collect();
        let alike = |set: &Vec<&str>| sets.iter().filter(|other| *other == set).count();
        let Some(usual) = sets.iter().rev().max_by_key(|set| alike(set)) else { return Ok(()) };
        let first_odd = sets.iter().find_map(|set| odd(set, usual));
        if let Some((name, _)) = first_odd
            && self.clients() - alike(usual) > tolerated
        {
            let senders = self.column(name).len();
            let message =
                format!("{senders} of {} clients send it, but {method} needs the same parameters from all", sets.len());
            return Err(Error::tensor(name, message).help(
                "parameters that differ between clients must be kept private, by a filter such as `exclude-params`",
            ));
        }
        let faults = sets.iter().map(|set| {
            odd(set, usual).map(|(name, which)| {
                let verb = if set.contains(&name) { "sends" } else { "does not send" };
                format!("it {verb} `{name}`, {which}")
            })
        });
        let faults: Vec<Option<String>> = faults.collect();
        for (held, why) in std::mem::take(&mut self.held).into_iter().zip(faults) {
            match why {
                None => self.held.push(held),
                Some(why) => {
                    ctx.warn(format_args!("client `{}` is excluded from this round: {why}", held.client));
                    self.left_out += 1;
                }
            }
        }
        Ok(())
    }
}

/// A name that is in only one of two sorted sets, and a phrase that says in which.
fn odd<'n>(set: &[&'n str], usual: &[&'n str]) -> Option<(&'n str, &'static str)> {
    let more = set.iter().find(|name| usual.binary_search(name).is_err()).map(|&name| (name, "which most do not"));
    more.or_else(|| usual.iter().find(|name| set.binary_search(name).is_err()).map(|&name| (name, "which most send")))
}

fn sorted<'n>(names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}
