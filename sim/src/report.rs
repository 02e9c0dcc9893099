//! The results of a run.

use cotenant_profiles::{Bytes, Device, Nanos};

use crate::counter::Count;
use crate::layout::LayoutError;
use crate::metrics::{Counts, TokenCounts};
use crate::pool::{Totals, Used};

/// A finished run.
#[derive(Clone, Debug)]
pub struct Report {
    /// By tenant.
    pub tenants: Vec<TenantReport>,
    /// The GPU as a whole.
    pub gpu: GpuReport,
    /// Events processed, the warm-up included.
    pub events: u64,
    /// A digest of the event stream: equal digests mean equal runs.
    pub digest: u64,
    /// The counted window.
    pub window: Nanos,
    /// The policy's counters, over the whole run.
    pub counters: Vec<Count>,
    /// When the run ended early, and the window with it, because more requests were in the system than
    /// allowed.
    pub cut: Option<Nanos>,
}

/// A queue that grew through the whole window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overload {
    /// Requests/s that arrived.
    pub offered_rps: f64,
    /// Requests/s that were answered.
    pub served_rps: f64,
    /// Requests waiting or running at the end.
    pub left: u64,
}

/// Growth below this share of arrivals is not an overload: queues at high load grow that much.
const GROWTH: f64 = 0.05;
/// Nor is growth below this many standard deviations of the number of arrivals, if they were Poisson.
const DEVIATIONS: f64 = 3.0;

impl Report {
    /// The value of the counter of that name; `None` if there is no such counter.
    #[must_use]
    pub fn counter(&self, name: &str) -> Option<f64> {
        let found = self.counters.iter().find(|count| count.counter.name == name);
        found.map(|count| count.amount.value())
    }
}

/// One tenant's results.
#[derive(Clone, Debug)]
pub struct TenantReport {
    /// Its counts.
    pub counts: Counts,
    /// Its tokens, if the tenant generates.
    pub tokens: Option<TokenCounts>,
    /// Requests waiting or running at the end.
    pub in_flight: u64,
    /// Those of them that are already past their deadline.
    pub in_flight_late: u64,
    /// Its use of the GPU within the window, if known.
    pub used: Option<Used>,
}

/// The GPU's results, within the window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GpuReport {
    /// Mean share of the CUs' speed in use, 0 to 1.
    pub cu_utilization: f64,
    /// Mean share of CUs with blocks, 0 to 1 (DCGM's SM activity).
    pub sm_active: f64,
    /// Share of time with any kernel on the GPU, 0 to 1 (nvidia-smi's GPU-Util; over hardware
    /// instances weighted by their CUs, as DCGM does).
    pub gpu_util: f64,
    /// Mean share of the DRAM bandwidth in use, 0 to 1.
    pub dram_utilization: f64,
    /// Energy, J.
    pub energy_j: f64,
    /// Mean power, W.
    pub power_w: f64,
    /// Mean clock, MHz: below the boost clock where the board's limit binds.
    pub clock_mhz: f64,
    /// Context switches.
    pub context_switches: u64,
}

impl GpuReport {
    /// The report of an idle GPU that draws no power: the starting value of sums.
    pub const NOTHING: Self = Self {
        cu_utilization: 0.0,
        sm_active: 0.0,
        gpu_util: 0.0,
        dram_utilization: 0.0,
        energy_j: 0.0,
        power_w: 0.0,
        clock_mhz: 0.0,
        context_switches: 0,
    };

    /// The report of a GPU that reports nothing. Tables leave values that are not a number empty.
    pub const UNKNOWN: Self = Self {
        cu_utilization: f64::NAN,
        sm_active: f64::NAN,
        gpu_util: f64::NAN,
        dram_utilization: f64::NAN,
        energy_j: f64::NAN,
        power_w: f64::NAN,
        clock_mhz: f64::NAN,
        context_switches: 0,
    };

    /// The report for `used` within `window` on `device`. Unknown if the window is empty, as in a run that
    /// was cut during its warm-up.
    #[must_use]
    pub fn of(device: &Device, window: Nanos, used: Totals) -> Self {
        if window == Nanos::ZERO {
            return Self::UNKNOWN;
        }
        let seconds = window.0 as f64 / 1e9;
        let cu_s = f64::from(device.cus()) * seconds;
        let active_cu_s = used.active_cu_ns as f64 / 1e9;
        let power = &device.power;
        let energy_j = power.idle_w * seconds
            + power.active_w * active_cu_s / f64::from(device.cus())
            + used.energy_mj / 1e3;
        Self {
            cu_utilization: used.cu_ns / 1e9 / cu_s,
            sm_active: used.busy_cu_ns as f64 / 1e9 / cu_s,
            gpu_util: active_cu_s / cu_s,
            dram_utilization: used.dram_bytes / (device.memory.dram_gbps * 1e9 * seconds),
            energy_j,
            power_w: energy_j / seconds,
            clock_mhz: device.clock.boost_mhz * (1.0 - used.lost_ns / window.0 as f64),
            context_switches: used.switches,
        }
    }
}

impl GpuReport {
    /// Checks that nothing is used beyond what the device has. A thousandth is allowed for rounding in a
    /// short window.
    ///
    /// # Panics
    /// Something exceeds it: a defect of the device model, and a wrong result.
    pub(crate) fn assert_within(&self, device: &Device) {
        const MOST: f64 = 1.001;
        let parts = [
            ("speed of CUs", self.cu_utilization),
            ("CUs", self.sm_active),
            ("time", self.gpu_util),
            ("DRAM bandwidth", self.dram_utilization),
            ("power", self.power_w / device.power.cap_w.max(device.power.idle_w)),
            ("clock", self.clock_mhz / device.clock.boost_mhz),
        ];
        for (what, used) in parts {
            assert!(
                used.is_nan() || (0.0..=MOST).contains(&used),
                "{what}: {used} of what there is"
            );
        }
    }
}

impl TenantReport {
    /// Its part of the GPU within the window, if known. Power and energy are not attributed to tenants.
    #[must_use]
    pub fn gpu(&self, device: &Device, window: Nanos) -> Option<GpuReport> {
        let Used { cu_ns, busy_cu_ns, dram_bytes, energy_mj, active_ns } = self.used?;
        // Workers of one tenant may lie on one CU.
        let all = u64::from(device.cus());
        let busy_cu_ns = busy_cu_ns.min(active_ns * all);
        let active_cu_ns = active_ns * all;
        let used =
            Totals { busy_cu_ns, cu_ns, dram_bytes, energy_mj, active_cu_ns, ..Totals::default() };
        Some(GpuReport::of(device, window, used))
    }

    /// Whether its queue grew through the whole window, so that latencies reflect nothing but the length of
    /// the run. That is so if each quarter began with more requests in the system than the one before, and
    /// if the growth from the beginning to the end is at least a twentieth of the arrivals and exceeds
    /// chance.
    #[must_use]
    pub fn overload(&self, window: Nanos) -> Option<Overload> {
        let seen = self.counts.growth.to(self.in_flight);
        let arrived = self.counts.offered - seen[0];
        let growth = self.in_flight.saturating_sub(seen[0]) as f64;
        let chance = DEVIATIONS * (arrived as f64).sqrt();
        let grows = seen.is_sorted_by(|a, b| a < b);
        if !grows || growth < GROWTH * arrived as f64 || growth < chance {
            return None;
        }
        let seconds = window.as_secs_f64();
        Some(Overload {
            offered_rps: arrived as f64 / seconds,
            served_rps: self.counts.completed as f64 / seconds,
            left: self.in_flight,
        })
    }

    /// Of the requests whose outcome is known, the share that met their deadline; `None` without deadlines.
    #[must_use]
    pub fn attainment(&self) -> Option<f64> {
        let c = &self.counts;
        if c.with_deadline == 0 && self.in_flight_late == 0 {
            return None;
        }
        let known = c.completed + c.dropped_total() + self.in_flight_late;
        (known > 0).then(|| c.good as f64 / known as f64)
    }

    /// Mean latency.
    #[must_use]
    pub fn latency_mean(&self) -> Option<Nanos> {
        mean(self.counts.latency_sum, self.counts.completed)
    }

    /// Mean time in the tenant's queue.
    #[must_use]
    pub fn queue_mean(&self) -> Option<Nanos> {
        mean(self.counts.queue_sum, self.counts.completed)
    }

    /// Mean time from the start of its batch to a request's end.
    #[must_use]
    pub fn service_mean(&self) -> Option<Nanos> {
        let c = &self.counts;
        mean(c.latency_sum - c.queue_sum, c.completed)
    }

    /// Mean items per batch.
    #[must_use]
    pub fn batch_mean(&self) -> Option<f64> {
        let c = &self.counts;
        (c.batches > 0).then(|| c.batch_items as f64 / c.batches as f64)
    }
}

fn mean(sum: u128, n: u64) -> Option<Nanos> {
    (n > 0).then(|| Nanos((sum / u128::from(n)) as u64))
}

/// Why a run did not take place. It is a result, not an error: the other cells of an experiment go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The policy cannot lay these tenants out on this device.
    #[error("layout: {0}")]
    Layout(#[from] LayoutError),
    /// Weights, activations and contexts exceed a pool's memory.
    #[error(
        "out-of-memory: {who} brings the need to {need:#}, but there are {have:#}: take a smaller model or \
         precision, fewer workers, or a GPU with more memory"
    )]
    OutOfMemory {
        /// The worker that no longer fits, in words.
        who: String,
        /// The memory needed with it.
        need: Bytes,
        /// The memory available.
        have: Bytes,
    },
    /// The memory that an engine may use leaves no room for a key-value cache.
    #[error(
        "out-of-memory: {who} may use {have}, of which model, activations and context take {model}: raise `memory_fraction` or `kv_memory`, lower `max_batched_tokens`, or take a smaller precision"
    )]
    NoCache {
        /// The engine, in words.
        who: String,
        /// The memory that it may use.
        have: Bytes,
        /// The memory that model, activations and context take.
        model: Bytes,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tenant with `seen` requests at the beginning and at the end of each quarter, and `arrived`
    /// arrivals in the window of 1 s.
    fn tenant(arrived: u64, seen: [u64; 5]) -> TenantReport {
        let mut counts = Counts::default();
        counts.open(seen[0], Nanos::ZERO, Nanos::from_secs(1));
        for (at, n) in [(250, seen[1]), (500, seen[2]), (750, seen[3])] {
            counts.arrive(Nanos::from_millis(at), n);
        }
        counts.offered = seen[0] + arrived;
        counts.completed = seen[0] + arrived - seen[4];
        let (in_flight, tokens) = (seen[4], None);
        TenantReport { counts, tokens, in_flight, in_flight_late: 0, used: None }
    }

    #[test]
    fn a_queue_that_grows_through_the_whole_window_is_overloaded() {
        let overload = |arrived, seen| tenant(arrived, seen).overload(Nanos::from_secs(1));
        let over = overload(1_000, [10, 110, 220, 300, 410]).expect("it grows by 400");
        assert_eq!((over.offered_rps, over.served_rps, over.left), (1_000.0, 600.0, 410));
        assert_eq!(overload(1_000, [10, 110, 90, 300, 410]), None, "it recovered once");
        assert_eq!(overload(1_000, [10, 20, 30, 40, 50]), None, "one in 25");
        assert_eq!(overload(100, [0, 5, 10, 15, 20]), None, "chance");
        assert_eq!(overload(1_000, [16; 5]), None, "clients who wait for their answers");
        assert_eq!(overload(0, [0; 5]), None);
    }
}
