//! `run.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cotenant_profiles::Nanos;
use cotenant_results::{Answer, CellInfo, DeviceInfo, PolicyInfo, RunInfo, Table, TenantInfo};
use cotenant_sim::policy::Depth;

use crate::config::{Head, Point, PolicyRow, Slo, units};
use crate::fail::{Done, Failure};
use crate::isolated::Isolated;
use crate::models::{self, Found};
use crate::prepare::class;

/// The commit of the program, or `unknown`.
pub(crate) fn commit() -> &'static str {
    option_env!("COTENANT_COMMIT").unwrap_or("unknown")
}

/// The value that all points agree on.
#[derive(Clone, Debug, Default, PartialEq)]
enum Agreed<T> {
    /// No point yet.
    #[default]
    Nothing,
    All(T),
    Differs,
}

impl<T: PartialEq> Agreed<T> {
    fn see(&mut self, value: T) {
        match self {
            Self::Nothing => *self = Self::All(value),
            Self::All(known) if *known == value => {}
            _ => *self = Self::Differs,
        }
    }

    fn value(self) -> Option<T> {
        match self {
            Self::All(value) => Some(value),
            Self::Nothing | Self::Differs => None,
        }
    }
}

/// Gathers, point by point, what plots and report need besides the tables.
#[derive(Default)]
pub(crate) struct Gather {
    first: Option<First>,
    tenants: Vec<TenantSeen>,
    policies: Vec<Agreed<String>>,
    warnings: BTreeSet<String>,
}

/// Facts that are given for the first point only.
struct First {
    device: DeviceInfo,
    costs: String,
    duration: String,
    warmup: String,
    tenants: Vec<TenantInfo>,
    /// Their indices, in the order of the file.
    listed: Vec<usize>,
    policies: Vec<PolicyInfo>,
}

#[derive(Clone, Default)]
struct TenantSeen {
    model: Agreed<String>,
    arrivals: Agreed<String>,
    profile: Agreed<String>,
    isolated: Agreed<Option<Isolated>>,
    slo: Agreed<Option<Nanos>>,
    words: Agreed<Option<String>>,
    any_slo: bool,
}

impl Gather {
    /// Adds a point with the results of its preparation for each tenant.
    pub(crate) fn add(
        &mut self,
        point: &Point,
        profiles: &[Found],
        isolated: &[Option<Isolated>],
        slos: &[Option<Nanos>],
    ) {
        self.first.get_or_insert_with(|| First::of(point, profiles));
        self.tenants.resize_with(point.tenants.len(), TenantSeen::default);
        self.policies.resize_with(point.policies.len(), Agreed::default);
        for (t, (seen, config)) in self.tenants.iter_mut().zip(&point.tenants).enumerate() {
            seen.model.see(config.model.clone());
            seen.arrivals.see(config.arrivals_text.clone());
            seen.profile.see(profiles[t].words.clone());
            seen.isolated.see(isolated[t]);
            seen.slo.see(slos[t]);
            seen.words.see(config.slo.map(Slo::words));
            seen.any_slo |= config.slo.is_some();
        }
        for (seen, row) in self.policies.iter_mut().zip(&point.policies) {
            seen.see(row.options_text.clone());
        }
        self.warn(point, profiles);
    }

    /// Adds remarks on the input.
    pub(crate) fn notes(&mut self, notes: &BTreeSet<String>) {
        self.warnings.extend(notes.iter().cloned());
    }

    fn warn(&mut self, point: &Point, profiles: &[Found]) {
        self.warnings.extend(profiles.iter().filter_map(|f| f.warning.clone()));
        self.warnings.extend(profiles.iter().filter_map(|f| unknown_beyond(f, point.device.cus())));
        if point.tenants.iter().any(|t| t.batch_max > 16) {
            self.warnings.insert(
                "analytic profiles above batch 16 hold four sizes per doubling: a batch in \
                 between runs as the next larger one"
                    .to_owned(),
            );
        }
        if point.contention == "measured" && profiles.iter().all(|f| f.profile.corun.is_empty()) {
            self.warnings.insert(
                "contention is `measured`, but no profile holds measured pairs (corun.csv): pairs \
                 slow each other as under `cache`"
                    .to_owned(),
            );
        }
        if point.contention == "none" {
            self.warnings.insert(
                "contention is switched off: co-running kernels share CUs and bandwidth, and slow \
                 each other in no other way"
                    .to_owned(),
            );
        }
    }

    /// `run.json` of an experiment before any of its cells has run.
    ///
    /// # Panics
    /// No point was added.
    pub(crate) fn finish(self, e: &Head, experiment_digest: String) -> RunInfo {
        let first = self.first.expect("an experiment has at least one point");
        let swept = |text: Agreed<String>| text.value().unwrap_or_else(|| "swept".to_owned());
        let tenants = first.tenants.into_iter().zip(self.tenants).map(|(info, seen)| {
            let isolated = seen.isolated.value().flatten();
            TenantInfo {
                model: swept(seen.model),
                arrivals: swept(seen.arrivals),
                profile: swept(seen.profile),
                slo_ms: seen.slo.value().flatten().map(|s| s.as_millis_f64()),
                // A swept SLO is not a missing one: the report judges each point by its own SLO.
                slo: match (seen.words, seen.any_slo) {
                    (_, false) => None,
                    (words, true) => words.value().flatten().or_else(|| Some("swept".to_owned())),
                },
                isolated_p95_ms: isolated.map(|i| i.p95.as_millis_f64()),
                isolated_rps: isolated.map(|i| i.rps),
                ..info
            }
        });
        let mut listed: Vec<TenantInfo> = tenants.collect();
        listed = first.listed.iter().map(|&t| std::mem::take(&mut listed[t])).collect();
        let policies = first.policies.into_iter().zip(self.policies).map(|(info, seen)| {
            let options = seen.value().unwrap_or_else(|| format!("{} (swept)", info.options));
            PolicyInfo { options, ..info }
        });
        let policies: Vec<PolicyInfo> = policies.collect();
        RunInfo {
            sweep_units: sweep_units(&e.keys, &policies),
            name: e.name.clone(),
            question: e.question.clone(),
            rank_by: e.rank_by.map(|m| m.name().to_owned()),
            experiment_digest,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: commit().to_owned(),
            seeds: e.seeds.clone(),
            device: first.device,
            costs: first.costs,
            duration: first.duration,
            warmup: first.warmup,
            config: e.text.clone(),
            tenants: listed,
            policies,
            sweep_keys: e.keys.clone(),
            plots: e.plots.clone(),
            warnings: self.warnings.into_iter().collect(),
            ..RunInfo::default()
        }
    }
}

/// A warning if a model was not measured on as many CUs as the device has.
fn unknown_beyond(found: &Found, cus: u32) -> Option<String> {
    let launches = found.profile.models.get(&found.model)?.batches.values().flatten();
    let kernels = launches.map(|l| &found.profile.kernels[l.kernel]);
    // A kernel with at most one block for each CU that it was measured on gains nothing from more.
    let short = kernels.filter(|k| {
        let known = k.curve.known_to();
        known < cus && k.geometry().is_none_or(|blocks| blocks > u64::from(known))
    });
    let known = short.map(|k| k.curve.known_to()).min()?;
    Some(format!(
        "`{}` was measured on up to {known} of {cus} CUs: beyond them its time is unknown, and that \
         on {known} CUs stands in",
        found.model
    ))
}

impl First {
    fn of(point: &Point, profiles: &[Found]) -> Self {
        let tenants = point.tenants.iter().zip(profiles).map(|(config, found)| TenantInfo {
            name: config.name.clone(),
            class: class(config.class).to_owned(),
            precision: config.precision.name().to_owned(),
            executor: match config.executor {
                Some(executor) => executor.name().to_owned(),
                None if config.fused => "compiled".to_owned(),
                None => "eager".to_owned(),
            },
            profile_source: models::source_name(found.profile.source).to_owned(),
            ..TenantInfo::default()
        });
        let policies = point.policies.iter().map(|row| PolicyInfo {
            label: row.label.clone(),
            name: row.info.name.to_owned(),
            options: row.options_text.clone(),
            summary: row.info.summary.to_owned(),
            deployable: deployable(row),
            bound: Some(row.info.is_bound()),
        });
        Self {
            device: DeviceInfo {
                name: point.device.name.clone(),
                title: match &point.fleet {
                    Some(fleet) => fleet.words(),
                    None => point.device.title.clone(),
                },
                cus: point.device.cus(),
                // GPUs of several kinds have several clocks.
                boost_mhz: point.fleet.is_none().then_some(point.device.clock.boost_mhz),
            },
            costs: point.costs.name().to_owned(),
            duration: point.duration.to_string(),
            warmup: point.warmup.to_string(),
            tenants: tenants.collect(),
            listed: point.as_listed(),
            policies: policies.collect(),
        }
    }
}

/// Whether the platform's own mechanisms can implement the policy with fixed settings: true if it only lays
/// tenants out. A policy that decides while requests run needs a scheduler of its own. `None` for the bound.
fn deployable(row: &PolicyRow) -> Option<bool> {
    let policy = (row.info.build)(&row.options).ok()?;
    policy.bound().is_none().then(|| policy.depth() == Depth::Layout)
}

/// Units of the sweep's plain numbers, for the axes.
fn sweep_units(keys: &[String], policies: &[PolicyInfo]) -> BTreeMap<String, String> {
    let policy_of =
        |label: &str| policies.iter().find(|p| p.label == label).map(|p| p.name.as_str());
    let unit = |key: &String| Some((key.clone(), units::unit(key, policy_of)?));
    keys.iter().filter_map(unit).collect()
}

/// Sums up what the cells took.
#[derive(Default)]
pub(crate) struct Tally {
    events: u64,
    cpu_s: f64,
    cells: Vec<CellInfo>,
}

impl Tally {
    /// Adds a cell; `first` is false if its computation was already counted for another cell.
    pub(crate) fn add(&mut self, cell: &str, events: u64, digest: u64, cpu_s: f64, first: bool) {
        self.cpu_s += cpu_s;
        self.events += if first { events } else { 0 };
        let info = CellInfo { cell: cell.to_owned(), events, digest: format!("{digest:016x}") };
        self.cells.push(info);
    }

    /// Completes `run.json`.
    pub(crate) fn finish(self, run: RunInfo, host: String, wall_s: f64) -> RunInfo {
        let events_per_s = if self.cpu_s > 0.0 { self.events as f64 / self.cpu_s } else { 0.0 };
        RunInfo { events: self.events, events_per_s, cells: self.cells, host, wall_s, ..run }
    }
}

/// Completes `run.json` with the best policies and the settings that they resolved to, read from the tables
/// in `folder`.
///
/// # Errors
/// A table does not match what was just written.
pub(crate) fn with_winners(run: RunInfo, folder: &Path) -> Done<RunInfo> {
    let results =
        Table::results(&folder.join("results.csv"), &run.sweep_keys).map_err(Failure::failed)?;
    let layouts = folder.join("layouts.csv");
    let layouts = match layouts.is_file() {
        true => Some(Table::layouts(&layouts, &run.sweep_keys).map_err(Failure::failed)?),
        false => None,
    };
    let winners = Answer::of(&run, &results).winners(&run, layouts.as_ref());
    Ok(RunInfo { winners, ..run })
}

/// The name of this machine.
pub(crate) fn host() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let told = told.or_else(|| std::env::var("HOSTNAME").ok());
    told.map_or_else(|| "unknown".to_owned(), |h| h.trim().to_owned())
}
