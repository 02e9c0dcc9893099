//! The steps, in order.

use std::time::{Duration, Instant};

use super::child::{Ask, Helper, now};
use super::{Cost, Request, shares, turns};
use crate::cuda::{Bench, Hop, Level};
use crate::device::Direction;
use crate::error::DeviceError;
use crate::mps::{Daemon, Options};

type InProcess = fn(&Bench, &Request) -> Vec<Cost>;
type ByProcesses = fn(&Request) -> Vec<Cost>;

/// Steps that run in this process alone.
pub(super) const IN_PROCESS: &[(&str, InProcess)] = &[
    ("launches", launches),
    ("hops between streams and partitions", hops),
    ("loading code", module),
    ("copies", copies),
    ("reading from L2 and DRAM", reads),
];

/// Steps that need processes of their own.
pub(super) const BY_PROCESSES: &[(&str, ByProcesses)] =
    &[("starting processes", starts), ("MPS", mps), ("contexts that take turns", time_slices)];

impl Request {
    /// Whether a part of a step that started at `began` may go on.
    fn has_time(&self, began: Instant, parts: u32) -> bool {
        began.elapsed() < self.step / parts && !self.stop.wanted()
    }
}

/// Takes up to `n` samples in a part of the step's time, but at least one. If there are none, returns
/// what went wrong.
fn take(
    request: &Request,
    parts: u32,
    n: usize,
    mut one: impl FnMut() -> Result<f64, DeviceError>,
) -> Result<Vec<f64>, String> {
    let began = Instant::now();
    let mut samples = Vec::with_capacity(n);
    while samples.len() < n && (samples.is_empty() || request.has_time(began, parts)) {
        match one() {
            Ok(value) => samples.push(value),
            Err(e) => return Err(e.to_string()),
        }
    }
    Ok(samples)
}

fn cost(step: &str, unit: &'static str, samples: Result<Vec<f64>, String>, note: &str) -> Cost {
    match samples {
        Ok(samples) => Cost::of(step, unit, samples, note),
        Err(why) => Cost::none(step, unit, why),
    }
}

fn launches(bench: &Bench, request: &Request) -> Vec<Cost> {
    let note = "host time per launch, in bursts of 256";
    vec![cost("launch", "ns", take(request, 1, 31, || bench.launch()), note)]
}

fn hops(bench: &Bench, request: &Request) -> Vec<Cost> {
    /// The chain without hops, and the three kinds of hop.
    const PARTS: u32 = 4;
    let alone = take(request, PARTS, 15, || bench.chain(None));
    let alone = cost("same_stream", "ns", alone, "from one empty kernel to the next in a stream");
    let kinds = [
        ("stream_hop", Hop::Stream, "to another stream by an event, beyond the same stream"),
        ("partition_hop", Hop::Partition, "to another green context, beyond the same stream"),
        ("barrier", Hop::Barrier, "two green contexts wait for each other, beyond a stream"),
    ];
    let base = alone.quantile(50).ok_or("the chain without hops was not measured".to_owned());
    let mut all = vec![alone];
    for (step, hop, note) in kinds {
        let beyond = base
            .clone()
            .and_then(|base| take(request, PARTS, 15, || Ok(bench.chain(Some(hop))? - base)));
        all.push(cost(step, "ns", beyond, note));
    }
    all
}

fn module(bench: &Bench, request: &Request) -> Vec<Cost> {
    let note = "our PTX, from the driver's cache after the first time";
    vec![cost("module_load", "ns", take(request, 1, 5, || bench.module_load()), note)]
}

fn copies(bench: &Bench, _: &Request) -> Vec<Cost> {
    let note = "pinned memory, one direction at a time";
    [("h2d", Direction::In), ("d2h", Direction::Out)]
        .map(|(step, way)| cost(step, "GB/s", bench.copy(way).map_err(|e| e.to_string()), note))
        .into()
}

fn reads(bench: &Bench, _: &Request) -> Vec<Cost> {
    let rate = |level| bench.read(level).map_err(|e| e.to_string());
    vec![
        cost("l2_read", "GB/s", rate(Level::L2), "a quarter of the cache, read over and over"),
        cost("dram_read", "GB/s", rate(Level::Dram), "many times the cache, read once"),
    ]
}

/// Longest duration of one helper process.
const CHILD: Duration = Duration::from_secs(30);

fn starts(request: &Request) -> Vec<Cost> {
    let once = |fresh: bool| -> Result<[f64; 3], String> {
        let folder = folder()?;
        let helper = Helper::start(request, Ask::Start, &folder.0, |command| {
            if fresh {
                command.env("CUDA_CACHE_DISABLE", "1");
            }
            Ok(())
        })?;
        let started = helper.started;
        let answer = helper.answer(CHILD, &request.stop)?;
        let [main, open, kernel] = answer.moments;
        let since = |a: u64, b: u64| b.saturating_sub(a) as f64;
        Ok([since(started, kernel), since(main, open), since(open, kernel)])
    };
    let many = |n: usize, fresh: bool| -> Result<Vec<[f64; 3]>, String> {
        let began = Instant::now();
        let mut all = Vec::new();
        while all.len() < n && (all.is_empty() || request.has_time(began, 2)) {
            all.push(once(fresh)?);
        }
        Ok(all)
    };
    let (warm, fresh) = (many(5, false), many(2, true));
    let part = |of: &Result<Vec<[f64; 3]>, String>, i: usize| {
        of.clone().map(|all| all.iter().map(|s| s[i]).collect::<Vec<f64>>())
    };
    vec![
        cost("process_start", "ns", part(&warm, 0), "to the first kernel's end, no framework"),
        cost("context_open", "ns", part(&warm, 1), "driver, context and our kernels loaded"),
        cost("first_kernel", "ns", part(&warm, 2), "its first launch, which loads it"),
        cost("process_start_uncached", "ns", part(&fresh, 0), "our kernels compiled afresh"),
    ]
}

fn time_slices(request: &Request) -> Vec<Cost> {
    let watched = || -> Result<turns::Turns, String> {
        let folder = folder()?;
        // Both must be there before the moment comes; a late one only shortens the time that can be
        // compared.
        let at = now() + 3_000_000_000;
        let start = || Helper::start(request, Ask::Watch { at }, &folder.0, |_| Ok(()));
        let (a, b) = (start()?, start()?);
        let (a, b) = (a.answer(CHILD, &request.stop)?, b.answer(CHILD, &request.stop)?);
        let none = "a process watched nothing";
        turns::turns(&a.watch.ok_or(none)?, &b.watch.ok_or(none)?)
    };
    let found = watched();
    let part = |f: fn(&turns::Turns) -> &Vec<f64>| found.as_ref().map(|t| f(t).clone());
    let part = |f| part(f).map_err(Clone::clone);
    let note = "two processes without MPS, by the GPU's own clock";
    vec![
        cost("quantum", "ns", part(|t| &t.quanta), note),
        cost("context_switch", "ns", part(|t| &t.switches), note),
    ]
}

fn mps(request: &Request) -> Vec<Cost> {
    let began = Instant::now();
    let start = || {
        let began = Instant::now();
        let options = Options { program: request.mps.clone(), ..Options::default() };
        Daemon::start(&options).map(|d| (d, began.elapsed().as_nanos() as f64))
    };
    let (daemon, ns) = match start() {
        Ok(started) => started,
        Err(e) => return vec![Cost::none("mps_daemon_start", "ns", e)],
    };
    let mut starts = vec![ns];
    let client = |percentage: Option<f64>| -> Result<(f64, [u32; 2]), String> {
        let folder = folder()?;
        let helper = Helper::start(request, Ask::Start, &folder.0, |command| {
            daemon.client(command, percentage).map_err(|e| e.to_string())
        })?;
        let started = helper.started;
        let answer = helper.answer(CHILD, &request.stop)?;
        daemon.require_server().map_err(|e| e.to_string())?;
        Ok((answer.moments[2].saturating_sub(started) as f64, answer.sms))
    };
    // How shares are rounded matters more than how long anything takes, so it comes first.
    let first = client(None).map(|(ns, _)| vec![ns]);
    let mut all = vec![cost(
        "mps_first_client",
        "ns",
        first.clone(),
        "process to first kernel, with its server",
    )];
    if first.is_ok() {
        let mut seen = Vec::new();
        for percent in shares::PERCENTAGES {
            if began.elapsed() > 2 * request.step || request.stop.wanted() {
                break;
            }
            match client(Some(percent)) {
                Ok((_, sms)) => seen.push((percent, sms)),
                Err(why) => all.push(Cost::none(&format!("mps_cus_at_{percent}"), "CUs", why)),
            }
        }
        all.extend(shares::costs(&seen, request.device.cus()));
        let later: Result<Vec<f64>, String> = (0..3).map(|_| client(None).map(|c| c.0)).collect();
        all.push(cost("mps_client_start", "ns", later, "process to first kernel"));
    }
    drop(daemon);
    for _ in (0..2).take_while(|_| !request.stop.wanted()) {
        // One daemon has started, and that result is kept even if a later one fails to start.
        starts.extend(start().map(|(_, ns)| ns));
    }
    all.push(Cost::of("mps_daemon_start", "ns", starts, "until it answers"));
    all
}

/// A folder for answers, removed when it is dropped.
struct Folder(std::path::PathBuf);

fn folder() -> Result<Folder, String> {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("cotenant-costs-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(Folder(path))
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
