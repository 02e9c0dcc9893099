//! Batches beyond the measured ones: the analytic curves, scaled by what the largest measured batch takes
//! over what the analytic model says of it, CU count by CU count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cotenant_profiles::curve::{Curve, Point};
use cotenant_profiles::lower::Precision;
use cotenant_profiles::{Device, Launch, Profile, Source, analytic, zoo};

use super::{Found, Variant, batches};
use crate::canonical;

/// Adds the batches up to `largest` that a measured profile lacks, and says so. Other profiles, and
/// models that the zoo does not know, are left as they are.
///
/// # Errors
/// The analytic model refuses the batches.
pub(super) fn extend(
    mut found: Found,
    device: &Device,
    largest: u32,
    variant: Variant,
) -> Result<Found, String> {
    let Ok(spec) = zoo::find(&found.model) else { return Ok(found) };
    let measured = &found.profile;
    let Some(model) = measured.models.get(&found.model) else { return Ok(found) };
    let Some((&base, launches)) = model.batches.last_key_value() else { return Ok(found) };
    if measured.source != Source::Measured || base >= largest || launches.is_empty() {
        return Ok(found);
    }
    let precision = measured.provenance.get("precision").and_then(|p| p.parse::<Precision>().ok());
    let precision = precision.unwrap_or(variant.precision);
    let options = Variant { precision, ..variant }.options();
    let wanted: Vec<u32> = batches(largest).into_iter().filter(|b| *b > base).collect();
    let all: Vec<u32> = std::iter::once(base).chain(wanted.iter().copied()).collect();
    let computed =
        analytic::profile(device, &[&spec], &all, &options).map_err(|e| e.to_string())?;
    let source = &computed.models[&spec.name];
    let scale = scale(measured, launches, &computed, &source.batches[&base]);
    let mut hosts: Vec<_> = launches.iter().map(|l| l.host).collect();
    hosts.sort_unstable();
    let host = hosts[hosts.len() / 2];
    let mut profile = (**measured).clone();
    let mut place = BTreeMap::new();
    for batch in wanted {
        let mut scaled = vec![];
        for launch in &source.batches[&batch] {
            let kernel = *place.entry(launch.kernel).or_insert_with(|| {
                let mut kernel = computed.kernels[launch.kernel].clone();
                let point = |(&cus, &by): (&u32, &f64)| {
                    Point::exact(cus, (kernel.curve.at(cus) as f64 * by).round().max(1.0) as u64)
                };
                kernel.curve =
                    Curve::new(scale.iter().map(point).collect()).expect("CU counts ascend");
                kernel.id += "-scaled";
                profile.kernels.push(kernel);
                profile.kernels.len() - 1
            });
            scaled.push(Launch { kernel, host });
        }
        let model = profile.models.get_mut(&found.model).expect("looked at above");
        model.batches.insert(batch, scaled);
    }
    let low = scale.values().copied().fold(f64::INFINITY, f64::min);
    let high = scale.values().copied().fold(0.0, f64::max);
    found.warn(&format!(
        "{}: batches above {base} were not measured: analytic curves, scaled by what batch {base} \
         takes measured over computed ({low:.2} to {high:.2}, by CUs)",
        found.model
    ));
    found.words += &format!(", batches above {base} computed and scaled");
    found.digest = canonical::of_profile(&profile).map_err(|e| e.to_string())?;
    found.profile = Arc::new(profile);
    Ok(found)
}

/// Measured over computed time of a whole batch, at every CU count of the measured kernels.
fn scale(
    measured: &Profile,
    launches: &[Launch],
    computed: &Profile,
    same: &[Launch],
) -> BTreeMap<u32, f64> {
    let points = |l: &Launch| measured.kernels[l.kernel].curve.points().iter().map(|p| p.cus);
    let cus: BTreeSet<u32> = launches.iter().flat_map(points).collect();
    let sum = |profile: &Profile, launches: &[Launch], cus: u32| -> f64 {
        launches.iter().map(|l| profile.kernels[l.kernel].curve.at(cus) as f64).sum()
    };
    let ratio = |cus| sum(measured, launches, cus) / sum(computed, same, cus).max(1.0);
    cus.into_iter().map(|cus| (cus, ratio(cus))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant() -> Variant {
        Variant { precision: Precision::Fp16, fused: false, tuned_cus: None, executor: None }
    }

    /// A profile that calls itself measured and takes twice what the analytic model says.
    fn doubled(device: &Device) -> Found {
        let mut found = super::super::analytic("resnet18", device, &[1, 2], variant()).unwrap();
        let mut profile = (*found.profile).clone();
        profile.source = Source::Measured;
        profile.provenance.insert("precision".to_owned(), "fp16".to_owned());
        for kernel in &mut profile.kernels {
            let twice = |p: &Point| Point::exact(p.cus, 2 * p.duration_ns);
            kernel.curve = Curve::new(kernel.curve.points().iter().map(twice).collect()).unwrap();
        }
        found.profile = Arc::new(profile);
        found.warning = None;
        found
    }

    #[test]
    fn batches_beyond_the_measured_ones_are_scaled_and_said() {
        let device = Device::builtin("h200-sxm").unwrap();
        let found = extend(doubled(&device), &device, 8, variant()).unwrap();
        assert!(found.warning.as_ref().unwrap().contains("batches above 2 were not measured"));
        let exact = super::super::analytic("resnet18", &device, &[8], variant()).unwrap();
        let time = |f: &Found| -> u64 {
            let launches = &f.profile.models["resnet18"].batches[&8];
            launches.iter().map(|l| f.profile.kernels[l.kernel].curve.at(132)).sum()
        };
        let by = time(&found) as f64 / time(&exact) as f64;
        assert!((by - 2.0).abs() < 1e-3, "{by}");
        let again = extend(found.clone(), &device, 8, variant()).unwrap();
        assert_eq!(again.digest, found.digest, "nothing is missing any more");
    }

    #[test]
    fn what_nobody_measured_is_left_as_it_is() {
        let device = Device::builtin("h200-sxm").unwrap();
        let computed = super::super::analytic("resnet18", &device, &[1], variant()).unwrap();
        let same = extend(computed.clone(), &device, 8, variant()).unwrap();
        assert_eq!((same.digest, same.warning), (computed.digest, computed.warning));
    }
}
