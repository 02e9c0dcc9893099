//! Puts two profiles of one device together.

use std::collections::BTreeMap;

use super::error::{FileError, Problem};
use crate::kernel::{CoRun, Profile};

/// `base` with everything that `more` adds. A kernel that both have must be the same in both; a
/// model that both have must be the same at every batch that both have. Provenance that differs
/// is kept side by side.
///
/// # Errors
/// Another device or source, or a kernel or model that differs.
pub fn merge(mut base: Profile, more: &Profile) -> Result<Profile, FileError> {
    same("device", &base.device, &more.device)?;
    same("source", base.source.name(), more.source.name())?;
    let mut place: Vec<usize> = Vec::with_capacity(more.kernels.len());
    let known: BTreeMap<String, usize> =
        base.kernels.iter().enumerate().map(|(i, k)| (k.id.clone(), i)).collect();
    for kernel in &more.kernels {
        match known.get(&kernel.id) {
            Some(&i) if base.kernels[i] == *kernel => place.push(i),
            Some(_) => return Err(conflict(format!("kernel `{}`", kernel.id))),
            None => {
                place.push(base.kernels.len());
                base.kernels.push(kernel.clone());
            }
        }
    }
    for (name, model) in &more.models {
        let mut model = model.clone();
        for launch in model.batches.values_mut().flatten() {
            launch.kernel = place[launch.kernel];
        }
        match base.models.get_mut(name) {
            None => {
                base.models.insert(name.clone(), model);
            }
            Some(known) => {
                for (batch, launches) in model.batches {
                    let kept = known.batches.entry(batch).or_insert_with(|| launches.clone());
                    if *kept != launches {
                        return Err(conflict(format!("model `{name}` at batch {batch}")));
                    }
                }
            }
        }
    }
    let moved =
        |c: &CoRun| CoRun { a: (place[c.a.0], c.a.1), b: (place[c.b.0], c.b.1), ..c.clone() };
    let pairs: Vec<CoRun> = more.corun.iter().map(moved).collect();
    base.corun.extend(pairs);
    for (key, value) in &more.provenance {
        let kept = base.provenance.entry(key.clone()).or_insert_with(|| value.clone());
        if !kept.split("; ").any(|part| part == value) {
            *kept = format!("{kept}; {value}");
        }
    }
    Ok(base)
}

/// `base` without the batches of models that `more` has too, and without the kernels and pairs that only
/// they used: what is left to merge `more` into.
#[must_use]
pub fn without(mut base: Profile, more: &Profile) -> Profile {
    let used = |p: &Profile| -> Vec<bool> {
        let mut used = vec![false; p.kernels.len()];
        let launches = p.models.values().flat_map(|m| m.batches.values()).flatten();
        launches.for_each(|l| used[l.kernel] = true);
        used
    };
    let before = used(&base);
    for (name, model) in &more.models {
        if let Some(known) = base.models.get_mut(name) {
            known.batches.retain(|batch, _| !model.batches.contains_key(batch));
        }
    }
    base.models.retain(|_, m| !m.batches.is_empty());
    if base.models.is_empty() {
        base.provenance.clear();
    }
    let after = used(&base);
    // Kernels that nothing launched stay, as they were.
    let keep: Vec<bool> = before.iter().zip(&after).map(|(b, a)| !b || *a).collect();
    let mut place = vec![0; keep.len()];
    let mut next = 0;
    for (place, keep) in place.iter_mut().zip(&keep) {
        *place = next;
        next += usize::from(*keep);
    }
    base.corun.retain(|c| keep[c.a.0] && keep[c.b.0]);
    for pair in &mut base.corun {
        (pair.a.0, pair.b.0) = (place[pair.a.0], place[pair.b.0]);
    }
    for launch in base.models.values_mut().flat_map(|m| m.batches.values_mut()).flatten() {
        launch.kernel = place[launch.kernel];
    }
    let mut keep = keep.into_iter();
    base.kernels.retain(|_| keep.next().unwrap_or(true));
    base
}

fn same(what: &str, here: &str, there: &str) -> Result<(), FileError> {
    if here == there {
        return Ok(());
    }
    let problem = Problem::Disagrees {
        found: there.to_owned(),
        expected: here.to_owned(),
        other: "the profile it is added to".to_owned(),
    };
    Err(FileError::unwritable(what, problem))
}

fn conflict(what: String) -> FileError {
    FileError::unwritable(&what, Problem::Known)
}
