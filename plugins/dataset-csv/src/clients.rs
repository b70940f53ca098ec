//! Splits the rows of tasks, and assigns them to clients.

use std::collections::BTreeMap;

use fedplug_tables::{
    Audit, AuditedTask, GroupBy, Sites, Split, Standardise, scale_of, shuffle, standardised, warn_identical_files,
};
use plugin_api::{Column, Context, Error, Result, Scale, Seed, Source, Table, TargetKind, Task, TaskSpec, VALIDATION};

use crate::config::{Clients, Config};
use crate::read::{check_client, read};
use crate::task_plan::{TaskPlan, TestRows};
use crate::task_rows::TaskRows;

/// The clients with their tasks, and what they were read from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Data {
    /// The tasks, in the order of the experiment.
    pub(crate) specs: Vec<TaskSpec>,
    /// The clients with their tasks, in the order of aggregation. Targets are not standardised.
    pub(crate) clients: Vec<(String, Vec<Task>)>,
    /// The index of each client: clients are loaded by name, and there may be thousands.
    indices: BTreeMap<String, usize>,
    pub(crate) sources: Vec<Source>,
    /// The scale of each task, if targets are standardised.
    pub(crate) scales: BTreeMap<String, Scale>,
}

/// A client's rows of a task.
struct ClientRows {
    client: String,
    train: Vec<usize>,
    test: Vec<usize>,
    /// For each of the training rows, whether it is for validation.
    validation: Vec<bool>,
}

impl ClientRows {
    /// The rows that models train on.
    fn trained(&self) -> impl Iterator<Item = &usize> {
        self.train.iter().zip(&self.validation).filter(|(_, validation)| !**validation).map(|(row, _)| row)
    }
}

impl Data {
    /// Reads and audits all tasks, and assigns their rows to clients.
    ///
    /// # Errors
    /// If a file cannot be read, or a task has no training rows.
    pub(crate) fn read(plans: &[TaskPlan], config: &Config, ctx: &Context<'_>) -> Result<Self> {
        let (mut data, mut audited) = (Self::default(), Audit::default());
        let seed = config.seed.map_or_else(|| ctx.experiment_seed().of("split"), Seed::new);
        for plan in plans {
            let (mut rows, sources) = read(plan, config, ctx)?;
            data.sources.extend(sources);
            let names = rows.tasks(plan, config);
            let splits = splits(&rows, plan, config, seed.of(&plan.name), ctx)?;
            for (number, name) in names.into_iter().enumerate() {
                data.add(name, number, &rows, &splits, plan, config, seed, &mut audited, ctx)?;
            }
        }
        config.standardise.note(&data.scales, ctx)?;
        audited.across_tasks(ctx);
        warn_identical_files(&data.sources, ctx);
        if matches!(config.clients, Clients::Column(_) | Clients::Pattern(_)) {
            data.clients.sort_by(|(a, _), (b, _)| a.cmp(b));
            data.indices = data.clients.iter().enumerate().map(|(index, (name, _))| (name.clone(), index)).collect();
        }
        Ok(data)
    }

    /// Adds the task with this number among those of a plan.
    #[allow(clippy::too_many_arguments)]
    fn add(
        &mut self,
        name: String,
        number: usize,
        rows: &TaskRows,
        splits: &[(Option<String>, Split)],
        plan: &TaskPlan,
        config: &Config,
        seed: Seed,
        audited: &mut Audit,
        ctx: &Context<'_>,
    ) -> Result<()> {
        let spec = TaskSpec { name, target_kind: rows.kind(), ..plan.spec() };
        let is_number = spec.target_kind == TargetKind::Number;
        if self.specs.iter().any(|other| other.name == spec.name) {
            return Err(Error::config(format!("two tasks are named `{}`", spec.name)).at_key(&plan.files_key));
        }
        let mut shares = Vec::new();
        for (client, split) in splits {
            let split = split.filter(|row| rows.task(row) == number);
            shares.extend(client_rows(split, client.as_deref(), &spec.name, plan, config, seed.of(&spec.name)));
        }
        if shares.iter().all(|share| share.trained().next().is_none()) {
            return Err(Error::data(format!("task `{}` has no training rows", spec.name)));
        }
        audit(audited, &spec.name, number, &shares, rows, plan, config, ctx);
        let standardise = if is_number { &config.standardise } else { &Standardise::No };
        let scale = standardise.scale(&spec.name, || {
            let targets = |share: &ClientRows| share.trained().map(|&row| rows.target(row)).collect::<Vec<f32>>();
            let targets: Vec<Vec<f32>> = shares.iter().map(targets).collect();
            Ok(scale_of(&targets.iter().map(Vec::as_slice).collect::<Vec<_>>()))
        })?;
        self.scales.extend(scale.map(|scale| (spec.name.clone(), scale)));
        // A clone of a table shares its columns: all sites have the same test table.
        let common =
            matches!(config.clients, Clients::Sites(_)).then(|| rows.table(plan, &shares[0].test)).transpose()?;
        for ClientRows { client, train, test, validation } in shares {
            check_client(&client)?;
            let test = common.clone().map_or_else(|| rows.table(plan, &test), Ok)?;
            let mut train = rows.table(plan, &train)?;
            if config.validation_fraction.is_some() {
                train = train.with(VALIDATION, Column::bool(&validation))?;
            }
            let task = Task { spec: spec.clone(), train, test };
            match self.indices.get(&client) {
                Some(&index) => self.clients[index].1.push(task),
                None => {
                    self.indices.insert(client.clone(), self.clients.len());
                    self.clients.push((client, vec![task]));
                }
            }
        }
        self.specs.push(spec);
        Ok(())
    }

    /// The tasks of a client, standardised if asked for; `None` if there is no such client.
    pub(crate) fn tasks_of(&self, client: &str) -> Option<Result<Vec<Task>>> {
        let (_, tasks) = self.clients.get(*self.indices.get(client)?)?;
        let scaled = |task: &Task| {
            let table = |table: &Table| match self.scales.get(&task.spec.name) {
                Some(scale) => standardised(table, &task.spec.target, *scale),
                None => Ok(table.clone()),
            };
            Ok(Task { spec: task.spec.clone(), train: table(&task.train)?, test: table(&task.test)? })
        };
        Some(tasks.iter().map(scaled).collect())
    }
}

/// The splits of a plan's rows: one for each client if rows belong to clients, else one for all rows.
fn splits(
    rows: &TaskRows,
    plan: &TaskPlan,
    config: &Config,
    seed: Seed,
    ctx: &Context<'_>,
) -> Result<Vec<(Option<String>, Split)>> {
    match &config.clients {
        Clients::ByTask | Clients::Sites(_) => {
            Ok(vec![(None, split(rows, &(0..rows.len()).collect::<Vec<_>>(), plan, config, seed, ctx)?)])
        }
        Clients::Column(_) | Clients::Pattern(_) => {
            let of_client = |(name, own): (&str, Vec<usize>)| {
                Ok((Some(name.to_owned()), split(rows, &own, plan, config, seed.of(name), ctx)?))
            };
            rows.of_clients().into_iter().map(of_client).collect()
        }
    }
}

/// Splits these rows.
fn split(
    rows: &TaskRows,
    own: &[usize],
    plan: &TaskPlan,
    config: &Config,
    seed: Seed,
    ctx: &Context<'_>,
) -> Result<Split> {
    // A given split needs no groups, which take their time.
    let groups = match plan.testing.are_random() || config.validation_fraction.is_some() {
        true => config.group_by().groups(own.len(), |row| rows.text(own[row]), ctx)?,
        false => Vec::new(),
    };
    let strata: Vec<usize> = own.iter().map(|&row| rows.task(row)).collect();
    let mut split = match (&plan.testing, rows.for_testing()) {
        (TestRows::Fraction(fraction), _) => Split::random(&groups, &strata, *fraction, seed),
        (TestRows::Fold(fold), _) => Split::fold(&groups, &strata, *fold, seed),
        (_, marks) => Split::given(own.iter().map(|&row| marks.is_some_and(|marks| marks[row]))),
    };
    if let Some(fraction) = config.validation_fraction {
        split = split.with_validation(&groups, &strata, fraction, seed);
    }
    Ok(split.renumbered(|row| own[row]))
}

/// The clients' rows of a task: at most `max-samples` training rows, and as many test rows, for each client. A given split
/// keeps the order of rows, unless some are left out or sites share them.
fn client_rows(
    mut split: Split,
    client: Option<&str>,
    task: &str,
    plan: &TaskPlan,
    config: &Config,
    seed: Seed,
) -> Vec<ClientRows> {
    let most = config.max_samples.map_or(usize::MAX, usize::from);
    let sites = if let Clients::Sites(sites) = &config.clients { Some(*sites) } else { None };
    let seed = client.map_or(seed, |client| seed.of(client));
    if !plan.testing.are_random() {
        if sites.is_some() || split.train.len() > most {
            shuffle(&mut split.train, seed.of("train"));
        }
        if split.test.len() > most {
            shuffle(&mut split.test, seed.of("test"));
        }
    }
    split.test.truncate(most);
    if let Some(Sites { .. }) = sites {
        let split = split.across_sites(sites, seed);
        let part = |(k, part): (usize, &[usize])| {
            let train: Vec<usize> = part.iter().copied().take(most).collect();
            let validation = split.validation_marks(&train);
            ClientRows { client: format!("site-{}", k + 1), train, test: split.test.clone(), validation }
        };
        return split.site_rows().enumerate().map(part).collect();
    }
    split.train.truncate(most);
    let validation = split.validation_marks(&split.train);
    let (client, Split { train, test, .. }) = (client.unwrap_or(task).to_owned(), split);
    let rows = ClientRows { client, train, test, validation };
    // A client has only the tasks of which it has rows.
    if rows.train.is_empty() && rows.test.is_empty() { Vec::new() } else { vec![rows] }
}

/// Audits the rows of a task and their split.
#[allow(clippy::too_many_arguments)]
fn audit(
    audited: &mut Audit,
    task: &str,
    number: usize,
    shares: &[ClientRows],
    rows: &TaskRows,
    plan: &TaskPlan,
    config: &Config,
    ctx: &Context<'_>,
) {
    let value = |row: usize| if rows.task(row) == number { rows.target(row) } else { f32::NAN };
    let one_file = vec![0; rows.len()];
    let of_all = matches!(config.clients, Clients::Sites(_));
    let test: Vec<usize> =
        shares.iter().take(if of_all { 1 } else { shares.len() }).flat_map(|s| &s.test).copied().collect();
    let advice = match (plan.testing.are_random(), config.group_by(), &config.clients) {
        (true, GroupBy::None, _) => Some("`group-by = \"sequence\"` keeps them apart"),
        (true, _, Clients::Column(_) | Clients::Pattern(_)) => {
            Some("clients are split independently, and others train on these sequences")
        }
        _ => None,
    };
    let task = AuditedTask {
        name: task,
        sequence: &|row| rows.text(row),
        values: &(0..rows.len()).map(value).collect::<Vec<f32>>(),
        // Only numbers have a unit in which files could differ.
        files: if rows.kind() == TargetKind::Number { rows.files() } else { &one_file },
        origin: &|row| rows.origin(row),
        advice,
    };
    audited.task(&task, shares.iter().flat_map(ClientRows::trained), &test, ctx);
}
