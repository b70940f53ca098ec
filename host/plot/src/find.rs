//! Finding the runs below some folders, and the curves of a tag in each.
//!
//! Event files are grouped by client and run. The client is the folder's name, or comes from the tags: a tag `tm/RMSE`
//! is `RMSE` of the client `tm`. The run is the part of the path before the client, without folder names that carry no
//! information. So `multitask/local/events/tm`, `multitask/local/site-1/tb_events` and NVFlare's
//! `multitask/local/server/simulate_job/tb_events/site-1` all belong to the run `multitask/local`. The part of the path
//! after the client distinguishes runs only if a client has several such folders: the NVFlare client scripts put their
//! start time there, as in `multitask/local/tm/run_Nov26_10-00-01/logs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::natural::Natural;
use super::repeats;
use crate::error::{Error, Problem};
use crate::events::{self, Curves, Point, SERVER};

/// Folder names that programs put around event files and that name neither a client nor a run.
const PLAIN: [&str; 8] = ["events", "tb_events", "tensorboard", "tb_logs", "logs", "simulate_job", "workspace", "app"];

/// The folders below the server in an NVFlare job.
const NVFLARE: [&str; 2] = ["simulate_job", "tb_events"];

/// How many tags an error message lists.
const LISTED: usize = 24;

/// A client's curve.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    pub(super) points: Vec<Point>,
    /// What the steps count.
    pub(super) unit: &'static str,
    /// For each point the standard deviation over repeats, if the curve is their mean.
    pub(super) deviations: Option<Vec<f64>>,
}

/// A run and its clients' curves.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) name: String,
    /// The path components of the run.
    pub(super) path: Vec<String>,
    /// Curves by client; the empty name is for a run without clients.
    pub(super) curves: BTreeMap<Natural, Curve>,
    /// Of how many runs of one experiment it is the mean, if it is.
    pub(super) repeats: Option<usize>,
}

/// Finds the runs below these folders that have curves of the tag.
///
/// # Errors
/// If a folder is missing or has no event files, or nothing has the tag.
pub(super) fn runs(roots: &[PathBuf], tag: &str, warnings: &mut Vec<String>) -> Result<Vec<Run>, Error> {
    let folders = event_folders(roots)?;
    let mut pieces = Vec::new();
    let mut tags = BTreeSet::new();
    for folder in &folders {
        let curves = events::read_files(&folder.files, warnings)?;
        let owner = folder.owner();
        tags.extend(curves.keys().map(|full| match full.split_once('/') {
            Some((client, rest)) if client == owner => rest.to_owned(),
            _ => full.clone(),
        }));
        for (client, points) in matching(curves, tag, owner) {
            let (before, behind) = folder.around(&client);
            pieces.push(Piece { folder, before, behind, client, points });
        }
    }
    let found = group(pieces);
    if found.is_empty() {
        return Err(no_such_tag(tag, tags));
    }
    for (index, root) in roots.iter().enumerate() {
        if !found.keys().any(|run| run.root == index) {
            warnings.push(format!("{}: no scalars with the tag `{tag}`", root.display()));
        }
    }
    let runs = repeated(found, &folders);
    let names = names(&runs.iter().map(|run| run.path.as_slice()).collect::<Vec<_>>());
    Ok(names.into_iter().zip(runs).map(|(name, run)| Run { name, ..run }).collect())
}

/// The runs, with those of one experiment in a directory that lists them as one.
fn repeated(found: BTreeMap<RunKey, Run>, folders: &[Folder]) -> Vec<Run> {
    let series = |key: &RunKey| {
        let lies_below = |folder: &&Folder| {
            folder.root == key.root
                && folder.path.len() >= key.path.len()
                && folder.path.iter().zip(&key.path).all(|(part, name)| *part == name.0)
        };
        folders.iter().filter(lies_below).find_map(|folder| folder.series).filter(|length| *length <= key.path.len())
    };
    let mut all: BTreeMap<RunKey, (bool, Vec<Run>)> = BTreeMap::new();
    for (key, mut run) in found {
        let Some(length) = series(&key) else {
            all.entry(key).or_default().1.push(run);
            continue;
        };
        run.path.truncate(run.path.len() - (key.path.len() - length));
        let (repeats, runs) = all.entry(RunKey { root: key.root, path: key.path[..length].to_vec() }).or_default();
        *repeats = true;
        runs.push(run);
    }
    all.into_values().flat_map(|(repeats, runs)| if repeats { vec![repeats::combined(runs)] } else { runs }).collect()
}

/// Which run it is: the root folder, and the components below it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct RunKey {
    root: usize,
    path: Vec<Natural>,
}

/// Puts the pieces of a run together.
fn group(pieces: Vec<Piece<'_>>) -> BTreeMap<RunKey, Run> {
    let several = several_behind(&pieces);
    let mut found: BTreeMap<RunKey, Run> = BTreeMap::new();
    for Piece { folder, before, behind, client, points } in pieces {
        let unit = match (folder.is_ours(), client.as_str()) {
            (true, SERVER) => "round",
            (true, _) => "optimiser steps",
            _ => "step",
        };
        let mut run = before.clone();
        if several.contains(&(folder.root, before)) {
            run.extend(behind.unwrap_or_default());
        }
        let key = RunKey { root: folder.root, path: run.iter().cloned().map(Natural).collect() };
        let path = folder.above.iter().cloned().chain(run).collect();
        let run = found.entry(key).or_insert_with(|| Run {
            name: String::new(),
            path,
            curves: BTreeMap::new(),
            repeats: None,
        });
        run.curves
            .entry(Natural(client))
            .and_modify(|curve| curve.points = joined(&curve.points, &points))
            .or_insert(Curve { points, unit, deviations: None });
    }
    found
}

/// The roots and the components before a client, where a client has several folders. There, the components after the
/// client distinguish runs.
fn several_behind(pieces: &[Piece<'_>]) -> BTreeSet<(usize, Vec<String>)> {
    let mut behind: BTreeMap<_, BTreeSet<&[String]>> = BTreeMap::new();
    for piece in pieces {
        let client = (piece.folder.root, &piece.before, &piece.client);
        behind.entry(client).or_default().extend(piece.behind.as_deref());
    }
    let several = behind.into_iter().filter(|(_, behind)| behind.len() > 1);
    several.map(|((root, before, _), _)| (root, before.clone())).collect()
}

/// A folder with event files.
struct Folder {
    /// The index of the root folder that it was found below.
    root: usize,
    /// The components of that root's absolute path.
    above: Vec<String>,
    /// The path components relative to that root.
    path: Vec<String>,
    files: Vec<PathBuf>,
    /// How many of the relative components lead to a directory that lists several runs of one experiment, if one is there.
    series: Option<usize>,
}

impl Folder {
    /// The last informative path component; empty if there is none.
    fn owner(&self) -> &str {
        self.path.iter().rev().find(|part| !is_plain(part)).map_or("", String::as_str)
    }

    /// Whether fedplug wrote the files.
    fn is_ours(&self) -> bool {
        self.files.iter().any(|path| path.to_string_lossy().contains(".fedplug."))
    }

    /// The path components before and after a client, without uninformative names. If the client's own folder was given
    /// as the root, all components come after the client. If the path does not contain the client, all come before it.
    /// Nothing comes after the client in the folder where NVFlare's server collects what its clients sent: that is a
    /// location and not a run, and the clients' own folders may hold the same numbers.
    fn around(&self, client: &str) -> (Vec<String>, Option<Vec<String>>) {
        let (before, behind) = match self.path.iter().rposition(|part| part == client) {
            Some(place) => (&self.path[..place], &self.path[place + 1..]),
            None if self.above.last().is_some_and(|part| part == client) => (&[][..], &self.path[..]),
            None => (&self.path[..], &[][..]),
        };
        let says = |parts: &[String]| parts.len() - parts.iter().rev().take_while(|part| is_plain(part)).count();
        let end = says(before);
        if let [before @ .., server, inner] = &before[..before.len().min(end + 1)]
            && server == SERVER
            && NVFLARE.contains(&inner.as_str())
        {
            return (before[..says(before)].to_vec(), None);
        }
        (before[..end].to_vec(), Some(behind.iter().filter(|part| !is_plain(part)).cloned().collect()))
    }
}

/// Curves of a client and the folder they were found in.
struct Piece<'a> {
    folder: &'a Folder,
    before: Vec<String>,
    behind: Option<Vec<String>>,
    client: String,
    points: Vec<Point>,
}

fn is_plain(part: &str) -> bool {
    PLAIN.contains(&part)
}

/// The curves of a tag by client. A bare tag belongs to the folder's owner; otherwise the first part of the tag is the
/// client.
fn matching(mut curves: Curves, tag: &str, owner: &str) -> Vec<(String, Vec<Point>)> {
    if let Some(points) = curves.remove(tag) {
        return vec![(owner.to_owned(), points)];
    }
    let of_client = |(full, points): (String, Vec<Point>)| match full.split_once('/') {
        Some((client, rest)) if rest == tag => Some((client.to_owned(), points)),
        _ => None,
    };
    curves.into_iter().filter_map(of_client).collect()
}

fn joined(earlier: &[Point], later: &[Point]) -> Vec<Point> {
    let of = |points: &[Point]| Curves::from([(String::new(), points.to_vec())]);
    let mut curves = of(earlier);
    events::merge(&mut curves, of(later));
    curves.into_values().flatten().collect()
}

/// All folders with event files, sorted by name.
fn event_folders(roots: &[PathBuf]) -> Result<Vec<Folder>, Error> {
    let (mut folders, mut problems) = (Vec::new(), Vec::new());
    for (index, root) in roots.iter().enumerate() {
        let shown = root.display();
        if !root.is_dir() {
            let hint = "give run directories, or folders that contain some";
            problems.push(Problem::new(format!("{shown}: there is no such folder")).hint(hint));
            continue;
        }
        let full = root.canonicalize().map_err(Error::io(root, "read the folder"))?;
        let mut found = Vec::new();
        walk(&full, &mut BTreeSet::new(), &mut found)?;
        if found.is_empty() {
            let problem = Problem::new(format!("{shown}: no event files here or in the folders below"));
            problems.push(problem.hint("TensorBoard's event files have `tfevents` in their names"));
        }
        folders.extend(found.into_iter().map(|(folder, files)| {
            let path = parts(folder.strip_prefix(&full).unwrap_or(&folder));
            let leads =
                |length: &usize| full.join(path[..*length].iter().collect::<PathBuf>()).join(repeats::FILE).is_file();
            let series = (0..path.len()).rev().find(leads);
            Folder { root: index, above: parts(&full), path, files, series }
        }));
    }
    if problems.is_empty() { Ok(folders) } else { Err(Error::Request(problems)) }
}

fn walk(folder: &Path, seen: &mut BTreeSet<PathBuf>, found: &mut Vec<(PathBuf, Vec<PathBuf>)>) -> Result<(), Error> {
    let failed = Error::io(folder, "read the folder");
    // A link may form a cycle.
    if !seen.insert(folder.canonicalize().map_err(&failed)?) {
        return Ok(());
    }
    let entries: Result<Vec<PathBuf>, _> =
        std::fs::read_dir(folder).map_err(&failed)?.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut entries = entries.map_err(&failed)?;
    entries.sort();
    let files: Vec<PathBuf> =
        entries.iter().filter(|path| events::is_event_file(path) && path.is_file()).cloned().collect();
    if !files.is_empty() {
        found.push((folder.to_owned(), files));
    }
    entries.iter().filter(|path| path.is_dir()).try_for_each(|path| walk(path, seen, found))
}

fn parts(path: &Path) -> Vec<String> {
    let normal = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    };
    path.components().filter_map(normal).collect()
}

/// Names that distinguish the runs: their paths without common leading and trailing components.
fn names(paths: &[&[String]]) -> Vec<String> {
    let named = |path: &[String]| {
        let says = path.iter().rev().find(|part| !is_plain(part));
        says.cloned().unwrap_or_else(|| "run".to_owned())
    };
    let [first, others @ ..] = paths else { return Vec::new() };
    if others.is_empty() {
        return vec![named(first)];
    }
    let shortest = paths.iter().map(|path| path.len()).min().unwrap_or(0);
    let same = |at: &dyn Fn(&[String]) -> Option<&String>| paths.iter().all(|path| at(path) == at(first));
    let head = (0..shortest).take_while(|&k| same(&|path| path.get(k))).count();
    let tail = (1..=shortest - head).take_while(|&k| same(&|path| path.get(path.len() - k))).count();
    let name = |path: &&[String]| match &path[head..path.len() - tail] {
        [] => named(path),
        parts => parts.join("/"),
    };
    paths.iter().map(name).collect()
}

fn no_such_tag(tag: &str, tags: BTreeSet<String>) -> Error {
    let mut tags: Vec<String> = tags.into_iter().collect();
    tags.sort_by_key(|other| strsim::damerau_levenshtein(tag, other));
    let problem = Problem::new(format!("no run has scalars with the tag `{tag}`"));
    if tags.is_empty() {
        return problem.cause("the event files contain no scalars").into();
    }
    let mut list = tags.iter().take(LISTED).map(|tag| format!("`{tag}`")).collect::<Vec<_>>().join(", ");
    if tags.len() > LISTED {
        list += &format!(" and {} more", tags.len() - LISTED);
    }
    problem.hint(format!("available tags, nearest first: {list}")).into()
}

#[cfg(test)]
mod tests;
