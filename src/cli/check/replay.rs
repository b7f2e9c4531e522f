//! The replay of cases in this process, one after the other or in parallel.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tch::Device;
use tch_parity::report::Report;
use tch_parity::{
    Case, Criterion, Environment, Numerics, ProgramReplay, Required, compare, compare_with_truth,
    is_given,
};

use super::group::How;
use crate::cli::computing::compute_with;
use crate::cli::interruption::has_ctrl_c_asked;
use crate::cli::memory::keep_freed_memory;
use crate::cli::recorded::Recorded;
use crate::cli::reports::{Judged, not_compared};

/// The number of cases for each core that are replayed before the first of them is reported.
const BATCH: usize = 16;

/// The most cases that are replayed at once, each by a thread.
const MAX_JOBS: usize = 256;

/// Replays `files`, and passes the result of each to `then`, in order, until it breaks. Call it before any thread
/// computes.
///
/// After Ctrl-C, and with `fail_fast` after a case that does not pass, no further case is begun.
pub(super) fn replay_all(
    files: &[&PathBuf],
    numerics: Numerics,
    how: How,
    then: &mut dyn FnMut(Judged) -> ControlFlow<()>,
) {
    keep_freed_memory();
    let opened = compute_with(numerics, how.device).map(|(device, here)| {
        // Portable numerics use one thread for a case, so that cases can run side by side. A GPU is one.
        let alone = numerics == Numerics::Native || device != Device::Cpu;
        (device, here, if alone || files.len() == 1 { None } else { pool(numerics, how) })
    });
    let (device, here, pool) = match opened {
        Ok(opened) => opened,
        Err(err) => {
            let _ = files.iter().try_for_each(|file| then(Err(not_compared(file, &err))));
            return;
        }
    };
    let has_failed = AtomicBool::new(false);
    let judge = |file: &&PathBuf| {
        if has_ctrl_c_asked() || has_failed.load(Ordering::Relaxed) {
            return None;
        }
        let report = replay(file, device, how, &here);
        let passes = report.as_ref().is_ok_and(|report| report.comparison.passes());
        if how.fail_fast && !passes {
            has_failed.store(true, Ordering::Relaxed);
        }
        Some(report.map_err(|err| not_compared(file, &err)))
    };
    match pool {
        None => {
            let _ = files.iter().filter_map(judge).try_for_each(then);
        }
        Some(pool) => {
            for batch in files.chunks(BATCH * pool.current_num_threads()) {
                let judged = pool.install(|| batch.par_iter().map(judge).collect::<Vec<_>>());
                // What was computed is reported, also after the one that ends the check.
                let told = judged.into_iter().flatten().map(&mut *then).collect::<Vec<_>>();
                if told.iter().any(ControlFlow::is_break) {
                    return;
                }
            }
        }
    }
}

/// Creates a thread for each job; `None` where the system gives none (`ulimit -u`), and one has to do.
fn pool(numerics: Numerics, how: How) -> Option<ThreadPool> {
    let jobs = how.jobs.map_or_else(cores, |jobs| jobs.get().min(MAX_JOBS));
    let pool = ThreadPoolBuilder::new().num_threads(jobs);
    pool.start_handler(move |_| numerics.set_for_thread()).build().ok()
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn replay(file: &Path, device: Device, how: How, here: &Environment) -> Result<Report> {
    let name = file.display().to_string();
    let case = Case::load(file)?;
    let recorded = Recorded::of(case, file, how.by_program).with_context(|| name.clone())?;
    let case = recorded.case();
    let mut here = here.clone();
    if here.numerics == Numerics::Native {
        // The bits depend on the number of threads. The recorded number is used, up to the machine's cores.
        here.threads = case.environment.threads.clamp(1, cores() as u32);
        tch::set_num_threads(here.threads as i32);
    }
    let actual = recorded.run(device).with_context(|| name.clone())?;
    let required = Required::from(how.criterion);
    let (criterion, reason) = required.between(Some((&here, &case.environment)));
    let mut comparison = compare(&actual, &case.trace, criterion);
    match &recorded {
        // Where no bits are promised, they may be the same all the same.
        Recorded::Program(_) if required == Required::Auto && comparison.is_bitwise() => {}
        Recorded::Program(program) if matches!(required, Required::Auto | Required::Accurate) => {
            let criterion = criterion.by_truth();
            if criterion != Criterion::Bitwise {
                let truth = program.run_in_float64(device).with_context(|| name.clone())?;
                comparison = compare_with_truth(&actual, &case.trace, &truth, criterion);
            }
        }
        Recorded::Notebook(_) if required == Required::Accurate => {
            bail!(
                "{name}: --criterion accurate runs the program of the case in float64: add --program"
            );
        }
        _ => {}
    }
    // They are the case's own.
    comparison.tensors.retain(|tensor| !is_given(&tensor.name));
    comparison.not_compared.retain(|left_out| !ProgramReplay::takes(&left_out.name));
    if how.in_detail {
        comparison.detail(&actual, &case.trace);
    }
    let mut report = Report::new(&name, reason, comparison, || recorded.dataflow());
    report.operations.extend(recorded.operations(&report.comparison));
    report.file = Some(name);
    report.environments = [Some(here), Some(case.environment.clone())];
    Ok(report)
}
