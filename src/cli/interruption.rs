//! Whether Ctrl-C ends the process, or asks for an end.

use std::sync::atomic::{AtomicU8, Ordering};

/// What Ctrl-C does: one of the three below.
static INTERRUPTION: AtomicU8 = AtomicU8::new(ENDS);

/// It ends the process at once.
const ENDS: u8 = 0;
/// It asks for an end: what has begun is completed and reported.
const ASKS: u8 = 1;
/// It has asked.
const ASKED: u8 = 2;

/// Makes the first Ctrl-C from now on ask for an end. The second one ends the process, as always.
pub(super) fn let_ctrl_c_ask() {
    INTERRUPTION.store(ASKS, Ordering::Relaxed);
}

/// Returns whether Ctrl-C has asked for an end.
pub(super) fn has_ctrl_c_asked() -> bool {
    INTERRUPTION.load(Ordering::Relaxed) == ASKED
}

/// Takes Ctrl-C as a request, and returns whether it may be one.
pub(super) fn take() -> bool {
    let (from, to) = (ASKS, ASKED);
    INTERRUPTION.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}
