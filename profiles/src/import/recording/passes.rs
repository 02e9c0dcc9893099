//! Finds the launches that form one pass of the model, and the pass that is representative.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};

use super::clean::{Launch, Place, Timeline};
use super::repeat::{Iteration, NoIteration, iteration};
use super::{Range, Recording, StreamOptions};
use crate::import::ImportError;

/// One pass.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    /// Its name.
    pub label: String,
    /// The number in its mark.
    pub number: Option<u64>,
    /// Its launches, by their place in the timeline, in its order.
    pub launches: Vec<Place>,
    /// The host's time in which its launches and copies were asked for.
    pub from: i64,
    pub to: i64,
}

/// The passes of a recording.
#[derive(Debug)]
pub(super) struct Passes {
    /// How the passes were found.
    pub how: String,
    pub passes: Vec<Pass>,
    /// Launches of no pass.
    pub outside: usize,
    /// Whether they were found by marks, or given by the user.
    pub marked: bool,
    /// Whether they were found by marks of the host, without launch calls that show what was launched
    /// in them.
    pub by_time: bool,
}

/// The representative pass.
#[derive(Debug)]
pub(super) struct Typical {
    /// The passes whose launches are the same except for their grids; the choice is made among these.
    pub alike: Vec<usize>,
    /// The one or two in the middle by GPU time.
    pub middle: Vec<usize>,
    /// The middle pass by time from the first launch to the last end.
    pub timing: usize,
    /// A description in words.
    pub words: String,
    /// How the passes differ, if they do.
    pub differ: Option<String>,
}

impl Recording {
    pub(super) fn passes(
        &self,
        timeline: &Timeline,
        options: &StreamOptions,
    ) -> Result<Passes, ImportError> {
        match &options.range {
            Some(Range::Kernels(range)) => self.by_number(timeline, *range),
            Some(Range::Mark(name)) => self.marked(timeline, Some(name)).ok_or_else(|| {
                let marks = self.mark_names(timeline).join(", ");
                let known = if marks.is_empty() { "none".to_owned() } else { marks };
                self.bad(
                    "range",
                    name,
                    format!("a mark that holds kernels; the recording has {known}"),
                )
            }),
            None => match self.marked(timeline, None) {
                Some(passes) => Ok(passes),
                None => self.repeated(timeline),
            },
        }
    }

    fn by_number(
        &self,
        timeline: &Timeline,
        [first, end]: [usize; 2],
    ) -> Result<Passes, ImportError> {
        let n = timeline.launches.len();
        if first >= end || end > n {
            let text = format!("{first}..{end}");
            return Err(self.bad("range", text, format!("within the {n} kernels")));
        }
        let mut by_start: Vec<Place> = timeline.places().collect();
        by_start.sort_by_key(|&i| timeline.at(i).kernel.start);
        let mut launches = by_start[first..end].to_vec();
        launches.sort_unstable();
        let label = format!("kernels {first} to {}", end - 1);
        let pass =
            Pass { label: label.clone(), number: None, launches, from: i64::MIN, to: i64::MAX };
        let (outside, marked, by_time) = (n - (end - first), true, false);
        Ok(Passes { how: label, passes: vec![pass], outside, marked, by_time })
    }

    /// Finds passes without marks: by the repetition of the busiest stream, to which the other streams
    /// are assigned.
    fn repeated(&self, timeline: &Timeline) -> Result<Passes, ImportError> {
        let all = |i: Place| timeline.at(i);
        let is_main = |i: &Place| timeline.ranks[&all(*i).kernel.stream] == 0;
        let main: Vec<Place> = timeline.places().filter(is_main).collect();
        let times = |i: usize| (all(main[i]).kernel.start, all(main[i]).kernel.end());
        let keys = |exact: bool| {
            let mut ids: BTreeMap<(u32, u32), u32> = BTreeMap::new();
            let each = main.iter().map(|&i| {
                let (name, shape) = (all(i).kernel.name, all(i).kernel.shape);
                let next = ids.len() as u32;
                *ids.entry((name, if exact { shape } else { 0 })).or_insert(next)
            });
            each.collect::<Vec<u32>>()
        };
        // One behind the other: each has a number for every launch.
        let exact = iteration(&keys(true), &times);
        let loose = iteration(&keys(false), &times);
        let (found, grids) = match (exact, loose) {
            (Ok(a), Ok(b)) if b.covered > a.covered + a.kernels.max(b.kernels) => (b, true),
            (Ok(a), _) => (a, false),
            (Err(_), Ok(b)) => (b, true),
            (Err(why), Err(_)) => return Err(self.no_iteration(timeline, why)),
        };
        let Iteration { first, kernels, repeats, .. } = found;
        let mut passes: Vec<Pass> = (0..repeats)
            .map(|i| {
                let begin = first + i * kernels;
                let launches = main[begin..begin + kernels].to_vec();
                let next = main.get(begin + kernels).map(|&m| all(m).asked());
                let last = all(launches[kernels - 1]).kernel.end();
                let (from, to) = (all(launches[0]).asked(), next.unwrap_or(last.saturating_add(1)));
                Pass { label: format!("round {i}"), number: None, launches, from, to }
            })
            .collect();
        let mut outside = main.len() - kernels * repeats;
        for (i, launch) in timeline.places().zip(&timeline.launches) {
            if timeline.ranks[&launch.kernel.stream] == 0 {
                continue;
            }
            let at = launch.asked();
            let place = passes.partition_point(|p| p.from <= at).checked_sub(1);
            match place.filter(|&p| at < passes[p].to) {
                Some(p) => passes[p].launches.push(i),
                None => outside += 1,
            }
        }
        passes.iter_mut().for_each(|p| p.launches.sort_unstable());
        let but = if grids { " but for their grids" } else { "" };
        let how = format!("{repeats} rounds of {kernels} kernels that repeat{but}");
        Ok(Passes { how, passes, outside, marked: false, by_time: false })
    }

    fn no_iteration(&self, timeline: &Timeline, why: NoIteration) -> ImportError {
        let n = timeline.launches.len();
        let marks = self.mark_names(timeline).join(", ");
        let help = match marks.as_str() {
            "" => "give --range FIRST..END, or record with marked steps".to_owned(),
            marks => {
                format!("give --range NAME of one of the marks {marks}, or --range FIRST..END")
            }
        };
        match why {
            NoIteration::Nothing => self.bad(
                "file",
                format!("a recording of {n} kernels"),
                format!("three equal iterations in a row: {help}"),
            ),
            NoIteration::Layer { period, repeats, before, behind, first } => self.bad(
                "file",
                format!(
                    "a recording of {n} kernels in which {period} repeat {repeats} times, with \
                     {before} before the first time and {behind} behind the last"
                ),
                format!(
                    "clearly a sequence of passes, since layers of one pass repeat like this: {help}{}",
                    // With one stream, places are launch numbers.
                    if timeline.ranks.len() == 1 {
                        format!(" (one round is {first}..{})", first + period)
                    } else {
                        String::new()
                    }
                ),
            ),
        }
    }

    /// The launches of a pass, stream by stream, as places in the timeline.
    pub(super) fn by_stream(timeline: &Timeline, pass: &Pass) -> Vec<Place> {
        let mut order = pass.launches.clone();
        order.sort_unstable_by_key(|&i| (timeline.ranks[&timeline.at(i).kernel.stream], i));
        order
    }

    /// Chooses the representative pass: the median by GPU time among those with the same launches.
    pub(super) fn typical(
        &self,
        timeline: &Timeline,
        found: &Passes,
        step: Option<u64>,
    ) -> Result<Typical, ImportError> {
        let all = &found.passes;
        let names: Vec<u128> = all.iter().map(|p| digest(timeline, p)).collect();
        let busy: Vec<u64> = all.iter().map(|p| busy_ns(timeline, p)).collect();
        let span: Vec<i64> = all.iter().map(|p| span_ns(timeline, p)).collect();
        let alike_to =
            |i: usize| (0..all.len()).filter(|&j| names[j] == names[i]).collect::<Vec<_>>();
        if let Some(step) = step {
            let by_number = all.iter().position(|p| p.number == Some(step));
            let by_place = usize::try_from(step).ok().filter(|&s| s < all.len());
            let numbered = all.iter().any(|p| p.number.is_some());
            let Some(one) = by_number.or(by_place.filter(|_| !numbered)) else {
                let known: Vec<String> = (0u64..)
                    .zip(all)
                    .map(|(i, p)| p.number.filter(|_| numbered).unwrap_or(i).to_string())
                    .collect();
                return Err(self.bad(
                    "step",
                    step.to_string(),
                    format!("one of {}", known.join(", ")),
                ));
            };
            let words = format!("{}, as given", all[one].label);
            return Ok(Typical {
                alike: vec![one],
                middle: vec![one],
                timing: one,
                words,
                differ: None,
            });
        }
        // The largest set of passes with the same launches; of two equally large sets, the later one.
        let mut sets: BTreeMap<u128, Vec<usize>> = BTreeMap::new();
        for (i, key) in names.iter().enumerate() {
            sets.entry(*key).or_default().push(i);
        }
        let largest = sets.values().max_by_key(|s| (s.len(), s.last().copied()));
        let mut alike = largest.cloned().unwrap_or_default();
        if alike.len() * 2 < all.len() {
            let mut order: Vec<usize> = (0..all.len()).collect();
            order.sort_by_key(|&i| (busy[i], i));
            alike = alike_to(order[order.len() / 2]);
            // Among passes that all differ, the one in the middle is itself the choice.
        }
        let mut order = alike.clone();
        order.sort_by_key(|&i| (busy[i], i));
        let n = order.len();
        let middle =
            if n % 2 == 1 { vec![order[n / 2]] } else { vec![order[n / 2 - 1], order[n / 2]] };
        order.sort_by_key(|&i| (span[i], i));
        // Work before the first round of an unmarked recording may not belong to that round.
        let timing = match order[n / 2] {
            0 if !found.marked && n > 1 => order[(n / 2 + 1) % n],
            other => other,
        };
        let of = match (all.len(), n) {
            (1, _) => String::new(),
            (all, n) if all == n => format!(", the median of {all} by GPU time"),
            (all, n) => format!(", the median by GPU time of {n} that launch the same, of {all}"),
        };
        let labels: Vec<&str> = middle.iter().map(|&i| all[i].label.as_str()).collect();
        let words = format!("{}{of}", labels.join(" and "));
        let differ = self.differences(timeline, found, &alike);
        Ok(Typical { alike, middle, timing, words, differ })
    }

    fn differences(&self, timeline: &Timeline, found: &Passes, alike: &[usize]) -> Option<String> {
        let mut words = Vec::new();
        let counts = found.passes.iter().map(|p| p.launches.len());
        let (fewest, most) = (counts.clone().min()?, counts.max()?);
        if fewest != most {
            words.push(format!("from {fewest} to {most} launches"));
        } else if alike.len() < found.passes.len() {
            words.push("other kernels".to_owned());
        }
        let order = |p: usize| Self::by_stream(timeline, &found.passes[p]);
        let first = order(*alike.first()?);
        let shape = |i: Place| timeline.at(i).kernel.shape;
        let mut differ = vec![false; first.len()];
        for &pass in &alike[1..] {
            for ((differ, &a), b) in differ.iter_mut().zip(&first).zip(order(pass)) {
                *differ |= shape(a) != shape(b);
            }
        }
        let grids = differ.into_iter().filter(|d| *d).count();
        if grids > 0 {
            words.push(format!("other grids in {grids} of {} launches", first.len()));
        }
        (!words.is_empty()).then(|| words.join(", "))
    }
}

/// A 128-bit digest of a pass's launches, stream by stream: keeping the names of millions of launches
/// would take longer than reading them.
fn digest(timeline: &Timeline, pass: &Pass) -> u128 {
    let mut both = [DefaultHasher::new(), DefaultHasher::new()];
    both[1].write_u8(1);
    for place in Recording::by_stream(timeline, pass) {
        let kernel = &timeline.at(place).kernel;
        for hasher in &mut both {
            hasher.write_u32(kernel.stream);
            hasher.write_u32(kernel.name);
        }
    }
    let [a, b] = both.map(|hasher| u128::from(hasher.finish()));
    (a << 64) | b
}

pub(super) fn launches<'a>(
    timeline: &'a Timeline,
    pass: &'a Pass,
) -> impl Iterator<Item = &'a Launch> {
    pass.launches.iter().map(|&i| timeline.at(i))
}

pub(super) fn busy_ns(timeline: &Timeline, pass: &Pass) -> u64 {
    launches(timeline, pass).fold(0, |sum, l| sum.saturating_add(l.kernel.duration))
}

/// From the start of the first kernel to the end of the last.
pub(super) fn span_ns(timeline: &Timeline, pass: &Pass) -> i64 {
    let first = launches(timeline, pass).map(|l| l.kernel.start).min().unwrap_or(0);
    let last = launches(timeline, pass).map(|l| l.kernel.end()).max().unwrap_or(0);
    last.saturating_sub(first)
}
