//! Measures pairs of kernels on disjoint partitions, to find the cost of contention.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::bench::Bench;
use super::journal::{Journal, Lines};
use super::{CollectError, Plan, Request, WARM_UP, assemble};
use crate::device::{Completion, Device, Prepared, Queue, Ticket};
use crate::error::DeviceError;

/// A measured pair, as a line of `pairs.jsonl`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(super) struct Pair {
    /// Numbers of the kernels in the plan.
    pub(super) works: [usize; 2],
    /// CUs of each.
    pub(super) cus: [u32; 2],
    /// Durations while both ran, ns.
    pub(super) ns: [Vec<u64>; 2],
    /// Overhead of the events around a launch on each of the durations, ns.
    #[serde(default)]
    pub(super) events_ns: u64,
    /// Why there are no durations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<String>,
}

/// The pairs that were measured or failed, and how many the budget left out.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    pub(super) all: Vec<Pair>,
    pub(super) left: usize,
}

impl Pairs {
    /// The pairs of earlier runs.
    pub(super) fn known(folder: &Path, identity: &str) -> Result<Self, CollectError> {
        if !folder.join(FILE).exists() {
            return Ok(Self::default());
        }
        let (_, all) = Lines::open(folder, FILE, identity)?;
        Ok(Self { all, left: 0 })
    }
}

const FILE: &str = "pairs.jsonl";

/// If an interrupted host launched too late for two kernels to run side by side, the pair is retried
/// behind heads that last this many times as long.
const LONGER: [u64; 3] = [1, 4, 16];

/// Measures pairs of the kernels that take the most time: every two at half and half, then at a quarter
/// and three quarters, both ways round. Pairs of an earlier run are not measured again. Returns the
/// pairs and the number that the budget left out. A pair that fails is a line with its reason.
pub(super) fn corun(
    bench: &mut Bench,
    plan: &Plan,
    journal: &Journal,
    (request, identity, events_ns): (&Request, &str, u64),
    folder: &Path,
    began: Instant,
) -> Result<Pairs, CollectError> {
    let heavy = assemble::heaviest(plan, journal, request.corun_kernels);
    let atoms = bench.gpu.divisible_cus() / bench.gpu.info().grain.max(1);
    let wanted = wanted(&heavy, atoms, bench.gpu.info().grain);
    if wanted.is_empty() {
        return Ok(Pairs::default());
    }
    let (mut lines, mut pairs): (Lines, Vec<Pair>) = Lines::open(folder, FILE, identity)?;
    let mut left_out = 0;
    for (works, cus) in wanted {
        if pairs.iter().any(|p| p.works == works && p.cus == cus) {
            continue;
        }
        if request.is_over(began.elapsed()) {
            left_out += 1;
            continue;
        }
        let alone = works.map(|w| assemble::alone(journal, w).max(1));
        let mut failed = None;
        let mut ns = <[Vec<u64>; 2]>::default();
        for longer in LONGER {
            match bench.pair(plan, works, cus, alone, request.samples, longer) {
                Ok(measured) => ns = measured,
                Err(why) => {
                    failed = Some(why.to_string());
                    break;
                }
            }
            if ns.iter().all(|ns| !ns.is_empty()) {
                break;
            }
        }
        if failed.is_none() && ns.iter().any(Vec::is_empty) {
            failed = Some("never ran side by side: the host launches too slowly".to_owned());
        }
        let pair = Pair { works, cus, ns, events_ns, failed };
        let broken = pair.failed.is_some() && !bench.survives();
        lines.add(&pair)?;
        pairs.push(pair);
        if broken {
            break;
        }
    }
    Ok(Pairs { all: pairs, left: left_out })
}

/// The pairs, most valuable first.
fn wanted(heavy: &[usize], atoms: u32, grain: u32) -> Vec<([usize; 2], [u32; 2])> {
    let split = |first: u32| [first * grain, (atoms - first) * grain];
    let (half, quarter) = (atoms / 2, atoms / 4);
    let mut all = Vec::new();
    let pairs = || (0..heavy.len()).flat_map(|i| (i..heavy.len()).map(move |j| (i, j)));
    if half > 0 {
        all.extend(pairs().map(|(i, j)| ([heavy[i], heavy[j]], split(half))));
    }
    if quarter > 0 {
        for (i, j) in pairs() {
            all.push(([heavy[i], heavy[j]], split(quarter)));
            if i != j {
                all.push(([heavy[j], heavy[i]], split(quarter)));
            }
        }
    }
    all
}

impl Bench {
    /// Runs two kernels at once, each on its own CUs, and returns their durations while both run, ns.
    /// `alone` says how long each takes, so that both sides are kept busy for about the same time. The
    /// heads in front of them last `longer` times as long as usual.
    fn pair(
        &mut self,
        plan: &Plan,
        works: [usize; 2],
        cus: [u32; 2],
        alone: [u64; 2],
        samples: usize,
        longer: u64,
    ) -> Result<[Vec<u64>; 2], DeviceError> {
        let queues = [self.queue(0, cus[0])?, self.queue(cus[0], cus[1])?];
        let first = self.gpu.prepare(queues[0], &plan.works[works[0]])?;
        let second = match self.gpu.prepare(queues[1], &plan.works[works[1]]) {
            Ok(second) => second,
            Err(why) => {
                self.gpu.release(first)?;
                return Err(why);
            }
        };
        let measured = self.side_by_side(queues, [first, second], alone, samples, longer);
        // Release their memory in any case: the pairs to come need it.
        let released = [first, second].map(|p| self.gpu.release(p));
        let (tickets, mut ended) = measured?;
        released.into_iter().collect::<Result<(), _>>()?;
        Ok(together(&tickets, &mut ended))
    }

    /// Launches both behind kernels that occupy the GPU until everything is queued.
    fn side_by_side(
        &mut self,
        queues: [Queue; 2],
        prepared: [Prepared; 2],
        alone: [u64; 2],
        samples: usize,
        longer: u64,
    ) -> Result<([Vec<Ticket>; 2], Vec<Completion>), DeviceError> {
        /// Most launches of the shorter kernel per launch of the longer one.
        const MOST: u64 = 16;
        /// Longest duration of the kernel in front, ns.
        const MOST_HEAD: u64 = 1 << 26;
        let longest = alone[0].max(alone[1]);
        let each = alone.map(|ns| (longest / ns).clamp(1, MOST));
        // Both sides start when everything is queued, and so start together.
        let launches = each.iter().sum::<u64>() as usize * (WARM_UP + samples);
        let head = self.head_for(launches).saturating_mul(longer).min(MOST_HEAD);
        self.head(queues[0], head)?;
        self.head(queues[1], head)?;
        let mut tickets: [Vec<Ticket>; 2] = [Vec::new(), Vec::new()];
        for _ in 0..WARM_UP + samples {
            for side in 0..2 {
                for _ in 0..each[side] {
                    tickets[side].push(self.gpu.launch(prepared[side])?);
                }
            }
        }
        let mut ended = Vec::new();
        self.gpu.wait(&mut ended)?;
        Ok((tickets, ended))
    }
}

/// Durations of the launches that the other side's launches surrounded from start to end, without the
/// warm-up launches.
fn together(tickets: &[Vec<Ticket>; 2], ended: &mut [Completion]) -> [Vec<u64>; 2] {
    ended.sort_by_key(|c| c.ticket);
    let begin = |c: &Completion| c.at.since(c.duration);
    let sides = [0, 1].map(|side: usize| {
        let mine = |c: &&Completion| tickets[side].binary_search(&c.ticket).is_ok();
        ended.iter().filter(mine).copied().collect::<Vec<Completion>>()
    });
    let from = sides.iter().filter_map(|s| s.first().map(begin)).max();
    let to = sides.iter().filter_map(|s| s.last().map(|c| c.at)).min();
    let (Some(from), Some(to)) = (from, to) else { return [vec![], vec![]] };
    let counts = |c: &&Completion| begin(c) >= from && c.at <= to;
    sides.map(|s| {
        let late = s.get(WARM_UP..).unwrap_or_default();
        late.iter().filter(counts).map(|c| c.duration.0.max(1)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::End;
    use cotenant_profiles::Nanos;

    #[test]
    fn only_what_had_company_all_along_counts() {
        // The left side runs 20 launches of 10 from time 0, the right side 8 launches of 12 from time
        // 5.
        let run = |first: u64, n: u64, begin: u64, each: u64| {
            (0..n).map(move |i| Completion {
                ticket: Ticket(first + i),
                duration: Nanos(each),
                at: Nanos(begin + (i + 1) * each),
                end: End::Done,
            })
        };
        let mut ended: Vec<Completion> = run(0, 20, 0, 10).chain(run(100, 8, 5, 12)).collect();
        let tickets = [(0..20).map(Ticket).collect(), (100..108).map(Ticket).collect()];
        let [left, right] = together(&tickets, &mut ended);
        // Left: starts at 30 or later (after three warm-up launches), ends by 5 + 96 = 101.
        assert_eq!((left.len(), right.len()), (7, 5));
        let (duration, at) = (Nanos(1), Nanos(1));
        let mut one = vec![Completion { ticket: Ticket(0), duration, at, end: End::Done }];
        let nobody = together(&[vec![Ticket(0)], vec![]], &mut one);
        assert!(nobody.iter().all(Vec::is_empty));
    }

    #[test]
    fn pairs_are_every_two_at_half_then_at_quarters_both_ways() {
        let all = wanted(&[7, 9], 66, 2);
        assert_eq!(all.len(), 3 + 2 + 2);
        assert!(all[..3].iter().all(|(_, cus)| *cus == [66, 66]), "{all:?}");
        assert!(all[3..].iter().all(|(_, cus)| *cus == [32, 100]), "{all:?}");
        assert!(all.contains(&([9, 7], [32, 100])) && all.contains(&([7, 9], [32, 100])));
        assert!(wanted(&[1], 1, 2).is_empty());
    }
}
