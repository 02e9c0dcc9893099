//! `gpus`, `route`, `down`, and the `gpu` of tenants: several GPUs, or one that fails.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cotenant_profiles::{Device, Nanos};
use cotenant_sim::fleet::{Outage, Route};

use super::file::{ExperimentFile, GpusFile, RouteName};
use super::tenant::TenantConfig;
use super::tree::{Data, Flaw, Node, Place};
use super::{Failures, flaw};

/// The GPUs of an experiment that has several, or one that fails.
#[derive(Clone)]
pub(crate) struct FleetConfig {
    /// One per GPU.
    pub(crate) devices: Vec<Arc<Device>>,
    pub(crate) route: Route,
    /// In run time: the warm-up included.
    pub(crate) outages: Vec<Outage>,
}

impl FleetConfig {
    /// Whether the GPU of that number serves a tenant.
    pub(crate) fn serves(&self, gpu: usize, tenant: &TenantConfig) -> bool {
        tenant.gpus.as_ref().is_none_or(|list| list.contains(&(gpu as u32)))
    }

    /// How many GPUs serve a tenant.
    pub(crate) fn serving(&self, tenant: &TenantConfig) -> usize {
        tenant.gpus.as_ref().map_or(self.devices.len(), Vec::len)
    }

    /// `round-robin` or `least-outstanding`.
    pub(crate) fn route_name(&self) -> &'static str {
        match self.route {
            Route::RoundRobin => "round-robin",
            Route::LeastOutstanding => "least-outstanding",
        }
    }

    /// `2 × NVIDIA A100 80 GB SXM, NVIDIA H100 SXM`.
    pub(crate) fn words(&self) -> String {
        let mut counts: Vec<(&str, usize)> = vec![];
        for device in &self.devices {
            match counts.last_mut() {
                Some((title, n)) if *title == device.title => *n += 1,
                _ => counts.push((&device.title, 1)),
            }
        }
        let words = counts.iter().map(|(title, n)| match n {
            1 => (*title).to_owned(),
            n => format!("{n} × {title}"),
        });
        words.collect::<Vec<_>>().join(", ")
    }
}

/// Reads what the file says of GPUs; `None`: one GPU that never fails.
pub(super) fn read(
    root: &Node,
    file: &ExperimentFile,
    base: &Path,
    device: &Arc<Device>,
    known: &mut BTreeMap<String, Arc<Device>>,
    tenants: &[TenantConfig],
    flaws: &mut Vec<Flaw>,
) -> Option<FleetConfig> {
    let mut find = |name: &str| match super::device_named(root, "gpus", name, base, known) {
        Ok(found) => found,
        Err(flaw) => {
            flaws.push(flaw);
            device.clone()
        }
    };
    let devices: Vec<_> = match &file.gpus {
        None => vec![device.clone()],
        Some(GpusFile::Count(count)) => vec![device.clone(); *count as usize],
        Some(GpusFile::Devices(names)) => names.iter().map(|name| find(name)).collect(),
    };
    if devices.is_empty() {
        flaws.push(flaw(root, "gpus", "is empty; name at least one device"));
        // Nothing that names a GPU can be judged.
        return None;
    }
    let count = devices.len();
    let one = count == 1;
    for tenant in tenants {
        let beyond = tenant.gpus.iter().flatten().find(|&&gpu| gpu as usize >= count);
        if let Some(gpu) = beyond {
            let last = count.saturating_sub(1);
            let why = format!("there is no GPU {gpu}: `gpus` says {count}, numbered 0 to {last}");
            let place = gpu_of(root, &tenant.name).unwrap_or(&root.place);
            flaws.push(Flaw::new(place, format!("tenant.{}.gpu", tenant.name), why));
        }
    }
    let warmup = file.warmup.map_or(Nanos::ZERO, |t| t.0);
    let failures = Failures { root, count, warmup, duration: file.duration.0 };
    let outages = failures.read(file, tenants, flaws);
    let route = match file.route {
        RouteName::RoundRobin => Route::RoundRobin,
        RouteName::LeastOutstanding => Route::LeastOutstanding,
    };
    (!one || !outages.is_empty() || !Arc::ptr_eq(&devices[0], device)).then_some(FleetConfig {
        devices,
        route,
        outages,
    })
}

/// Where a tenant's `gpu` stands.
fn gpu_of<'a>(root: &'a Node, tenant: &str) -> Option<&'a Place> {
    let Data::List(tables) = &root.get("tenant")?.node.data else { return None };
    let named = |t: &&Node| t.get("name").and_then(|e| e.node.text()) == Some(tenant);
    Some(&tables.iter().find(named)?.get("gpu")?.node.place)
}

impl Failures<'_> {
    /// The `down` list.
    fn read(
        &self,
        file: &ExperimentFile,
        tenants: &[TenantConfig],
        flaws: &mut Vec<Flaw>,
    ) -> Vec<Outage> {
        let Some(list) = &file.down else { return vec![] };
        let entry = self.root.get("down");
        let place = |i: usize| match entry.map(|e| &e.node.data) {
            Some(Data::List(nodes)) => nodes.get(i).map_or(&self.root.place, |n| &n.place),
            _ => &self.root.place,
        };
        let mut outages: Vec<Outage> = vec![];
        for (i, down) in list.iter().enumerate() {
            let mut bad = |key: &str, why: String| {
                flaws.push(Flaw::new(place(i), format!("down[{i}].{key}"), why));
            };
            if down.gpu as usize >= self.count {
                let last = self.count.saturating_sub(1);
                bad("gpu", format!("there is no GPU {}: they are numbered 0 to {last}", down.gpu));
            }
            if down.at.0 >= self.duration {
                bad("at", format!("{} is not within the duration {}", down.at.0, self.duration));
            }
            let at = Nanos(self.warmup.0.saturating_add(down.at.0.0));
            let outage = Outage { gpu: down.gpu, at, lasts: down.lasts.0 };
            let end = |o: &Outage| o.at.0.saturating_add(o.lasts.0);
            let meets =
                |o: &&Outage| o.gpu == outage.gpu && o.at.0 < end(&outage) && outage.at.0 < end(o);
            if outages.iter().any(|o| meets(&o)) {
                bad("at", format!("GPU {} is down already at that time", down.gpu));
            }
            outages.push(outage);
        }
        let limited =
            |t: &&TenantConfig| t.arrivals.closed().is_some_and(|c| c.max_requests.is_some());
        if let Some(tenant) = tenants.iter().find(limited).filter(|_| !outages.is_empty()) {
            let why = format!(
                "does not go with `max_requests` (tenant `{}`): clients that lose their GPU begin \
                 again; leave one of the two out",
                tenant.name
            );
            flaws.push(flaw(self.root, "down", why));
        }
        outages
    }
}
