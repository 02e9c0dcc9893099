//! Progress of a run: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::say;

/// Cells done and to do.
pub(crate) struct Progress {
    bar: ProgressBar,
    plain: bool,
    done: usize,
    cells: usize,
}

impl Progress {
    /// Of so many cells, `done` of which are finished already.
    pub(crate) fn new(cells: usize, done: usize) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let target = if plain || say::quiet() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(cells as u64), target);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} cells, {eta} left {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_position(done as u64);
        bar.reset_eta();
        Self { bar, plain, done, cells }
    }

    /// One more cell has ended; `what` says which and how.
    pub(crate) fn ended(&mut self, id: &str, what: &str) {
        self.done += 1;
        self.bar.inc(1);
        self.bar.set_message(id.to_owned());
        let line = format!("{}/{} {id}{what}", self.done, self.cells);
        let tenth = self.done * 10 / self.cells > (self.done - 1) * 10 / self.cells;
        if say::verbose() {
            self.bar.suspend(|| say::detail(&line));
        } else if self.plain && tenth {
            say::note(&line);
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
