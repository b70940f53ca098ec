//! The updates of a round, and who is left out of it.

use plugin_api::{Context, Error, Params, Result, Tensor};

/// A client's update. Its tensors are shared with whoever else holds them.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) client: String,
    pub(crate) params: Params,
}

/// A client whose update is garbage.
#[derive(Debug)]
pub(crate) struct LeftOut {
    client: String,
    /// What it sent, by name.
    names: Vec<String>,
    why: String,
}

/// What came in a round, in the order of clients.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) held: Vec<Held>,
    pub(crate) left_out: Vec<LeftOut>,
}

impl Received {
    /// How many clients sent an update, garbage or not.
    pub(crate) fn clients(&self) -> usize {
        self.held.len() + self.left_out.len()
    }

    /// Keeps an update, unless it holds a value that is not finite, or a tensor of another shape or type than the global
    /// model's.
    pub(crate) fn add(&mut self, client: String, params: Params, global: &Params, ctx: &Context<'_>) {
        let fault = params.iter().find_map(|(name, tensor)| fault(name, tensor, global.get(name)));
        match fault {
            Some(why) => self.leave_out(client, &params, why, ctx),
            None => self.held.push(Held { client, params }),
        }
    }

    fn leave_out(&mut self, client: String, params: &Params, why: String, ctx: &Context<'_>) {
        ctx.warn(format_args!("client `{client}` is left out of this round: {why}"));
        self.left_out.push(LeftOut { client, names: params.names().map(str::to_owned).collect(), why });
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

    /// How many of those that are left out had sent a parameter.
    pub(crate) fn left_out_of(&self, name: &str) -> usize {
        self.left_out.iter().filter(|out| out.names.iter().any(|sent| sent == name)).count()
    }

    /// Leaves out whoever sends a parameter that has no global value in another shape or type than most do. The first
    /// in the order of clients wins a tie.
    pub(crate) fn settle_shapes(&mut self, global: &Params, ctx: &Context<'_>) {
        let mut faults = vec![None; self.held.len()];
        for name in self.names().iter().filter(|name| global.get(name).is_none()) {
            let column = self.column(name);
            let alike = |a: &Tensor| column.iter().filter(|b| same_kind(a, b)).count();
            // `max_by_key` takes the last of equals, so it goes from the end.
            let Some(usual) = column.iter().rev().max_by_key(|tensor| alike(tensor)) else { continue };
            for (held, why) in self.held.iter().zip(&mut faults) {
                if let Some(tensor) = held.params.get(name)
                    && !same_kind(tensor, usual)
                {
                    why.get_or_insert_with(|| format!("it sends `{name}` as {tensor:?}, and most send {usual:?}"));
                }
            }
        }
        self.drop_faulty(faults, ctx);
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
        let faults = faults.collect();
        self.drop_faulty(faults, ctx);
        Ok(())
    }

    fn drop_faulty(&mut self, faults: Vec<Option<String>>, ctx: &Context<'_>) {
        for (held, why) in std::mem::take(&mut self.held).into_iter().zip(faults) {
            match why {
                None => self.held.push(held),
                Some(why) => self.leave_out(held.client, &held.params, why, ctx),
            }
        }
    }

    /// An error with the reasons why clients were left out.
    pub(crate) fn explain(&self, error: Error) -> Error {
        self.left_out.iter().fold(error, |error, LeftOut { client, why, .. }| {
            error.because_of(format!("client `{client}` is left out: {why}"))
        })
    }
}

fn fault(name: &str, tensor: &Tensor, global: Option<&Tensor>) -> Option<String> {
    match global {
        Some(global) if !same_kind(tensor, global) => {
            Some(format!("it sends `{name}` as {tensor:?}, and the global model has {global:?}"))
        }
        _ if !tensor.is_finite() => Some(format!("`{name}` holds a value that is not finite")),
        _ => None,
    }
}

/// A name that stands in one of two sorted sets only, and which it is.
fn odd<'n>(set: &[&'n str], usual: &[&'n str]) -> Option<(&'n str, &'static str)> {
    let more = set.iter().find(|name| usual.binary_search(name).is_err()).map(|&name| (name, "which most do not"));
    more.or_else(|| usual.iter().find(|name| set.binary_search(name).is_err()).map(|&name| (name, "which most send")))
}

fn same_kind(a: &Tensor, b: &Tensor) -> bool {
    (a.dtype(), a.shape()) == (b.dtype(), b.shape())
}

fn sorted<'n>(names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}
