//! The streams of a pass, and what becomes of them: a model is one chain of launches, in the simulator
//! and in the replay, so side streams are put into the main one, and the import says which.

use std::collections::BTreeMap;

use super::Recording;
use super::build::ms;
use super::clean::Timeline;
use super::passes::{Pass, launches};

impl Recording {
    /// The streams of a pass, if it has several: each with its launches and their time, where they went,
    /// and the time in which kernels ran at once, counted once for each beyond the first. Nodes of a graph
    /// do so on one stream.
    pub(super) fn side_by_side(&self, timeline: &Timeline, pass: &Pass) -> Option<String> {
        let mut each: BTreeMap<usize, (u32, usize, u64)> = BTreeMap::new();
        for launch in launches(timeline, pass) {
            let k = &launch.kernel;
            let sum = each.entry(timeline.ranks[&k.stream]).or_insert((k.stream, 0, 0));
            *sum = (k.stream, sum.1 + 1, sum.2.saturating_add(k.duration));
        }
        let at_once = at_once(launches(timeline, pass).map(|l| (l.kernel.start, l.kernel.end())));
        if each.len() < 2 {
            let text = "one, whose kernels are put one after the other";
            return (at_once > 0).then(|| format!("{text}; {} ms ran at once", ms(at_once)));
        }
        let mut words: Vec<String> = each
            .values()
            .map(|&(stream, n, ns)| {
                let launches = if n == 1 { "launch" } else { "launches" };
                format!("stream {} ({n} {launches}, {} ms)", self.stream_name(stream), ms(ns))
            })
            .collect();
        let main = words.remove(0);
        let order = if timeline.called {
            "put where the host launched them"
        } else {
            "put after it, since no launch calls say when"
        };
        let sides = words.join(", ");
        Some(format!("{main} is the main one; {sides} {order}; {} ms ran at once", ms(at_once)))
    }

    /// A stream by its number, and by all that tells it apart where the number does not.
    fn stream_name(&self, stream: u32) -> String {
        let number = |key: &str| key.rsplit('/').next().unwrap_or_default().to_owned();
        let key = self.streams.text(stream);
        let same = self.streams.all.iter().filter(|k| number(k) == number(key)).count();
        if same > 1 || number(key).is_empty() { key.to_owned() } else { number(key) }
    }
}

/// By how much the sum of spans exceeds the time that they cover.
fn at_once(spans: impl Iterator<Item = (i64, i64)>) -> u64 {
    let mut spans: Vec<(i64, i64)> = spans.collect();
    spans.sort_unstable();
    let (mut free, mut sum) = (i64::MIN, 0u64);
    for (start, end) in spans {
        let within = end.min(free).saturating_sub(start).max(0);
        sum = sum.saturating_add(within.unsigned_abs());
        free = free.max(end);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::at_once;

    #[test]
    fn time_at_once_is_what_the_spans_share() {
        assert_eq!(at_once([(0, 10), (10, 20)].into_iter()), 0);
        assert_eq!(at_once([(0, 10), (4, 8), (6, 12)].into_iter()), 4 + 4);
        assert_eq!(at_once([(i64::MAX - 1, i64::MAX), (0, i64::MAX)].into_iter()), 1);
    }
}
