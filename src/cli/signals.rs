//! What the process does when it is told to end, or when a file grows larger than it may.

use std::sync::Arc;
use std::thread;

use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use tch_parity::remove_unfinished_files;

/// Makes Ctrl-C and its kind remove what is half-written before they end the process, and a file that grows too
/// large (`ulimit -f`) an error of the call that writes it.
///
/// This starts a thread, which waits for signals and touches nothing else.
pub(super) fn watch() -> Result<()> {
    flag::register(SIGXFSZ, Arc::default())?;
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let wait = move || {
        for signal in signals.forever() {
            remove_unfinished_files();
            let _ = emulate_default_handler(signal); // does not return
        }
    };
    // Without a thread the signals end the process at once, as by default, and what is half-written stays.
    if thread::Builder::new().spawn(wait).is_err() {
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            flag::register_conditional_default(signal, Arc::new(true.into()))?;
        }
    }
    Ok(())
}
