//! Whose the rows are, and which of them are for testing.

use std::collections::BTreeMap;

use fedplug_tables::{Deal, Sites, shuffle};
use plugin_api::{Context, Result, Seed, Source, Table, Task};

use crate::config::{Clients, Config};
use crate::plan::{Plan, Testing};
use crate::read::{Rows, read};

/// All that is loaded, and what it was read from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Data {
    /// The clients with their tasks, in the order of aggregation.
    pub(crate) clients: Vec<(String, Vec<Task>)>,
    /// Where each client stands among them: each is asked for by name, and there may be thousands.
    places: BTreeMap<String, usize>,
    pub(crate) sources: Vec<Source>,
}

impl Data {
    /// Reads all tasks, and gives each client its rows.
    pub(crate) fn read(plans: &[Plan], config: &Config, ctx: &Context<'_>) -> Result<Self> {
        let mut data = Self::default();
        let seed = config.seed.map_or_else(|| ctx.experiment_seed().of("split"), Seed::new);
        for plan in plans {
            let (rows, sources) = read(plan, config, ctx)?;
            data.sources.extend(sources);
            for (client, train, test) in shares(&rows, plan, config, seed.of(&plan.name))? {
                let task = Task { spec: plan.spec(), train, test };
                match data.places.get(&client) {
                    Some(&place) => data.clients[place].1.push(task),
                    None => {
                        data.places.insert(client.clone(), data.clients.len());
                        data.clients.push((client, vec![task]));
                    }
                }
            }
        }
        if matches!(config.clients, Clients::Column(_) | Clients::Pattern(_)) {
            data.clients.sort_by(|(a, _), (b, _)| a.cmp(b));
            data.places = data.clients.iter().enumerate().map(|(place, (name, _))| (name.clone(), place)).collect();
        }
        Ok(data)
    }

    /// The tasks of a client, if there is one of this name.
    pub(crate) fn tasks_of(&self, client: &str) -> Option<&[Task]> {
        self.places.get(client).and_then(|&place| self.clients.get(place)).map(|(_, tasks)| &tasks[..])
    }
}

/// The clients of a task, each with its rows to train and to test on.
fn shares(rows: &Rows, plan: &Plan, config: &Config, seed: Seed) -> Result<Vec<(String, Table, Table)>> {
    let table = |part: Vec<usize>| rows.table(plan, &part);
    match &config.clients {
        Clients::ByTask => {
            let Deal { train, test, .. } = deal(rows, (0..rows.len()).collect(), plan, config, None, seed);
            Ok(vec![(plan.name.clone(), table(train)?, table(test)?)])
        }
        Clients::Column(_) | Clients::Pattern(_) => {
            let share = |(name, own): (&str, Vec<usize>)| {
                let Deal { train, test, .. } = deal(rows, own, plan, config, None, seed.of(name));
                Ok((name.to_owned(), table(train)?, table(test)?))
            };
            rows.of_clients().into_iter().map(share).collect()
        }
        Clients::Sites(sites) => {
            let deal = deal(rows, (0..rows.len()).collect(), plan, config, Some(*sites), seed);
            // A clone of a table shares its columns: all sites have one test table.
            let test = table(deal.test.clone())?;
            let most = config.max_samples.map_or(usize::MAX, usize::from);
            let parts = deal.parts().map(|part| part.iter().copied().take(most).collect());
            let share = |(k, part)| Ok((format!("site-{}", k + 1), table(part)?, test.clone()));
            parts.enumerate().map(share).collect()
        }
    }
}

/// Tells `own` rows apart for training and testing, at most `max-samples` of each; those to train on are cut for sites
/// only after they are dealt. Rows of a given split stay in their order where none is left out and no site gets a part.
fn deal(rows: &Rows, own: Vec<usize>, plan: &Plan, config: &Config, sites: Option<Sites>, seed: Seed) -> Deal {
    let most = config.max_samples.map_or(usize::MAX, usize::from);
    let mut deal = match (&plan.testing, rows.for_testing()) {
        (Testing::Fraction(fraction), _) => Deal::random(own.len(), *fraction, sites, seed),
        (_, marks) => {
            let mut deal = Deal::given(own.iter().map(|&row| marks.is_some_and(|marks| marks[row])));
            if sites.is_some() || deal.train.len() > most {
                shuffle(&mut deal.train, seed.of("train"));
            }
            if deal.test.len() > most {
                shuffle(&mut deal.test, seed.of("test"));
            }
            deal.shared(sites, seed)
        }
    };
    if sites.is_none() {
        deal.train.truncate(most);
    }
    deal.test.truncate(most);
    deal.train.iter_mut().chain(&mut deal.test).for_each(|row| *row = own[*row]);
    deal
}
