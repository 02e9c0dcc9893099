//! Who gets which CUs, and how fast everybody is then.

use cotenant_profiles::device::DispatchRule;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::program::KernelCode;

use super::{Job, Oracle};

impl Job {
    pub(crate) fn age(&mut self, now: u64) {
        let passed = (now - self.since) as f64;
        self.left = (self.left - passed / self.slow).max(0.0);
        self.since = now;
    }

    /// Bytes per microsecond that it asks for.
    fn asks(&self, kernel: &KernelCode, place: &Place) -> u64 {
        (kernel.dram_bytes * 1000 / place.alone(kernel, self.grant)).min(place.rate)
    }

    fn limit(&self, kernel: &KernelCode, capacity: u32) -> u32 {
        kernel.want.min(self.cap).min(capacity)
    }

    /// Its last wave is on the CUs.
    fn settled(&self, kernel: &KernelCode) -> bool {
        self.grant > 0 && kernel.blocks <= u64::from(self.grant * kernel.blocks_per_cu)
    }
}

/// The memory system of a pool, in bytes per microsecond, and that of the whole board.
pub(crate) struct Place {
    rate: u64,
    board: u64,
}

impl Place {
    /// How long a kernel lasts here on so many CUs if nobody else is about. Half the bandwidth moves
    /// the same bytes in no less than twice the time that all of it takes.
    pub(crate) fn alone(&self, kernel: &KernelCode, cus: u32) -> u64 {
        let curve = kernel.duration_ns[cus as usize];
        if self.rate >= self.board {
            return curve;
        }
        let whole = *kernel.duration_ns.last().unwrap();
        let moved = (kernel.dram_bytes * 1000).min(self.board * whole);
        curve.max(moved.div_ceil(self.rate))
    }
}

/// Lowest free CUs, `n` of them.
fn take(free: &mut Vec<u32>, n: usize) -> Vec<u32> {
    free.drain(..n.min(free.len())).collect()
}

impl Oracle<'_> {
    fn code(&self, job: &Job) -> &KernelCode {
        &self.kernels[job.kernel]
    }

    /// Jobs of a lane, those that go first first.
    fn order(&self, p: usize, lane: usize) -> Vec<usize> {
        let jobs = &self.pools[p].jobs;
        let mut order: Vec<usize> = (0..jobs.len()).filter(|&i| jobs[i].lane == lane).collect();
        order.sort_by_key(|&i| (-i32::from(jobs[i].priority), jobs[i].order));
        order
    }

    pub(crate) fn regrant(&mut self, p: usize, lane: usize) {
        let order = self.order(p, lane);
        let jobs = &self.pools[p].jobs;
        if order.iter().any(|&i| self.code(&jobs[i]).fair) {
            self.share(p, lane, &order);
        } else if self.pools[p].masked[lane] {
            self.leave_over_masked(p, lane, &order);
        } else {
            let settled: Vec<bool> =
                order.iter().map(|&i| jobs[i].settled(self.code(&jobs[i]))).collect();
            let held: u32 =
                order.iter().zip(&settled).filter(|s| *s.1).map(|(&i, _)| jobs[i].used).sum();
            let capacity = self.pools[p].spec.lanes[lane];
            let mut free = capacity - held;
            for (&i, settled) in order.iter().zip(settled) {
                if !settled {
                    let job = &self.pools[p].jobs[i];
                    let grant = job.limit(self.code(job), capacity).min(free);
                    free -= grant;
                    self.grant(p, i, grant, grant);
                }
            }
        }
    }

    /// One CU each in turn, until nobody wants more or none is left.
    fn share(&mut self, p: usize, lane: usize, order: &[usize]) {
        let capacity = self.pools[p].spec.lanes[lane];
        let limits: Vec<u32> = order
            .iter()
            .map(|&i| {
                let job = &self.pools[p].jobs[i];
                job.limit(self.code(job), capacity)
            })
            .collect();
        let mut grants = vec![0; order.len()];
        let mut left = capacity;
        while left > 0 && grants != limits {
            for (grant, &limit) in grants.iter_mut().zip(&limits) {
                if left > 0 && *grant < limit {
                    *grant += 1;
                    left -= 1;
                }
            }
        }
        for (&i, &grant) in order.iter().zip(&grants) {
            self.grant(p, i, grant, grant);
        }
        if self.pools[p].masked[lane] {
            self.name_cus(p, lane);
        }
    }

    /// Jobs that held some number of CUs hold certain ones from now on: the lowest, as they came.
    pub(crate) fn name_cus(&mut self, p: usize, lane: usize) {
        let pool = &mut self.pools[p];
        let mut free: Vec<u32> = (0..pool.spec.lanes[lane]).collect();
        let mut jobs: Vec<_> = pool.jobs.iter_mut().filter(|j| j.lane == lane).collect();
        jobs.sort_by_key(|j| j.order);
        for job in jobs {
            job.cus = take(&mut free, job.used as usize);
        }
    }

    fn leave_over_masked(&mut self, p: usize, lane: usize, order: &[usize]) {
        let settled: Vec<bool> = order
            .iter()
            .map(|&i| {
                let job = &self.pools[p].jobs[i];
                job.settled(self.code(job))
            })
            .collect();
        let capacity = self.pools[p].spec.lanes[lane];
        let mut free: Vec<u32> = (0..capacity).collect();
        for (&i, _) in order.iter().zip(&settled).filter(|s| *s.1) {
            let held = &self.pools[p].jobs[i].cus;
            free.retain(|cu| !held.contains(cu));
        }
        for (&i, _) in order.iter().zip(&settled).filter(|s| !*s.1) {
            let job = &self.pools[p].jobs[i];
            let limit = job.limit(self.code(job), capacity);
            let may = |cu: &u32| job.mask.is_none_or(|m| m.contains(*cu));
            let allowed: Vec<u32> = free.iter().copied().filter(may).collect();
            let (grant, cus) = match self.setup.device.dispatch.rule {
                DispatchRule::LeastLoaded => {
                    let cus: Vec<u32> = allowed.into_iter().take(limit as usize).collect();
                    (cus.len() as u32, cus)
                }
                DispatchRule::EvenGroups => self.even(&allowed, limit),
            };
            free.retain(|cu| !cus.contains(cu));
            self.grant(p, i, grant, cus.len() as u32);
            self.pools[p].jobs[i].cus = cus;
        }
    }

    /// Workgroups go to every group in use alike, so the poorest decides.
    fn even(&self, allowed: &[u32], limit: u32) -> (u32, Vec<u32>) {
        let mut start = 0;
        let mut groups: Vec<Vec<u32>> = vec![];
        for &n in &self.setup.device.topology.groups {
            let inside = |cu: &&u32| (start..start + n).contains(*cu);
            let group: Vec<u32> = allowed.iter().filter(inside).copied().collect();
            if !group.is_empty() {
                groups.push(group);
            }
            start += n;
        }
        let poorest = groups.iter().map(Vec::len).min().unwrap_or(0);
        let effective = (poorest * groups.len()) as u32;
        if effective < limit {
            return (effective, allowed.to_vec());
        }
        let each = limit.div_ceil(groups.len() as u32) as usize;
        (limit, groups.into_iter().flat_map(|g| g.into_iter().take(each)).collect())
    }

    pub(crate) fn place(&self, p: usize) -> Place {
        let (device, spec) = (&self.setup.device, &self.pools[p].spec);
        let board = device.memory.dram_gbps * 1000.0;
        // So many CUs draw all of it.
        let of_cus = f64::from(spec.cus) / f64::from(device.analytic.dram_saturating_cus);
        Place { rate: spec.dram_bytes_per_us.min((board * of_cus) as u64), board: board as u64 }
    }

    /// Bytes to and from DRAM in all pools within the time to come, at today's rates.
    pub(crate) fn moving(&self, ns: u64) -> f64 {
        let mut bytes = 0.0;
        for (p, pool) in self.pools.iter().enumerate() {
            let place = self.place(p);
            for job in pool.jobs.iter().filter(|j| pool.on(j.lane) && j.grant > 0) {
                let rate = job.asks(&self.kernels[job.kernel], &place);
                bytes += rate as f64 / 1000.0 / job.slow * ns as f64;
            }
        }
        bytes
    }

    fn grant(&mut self, p: usize, i: usize, grant: u32, used: u32) {
        let place = self.place(p);
        let Self { now, pools, kernels, contention, .. } = self;
        let (now, pool) = (*now, &mut pools[p]);
        let beside = (0..pool.jobs.len())
            .filter(|&j| pool.on(pool.jobs[j].lane) && pool.jobs[j].grant > 0 && j != i)
            .count();
        let job = &mut pool.jobs[i];
        job.used = used;
        if job.grant == grant {
            return;
        }
        if job.grant > 0 {
            job.age(now);
        }
        job.since = now;
        job.grant = grant;
        if grant == 0 {
            job.slow = 1.0;
            return;
        }
        let kernel = &kernels[job.kernel];
        if job.basis == 0 {
            let ns = place.alone(kernel, grant);
            let ns = if job.scale == 1.0 { ns } else { (ns as f64 * job.scale) as u64 + 1 };
            let mut extra = job.extra_ns;
            if let (ContentionModel::Igniter { sched_ns, .. }, true) = (&*contention, beside > 0) {
                extra += (sched_ns[0] * (beside + 1) as f64 + sched_ns[1]).max(0.0) as u64;
            }
            job.left = (ns + extra) as f64;
        } else if job.basis != grant {
            job.left *= place.alone(kernel, grant) as f64 / place.alone(kernel, job.basis) as f64;
        }
        job.basis = grant;
    }

    /// Everybody's slow-down from scratch.
    pub(crate) fn rerate(&mut self, p: usize) {
        let now = self.now;
        let running: Vec<usize> = (0..self.pools[p].jobs.len())
            .filter(|&i| {
                let pool = &self.pools[p];
                pool.on(pool.jobs[i].lane) && pool.jobs[i].grant > 0
            })
            .collect();
        let slow = self.slow_downs(p, &running);
        for (&i, s) in running.iter().zip(slow) {
            let job = &mut self.pools[p].jobs[i];
            if job.slow != s {
                job.age(now);
                job.slow = s;
            }
        }
    }

    fn slow_downs(&self, p: usize, running: &[usize]) -> Vec<f64> {
        let pool = &self.pools[p];
        let device = &self.setup.device;
        let jobs = || running.iter().map(|&i| &pool.jobs[i]);
        let place = self.place(p);
        let dram = place.rate;
        let share = f64::from(pool.spec.cus) / f64::from(device.cus());
        let l2_rate = ((device.memory.l2_gbps * 1000.0 * share) as u64).max(1);
        let rates: Vec<u64> = jobs().map(|j| j.asks(self.code(j), &place)).collect();
        let total: u64 = rates.iter().sum();
        let part = |a: u64, b: u64| (a as f64 / b as f64).min(1.0);
        let costs: Vec<f64> = match self.contention {
            ContentionModel::None => vec![1.0; running.len()],
            ContentionModel::Bandwidth { l2_penalty } => {
                let l2 = pool.spec.l2.0;
                let sets: u64 = jobs().map(|j| self.code(j).dram_bytes.min(l2)).sum();
                let crowded = running.len() > 1 && sets > l2;
                let lost = if crowded { 1.0 - l2 as f64 / sets as f64 } else { 0.0 };
                let slow = |&rate: &u64| 1.0 + l2_penalty * lost * part(rate, dram);
                rates.iter().map(slow).collect()
            }
            ContentionModel::Linear { c } => {
                let slow = |&rate: &u64| {
                    let others = total - rate;
                    let s = c[0] * part(rate, l2_rate)
                        + c[1] * part(others, l2_rate)
                        + c[2] * part(rate, dram)
                        + c[3] * part(others, dram)
                        + c[4];
                    if running.len() > 1 { s.max(1.0) } else { 1.0 }
                };
                rates.iter().map(slow).collect()
            }
            ContentionModel::Igniter { cache, mhz_per_watt, .. } => {
                let power = &device.power;
                let cus: u32 = jobs().map(|j| j.grant).sum();
                let watts = power.idle_w * share
                    + power.cu_w * f64::from(cus)
                    + total as f64 * power.dram_pj_per_byte * 1e-6;
                let boost = device.clock.boost_mhz;
                let lost = mhz_per_watt * (watts - power.cap_w * share).max(0.0);
                let throttle = boost / (boost - lost).max(boost / 10.0);
                let slow = |&rate: &u64| (1.0 + cache * part(total - rate, l2_rate)) * throttle;
                rates.iter().map(slow).collect()
            }
        };
        // Whatever else: nobody gets more than a fair share of what is there.
        let fair = if total > dram { max_min(&rates, dram) } else { u64::MAX };
        let shared = |rate: u64| if rate > fair { rate as f64 / fair as f64 } else { 1.0 };
        costs.into_iter().zip(rates).map(|(cost, rate)| cost.max(shared(rate))).collect()
    }
}

/// The largest rate that those who ask for more than it can all have.
fn max_min(rates: &[u64], capacity: u64) -> u64 {
    let mut sorted = rates.to_vec();
    sorted.sort_unstable();
    let mut left = capacity;
    for (i, &rate) in sorted.iter().enumerate() {
        let fair = (left / (sorted.len() - i) as u64).max(1);
        if rate > fair {
            return fair;
        }
        left -= rate;
    }
    u64::MAX
}
