//! What the process does when it is told to end, or when a file grows larger than it may.

use std::sync::Arc;
use std::{fs, process, thread};

use anyhow::Result;
use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ,
};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::{emulate_default_handler, exit};
use tch_parity::remove_unfinished_files;

use super::interruption;

/// The signals that end a process by default and can be caught.
const ENDING: [i32; 8] = [SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU];

/// Makes Ctrl-C and its kind remove what is half-written before they end the process, and a file that grows too
/// large (`ulimit -f`) an error of the call that writes it.
///
/// This starts a thread, which waits for signals and touches nothing else. Without a thread the signals end the
/// process at once, as by default, and what is half-written stays.
pub(super) fn watch() -> Result<()> {
    flag::register(SIGXFSZ, Arc::default())?;
    if thread::Builder::new().spawn(|| ()).is_err() {
        return Ok(());
    }
    let ignored = ignored();
    let ending = ENDING.into_iter().filter(|signal| ignored & 1 << (signal - 1) == 0);
    let mut signals = Signals::new(ending)?;
    thread::Builder::new().spawn(move || {
        let asks = |signal: &i32| *signal == SIGINT && interruption::take();
        let Some(signal) = signals.forever().find(|signal| !asks(signal)) else { return };
        remove_unfinished_files();
        // The first process of a container is not ended by a signal's default.
        if process::id() != 1 {
            let _ = emulate_default_handler(signal);
        }
        exit(128 + signal);
    })?;
    Ok(())
}

/// Returns the signals that the process is told to ignore, as by `nohup`: a bit for each, the lowest for signal 1.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
