//! Merges recordings of one program under several MPS shares into latency curves.

use std::collections::BTreeMap;

use cotenant_profiles::curve::{Curve, Point};
use cotenant_profiles::kernel::{Kernel, Profile};

/// The result of one share: the profile of its recording, and the CUs of the share.
#[derive(Clone, Debug)]
pub struct Share {
    /// Percent of the SMs.
    pub percent: f64,
    /// CUs that this percentage is on the device.
    pub cus: u32,
    /// The recording as a profile, whose points are on all CUs, as in every import.
    pub profile: Profile,
}

/// How the points of smaller shares were matched to the curves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// Matched to the same kernel: name, blocks, threads, shared memory.
    pub same: usize,
    /// Matched to another kernel at the same place of the iteration: libraries choose kernels by the
    /// number of SMs that they see.
    pub by_place: usize,
    /// Matched by neither.
    pub missing: usize,
}

/// The kernels of `whole`, a recording on all CUs, with the durations under the smaller shares added to
/// their curves as further points.
#[must_use]
pub fn merge(whole: Profile, smaller: &[Share]) -> (Profile, Matched) {
    let mut matched = Matched::default();
    let mut merged = whole.clone();
    for share in smaller {
        let known = by_content(&share.profile.kernels);
        let ranks = ranks(&whole.kernels);
        let places = places(&whole, &share.profile);
        for (number, kernel) in merged.kernels.iter_mut().enumerate() {
            let found = match (known.get(&content(kernel)), places.get(&number)) {
                (Some(same), _) => {
                    matched.same += 1;
                    same[ranks[number].min(same.len() - 1)]
                }
                (None, Some(&other)) => {
                    matched.by_place += 1;
                    &share.profile.kernels[other]
                }
                (None, None) => {
                    matched.missing += 1;
                    continue;
                }
            };
            // Imports have one point, on all CUs.
            let point = found.curve.points().last().map(|p| Point { cus: share.cus, ..*p });
            let points = kernel.curve.points().iter().copied().chain(point).collect();
            kernel.curve = Curve::new(points).expect("every share has CUs of its own");
        }
    }
    let list: Vec<String> =
        smaller.iter().map(|s| format!("{} %: {} CUs", s.percent, s.cus)).collect();
    let facts = [
        ("curves", format!("under MPS shares, {}, and all CUs", list.join(", "))),
        (
            "shares",
            format!(
                "{} points of the same kernel, {} of another one at its place, {} missing",
                matched.same, matched.by_place, matched.missing
            ),
        ),
    ];
    merged.provenance.extend(facts.map(|(k, v)| (k.to_owned(), v)));
    (merged, matched)
}

/// Kernels of equal content, shortest first. Kernels of one content whose work differs count as
/// several.
fn by_content(kernels: &[Kernel]) -> BTreeMap<(String, [u32; 3], u32, u32), Vec<&Kernel>> {
    let mut known: BTreeMap<_, Vec<&Kernel>> = BTreeMap::new();
    for kernel in kernels {
        known.entry(content(kernel)).or_default().push(kernel);
    }
    for same in known.values_mut() {
        same.sort_by_key(|k| k.curve.points().last().map(|p| p.duration_ns));
    }
    known
}

/// The place of each kernel among those of its content.
fn ranks(kernels: &[Kernel]) -> Vec<usize> {
    let known = by_content(kernels);
    let rank = |k: &Kernel| known[&content(k)].iter().position(|other| other.id == k.id);
    kernels.iter().map(|k| rank(k).unwrap_or(0)).collect()
}

type Content<'a> = (&'a str, [u32; 3], u32, u32);

fn content(k: &Kernel) -> (String, [u32; 3], u32, u32) {
    let (name, grid, block, smem): Content<'_> = (&k.name, k.grid, k.block, k.smem_bytes);
    (name.to_owned(), grid, block, smem)
}

/// For each kernel of `whole`, the kernel of `share` at the place where it first occurs, provided that
/// both iterations have equally many launches and do the same work there.
fn places(whole: &Profile, share: &Profile) -> BTreeMap<usize, usize> {
    let launches = |p: &Profile| -> Vec<usize> {
        p.models.values().flat_map(|m| m.batches.values().flatten()).map(|l| l.kernel).collect()
    };
    let (ours, theirs) = (launches(whole), launches(share));
    let mut places = BTreeMap::new();
    if ours.len() == theirs.len() {
        for (a, b) in ours.into_iter().zip(theirs) {
            if whole.kernels[a].op == share.kernels[b].op {
                places.entry(a).or_insert(b);
            }
        }
    }
    places
}
