//! What a run returns.

use cotenant_profiles::{Bytes, Device, Nanos};

use crate::metrics::Counts;
use crate::policy::LayoutError;
use crate::pool::Totals;

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
    /// What the policy counted over the whole run.
    pub counters: Vec<(&'static str, f64)>,
}

/// One tenant's part.
#[derive(Clone, Debug)]
pub struct TenantReport {
    /// Its counts.
    pub counts: Counts,
    /// Waiting or running at the end.
    pub in_flight: u64,
    /// Of those, already past their deadline.
    pub in_flight_late: u64,
}

/// The GPU's part, within the window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GpuReport {
    /// Mean share of CUs in use, 0 to 1.
    pub cu_utilization: f64,
    /// Mean share of the DRAM bandwidth in use, 0 to 1.
    pub dram_utilization: f64,
    /// Energy, J.
    pub energy_j: f64,
    /// Context switches.
    pub context_switches: u64,
}

impl GpuReport {
    /// Of a GPU that does not tell. Not a number is what tables leave empty.
    pub const UNKNOWN: Self = Self {
        cu_utilization: f64::NAN,
        dram_utilization: f64::NAN,
        energy_j: f64::NAN,
        context_switches: 0,
    };

    /// What `used` within `window` comes to on `device`.
    #[must_use]
    pub fn of(device: &Device, window: Nanos, used: Totals) -> Self {
        let seconds = window.0 as f64 / 1e9;
        let busy_cu_s = used.busy_cu_ns as f64 / 1e9;
        Self {
            cu_utilization: busy_cu_s / (f64::from(device.cus()) * seconds),
            dram_utilization: used.dram_bytes / (device.memory.dram_gbps * 1e9 * seconds),
            energy_j: device.power.idle_w * seconds
                + device.power.cu_w * busy_cu_s
                + device.power.dram_pj_per_byte * used.dram_bytes / 1e12,
            context_switches: used.switches,
        }
    }
}

impl TenantReport {
    /// Share of the requests whose fate is known that met their deadline; `None` without deadlines.
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

/// Why a run did not take place. A result, not an error: the other cells of an experiment go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The policy cannot lay these tenants out on this device.
    #[error("layout: {0}")]
    Layout(#[from] LayoutError),
    /// Weights, activations and contexts exceed a pool's memory.
    #[error("out-of-memory: {who} brings the need to {need}, but there are {have}")]
    OutOfMemory {
        /// The worker that no longer fits, in words.
        who: String,
        /// Needed with it.
        need: Bytes,
        /// There is.
        have: Bytes,
    },
}
