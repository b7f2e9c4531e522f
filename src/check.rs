//! `tch-parity check`: replays recorded cases, side by side, and reports in order.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use tch::Device;
use tch_parity::report::Report;
use tch_parity::{Environment, Numerics, Replay, Required, compare, dataflow, is_given};

use crate::outcome::{Checked, not_compared};

/// Replays every case that `paths` name, files and folders of them, and compares each with its recording.
/// By default they are computed as they were recorded. `compute_with` is called once, before the first is
/// replayed.
pub(crate) fn check(
    paths: &[PathBuf],
    numerics: Option<Numerics>,
    required: Required,
    compute_with: impl FnOnce(Numerics) -> Result<(Device, Environment)>,
) -> Checked {
    let mut checked = Checked::default();
    let mut files = Vec::new();
    for path in paths {
        if let Err(err) = case_files(path, &mut files) {
            checked.errors.push(not_compared(path, &err));
        }
    }
    let loaded = side_by_side(&files, cores(), |file| Replay::load(file));
    let mut cases = Vec::new();
    for (file, case) in files.iter().zip(loaded) {
        match case {
            Ok(case) => cases.push((file, case)),
            Err(err) => checked.errors.push(not_compared(file, &err)),
        }
    }
    if cases.is_empty() {
        return checked;
    }
    let numerics = numerics.map_or_else(|| recorded_numerics(&cases), Ok);
    let (device, here) = match numerics.and_then(compute_with) {
        Ok(opened) => opened,
        Err(err) => {
            checked.errors.extend(cases.iter().map(|(file, _)| not_compared(file, &err)));
            return checked;
        }
    };

    // Portable numerics use one thread for a case, so that cases can run side by side. A GPU is one.
    let alone = here.numerics == Numerics::Native || device != Device::Cpu;
    let workers = if alone { 1 } else { cores() };
    let done = AtomicUsize::new(0);
    let results = side_by_side(&cases, workers, |(file, case)| {
        here.numerics.set_for_thread();
        let result = replay(file, case, device, required, &here);
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, cases.len());
        result
    });
    for ((file, _), result) in cases.iter().zip(results) {
        match result {
            Ok(report) => checked.reports.push(report),
            Err(err) => checked.errors.push(not_compared(file, &err)),
        }
    }
    checked
}

/// A file as it is, a folder searched for `*.safetensors`.
fn case_files(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let before = files.len();
    search(path, files).with_context(|| format!("cannot search {}", path.display()))?;
    ensure!(files.len() > before, "{} holds no *.safetensors file", path.display());
    Ok(())
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
fn recorded_numerics(cases: &[(&PathBuf, Replay)]) -> Result<Numerics> {
    let numerics =
        cases.first().map_or(Numerics::Portable, |(_, case)| case.case.environment.numerics);
    match cases.iter().find(|(_, case)| case.case.environment.numerics != numerics) {
        None => Ok(numerics),
        Some((other, _)) => bail!(
            "{} and {} were recorded with different numerics: check them one by one, or choose with --numerics",
            cases[0].0.display(),
            other.display()
        ),
    }
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

fn replay(
    file: &Path,
    recorded: &Replay,
    device: Device,
    required: Required,
    here: &Environment,
) -> Result<Report> {
    let name = file.display().to_string();
    let actual = recorded.run(device).with_context(|| name.clone())?;
    let Replay { run, case } = recorded;
    let (criterion, reason) = required.between(Some((here, &case.environment)));
    let mut comparison = compare(&actual, &case.trace, criterion);
    comparison.tensors.retain(|tensor| !is_given(&tensor.name)); // the case's own, handed back
    let mut report = Report::new(&name, reason, comparison, || dataflow(run.steps));
    report.file = Some(name);
    Ok(report)
}

fn progress(done: usize, of: usize) {
    let mut stderr = io::stderr().lock();
    if of > 1 && stderr.is_terminal() {
        let end = if done == of { "\r\x1b[K" } else { "" };
        let _ = write!(stderr, "\r{done} of {of} cases{end}");
    }
}
