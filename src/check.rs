//! `tch-parity check`: replays recorded cases, side by side, and reports in order.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use tch_parity::report::Report;
use tch_parity::{Case, Criterion, Environment, Numerics, compare, dataflow};

/// What was found, in the order of the cases.
pub(crate) struct Checked {
    pub(crate) reports: Vec<Report>,
    /// Cases that could not be read or replayed, each in one line.
    pub(crate) errors: Vec<String>,
}

/// The case files that `paths` name: files as they are, folders searched for `*.safetensors`.
pub(crate) fn case_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let before = files.len();
            search(path, &mut files)
                .with_context(|| format!("cannot search {}", path.display()))?;
            ensure!(files.len() > before, "{} holds no *.safetensors file", path.display());
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn search(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // Links are not followed, so that none leads in a circle.
        if entry.file_type()?.is_dir() {
            search(&entry.path(), files)?;
        } else if entry.path().extension().is_some_and(|extension| extension == "safetensors") {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// The numerics that all the cases were recorded with.
pub(crate) fn recorded_numerics(cases: &[(PathBuf, Result<Case>)]) -> Result<Numerics> {
    let mut readable = cases.iter().filter_map(|(file, case)| Some((file, case.as_ref().ok()?)));
    let Some((first, case)) = readable.next() else { return Ok(Numerics::Portable) };
    let numerics = case.environment.numerics;
    match readable.find(|(_, case)| case.environment.numerics != numerics) {
        None => Ok(numerics),
        Some((other, _)) => bail!(
            "{} and {} were recorded with different numerics: check them one by one, or choose with --numerics",
            first.display(),
            other.display()
        ),
    }
}

/// Reads the cases, each with its file's name.
pub(crate) fn load(files: Vec<PathBuf>) -> Vec<(PathBuf, Result<Case>)> {
    let cases = side_by_side(&files, cores(), |file| Case::load(file));
    files.into_iter().zip(cases).collect()
}

/// Replays each case and compares it with the recording. `criterion` is for all; by default each
/// case's environment decides.
pub(crate) fn check(
    cases: &[(PathBuf, Result<Case>)],
    criterion: Option<Criterion>,
    here: &Environment,
) -> Checked {
    // Portable numerics use one thread for a case, so that cases can run side by side.
    let workers = if here.numerics == Numerics::Portable { cores() } else { 1 };
    let done = AtomicUsize::new(0);
    let results = side_by_side(cases, workers, |(file, case)| {
        here.numerics.set_threads();
        let result = check_one(file, case, criterion, here).map_err(|err| crate::one_line(&err));
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, cases.len());
        result
    });
    let mut checked = Checked { reports: Vec::new(), errors: Vec::new() };
    for result in results {
        match result {
            Ok(report) => checked.reports.push(report),
            Err(error) => checked.errors.push(error),
        }
    }
    checked
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Does the same to every item, each thread taking the next; the results are in the order of the items.
fn side_by_side<T: Sync, R: Send + Sync>(
    items: &[T],
    workers: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = items.iter().map(|_| OnceLock::new()).collect::<Vec<_>>();
    let queue = items.iter().zip(&results).collect::<Vec<_>>();
    let take = || {
        while let Some((item, slot)) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
            let _ = slot.set(work(item)); // taken once
        }
    };
    thread::scope(|scope| {
        for _ in 1..workers.min(items.len()) {
            scope.spawn(take);
        }
        take();
    });
    results.into_iter().filter_map(OnceLock::into_inner).collect()
}

fn check_one(
    file: &Path,
    case: &Result<Case>,
    criterion: Option<Criterion>,
    here: &Environment,
) -> Result<Report> {
    let name = file.display().to_string();
    let case = case.as_ref().map_err(|err| anyhow::anyhow!("{}", crate::one_line(err)))?;
    let actual = case.replay().with_context(|| name.clone())?;
    let (criterion, reason) = match criterion {
        Some(criterion) => (criterion, "as asked".to_owned()),
        None => required(here, &case.environment),
    };
    let comparison = compare(&actual, &case.trace, criterion);
    let origin = match comparison.passes() {
        true => None, // and most do: the dataflow is not laid out for nothing
        false => comparison.origin(&dataflow(case.run.steps)),
    };
    Ok(Report { name, reason, origin, comparison })
}

/// What the two environments promise, and why.
pub(crate) fn required(here: &Environment, there: &Environment) -> (Criterion, String) {
    match here.promise_of_same_bits(there) {
        Some(reason) => (Criterion::Bitwise, reason.to_owned()),
        None => {
            let differences = here.differences(there).join("; ");
            (Criterion::Close, format!("another environment: {differences}"))
        }
    }
}

fn progress(done: usize, of: usize) {
    let mut stderr = io::stderr().lock();
    if of > 1 && stderr.is_terminal() {
        let end = if done == of { "\r\x1b[K" } else { "" };
        let _ = write!(stderr, "\r{done} of {of} cases{end}");
    }
}
