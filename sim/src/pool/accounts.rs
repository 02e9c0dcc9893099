//! Accounts of what each tenant has used of a pool.

use std::ops::{Add, Sub};

use super::resident::{Resident, float};
use super::shape::{Config, PARTS};
use super::solo::Work;

/// The resources that one tenant has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Used {
    /// CU speed, CU-ns: at most the speed of the CUs it had, which it shared with the other kernels on
    /// them.
    pub cu_ns: f64,
    /// Time on CUs, CU-ns: every CU with a block of the tenant counts.
    pub busy_cu_ns: u64,
    /// Bytes to and from DRAM.
    pub dram_bytes: f64,
    /// Energy of its kernels, beyond what the board draws as soon as anything runs, mJ.
    pub energy_mj: f64,
    /// Time with a kernel on the GPU, ns.
    pub active_ns: u64,
}

impl Add for Used {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            cu_ns: self.cu_ns + other.cu_ns,
            busy_cu_ns: self.busy_cu_ns + other.busy_cu_ns,
            dram_bytes: self.dram_bytes + other.dram_bytes,
            energy_mj: self.energy_mj + other.energy_mj,
            active_ns: self.active_ns + other.active_ns,
        }
    }
}

impl Sub for Used {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            cu_ns: self.cu_ns - earlier.cu_ns,
            busy_cu_ns: self.busy_cu_ns - earlier.busy_cu_ns,
            dram_bytes: self.dram_bytes - earlier.dram_bytes,
            energy_mj: self.energy_mj - earlier.energy_mj,
            active_ns: self.active_ns - earlier.active_ns,
        }
    }
}

/// CU speed in [`PARTS`] of a CU × ns, bytes per microsecond × ns, picojoules.
type Sums<T> = [T; 3];

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Used by kernels while nothing slowed them: integers, so the order and grouping of the additions
    /// does not matter.
    alone: Sums<u128>,
    /// Used by kernels while they were slowed.
    slowed: Sums<f64>,
    lain: u64,
    active_ns: u64,
    /// Kernels on the GPU, and the instant since which there has been at least one.
    running: u32,
    since: u64,
}

impl Account {
    #[inline]
    fn add(&mut self, r: &Resident, dt: u64, done: f64) {
        let Config { speed, dram, power, lies, .. } = r.now;
        self.lain += dt * u64::from(lies);
        if r.slow == 1.0 && r.heat == 1.0 {
            for (sum, each) in self.alone.iter_mut().zip([speed, dram, power]) {
                *sum += u128::from(dt) * u128::from(each);
            }
        } else {
            self.slowed[0] += done * float(speed);
            self.slowed[1] += done * float(dram);
            self.slowed[2] += done * r.heat * float(power);
        }
    }

    #[inline]
    fn leaves(&mut self, now: u64) {
        self.running -= 1;
        if self.running == 0 {
            self.active_ns += now - self.since;
        }
    }

    fn sum(&self, which: usize) -> f64 {
        self.alone[which] as f64 + self.slowed[which]
    }
}

/// Accounts, indexed by tenant number.
#[derive(Debug, Default)]
pub(super) struct Accounts(Vec<Account>);

impl Accounts {
    #[inline]
    pub(super) fn comes(&mut self, now: u64, tenant: u32) {
        if self.0.len() <= tenant as usize {
            self.open(tenant);
        }
        let account = &mut self.0[tenant as usize];
        if account.running == 0 {
            account.since = now;
        }
        account.running += 1;
    }

    #[cold]
    fn open(&mut self, tenant: u32) {
        self.0.resize(tenant as usize + 1, Account::default());
    }

    #[inline]
    pub(super) fn goes(&mut self, now: u64, tenant: u32) {
        self.0[tenant as usize].leaves(now);
    }

    /// Books a kernel that has run in its current configuration for `dt` ns. It did `done` ns of its
    /// undisturbed work in that time, and used `heat` times the energy that this work takes at the
    /// boost clock.
    #[inline]
    pub(super) fn book(&mut self, r: &Resident, (dt, done): (u64, f64)) {
        self.0[r.tenant as usize].add(r, dt, done);
    }

    /// Like [`book`](Self::book), for a kernel that ends.
    #[inline]
    pub(super) fn ends(&mut self, now: u64, r: &Resident, (dt, done): (u64, f64)) {
        let account = &mut self.0[r.tenant as usize];
        account.add(r, dt, done);
        account.leaves(now);
    }

    /// Books kernels that ran one after the other while the tenant had no other kernel on the GPU.
    #[inline]
    pub(super) fn did(&mut self, tenant: u32, work: &Work) {
        if self.0.len() <= tenant as usize {
            self.open(tenant);
        }
        let account = &mut self.0[tenant as usize];
        for (sum, each) in account.alone.iter_mut().zip([work.speed, work.dram, work.power]) {
            *sum += each;
        }
        account.lain += work.lain;
        account.active_ns += work.ns;
    }

    /// Usage until `now`, by tenant. `run` are the residents, whose time since their anchor is not
    /// booked yet.
    pub(super) fn until<'a>(&self, now: u64, run: impl Iterator<Item = &'a Resident>) -> Vec<Used> {
        let mut all = self.0.clone();
        for r in run.filter(|r| r.runs()) {
            let dt = now - r.anchor;
            all[r.tenant as usize].add(r, dt, float(dt) / r.slow);
        }
        let used = |a: &Account| Used {
            cu_ns: a.sum(0) / f64::from(PARTS),
            busy_cu_ns: a.lain,
            dram_bytes: a.sum(1) / 1000.0,
            energy_mj: a.sum(2) / 1e9,
            active_ns: a.active_ns + if a.running > 0 { now - a.since } else { 0 },
        };
        all.iter().map(used).collect()
    }
}
