//! The updates of a round, and who is left out of it.

use plugin_api::{Context, Error, Params, Result, Tensor};

/// A client's update. Its tensors are shared with whoever else holds them.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) client: String,
    pub(crate) params: Params,
}

/// What came in a round, in the order of clients.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) held: Vec<Held>,
    /// How many updates are left out.
    pub(crate) left_out: usize,
}

impl Received {
    /// How many clients that trained sent an update, left out or not.
    pub(crate) fn clients(&self) -> usize {
        self.held.len() + self.left_out
    }

    /// The names of all parameters, in the order in which they came first.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = Params::new();
        for (name, tensor) in self.held.iter().flat_map(|held| held.params.iter()) {
            if names.get(name).is_none() {
                names.insert(name, tensor.clone());
            }
        }
        names.names().map(str::to_owned).collect()
    }

    /// A parameter of those that sent it, in the order of clients.
    pub(crate) fn column(&self, name: &str) -> Vec<&Tensor> {
        self.held.iter().filter_map(|held| held.params.get(name)).collect()
    }

    /// Leaves out whoever sends another set of parameters than most do, as far as so many clients may be byzantine.
    ///
    /// # Errors
    /// If more than these differ: then it is not the clients' fault.
    pub(crate) fn settle_names(&mut self, tolerated: usize, method: &str, ctx: &Context<'_>) -> Result<()> {
        let sets: Vec<Vec<&str>> = self.held.iter().map(|held| sorted(held.params.names())).collect();
        let alike = |set: &Vec<&str>| sets.iter().filter(|other| *other == set).count();
        let Some(usual) = sets.iter().rev().max_by_key(|set| alike(set)) else { return Ok(()) };
        let first_odd = sets.iter().find_map(|set| odd(set, usual));
        if let Some((name, _)) = first_odd
            && self.clients() - alike(usual) > tolerated
        {
            let senders = self.column(name).len();
            let message = format!("{senders} of {} clients send it, and {method} needs the same from all", sets.len());
            return Err(Error::tensor(name, message).help(
                "what differs from client to client must be kept private, by a filter such as `exclude-params`",
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
                    ctx.warn(format_args!("client `{}` is left out of this round: {why}", held.client));
                    self.left_out += 1;
                }
            }
        }
        Ok(())
    }
}

/// A name that stands in one of two sorted sets only, and which it is.
fn odd<'n>(set: &[&'n str], usual: &[&'n str]) -> Option<(&'n str, &'static str)> {
    let more = set.iter().find(|name| usual.binary_search(name).is_err()).map(|&name| (name, "which most do not"));
    more.or_else(|| usual.iter().find(|name| set.binary_search(name).is_err()).map(|&name| (name, "which most send")))
}

fn sorted<'n>(names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}
