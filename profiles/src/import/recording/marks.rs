//! Finds passes by the marks of a recording: steps of the profiler, annotations, NVTX ranges.

use std::collections::BTreeMap;

use super::clean::Timeline;
use super::passes::{Pass, Passes};
use super::{Mark, Recording};

/// Marks whose names differ only in numbers.
struct Group<'a> {
    /// The name of the first one.
    name: &'a str,
    marks: Vec<(Mark, &'a str)>,
}

/// Words in a mark's name that show that it is a pass, and not a layer or a phase of one.
const PASS_WORDS: [&str; 13] = [
    "step",
    "iter",
    "batch",
    "request",
    "query",
    "inference",
    "infer",
    "forward",
    "predict",
    "generate",
    "model",
    "sample",
    // vLLM marks a step `execute_context_1(512)_generation_8(8)`.
    "execute",
];
/// Most groups of marks that are examined.
const CANDIDATES: usize = 64;
/// Words that show that it is not.
const OTHER_WORDS: [&str; 9] = [
    "optimizer",
    "dataloader",
    "backward",
    "layer",
    "aten::",
    "autograd",
    "::",
    "zero_grad",
    "nccl",
];

/// A name without its numbers.
fn plain(name: &str) -> String {
    let text: String = name.chars().filter(|c| !c.is_ascii_digit()).collect();
    text.trim().to_lowercase()
}

/// The last number in a name.
fn number(name: &str) -> Option<u64> {
    let end = name.rfind(|c: char| c.is_ascii_digit())? + 1;
    let start = name[..end]
        .rfind(|c: char| !c.is_ascii_digit())
        .map_or(0, |i| i + name[i..].chars().next().map_or(1, char::len_utf8));
    name[start..end].parse().ok()
}

impl Recording {
    /// The passes that marks show: those of `wanted`, or the profiler's steps, or marks whose names say
    /// that they are passes and that hold at least half of the launches.
    pub(super) fn marked(&self, timeline: &Timeline, wanted: Option<&str>) -> Option<Passes> {
        let groups = self.groups(timeline);
        if let Some(wanted) = wanted {
            let exact: Vec<Group<'_>> = groups
                .values()
                .map(|g| Group {
                    name: g.name,
                    marks: g.marks.iter().filter(|(_, n)| *n == wanted).copied().collect(),
                })
                .collect();
            let exact = exact.iter().max_by_key(|g| g.marks.len()).filter(|g| !g.marks.is_empty());
            let group = exact.or_else(|| groups.get(&(plain(wanted), false)))?;
            let group = with_gpu(group, &groups, timeline);
            return Some(passes(group, timeline)).filter(|p| !p.passes.is_empty());
        }
        let mut best: Option<(usize, Passes)> = None;
        let is_step = |name: &str| name.starts_with("profilerstep");
        let mut candidates: Vec<(&str, &Group<'_>)> = groups
            .iter()
            .filter(|((name, on_gpu), _)| {
                let pass = PASS_WORDS.iter().any(|w| name.contains(w))
                    && !OTHER_WORDS.iter().any(|w| name.contains(w));
                // Ranges on the GPU are derived from the host's; on their own they are just as good.
                let alone = !on_gpu || !groups.contains_key(&(name.clone(), false));
                alone && (is_step(name) || pass)
            })
            .map(|((name, _), group)| (name.as_str(), group))
            .collect();
        // Names with unique identifiers give a group each; the groups that last longest are examined.
        candidates.sort_by_key(|(name, group)| {
            let lasts = |m: &Mark| m.end.saturating_sub(m.start).max(0).unsigned_abs();
            let time = group.marks.iter().fold(0u64, |sum, (m, _)| sum.saturating_add(lasts(m)));
            (!is_step(name), std::cmp::Reverse(time), *name)
        });
        for (name, group) in candidates.into_iter().take(CANDIDATES) {
            let step = is_step(name);
            let found = passes(with_gpu(group, &groups, timeline), timeline);
            let held: usize = found.passes.iter().map(|p| p.launches.len()).sum();
            if step && held > 0 {
                return Some(found);
            }
            if held * 2 < timeline.launches.len() {
                continue;
            }
            // Among marks that hold equally much, the outermost one that occurs more than once.
            let better = best.as_ref().is_none_or(|(most, other)| {
                let (more, fewer) = (held * 20 > most * 21, held * 21 < most * 20);
                let (n, m) = (found.passes.len(), other.passes.len());
                more || (!fewer && n > 1 && (m == 1 || n < m))
            });
            if better {
                best = Some((held, found));
            }
        }
        best.map(|(_, found)| found)
    }

    /// Names of marks to choose from, most frequent first.
    pub(super) fn mark_names(&self, timeline: &Timeline) -> Vec<String> {
        let groups = self.groups(timeline);
        let mut names: Vec<(usize, &str)> = groups
            .iter()
            .filter(|((_, on_gpu), _)| !on_gpu)
            .map(|(_, g)| (g.marks.len(), g.name))
            .collect();
        names.sort_by_key(|&(n, name)| (std::cmp::Reverse(n), name));
        names.into_iter().take(6).map(|(n, name)| format!("`{name}` ({n} times)")).collect()
    }

    fn groups(&self, timeline: &Timeline) -> BTreeMap<(String, bool), Group<'_>> {
        // If the marks' process is always another one, the recording does not distinguish processes.
        let known = self.marks.iter().any(|m| m.process == timeline.process);
        let mut names: BTreeMap<u32, String> = BTreeMap::new();
        let mut groups: BTreeMap<(String, bool), Group<'_>> = BTreeMap::new();
        for mark in self.marks.iter().filter(|m| !known || m.process == timeline.process) {
            let name = self.names.text(mark.name);
            let plain = names.entry(mark.name).or_insert_with(|| plain(name)).clone();
            let group = groups
                .entry((plain, mark.on_gpu))
                .or_insert_with(|| Group { name, marks: Vec::new() });
            group.marks.push((*mark, name));
        }
        for group in groups.values_mut() {
            group.marks.sort_by_key(|(m, _)| (m.start, std::cmp::Reverse(m.end)));
        }
        groups
    }
}

/// Without launch calls, the ranges that the profiler draws on the GPU hold the kernels better than
/// those of the host.
fn with_gpu<'a, 'b>(
    group: &'b Group<'a>,
    groups: &'b BTreeMap<(String, bool), Group<'a>>,
    timeline: &Timeline,
) -> &'b Group<'a> {
    let drawn = groups.get(&(plain(group.name), true));
    drawn.filter(|_| !timeline.called).unwrap_or(group)
}

fn passes(group: &Group<'_>, timeline: &Timeline) -> Passes {
    let on_gpu = group.marks.first().is_some_and(|(m, _)| m.on_gpu);
    let steps = plain(group.name).starts_with("profilerstep");
    let mut marks: Vec<(i64, i64, &str)> = Vec::new();
    for (mark, name) in &group.marks {
        match marks.last_mut() {
            // One range per stream on the GPU, which need not overlap where a number says that they are one;
            // nested ones of one name on the host.
            Some(last) if on_gpu && last.2 == *name && (steps || mark.start < last.1) => {
                last.1 = last.1.max(mark.end);
            }
            Some(last) if mark.start < last.1 => {}
            _ => marks.push((mark.start, mark.end, name)),
        }
    }
    let mut all: Vec<Pass> = (0..)
        .zip(&marks)
        .map(|(i, &(from, to, name))| {
            // What the last lines of a step left to the GPU still belongs to it.
            let next = marks.get(i + 1).map_or(i64::MAX, |m| m.0);
            let to = if steps && !timeline.called && !on_gpu { next } else { to };
            Pass { label: name.to_owned(), number: number(name), launches: vec![], from, to }
        })
        .collect();
    let mut outside = 0;
    for (i, launch) in timeline.places().zip(&timeline.launches) {
        let at = if on_gpu { launch.kernel.start } else { launch.asked() };
        let place = all.partition_point(|p| p.from <= at).checked_sub(1);
        match place.filter(|&p| at < all[p].to) {
            Some(p) => all[p].launches.push(i),
            None => outside += 1,
        }
    }
    let marked = all.len();
    all.retain(|p| !p.launches.is_empty());
    all.iter_mut().for_each(|p| p.launches.shrink_to_fit());
    let how = format!("{marked} marks `{}`, {} of them with kernels", group.name, all.len());
    let by_time = !on_gpu && !timeline.called;
    Passes { how, passes: all, outside, marked: true, by_time }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_their_numbers() {
        assert_eq!(
            (plain("ProfilerStep#12"), number("ProfilerStep#12")),
            ("profilerstep#".into(), Some(12))
        );
        assert_eq!((plain("iteration 3"), number("iteration 3")), ("iteration".into(), Some(3)));
        assert_eq!((plain("schritt ä7"), number("schritt ä7")), ("schritt ä".into(), Some(7)));
        assert_eq!(number("forward"), None);
    }
}
