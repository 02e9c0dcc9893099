//! Progress of a run: a bar on a terminal, occasional lines elsewhere.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::say;
use crate::text::count;

/// Number of cells done, and in all.
pub(crate) struct Progress {
    bar: ProgressBar,
    plain: bool,
    done: usize,
    cells: usize,
}

impl Progress {
    /// For `cells` cells, of which `done` are finished already.
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

    /// Counts one more finished cell; `what` tells how it ended.
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

/// Progress through a budget of simulated events: a bar on a terminal, a line at each quarter elsewhere.
pub(crate) struct Spending {
    bar: ProgressBar,
    plain: bool,
    budget: u64,
    /// Quarters that have been reported.
    told: AtomicU64,
}

impl Spending {
    /// For a budget of `budget` events.
    pub(crate) fn new(budget: u64) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let target = if plain || say::quiet() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(budget), target);
        let style = ProgressStyle::with_template("{bar:30} {percent} % of the budget, {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, plain, budget: budget.max(1), told: AtomicU64::new(0) }
    }

    /// Shows that `spent` events are spent, on `cells` cells.
    pub(crate) fn at(&self, spent: u64, cells: usize) {
        self.bar.set_position(spent.min(self.budget));
        let what = count(cells, "simulation");
        let quarter = spent * 4 / self.budget;
        if self.plain && quarter > self.told.fetch_max(quarter, Ordering::Relaxed) && quarter <= 4 {
            say::note(&format!("{} % of the budget: {what}", quarter * 25));
        }
        self.bar.set_message(what);
    }

    /// Prints a note above the bar.
    pub(crate) fn note(&self, text: &str) {
        self.bar.suspend(|| say::note(text));
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
