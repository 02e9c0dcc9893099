//! Panics: their messages are kept, and become errors of the cell that panicked.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// The message of this thread's last panic.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the message of a panic for the cell's status instead of printing it.
fn keep_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, |l| format!(" at {l}"));
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("panic");
        PANIC.with_borrow_mut(|p| *p = format!("{text}{place}").replace(['\n', '\r'], " "));
    }));
}

/// The same for as long as `work` runs.
pub(crate) fn kept<T>(work: impl FnOnce() -> T) -> T {
    keep_panics();
    let done = work();
    let _ = std::panic::take_hook();
    done
}

/// Turns a panic into an error: a bug costs only the computation in which it happens.
///
/// # Errors
/// `internal-error: …`.
pub(crate) fn guarded<T>(compute: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(compute))
        .map_err(|_| format!("internal-error: {}", PANIC.with_borrow(String::clone)))
}
