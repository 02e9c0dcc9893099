//! Progress of a run: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cell::Outcome;
use crate::plan::Cell;
use crate::say;

/// Cells done and to do.
pub(crate) struct Progress {
    bar: ProgressBar,
    plain: bool,
    done: usize,
    cells: usize,
}

impl Progress {
    pub(crate) fn new(cells: usize) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let target = if plain || say::quiet() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(cells as u64), target);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} cells, {eta} left {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, plain, done: 0, cells }
    }

    /// One more cell has ended.
    pub(crate) fn ended(&mut self, cell: &Cell, values: &[String], outcome: &Outcome) {
        self.done += 1;
        self.bar.inc(1);
        self.bar.set_message(cell.id.clone());
        let swept =
            if values.is_empty() { String::new() } else { format!(" [{}]", values.join(", ")) };
        let line = format!(
            "{}/{} {}{swept} seed {}: {}, {} events, {:.2} s",
            self.done,
            self.cells,
            cell.id,
            cell.seed,
            outcome.status,
            outcome.events,
            outcome.cpu_s
        );
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
