//! Derives the quantum and the switch time of contexts that take turns from two kernels' observations
//! of the GPU's clock.

use crate::cuda::Watch;

/// The turns of two contexts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Turns {
    /// Lengths of whole turns, ns.
    pub(super) quanta: Vec<f64>,
    /// Times from the last moment of one context to the first of the other, ns.
    pub(super) switches: Vec<f64>,
}

/// Contexts that were watched together for less than this show too few turns.
const LEAST_NS: u64 = 20_000_000;

/// The intervals in which a context ran.
fn runs(w: &Watch) -> Vec<[u64; 2]> {
    let mut from = w.span[0];
    let mut runs: Vec<[u64; 2]> = Vec::with_capacity(w.pauses.len() + 1);
    for [stop, again] in &w.pauses {
        runs.push([from, *stop]);
        from = *again;
    }
    // What happened after the last recorded pause is unknown.
    if w.unseen == 0 {
        runs.push([from, w.span[1]]);
    }
    runs
}

/// The turns that two contexts took, derived from the pauses that each of them observed.
///
/// # Errors
/// The contexts were not watched together, or did not take turns.
pub(super) fn turns(a: &Watch, b: &Watch) -> Result<Turns, String> {
    let runs = [runs(a), runs(b)];
    let last = |r: &[[u64; 2]]| r.last().map_or(0, |r| r[1]);
    let (from, to) = (a.span[0].max(b.span[0]), last(&runs[0]).min(last(&runs[1])));
    let together = to.saturating_sub(from);
    if together < LEAST_NS {
        return Err(format!("two processes were on the GPU together for {together} ns only"));
    }
    let mut all: Vec<(u64, u64, usize)> = runs
        .iter()
        .enumerate()
        .flat_map(|(who, r)| r.iter().map(move |[s, e]| (*s, *e, who)))
        .filter(|(s, e, _)| *e > from && *s < to)
        .collect();
    all.sort_unstable();
    let both: u64 = all
        .iter()
        .enumerate()
        .map(|(i, (_, end, who))| {
            let later = all[i + 1..].iter().take_while(|(s, ..)| s < end);
            let other = later.filter(|(.., o)| o != who);
            other.map(|(s, e, _)| e.min(end).min(&to) - s.max(&from).min(e.min(end))).sum::<u64>()
        })
        .sum();
    if both > together / 2 {
        return Err(format!(
            "two processes ran at the same time for {both} of {together} ns: they do not take turns"
        ));
    }
    let whole = |r: &&(u64, u64, usize)| {
        let ends = &runs[r.2];
        let inner =
            ends.first().is_some_and(|f| f[0] != r.0) && ends.last().is_some_and(|l| l[1] != r.1);
        inner && r.0 >= from && r.1 <= to
    };
    let quanta: Vec<f64> = all.iter().filter(whole).map(|r| (r.1 - r.0) as f64).collect();
    let follow = all.windows(2).filter(|w| w[0].2 != w[1].2 && w[1].0 >= w[0].1);
    let switches: Vec<f64> = follow.map(|w| (w[1].0 - w[0].1) as f64).collect();
    if quanta.is_empty() || switches.is_empty() {
        return Err(format!("no whole turn within {together} ns"));
    }
    Ok(Turns { quanta, switches })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Turns of 2 ms, each after a switch of 50 us, as observed by context `who` from `begin` on.
    fn watch(who: u64, begin: u64, turns: u64) -> Watch {
        let period = 2 * (2 * MS + 50_000);
        let at = |i: u64| begin + i * period + who * period / 2;
        let pauses = (1..turns).map(|i| [at(i - 1) + 2 * MS, at(i)]).collect();
        Watch { span: [at(0), at(turns - 1) + 2 * MS], step: 32, pauses, unseen: 0 }
    }

    #[test]
    fn turns_and_switches_are_read_off_both_clocks() {
        let t = turns(&watch(0, 5 * MS, 20), &watch(1, 5 * MS, 20)).unwrap();
        assert!(t.quanta.len() > 30 && t.quanta.iter().all(|q| *q == 2e6), "{t:?}");
        assert!(t.switches.len() > 30 && t.switches.iter().all(|s| *s == 50e3), "{t:?}");
    }

    #[test]
    fn what_ran_beside_each_other_or_not_together_has_no_turns() {
        let whole = |from: u64| Watch {
            span: [from, from + 100 * MS],
            step: 32,
            pauses: vec![],
            unseen: 0,
        };
        let error = turns(&whole(0), &whole(MS)).unwrap_err();
        assert!(error.contains("do not take turns"), "{error}");
        let error = turns(&whole(0), &whole(95 * MS)).unwrap_err();
        assert!(error.contains("together for 5000000 ns only"), "{error}");
        let error = turns(&Watch::default(), &Watch::default()).unwrap_err();
        assert!(error.contains("together for 0 ns"), "{error}");
    }

    #[test]
    fn pauses_without_room_end_what_is_known() {
        let (mut a, b) = (watch(0, 0, 20), watch(1, 0, 20));
        a.pauses.truncate(8);
        a.unseen = 11;
        let t = turns(&a, &b).unwrap();
        assert!(t.quanta.iter().all(|q| *q == 2e6), "{t:?}");
    }
}
