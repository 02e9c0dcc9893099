//! Kernels that ran one after another, as profilers record them: the repeating iteration is found
//! and becomes the model's launches.

use std::collections::BTreeMap;

use super::{Builder, Import, ImportError, op_of};
use crate::Device;
use crate::curve::{Curve, Point};
use crate::files::{FileError, MODEL_NAME, Problem, is_model_name};
use crate::kernel::Kernel;
use crate::units::Nanos;

/// One kernel that ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Registers of a thread; 0 if unknown.
    pub regs: u32,
    /// Shared memory of a block, bytes.
    pub smem_bytes: u32,
    /// When it began, ns.
    pub start_ns: u64,
    /// How long it took, ns.
    pub duration_ns: u64,
}

/// What a recording does not say by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Name of the model.
    pub model: String,
    /// Items of one iteration.
    pub batch: u32,
    /// Kernels of one iteration, counted in order of their start, in place of the one found.
    pub range: Option<[usize; 2]>,
    /// Host time of one launch, in place of the device's `costs.launch`: records of kernels do not
    /// say when, nor for how long, the host launched them.
    pub launch: Option<Nanos>,
}

/// Where a recording repeats itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iteration {
    /// Number of the first kernel of the first whole iteration.
    pub first: usize,
    /// Kernels of one iteration.
    pub kernels: usize,
    /// Whole iterations, one behind the other.
    pub repeats: usize,
}

/// Fewer repeats than these may be chance.
const REPEATS: usize = 3;
/// Candidate periods that are looked at.
const CANDIDATES: usize = 256;

/// The host time of a launch that is taken for more than a slip: the slowest frameworks need a
/// thousandth of it.
const LONGEST_LAUNCH: Nanos = Nanos(1_000_000_000);

fn same(a: &Record, b: &Record) -> bool {
    (&a.name, a.grid, a.block, a.smem_bytes) == (&b.name, b.grid, b.block, b.smem_bytes)
}

/// Finds the iteration: the shortest period under which the longest stretch of the recording repeats
/// itself, at least three times. What comes before (warm-up), after, and between two stretches
/// (another kernel now and then) is left out. An iteration begins where the GPU has waited longest.
#[must_use]
pub fn iteration(records: &[Record]) -> Option<Iteration> {
    let mut ids: BTreeMap<(&str, [u32; 3], u32, u32), u32> = BTreeMap::new();
    let keys: Vec<u32> = records
        .iter()
        .map(|r| {
            let next = ids.len() as u32;
            *ids.entry((&r.name, r.grid, r.block, r.smem_bytes)).or_insert(next)
        })
        .collect();
    let mut best: Option<(usize, usize, usize)> = None; // covered, period, first
    for period in periods(&keys, ids.len()) {
        let (first, covered) = stretch(&keys, period);
        if covered / period < REPEATS {
            continue;
        }
        // A multiple of the period covers as much: the shortest wins unless another covers more.
        let better = best.is_none_or(|(most, p, _)| {
            covered > most + p.max(period) || (covered + p.max(period) >= most && period < p)
        });
        if better {
            best = Some((covered, period, first));
        }
    }
    let (covered, period, first) = best?;
    Some(aligned(records, first, covered, period))
}

/// Distances at which the rarest kernels come again, ascending.
fn periods(keys: &[u32], distinct: usize) -> Vec<usize> {
    let mut places: Vec<Vec<usize>> = vec![Vec::new(); distinct];
    for (i, key) in keys.iter().enumerate() {
        places[*key as usize].push(i);
    }
    places.retain(|p| p.len() >= REPEATS);
    places.sort_by_key(Vec::len);
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for place in places.iter().take(16) {
        for reach in 1..=32usize.min(place.len() - 1) {
            for pair in place.windows(reach + 1).take(4096) {
                *counts.entry(pair[reach] - pair[0]).or_default() += 1;
            }
        }
    }
    let mut found: Vec<(usize, usize)> = counts.into_iter().map(|(p, n)| (n, p)).collect();
    found.sort_by_key(|&(n, p)| (std::cmp::Reverse(n), p));
    let mut periods: Vec<usize> = found.into_iter().take(CANDIDATES).map(|(_, p)| p).collect();
    periods.sort_unstable();
    periods
}

/// The longest stretch that repeats with this period: its begin and its length.
fn stretch(keys: &[u32], period: usize) -> (usize, usize) {
    let (mut best, mut begin, mut length) = ((0, 0), 0, 0);
    for i in 0..keys.len().saturating_sub(period) {
        if keys[i] == keys[i + period] {
            if length == 0 {
                begin = i;
            }
            length += 1;
            if length > best.1 {
                best = (begin, length);
            }
        } else {
            length = 0;
        }
    }
    if best.1 == 0 { best } else { (best.0, best.1 + period) }
}

/// Turns the stretch so that iterations begin behind the longest pause, on the average.
fn aligned(records: &[Record], first: usize, covered: usize, period: usize) -> Iteration {
    let mut pause = vec![0u64; period];
    for i in (first + 1)..(first + covered) {
        let end = records[i - 1].start_ns.saturating_add(records[i - 1].duration_ns);
        let gap = records[i].start_ns.saturating_sub(end);
        pause[(i - first) % period] = pause[(i - first) % period].saturating_add(gap);
    }
    let longest = pause.iter().max().copied().unwrap_or(0);
    let turn = pause.iter().position(|&p| p == longest).unwrap_or(0);
    let repeats = (covered - turn) / period;
    Iteration { first: first + turn, kernels: period, repeats }
}

/// Makes a profile of a recording: one model at one batch, curves of one point on all CUs.
pub(super) fn profile(
    file: &str,
    mut records: Vec<Record>,
    device: &Device,
    options: &StreamOptions,
    facts: &[(&str, String)],
) -> Result<Import, ImportError> {
    let bad = |field: &str, text: String, wanted: &str| {
        let problem = Problem::Value { text, wanted: wanted.to_owned() };
        FileError::bad(file, 1, field, problem)
    };
    if !is_model_name(&options.model) {
        return Err(bad("model", options.model.clone(), MODEL_NAME));
    }
    if options.batch == 0 {
        return Err(bad("batch", "0".to_owned(), "a batch size of at least 1"));
    }
    if let Some(long) = options.launch.filter(|l| *l > LONGEST_LAUNCH) {
        return Err(bad("launch", long.to_string(), &format!("at most {LONGEST_LAUNCH}")));
    }
    if records.is_empty() {
        return Err(FileError::bad(file, 1, "file", Problem::NoRows("kernel")));
    }
    records.sort_by_key(|r| r.start_ns);
    let found = match options.range {
        Some([first, end]) if first < end && end <= records.len() => {
            Iteration { first, kernels: end - first, repeats: 1 }
        }
        Some([first, end]) => {
            let text = format!("{first}..{end}");
            return Err(bad("range", text, &format!("within the {} kernels", records.len())));
        }
        None => iteration(&records).ok_or_else(|| {
            let text = format!("a recording of {} kernels", records.len());
            bad("file", text, "three equal iterations one behind the other; give --range")
        })?,
    };
    let mut facts = facts.to_vec();
    let Iteration { first, kernels, repeats } = found;
    facts.push(("curves", "one point, on all CUs".to_owned()));
    let launch = options.launch.unwrap_or(device.costs.launch);
    let host = match options.launch {
        Some(given) => format!("given: {given} per launch"),
        None => format!("assumed: {launch} per launch, costs.launch of {}", device.name),
    };
    facts.push(("host_ns", host));
    facts.push(("iteration", format!("{kernels} kernels from number {first}, {repeats} times")));
    let used = &records[first..first + kernels * repeats];
    let mut builder = Builder::new(device, &facts);
    let add = Adder { device, options, used };
    for position in 0..kernels {
        let kernel = add.kernel(&mut builder, position);
        builder.launch(&options.model, options.batch, kernel, launch);
    }
    let outside = records.len() - used.len();
    let mut dropped = BTreeMap::new();
    if outside > 0 {
        dropped.insert("outside the repeating iterations", outside);
    }
    Ok(builder.finish(records.len(), dropped))
}

struct Adder<'a> {
    device: &'a Device,
    options: &'a StreamOptions,
    used: &'a [Record],
}

impl Adder<'_> {
    /// The kernel launched at this place of the iteration: its duration over every equal launch.
    fn kernel(&self, builder: &mut Builder<'_>, position: usize) -> usize {
        let r = &self.used[position];
        let content = format!("{}/{:?}/{}/{}", r.name, r.grid, r.block, r.smem_bytes);
        builder.kernel(content, |number| {
            let mut samples: Vec<u64> =
                self.used.iter().filter(|o| same(o, r)).map(|o| o.duration_ns.max(1)).collect();
            samples.sort_unstable();
            let point = Point {
                cus: self.device.cus(),
                duration_ns: quantile(&samples, 50),
                p05_ns: quantile(&samples, 5),
                p95_ns: quantile(&samples, 95),
                samples: u32::try_from(samples.len()).unwrap_or(u32::MAX),
            };
            let op = op_of(&r.name);
            Kernel {
                id: format!(
                    "{}-b{}/{}/{number}",
                    self.options.model,
                    self.options.batch,
                    op.name()
                ),
                name: super::one_line(&r.name),
                op,
                grid: r.grid,
                block: r.block,
                regs: r.regs,
                smem_bytes: r.smem_bytes,
                blocks_per_cu: residency(self.device, r),
                flops: 0,
                dram_bytes: 0,
                curve: Curve::new(vec![point]).expect("one point of at least 1 CU and 1 ns"),
            }
        })
    }
}

/// The value that `percent` of the ascending samples do not exceed.
fn quantile(samples: &[u64], percent: usize) -> u64 {
    samples[(samples.len() * percent).div_ceil(100).clamp(1, samples.len()) - 1]
}

/// Blocks that fit on one CU by threads, registers and shared memory, at least 1.
fn residency(device: &Device, r: &Record) -> u32 {
    let t = &device.topology;
    let smem = u32::try_from(t.smem_per_cu.0).unwrap_or(u32::MAX);
    let fits = |have: u32, need: u32| have.checked_div(need).unwrap_or(u32::MAX);
    fits(t.threads_per_cu, r.block)
        .min(fits(t.registers_per_cu, r.regs.saturating_mul(r.block)))
        .min(fits(smem, r.smem_bytes))
        .min(t.blocks_per_cu)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(name: u32, start: u64) -> Record {
        Record {
            name: format!("k{name}"),
            grid: [1, 1, 1],
            block: 64,
            regs: 32,
            smem_bytes: 0,
            start_ns: start,
            duration_ns: 10,
        }
    }

    fn stream(names: &[u32]) -> Vec<Record> {
        names.iter().zip(0u64..).map(|(&n, i)| record(n, i * 20)).collect()
    }

    #[test]
    fn the_iteration_is_found_behind_warm_up_and_around_noise() {
        // An iteration with an inner repetition, as networks have them.
        let one = [1, 2, 3, 2, 3, 2, 3, 4];
        let mut names = vec![9, 8, 1, 2, 3, 2, 7]; // warm-up
        for i in 0..10 {
            names.extend(one);
            if i == 3 {
                names.push(77); // noise
            }
        }
        let mut records = stream(&names);
        // A pause before every launch of kernel 1: there an iteration begins.
        let mut shift = 0;
        for r in &mut records {
            shift += if r.name == "k1" { 500 } else { 0 };
            r.start_ns += shift;
        }
        let found = iteration(&records).unwrap();
        assert_eq!((found.kernels, found.repeats), (8, 6), "{found:?}");
        assert_eq!(records[found.first].name, "k1");
    }

    #[test]
    fn what_does_not_repeat_has_no_iteration() {
        assert_eq!(iteration(&stream(&(0..100).collect::<Vec<_>>())), None);
        assert_eq!(iteration(&stream(&[1, 2, 1, 2])), None);
        assert_eq!(iteration(&[]), None);
    }

    proptest! {
        #[test]
        fn a_repeated_sequence_is_found_with_its_period(
            mut one in proptest::collection::vec(0u32..6, 1..20),
            repeats in 4usize..9,
            before in proptest::collection::vec(10u32..13, 0..5),
        ) {
            one.push(99); // once per iteration: the period cannot be shorter
            let mut names = before.clone();
            (0..repeats).for_each(|_| names.extend(&one));
            let found = iteration(&stream(&names)).unwrap();
            prop_assert_eq!(found.kernels, one.len());
            prop_assert!(found.repeats >= repeats - 1);
        }
    }
}
