//! How many shards to use: times a few cells before anything is submitted.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::Study;
use crate::cell;
use crate::plan;
use crate::prepare::Preparer;
use crate::text::count;

/// Cells to time at most, and the time after which the advice uses the timings it has.
const CELLS: usize = 9;
const PATIENCE: Duration = Duration::from_secs(5);
/// Threads of a shard in the scripts that `submit` writes.
pub(crate) const THREADS: usize = 8;
/// A good run time of a shard, s: schedulers dislike tasks shorter than a few minutes, and a lost node should
/// cost little work.
const GOOD: [f64; 2] = [600.0, 1800.0];
/// Largest number of shards to advise: the default `MaxArraySize` of Slurm is 1001.
const MOST: f64 = 1000.0;

/// Times a few cells, scattered over the study, and says what their times mean for the number of shards.
pub(crate) fn advice(study: Study, preparer: Preparer, shards: usize) -> String {
    let works = (0..study.cells.len()).filter(|&i| study.first_of(i) == i).count();
    words(&sample(study, preparer), works, shards)
}

/// Processor times of a few cells, s; empty if the first takes too long.
pub(crate) fn sample(study: Study, mut preparer: Preparer) -> Vec<f64> {
    let cells = study.cells.len();
    let deal = study.deal(cells);
    let mut chosen: Vec<usize> = (0..cells).filter(|&i| study.first_of(i) == i).collect();
    chosen.sort_by_key(|&i| deal[i]);
    chosen.truncate(CELLS);
    let (sender, receiver) = mpsc::channel();
    // A cell cannot be interrupted: if it takes too long, its thread is left running.
    std::thread::spawn(move || {
        for cell in chosen {
            let timed = time(&study, &mut preparer, cell);
            if timed.is_none_or(|s| sender.send(s).is_err()) {
                return;
            }
        }
    });
    let start = Instant::now();
    let mut times: Vec<f64> = vec![];
    while let Some(left) = PATIENCE.checked_sub(start.elapsed()) {
        match receiver.recv_timeout(left) {
            Ok(time) => times.push(time),
            Err(_) => break,
        }
    }
    times
}

/// Processor time of a cell, s.
fn time(study: &Study, preparer: &mut Preparer, cell: usize) -> Option<f64> {
    let (point, number) = study.point_of(cell);
    let e = study.grid.at(point).ok()?;
    let ready = preparer.facts(&e, &e.point).ok()?.compile(&e.base, &e.point).ok()?;
    let cell = plan::cell(&e, &ready.meaning, number);
    Some(cell::compute(&e, &ready, &cell, study.wants).cpu_s)
}

/// The advice; `works` is the number of cells that need a computation of their own.
fn words(times: &[f64], works: usize, shards: usize) -> String {
    if times.is_empty() {
        let long = PATIENCE.as_secs();
        return format!(
            "No cell ended within {long} s: give every cell a shard of its own, or nearly.\n"
        );
    }
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    let all = mean * works as f64 / THREADS as f64;
    let shard = all / shards as f64;
    let mut text = format!(
        "A cell takes about {} ({} timed), a shard about {} on {THREADS} threads.\n",
        length(mean),
        count(times.len(), "cell"),
        length(shard),
    );
    let few = (all / GOOD[1]).ceil().clamp(1.0, MOST);
    let many = (all / GOOD[0]).floor().clamp(few, MOST);
    let range = if few == many { format!("{few}") } else { format!("{few} to {many}") };
    if all < GOOD[0] {
        text += "The whole study is shorter than one good shard (10 to 30 minutes): `cotenant run` \
                 computes it on one machine.\n";
    } else if (few..=many).contains(&(shards as f64)) {
        text += "That is a good length.\n";
    } else {
        text += &format!("10 to 30 minutes are good: --shards {range}.\n");
    }
    text
}

/// `350 ms`, `12 s`, `25 min`, `3.5 h`.
pub(crate) fn length(s: f64) -> String {
    match s {
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn advice_aims_at_ten_to_thirty_minutes() {
        // 8000 cells of 9 s on 8 threads: 9000 s in all.
        assert!(words(&[9.0, 9.0], 8000, 64).contains("--shards 5 to 15"));
        assert!(words(&[9.0], 8000, 10).contains("That is a good length"));
        assert!(words(&[0.001], 8000, 10).contains("on one machine"));
        assert!(words(&[3600.0], 1_000_000, 10).contains("--shards 1000."));
        assert!(words(&[], 10, 10).contains("No cell ended"));
    }
}
