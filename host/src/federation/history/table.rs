//! The table of the clients' own models.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};

use super::{History, MetricHistory, SCORE, TaskHistory, UNDEFINED, mean_text, short};
use crate::federation::means::mean;

/// A table with more rows than this shows only the first `SHOWN_ROWS`.
const MOST_ROWS: usize = 100;
const SHOWN_ROWS: usize = 20;

/// The number of metrics shown, of each task the first ones: those that the model puts first. `summary.json` has all.
pub(crate) const SHOWN_METRICS: usize = 2;

/// The column of scores on the rows for validation, if there are any.
const VALIDATION_SCORE: &str = "validation score";

/// A column's value of a task: the first, the best or the last one.
type Value = fn(&MetricHistory) -> Option<f64>;

/// The values of each column.
const VALUES: [(&str, Value); 3] = [("first", |h| h.first), ("best", |h| h.best), ("last", |h| h.last)];

/// A row: a client's task.
struct Row<'h> {
    client: &'h str,
    history: &'h TaskHistory,
}

/// What the table shows.
struct Contents<'h> {
    history: &'h History,
    rows: Vec<Row<'h>>,
    /// The metrics, then the scores.
    columns: Vec<&'h str>,
    tasks: Vec<&'h str>,
    /// Whether a column names the tasks, since they are not named as their clients.
    names_tasks: bool,
}

impl History {
    /// Formats the results of the clients' own models, with one row for each client and task. Below are the means over
    /// clients for each task that several clients have. Across tasks only scores have a mean, since the units of
    /// metrics may differ. A long table shows only the first rows.
    pub(crate) fn table(&self) -> String {
        let contents = Contents::new(self);
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(contents.header());
        let shown = if contents.rows.len() > MOST_ROWS { SHOWN_ROWS } else { contents.rows.len() };
        for row in &contents.rows[..shown] {
            table.add_row(contents.task(row));
        }
        if contents.rows.len() > shown {
            table.add_row(vec![Cell::new(format!("… {} more", contents.rows.len() - shown))]);
        }
        for task in &contents.tasks {
            if let Some(mean) = contents.mean_of_task(task) {
                table.add_row(mean);
            }
        }
        if contents.tasks.len() > 1 {
            table.add_row(contents.mean_of_all());
        }
        table.to_string()
    }
}

impl<'h> Contents<'h> {
    fn new(history: &'h History) -> Self {
        let rows: Vec<Row<'h>> = history
            .order
            .iter()
            .flat_map(|client| {
                let tasks = history.clients.get(client).into_iter().flatten();
                tasks.map(move |history| Row { client, history })
            })
            .collect();
        let metrics = rows.iter().flat_map(|row| row.history.local_test.all().iter().take(SHOWN_METRICS));
        let metrics = metrics.map(|metric| metric.name.as_str());
        let mut columns = distinct(metrics);
        columns.push(SCORE);
        if rows.iter().any(|row| row.history.local_validation_score.is_some()) {
            columns.push(VALIDATION_SCORE);
        }
        let tasks = distinct(rows.iter().map(|row| row.history.task.as_str()));
        let names_tasks = rows.iter().any(|row| row.client != row.history.task);
        Self { history, rows, columns, tasks, names_tasks }
    }

    fn header(&self) -> Vec<String> {
        let first = ["client".to_owned()].into_iter().chain(self.names_tasks.then(|| "task".to_owned()));
        let values = self.columns.iter().flat_map(|name| VALUES.map(|(value, _)| format!("{value} {name}")));
        first.chain(values).collect()
    }

    /// A row with `text` for each value of each column.
    fn row(&self, client: &str, task: &str, text: impl Fn(&str, Value) -> String) -> Vec<Cell> {
        let mut row = vec![Cell::new(client)];
        row.extend(self.names_tasks.then(|| Cell::new(task)));
        let texts = self.columns.iter().flat_map(|name| VALUES.map(|(_, value)| text(name, value)));
        row.extend(texts.map(|text| Cell::new(text).set_alignment(CellAlignment::Right)));
        row
    }

    fn task(&self, row: &Row<'_>) -> Vec<Cell> {
        self.row(row.client, &row.history.task, |name, value| {
            row.history.column(name).and_then(value).map_or_else(|| UNDEFINED.to_owned(), short)
        })
    }

    /// The means over the clients that have a task; `None` if it is only one.
    fn mean_of_task(&self, task: &str) -> Option<Vec<Cell>> {
        let histories = self.rows.iter().map(|row| row.history).filter(|history| history.task == task);
        let histories: Vec<&TaskHistory> = histories.collect();
        (histories.len() > 1).then(|| {
            self.row("mean", task, |name, value| {
                mean_text(histories.iter().map(|history| history.column(name).and_then(value)))
            })
        })
    }

    /// The means over all tasks, which only scores have.
    fn mean_of_all(&self) -> Vec<Cell> {
        self.row("mean", if self.names_tasks { "all" } else { "" }, |name, value| {
            if ![SCORE, VALIDATION_SCORE].contains(&name) {
                return UNDEFINED.to_owned();
            }
            let of_client =
                |tasks: &Vec<TaskHistory>| mean(tasks.iter().filter_map(|task| task.column(name).and_then(value)));
            mean_text(self.history.clients.values().map(of_client))
        })
    }
}

impl TaskHistory {
    /// The history of the client's own model in a column.
    fn column(&self, name: &str) -> Option<&MetricHistory> {
        match name {
            SCORE => self.local_score.as_ref(),
            VALIDATION_SCORE => self.local_validation_score.as_ref(),
            name => self.local_test.all().iter().find(|metric| metric.name == name),
        }
    }
}

/// The names, each once, in the order in which they appear.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}
