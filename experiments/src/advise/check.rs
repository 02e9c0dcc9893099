//! Checks what existing deployment files deliver for a mix.

use cotenant_deploy::{Finding, Found, Gpu, Sharing, Weight};

use super::answer::Ask;
use super::fleet::Member;
use super::lab::{Candidate, How, Lab};
use super::row::{Row, known_tenants, row};
use super::search::Search;
use super::space::{Mechanism, Space};

/// Simulates the deployment that the files of `found` describe, under `seeds` seeds.
///
/// # Errors
/// The files do not say how the GPU is shared, or name a tenant that the mix does not have.
pub(crate) fn row_of(lab: &Lab, found: &mut Found, ask: &Ask, seeds: usize) -> Result<Row, String> {
    let mut gpus = found.resolve(&known_tenants(lab))?;
    divide(lab, &mut gpus, found);
    let mut search = Search::new(lab, Space::default(), ask.threads, ask.events_each());
    let mut members = vec![];
    let mut words = vec![];
    for gpu in &gpus {
        let (c, mechanism) = candidate(lab, gpu)?;
        words.push(mechanism.name_on(&lab.setup.device));
        members.push(Member { mechanism, tried: search.measure(c, seeds)? });
    }
    words.dedup();
    Ok(row(&search, &words.join(" | "), &members, ask, true))
}

/// Divides the requests of tenants that are in several places, unless a file divides them: in proportion to
/// what each place serves of that tenant when it is alone.
fn divide(lab: &Lab, gpus: &mut [Gpu], found: &mut Found) {
    for t in lab.all() {
        let name = lab.name(t);
        let here = |g: &Gpu| g.tenants.iter().filter(|x| x.name == name).count();
        let places: usize = gpus.iter().map(here).sum();
        let whole = |g: &Gpu| g.tenants.iter().all(|x| x.name != name || x.requests >= 1.0);
        if places < 2 || !gpus.iter().all(whole) {
            continue;
        }
        let mut rates = vec![];
        for gpu in gpus.iter() {
            for (i, x) in gpu.tenants.iter().enumerate().filter(|(_, x)| x.name == name) {
                let served = alone(&gpu.sharing, i)
                    .and_then(|sharing| lab.saturated(t, sharing, x.batch_max, x.workers));
                rates.push(served.map_or(0.0, |s| s.rps));
            }
        }
        let sum: f64 = rates.iter().sum();
        // If the rate of one place is unknown, all places count alike.
        let known = sum > 0.0 && rates.iter().all(|r| *r > 0.0);
        let mut shares = rates.iter().map(|r| if known { r / sum } else { 1.0 / places as f64 });
        for x in gpus.iter_mut().flat_map(|g| &mut g.tenants).filter(|x| x.name == name) {
            x.requests = shares.next().unwrap_or(0.0);
        }
        found.findings.push(Finding {
            weight: Weight::Note,
            file: "mix".to_owned(),
            line: None,
            field: format!("tenant.{name}"),
            what: format!(
                "is in {places} places, and no file says who gets which requests: divided in \
                 proportion to what each serves"
            ),
        });
    }
}

/// The place of one tenant of a GPU, without the others.
fn alone(sharing: &Sharing, i: usize) -> Option<Sharing> {
    Some(match sharing {
        Sharing::TimeSlicing { .. } | Sharing::Streams => return None,
        Sharing::Mps { percent } => Sharing::Mps { percent: vec![*percent.get(i)?] },
        Sharing::Static { chunks } => Sharing::Static { chunks: vec![*chunks.get(i)?] },
        Sharing::Mig { instances, place, percent } => Sharing::Mig {
            instances: vec![instances.get(*place.get(i)?)?.clone()],
            place: vec![0],
            percent: vec![percent.get(i).copied().unwrap_or(100)],
        },
    })
}

/// One GPU's settings as a candidate.
fn candidate(lab: &Lab, gpu: &Gpu) -> Result<(Candidate, Mechanism), String> {
    let index = |name: &str| lab.all().into_iter().find(|&t| lab.name(t) == name);
    let tenants: Vec<usize> = gpu.tenants.iter().filter_map(|t| index(&t.name)).collect();
    let mut batch = vec![];
    for (t, &i) in gpu.tenants.iter().zip(&tenants) {
        if t.batch_max > lab.batch_limit[i] && !lab.generates(i) {
            return Err(format!(
                "`{}` is to run batches of {}; its profile is compiled up to {}: set `batch` of the mix",
                t.name, t.batch_max, lab.batch_limit[i]
            ));
        }
        batch.push(t.batch_max);
    }
    let mut c = Candidate {
        requests: gpu.tenants.iter().map(|t| t.requests).collect(),
        how: How::Deploy(gpu.sharing.clone()),
        tokens: gpu.tenants.iter().map(|t| t.engine.map_or(0, |e| e.step_tokens)).collect(),
        memory: gpu.tenants.iter().map(|t| t.engine.and_then(|e| e.memory_fraction)).collect(),
        timeout: gpu.tenants.iter().map(|t| t.batch_timeout).collect(),
        workers: gpu.tenants.iter().map(|t| t.workers).collect(),
        batch,
        tenants,
    };
    if let Sharing::Mig { instances, place, percent } = &gpu.sharing
        && place.is_empty()
    {
        let place = assigned(lab, &c, instances)?;
        let (instances, percent) = (instances.clone(), percent.clone());
        c.how = How::Deploy(Sharing::Mig { instances, place, percent });
    }
    let mechanism = Mechanism::of(&c);
    for (i, t) in gpu.tenants.iter().enumerate() {
        // A cache of a fixed size is converted to a share of the memory.
        if let Some(cache) = t.engine.and_then(|e| e.cache)
            && !lab.mix.fixed_engine[c.tenants[i]].memory
        {
            let (weights, activations) = lab.parts(&c, i);
            let all = weights.0 + activations.0 + lab.context(&c.how).0 + cache.0;
            c.memory[i] = Some(all as f64 / lab.capacity(&c, i).0.max(1) as f64);
        }
    }
    Ok((c, mechanism))
}

/// Assigns tenants to instances for a layout that does not: by the lowest ratio of the formula, and each
/// tenant on an instance of its own while there are enough.
fn assigned(lab: &Lab, c: &Candidate, instances: &[String]) -> Result<Vec<usize>, String> {
    let Some(table) = &lab.setup.device.mig else {
        return Err(cotenant_deploy::no_instances(&lab.setup.device));
    };
    let mut load = vec![0_usize; instances.len()];
    let mut profiles = vec![];
    for name in instances {
        profiles.push(table.profile(name).map_err(|e| e.to_string())?.0);
    }
    let ratio = |i: usize, slot: usize| {
        let place = super::space::place_of(lab, table, profiles[slot]);
        super::screen::ratio(lab, c.tenants[i], (c.batch[i], c.workers[i], c.requests[i]), place)
    };
    // The tenant with the highest need chooses first.
    let mut order: Vec<usize> = (0..c.tenants.len()).collect();
    let need = |i: usize| (0..instances.len()).map(|s| ratio(i, s)).fold(f64::INFINITY, f64::min);
    order.sort_by(|&a, &b| need(b).total_cmp(&need(a)));
    let mut place = vec![0; c.tenants.len()];
    for i in order {
        let least = load.iter().copied().min().unwrap_or(0);
        let free = (0..instances.len()).filter(|&s| load[s] == least);
        let Some(slot) = free.min_by(|&a, &b| ratio(i, a).total_cmp(&ratio(i, b))) else {
            return Err("the layout has no instance".to_owned());
        };
        load[slot] += 1;
        place[i] = slot;
    }
    Ok(place)
}
