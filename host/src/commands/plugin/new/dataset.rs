//! A starting point for a dataset: random texts, labelled with their share of the letter `A`.

use plugin_api::{
    ClientSpec, ClientTask, Column, Component, Context, Dataset, Description, Error, JsonSchema,
    Result, Seed, Table, Task, TaskSpec,
};
use serde::Deserialize;

/// The keys of the experiment's `[dataset]` table.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "plugin_api::schemars")]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The number of clients.
    #[serde(default = "three")]
    #[schemars(range(min = 1))]
    pub clients: usize,
    /// Training rows per client; the test set has a quarter as many.
    pub rows: usize,
}

fn three() -> usize {
    3
}

/// Clients `site-1`, `site-2`, …, with one task.
pub struct Letters {
    config: Config,
}

impl Letters {
    /// A dataset with these sizes.
    pub fn new(config: Config, _: &Context<'_>) -> Result<Self> {
        Ok(Self { config })
    }

    fn client(number: usize) -> String {
        format!("site-{number}")
    }

    fn spec() -> TaskSpec {
        TaskSpec::new("share", ["text"], "share-of-a")
    }
}

/// A table of random texts of 20 letters from A to D, and the share of A in each.
fn table(rows: usize, seed: Seed) -> Result<Table> {
    let letter = |seed: Seed| char::from(b'A' + (seed.value() % 4) as u8);
    let text = |row| {
        (0..20)
            .map(|place| letter(seed.at(row).at(place)))
            .collect::<String>()
    };
    let texts: Vec<String> = (0..rows as u64).map(text).collect();
    let share = |text: &String| text.matches('A').count() as f32 / 20.0;
    let shares: Vec<f32> = texts.iter().map(share).collect();
    Table::new()
        .with("text", Column::text(&texts))?
        .with("share-of-a", Column::f32(&shares))
}

impl Dataset for Letters {
    fn describe(&mut self, _: &Context<'_>) -> Result<Description> {
        let Config { clients, rows } = self.config;
        let task = ClientTask {
            name: Self::spec().name,
            train: rows,
            test: rows / 4,
            ..ClientTask::default()
        };
        let client = |k| ClientSpec {
            name: Self::client(k),
            tasks: vec![task.clone()],
        };
        Ok(Description::new(
            vec![Self::spec()],
            (1..=clients).map(client).collect(),
            vec![],
        ))
    }

    fn load(&mut self, client: &str, ctx: &Context<'_>) -> Result<Vec<Task>> {
        if !(1..=self.config.clients).any(|k| Self::client(k) == client) {
            return Err(Error::data(format!("there is no client `{client}`")));
        }
        // The same seed of the experiment gives the same rows; each client gets different ones.
        let seed = ctx.experiment_seed().of(client);
        let train = table(self.config.rows, seed.of("train"))?;
        let test = table(self.config.rows / 4, seed.of("test"))?;
        Ok(vec![Task {
            spec: Self::spec(),
            train,
            test,
        }])
    }
}

/// The component that this library exports.
pub fn component() -> Component {
    Component::dataset(
        "{{name}}",
        "random texts and their share of the letter A",
        Letters::new,
    )
}

plugin_api::export_plugin!(component());

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::context::Silent;

    #[test]
    fn each_client_gets_the_rows_that_were_described() -> Result<()> {
        let ctx = Context::new(&Silent);
        let mut data = Letters::new(
            Config {
                clients: 2,
                rows: 8,
            },
            &ctx,
        )?;
        for client in data.describe(&ctx)?.clients {
            let task = data.load(&client.name, &ctx)?.remove(0);
            let rows = (task.train.rows(), task.test.rows());
            assert_eq!(rows, (client.tasks[0].train, client.tasks[0].test));
            let (text, share) = (
                task.train.text("text")?.get(0),
                task.train.f32("share-of-a")?[0],
            );
            assert_eq!(share, text.matches('A').count() as f32 / 20.0);
        }
        Ok(())
    }
}
