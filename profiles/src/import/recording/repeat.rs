//! Finds where a recording without marks repeats itself.

/// A repetition in a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Iteration {
    /// Number of the first kernel of the first whole iteration.
    pub first: usize,
    /// Kernels of one iteration.
    pub kernels: usize,
    /// Whole iterations, one after the other.
    pub repeats: usize,
    /// Kernels that repeat with this period, including those of a partial last iteration.
    pub covered: usize,
}

/// Why a repetition was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoIteration {
    /// Nothing repeats three times.
    Nothing,
    /// There are kernels before or after the rounds, of which the first whole one begins at `first`,
    /// and nothing shows that the rounds are not layers of one pass.
    Layer { period: usize, repeats: usize, before: usize, behind: usize, first: usize },
}

/// The start and end of each kernel, ns.
type Times<'a> = dyn Fn(usize) -> (i64, i64) + 'a;

/// Fewer repeats than these may be chance.
const REPEATS: usize = 3;
/// How many of the rarest kernels distances are taken of, and how many occurrences of each, to how many
/// of the next.
const RAREST: usize = 16;
const PAIRS: usize = 4096;
const REACH: usize = 32;
/// Most candidate periods that are examined.
const CANDIDATES: usize = 256;
/// An iteration is distinguished from a layer if the pause between rounds is at least this multiple of
/// the longest pause within one.
const PROMINENT: u64 = 3;

/// More rounds than any model has equal layers: the deepest decoders have 126.
const MANY: usize = 128;

/// Finds the iteration: the shortest period under which the longest stretch of the recording repeats
/// itself, at least three times. What comes before (warm-up), after, and between two stretches
/// (another kernel now and then) is left out. An iteration begins where the GPU has waited longest.
///
/// Layers of one pass repeat as well, with the rest of the pass around them. So if the rounds do not
/// explain all kernels, something has to show that they are not layers: a pause before each round,
/// including the first; or nothing after them and a beginning longer than a round (a warm-up; a pass
/// begins with less); or more rounds than models have layers. Two stretches of equally many rounds are
/// the layers of two passes.
///
/// # Errors
/// Nothing repeats, or only what may be a layer.
pub(super) fn iteration(keys: &[u32], times: &Times<'_>) -> Result<Iteration, NoIteration> {
    let mut best: Option<(usize, usize, usize)> = None; // covered, period, first
    for period in periods(keys) {
        let (first, covered) = stretch(keys, period);
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
    let (covered, period, first) = best.ok_or(NoIteration::Nothing)?;
    let pauses = pauses(times, first, covered, period);
    let longest = pauses.iter().max().copied().unwrap_or(0);
    let turn = pauses.iter().position(|&p| p == longest).unwrap_or(0);
    let repeats = (covered - turn) / period;
    let (before, behind) = (first, keys.len() - (first + covered));
    if before > 0 || behind > 0 {
        let first = first + turn;
        let layer = NoIteration::Layer { period, repeats, before, behind, first };
        let runs = runs(keys, first, period);
        let most = runs.iter().max().copied().unwrap_or(0);
        if runs.iter().filter(|&&r| r == most).count() > 1 {
            return Err(layer);
        }
        let others = pauses.iter().enumerate().filter(|&(i, _)| i != turn);
        let second = others.map(|(_, p)| *p).max().unwrap_or(0);
        let paused = longest > second.saturating_mul(PROMINENT) && longest > 0;
        // The first round is preceded by a pause as the others are; the first layer after the beginning
        // of a pass is not.
        let first_waits = turn > 0 || before == 0 || gap(times, first) >= longest / 2;
        let warm_up = (before >= period || repeats >= MANY) && behind == 0 && runs.len() == 1;
        if !(paused && first_waits || warm_up) {
            return Err(layer);
        }
    }
    Ok(Iteration { first: first + turn, kernels: period, repeats, covered })
}

/// The numbers of whole rounds in unbroken succession, wherever they occur.
fn runs(keys: &[u32], first: usize, period: usize) -> Vec<usize> {
    let one = &keys[first..first + period];
    let (mut runs, mut run, mut at) = (Vec::new(), 0, 0);
    while at < keys.len() {
        if keys[at..].starts_with(one) {
            run += 1;
            at += period;
            continue;
        }
        if run > 0 {
            runs.push(std::mem::take(&mut run));
        }
        at += 1;
    }
    if run > 0 {
        runs.push(run);
    }
    runs
}

/// The pause before a kernel, ns.
fn gap(times: &Times<'_>, i: usize) -> u64 {
    times(i).0.saturating_sub(times(i - 1).1).max(0).unsigned_abs()
}

/// Distances at which the rarest kernels recur, ascending.
fn periods(keys: &[u32]) -> Vec<usize> {
    let distinct = keys.iter().max().map_or(0, |k| *k as usize + 1);
    let mut often = vec![0usize; distinct];
    keys.iter().for_each(|key| often[*key as usize] += 1);
    // The rarest kernels that occur often enough.
    let mut rarest: Vec<u32> = (0u32..).take(distinct).collect();
    rarest.retain(|key| often[*key as usize] >= REPEATS);
    rarest.sort_by_key(|key| (often[*key as usize], *key));
    rarest.truncate(RAREST);
    let mut places: Vec<Vec<usize>> = vec![Vec::new(); rarest.len()];
    for (i, key) in keys.iter().enumerate() {
        // The first occurrences are enough to find distances.
        if let Some(at) = rarest.iter().position(|r| r == key)
            && places[at].len() < PAIRS + REACH
        {
            places[at].push(i);
        }
    }
    let mut counts: std::collections::BTreeMap<usize, usize> = std::collections::BTreeMap::new();
    for place in &places {
        for reach in 1..=REACH.min(place.len() - 1) {
            for pair in place.windows(reach + 1).take(PAIRS) {
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

/// The longest stretch that repeats with this period: its start and its length.
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

/// The pause before each kernel of an iteration, ns, averaged over the rounds.
fn pauses(times: &Times<'_>, first: usize, covered: usize, period: usize) -> Vec<u64> {
    let mut pause = vec![(0u64, 0u64); period];
    for i in (first + 1)..(first + covered) {
        let sum = &mut pause[(i - first) % period];
        *sum = (sum.0.saturating_add(gap(times, i)), sum.1 + 1);
    }
    pause.into_iter().map(|(sum, n)| sum / n.max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Kernels of 10 ns, 10 ns apart, and a longer pause before each kernel 1.
    fn found(names: &[u32], pause: i64) -> Result<Iteration, NoIteration> {
        let mut at = 0;
        let times: Vec<(i64, i64)> = names
            .iter()
            .map(|n| {
                at += 20 + if *n == 1 { pause } else { 0 };
                (at, at + 10)
            })
            .collect();
        iteration(names, &|i| times[i])
    }

    #[test]
    fn the_iteration_is_found_behind_warm_up_and_around_noise() {
        // An iteration with an inner repetition, as networks have them.
        let one = [1, 2, 3, 2, 3, 2, 3, 4];
        for noise_after in [3, 6] {
            let mut names = vec![9, 8, 1, 2, 3, 2, 7]; // warm-up
            for i in 0..10 {
                names.extend(one);
                if i == noise_after {
                    names.push(77);
                }
            }
            let found = found(&names, 500).unwrap();
            let repeats = if noise_after == 3 { 6 } else { 7 };
            assert_eq!((found.kernels, found.repeats), (8, repeats), "{found:?}");
            assert_eq!(names[found.first], 1);
        }
    }

    #[test]
    fn a_layer_is_no_iteration() {
        // embed, six layers, head: one pass alone.
        let mut names = vec![7];
        (0..6).for_each(|_| names.extend([1, 2]));
        names.push(8);
        let layer = NoIteration::Layer { period: 2, repeats: 6, before: 1, behind: 1, first: 1 };
        assert_eq!(found(&names, 0), Err(layer));
        // Without the head as well: as likely as one kernel of warm-up.
        let layer = NoIteration::Layer { period: 2, repeats: 6, before: 1, behind: 0, first: 1 };
        assert_eq!(found(&names[..13], 0), Err(layer));
        // With pauses before each round, and something behind the last one.
        assert_eq!(found(&names, 500).unwrap().kernels, 2);
        // No model has this many layers, so these are rounds, unless something follows them.
        let mut many = vec![7];
        (0..128).for_each(|_| many.extend([1, 2]));
        assert_eq!(found(&many, 0).unwrap().kernels, 2);
        many.push(8);
        assert!(matches!(found(&many, 0), Err(NoIteration::Layer { behind: 1, .. })));
        // A pause before each layer except the first, which follows the embedding.
        let at = |i: i64| 30 * i + 300 * (i - 1).clamp(0, 11).div_euclid(2);
        let times: Vec<(i64, i64)> = (0..14).map(|i| (at(i), at(i) + 10)).collect();
        let layer = NoIteration::Layer { period: 2, repeats: 6, before: 1, behind: 1, first: 1 };
        assert_eq!(iteration(&names, &|i| times[i]), Err(layer));
        // Two passes: the layers of the second are no further rounds of the first.
        let two: Vec<u32> = names.iter().copied().cycle().take(names.len() * 2).collect();
        for pause in [0, 500] {
            assert!(matches!(found(&two, pause), Err(NoIteration::Layer { period: 2, .. })));
        }
        // Three passes are recognised by the kernels around the layers.
        let three: Vec<u32> = names.iter().copied().cycle().take(names.len() * 3).collect();
        assert_eq!(found(&three, 0).unwrap().kernels, 14);
    }

    #[test]
    fn what_does_not_repeat_has_no_iteration() {
        assert_eq!(found(&(0..100).collect::<Vec<_>>(), 0), Err(NoIteration::Nothing));
        assert_eq!(found(&[1, 2, 1, 2], 0), Err(NoIteration::Nothing));
        assert_eq!(found(&[], 0), Err(NoIteration::Nothing));
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
            // A beginning shorter than a round may be that of a pass, and the rounds may be its layers.
            let beginning = !before.is_empty() && before.len() < one.len();
            if beginning {
                let layer = matches!(found(&names, 0), Err(NoIteration::Layer { .. }));
                prop_assert!(layer);
                return Ok(());
            }
            let found = found(&names, 0).unwrap();
            prop_assert_eq!(found.kernels, one.len());
            prop_assert!(found.repeats >= repeats - 1);
        }
    }
}
