//! The usable rows of a task.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fedplug_tables::text::TextBuffer;
use fedplug_tables::{ClassNames, TaskPer, file_stem, task_names};
use plugin_api::{Column, ORIGIN, Result, Table, TargetKind};

use crate::config::Config;
use crate::row::Row;
use crate::task_plan::TaskPlan;

/// The usable rows of a task, in the order of reading.
#[derive(Default)]
pub(crate) struct TaskRows {
    texts: Vec<TextBuffer>,
    numbers: Vec<Vec<f32>>,
    /// The targets; of classes, their numbers; 0 without a target.
    target: Vec<f32>,
    has_target: bool,
    classes: ClassNames,
    /// The number of each row's client; empty if neither rows nor paths say it.
    owners: Vec<usize>,
    /// The numbers of the clients by their names.
    clients: BTreeMap<String, usize>,
    /// Whether each row is for testing; empty if neither rows nor files say it.
    for_testing: Vec<bool>,
    /// The files, each with the number of its task for `task-per = "file"`.
    paths: Vec<(PathBuf, usize)>,
    /// The index of each row's file.
    files: Vec<usize>,
    /// The line on which each row begins.
    lines: Vec<u64>,
}

/// The folder that has all files, so that a row's origin depends neither on where the data is nor on how it is named.
fn common_folder<'a>(paths: impl Iterator<Item = &'a Path>) -> PathBuf {
    let folders = paths.map(|path| path.parent().unwrap_or(Path::new("")).to_owned());
    let shared = |a: PathBuf, b: PathBuf| -> PathBuf {
        a.components().zip(b.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
    };
    folders.reduce(shared).unwrap_or_default()
}

impl TaskRows {
    /// Rows of these columns, without any.
    pub(crate) fn new(plan: &TaskPlan) -> Self {
        let texts = plan.texts.iter().map(|_| TextBuffer::default()).collect();
        let (numbers, classes) = (vec![Vec::new(); plan.numbers.len()], ClassNames::new(&plan.classes));
        Self { texts, numbers, classes, has_target: plan.target.is_some(), ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.target.len()
    }

    /// The target of a row.
    pub(crate) fn target(&self, row: usize) -> f32 {
        self.target[row]
    }

    /// The sequence of a row: its texts or, if it has none, its numbers, with `|` between them.
    pub(crate) fn text(&self, row: usize) -> String {
        if self.texts.is_empty() {
            return self.numbers.iter().map(|column| column[row].to_string()).collect::<Vec<_>>().join("|");
        }
        self.texts.iter().map(|column| column.get(row)).collect::<Vec<_>>().join("|")
    }

    /// The index of each row's file.
    pub(crate) fn files(&self) -> &[usize] {
        &self.files
    }

    /// The number of a row's task among the [`tasks`](Self::tasks).
    pub(crate) fn task(&self, row: usize) -> usize {
        self.paths[self.files[row]].1
    }

    /// The file and line of a row.
    pub(crate) fn origin(&self, row: usize) -> String {
        format!("{}:{}", self.paths[self.files[row]].0.display(), self.lines[row])
    }

    /// The names of the tasks: that of the plan or, for `task-per = "file"`, one for each file name with usable rows.
    pub(crate) fn tasks(&mut self, plan: &TaskPlan, config: &Config) -> Vec<String> {
        if config.task_per == TaskPer::Folder {
            return vec![plan.name.clone()];
        }
        let mut used = vec![false; self.paths.len()];
        self.files.iter().for_each(|&file| used[file] = true);
        let mut stems: Vec<(String, PathBuf)> = Vec::new();
        for ((path, task), _) in self.paths.iter_mut().zip(used).filter(|(_, used)| *used) {
            let stem = file_stem(path);
            *task = stems.iter().position(|(other, _)| *other == stem).unwrap_or(stems.len());
            if *task == stems.len() {
                stems.push((stem, path.clone()));
            }
        }
        let named = config.name.is_some() || config.task.is_some();
        task_names(named.then_some(&*plan.name), stems.iter().map(|(_, path)| path.as_path()))
    }

    /// Whether each row is for testing, if rows or files say it.
    pub(crate) fn for_testing(&self) -> Option<&[bool]> {
        (!self.for_testing.is_empty()).then_some(&self.for_testing)
    }

    /// The rows of each client, sorted by the clients' names.
    pub(crate) fn of_clients(&self) -> Vec<(&str, Vec<usize>)> {
        let mut rows = vec![Vec::new(); self.clients.len()];
        self.owners.iter().enumerate().for_each(|(row, &owner)| rows[owner].push(row));
        self.clients.iter().map(|(name, &number)| (name.as_str(), std::mem::take(&mut rows[number]))).collect()
    }

    /// The table of these rows, in this order.
    pub(crate) fn table(&self, plan: &TaskPlan, rows: &[usize]) -> Result<Table> {
        let mut table = Table::new();
        for (name, texts) in plan.texts.iter().zip(&self.texts) {
            table = table.with(name, Column::text(rows.iter().map(|&row| texts.get(row))))?;
        }
        let of = |numbers: &[f32]| rows.iter().map(|&row| numbers[row]).collect::<Vec<f32>>();
        for (name, numbers) in plan.numbers.iter().zip(&self.numbers) {
            table = table.with(name, Column::f32(&of(numbers)))?;
        }
        if let Some(name) = &plan.target {
            let classes = |names: &[String]| Column::text(rows.iter().map(|&row| &names[self.target[row] as usize]));
            let column = self.kind().classes().map_or_else(|| Column::f32(&of(&self.target)), classes);
            table = table.with(name, column)?;
        }
        let folder = common_folder(self.paths.iter().map(|(path, _)| path.as_path()));
        let origin = |row: usize| {
            let path = &self.paths[self.files[row]].0;
            format!("{}:{}", path.strip_prefix(&folder).unwrap_or(path).display(), self.lines[row])
        };
        table.with(ORIGIN, Column::text(rows.iter().map(|&row| origin(row))))
    }

    /// Begins a file, whose rows are pushed next.
    pub(crate) fn begin_file(&mut self, path: PathBuf) {
        self.paths.push((path, 0));
    }

    /// The type of the targets.
    pub(crate) fn kind(&self) -> TargetKind {
        if self.has_target { self.classes.kind() } else { TargetKind::None }
    }

    /// Sorts the classes, once all rows are read.
    ///
    /// # Errors
    /// If there is only one.
    pub(crate) fn sort_classes(&mut self, plan: &TaskPlan) -> Result<()> {
        let sorted = self.classes.sort(&plan.name)?;
        if !sorted.is_empty() {
            self.target.iter_mut().for_each(|class| *class = sorted[*class as usize] as f32);
        }
        Ok(())
    }

    /// Adds a row of the current file. What the row says takes precedence over `client` and `for_testing`, which the file says.
    ///
    /// # Errors
    /// If its class is none of those that are listed.
    pub(crate) fn push(
        &mut self,
        row: &Row<'_>,
        line: u64,
        client: Option<&str>,
        for_testing: Option<bool>,
        plan: &TaskPlan,
    ) -> Result<()> {
        let name = plan.target.as_deref().unwrap_or_default();
        let class = row.class.map(|class| self.classes.number(name, class)).transpose()?.map(|class| class as f32);
        self.target.push(class.or(row.numbers.get(self.numbers.len()).copied()).unwrap_or_default());
        self.files.push(self.paths.len() - 1);
        self.lines.push(line);
        self.texts.iter_mut().zip(&row.texts).for_each(|(column, field)| column.push(&[field]));
        self.numbers.iter_mut().zip(&row.numbers).for_each(|(column, number)| column.push(*number));
        if let Some(name) = row.client.or(client) {
            let next = self.clients.len();
            let number = self.clients.get(name).copied().unwrap_or(next);
            if number == next {
                self.clients.insert(name.to_owned(), next);
            }
            self.owners.push(number);
        }
        self.for_testing.extend(row.for_testing.or(for_testing));
        Ok(())
    }
}
