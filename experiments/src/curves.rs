//! `curves.csv`: latency against CUs, for a model's kernels and for the whole model.

use std::collections::BTreeMap;

use cotenant_profiles::{Launch, Profile, curve};
use cotenant_results::columns;

use crate::config::Point;
use crate::metrics::number;
use crate::models::Found;

/// How much slower a kernel may be on its minimum of CUs.
pub(crate) const TOLERANCE: f64 = 0.05;

/// One distinct kernel of a model at one batch.
pub(crate) struct KernelUse {
    /// Index into the profile's kernels.
    pub(crate) kernel: usize,
    pub(crate) launches: usize,
    /// Share of the model's GPU time on all CUs, 0 to 1.
    pub(crate) share: f64,
    pub(crate) min_cus: u32,
    /// Time of all launches on all CUs, ns.
    pub(crate) total_ns: u64,
}

/// The kernels of one batch, the largest share first.
pub(crate) fn kernels(
    profile: &Profile,
    launches: &[Launch],
    cus: u32,
    tolerance: f64,
) -> Vec<KernelUse> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    launches.iter().for_each(|l| *counts.entry(l.kernel).or_default() += 1);
    let ns = |k: usize| profile.kernels[k].at(cus);
    let total: u64 = launches.iter().map(|l| ns(l.kernel)).sum();
    let mut uses: Vec<KernelUse> = counts
        .into_iter()
        .map(|(kernel, launches)| KernelUse {
            kernel,
            launches,
            share: launches as f64 * ns(kernel) as f64 / total.max(1) as f64,
            min_cus: profile.kernels[kernel].min_cu(cus, tolerance),
            total_ns: ns(kernel) * launches as u64,
        })
        .collect();
    uses.sort_by(|a, b| b.total_ns.cmp(&a.total_ns).then(a.kernel.cmp(&b.kernel)));
    uses
}

/// The right size of one batch: the fewest CUs for the whole model within the tolerance.
pub(crate) fn right_size(profile: &Profile, launches: &[Launch], cus: u32, tolerance: f64) -> u32 {
    let total = |c| launches.iter().map(|l| u128::from(profile.kernels[l.kernel].at(c))).sum();
    curve::right_size(total, cus, tolerance)
}

/// A `curves.csv` being built.
pub(crate) struct CurveTable(csv::Writer<Vec<u8>>);

impl CurveTable {
    pub(crate) fn new() -> Self {
        let mut writer = csv::Writer::from_writer(vec![]);
        writer.write_record(columns::CURVES).expect("writing to memory");
        Self(writer)
    }

    /// Adds the whole model and its kernels at one batch.
    pub(crate) fn add(&mut self, found: &Found, batch: u32, cus: u32, tolerance: f64) {
        let profile = &*found.profile;
        let Some(model) = profile.models.get(&found.model) else { return };
        let Some(launches) = model.batches.get(&batch) else { return };
        let size = right_size(profile, launches, cus, tolerance);
        for c in 1..=cus {
            let ns: u64 = launches.iter().map(|l| profile.kernels[l.kernel].at(c)).sum();
            self.point(found, batch, "*", 1.0, (c, ns), size);
        }
        for used in kernels(profile, launches, cus, tolerance) {
            let kernel = &profile.kernels[used.kernel];
            for c in 1..=cus {
                let at = (c, kernel.at(c));
                self.point(found, batch, &kernel.id, used.share, at, used.min_cus);
            }
        }
    }

    fn point(
        &mut self,
        found: &Found,
        batch: u32,
        kernel: &str,
        share: f64,
        (cus, ns): (u32, u64),
        min: u32,
    ) {
        let fields = [
            found.model.clone(),
            batch.to_string(),
            kernel.to_owned(),
            number(Some(share * 100.0)),
            cus.to_string(),
            number(Some(ns as f64 / 1e3)),
            min.to_string(),
        ];
        self.0.write_record(fields).expect("writing to memory");
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("writing to memory")
    }
}

/// The curves of every tenant's model at its largest batch.
pub(crate) fn of_tenants(point: &Point, profiles: &[Found]) -> Vec<u8> {
    let mut table = CurveTable::new();
    let mut done = vec![];
    for (config, found) in point.tenants.iter().zip(profiles) {
        let Some(model) = found.profile.models.get(&found.model) else { continue };
        let sizes = model.batches.keys().copied();
        let batch = sizes.clone().find(|b| *b >= config.batch_max).or(sizes.max()).unwrap_or(1);
        if !done.contains(&(found.digest.clone(), batch)) {
            table.add(found, batch, point.device.cus(), TOLERANCE);
            done.push((found.digest.clone(), batch));
        }
    }
    table.into_bytes()
}
