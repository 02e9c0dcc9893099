//! Who has blocks where.

use cotenant_profiles::device::DispatchRule;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::program::KernelCode;

use super::parts::blocks_in;
use super::power::Board;
use super::{Job, NEVER, Oracle};

/// How a kernel runs with the blocks that it has on the CUs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Way {
    /// From beginning to end, nobody else about, ns.
    pub(crate) ns: u64,
    /// In 1/1024 of a CU's speed.
    pub(crate) speed: u64,
    /// Bytes per microsecond.
    pub(crate) rate: u64,
    /// Of the whole GPU's L2 bandwidth, parts per million.
    pub(crate) cache: u64,
    /// mW besides what the board draws as soon as anything runs.
    pub(crate) power: u64,
    /// CUs with blocks of it.
    pub(crate) lies: u64,
    /// Blocks at once.
    pub(crate) there: u64,
    pub(crate) waves: u64,
}

/// The memory system of a pool, in bytes per microsecond, and that of the whole board.
pub(crate) struct Memory {
    pub(crate) rate: u64,
    board: u64,
    /// Of the whole GPU's L2, parts per million.
    pub(crate) l2: u64,
    supply: Board,
}

impl Memory {
    /// How long a kernel lasts here on so many CUs if nobody else is about. Half the bandwidth moves
    /// the same bytes in no less than twice the time that all of it takes.
    fn alone(&self, kernel: &KernelCode, cus: u64) -> u64 {
        let curve = kernel.duration_ns[cus as usize];
        if self.rate >= self.board {
            return curve;
        }
        let whole = *kernel.duration_ns.last().unwrap();
        let moved = (kernel.dram_bytes * 1000).min(self.board * whole);
        curve.max(moved.div_ceil(self.rate))
    }

    /// A kernel with `there` blocks on some of `cus` CUs that takes so long.
    fn way(&self, kernel: &KernelCode, ns: u64, there: u64, cus: u64) -> Way {
        let cheapest = (1..kernel.duration_ns.len() as u64)
            .map(|c| {
                let used = if kernel.fair { c } else { c.min(kernel.blocks) };
                used * kernel.duration_ns[c as usize]
            })
            .min()
            .unwrap();
        let lies = there.min(cus);
        let speed = (cheapest * 1024 / ns).min(lies * 1024);
        let memory = (self.rate, self.board, self.l2);
        let (cache, rate, power) = self.supply.drawn(kernel, cus, ns, speed, memory);
        Way {
            ns,
            speed,
            rate,
            cache,
            power,
            lies,
            there,
            waves: if kernel.fair { 1 } else { kernel.blocks.div_ceil(there) },
        }
    }

    /// All the blocks that so many CUs hold.
    fn roomy(&self, kernel: &KernelCode, cus: u64) -> Way {
        let fit = u64::from(kernel.blocks_per_cu);
        let there = if kernel.fair { cus } else { kernel.blocks.min(cus * fit) };
        self.way(kernel, self.alone(kernel, cus), there, cus)
    }

    /// Room for fewer blocks than that, wherever it is.
    fn tight(&self, kernel: &KernelCode, cus: u64, there: u64) -> Way {
        let fit = u64::from(kernel.blocks_per_cu);
        let device = kernel.duration_ns.len() as u64 - 1;
        let (blocks, hold) = (kernel.blocks, cus * fit);
        let ns = if blocks > hold {
            (kernel.duration_ns[cus as usize] * hold).div_ceil(there)
        } else {
            // As many on each CU as if the kernel lay on so many CUs.
            let like = (blocks * cus).div_ceil(there).clamp(cus, device);
            (kernel.duration_ns[like as usize] * blocks).div_ceil(there)
        };
        self.way(kernel, ns.max(self.alone(kernel, cus)), there, cus)
    }
}

/// Share of a CU's threads, registers, shared memory and slots that a kernel's blocks take where as
/// many as fit are on it, in 1/1024.
fn share_of_a_cu(kernel: &KernelCode, topology: &cotenant_profiles::device::Topology) -> [u64; 4] {
    let fit = u64::from(kernel.blocks_per_cu);
    let warps = u64::from(kernel.threads).div_ceil(32);
    let per_warp = (32 * u64::from(kernel.tile.regs)).div_ceil(256) * 256;
    let block = [32 * warps, per_warp * warps, u64::from(kernel.tile.smem_bytes), 1];
    let cu = [
        u64::from(topology.threads_per_cu),
        u64::from(topology.registers_per_cu),
        topology.smem_per_cu.0,
        u64::from(topology.blocks_per_cu),
    ];
    let mut shares = [0; 4];
    for i in 0..4 {
        let decides = block[i] > 0 && cu[i] / block[i] == fit;
        shares[i] = if decides { 1024 } else { (block[i] * fit * 1024).div_ceil(cu[i]).min(1024) };
    }
    if shares.iter().all(|&s| s < 1024) {
        shares[3] = 1024;
    }
    shares
}

impl Job {
    pub(crate) fn age(&mut self, now: u64) {
        let passed = (now - self.since) as f64;
        self.left = (self.left - passed / self.slow).max(0.0);
        self.since = now;
    }
}

impl Oracle<'_> {
    pub(crate) fn code(&self, job: &Job) -> &KernelCode {
        &self.kernels[job.kernel]
    }

    pub(crate) fn memory(&self, p: usize) -> Memory {
        let (device, spec) = (&self.setup.device, &self.pools[p].spec);
        let board = device.memory.dram_gbps * 1000.0;
        // So many CUs draw all of it.
        let of_cus = f64::from(spec.cus) / f64::from(device.analytic.dram_saturating_cus);
        let slices = spec.l2.0 as f64 / device.memory.l2.0 as f64;
        Memory {
            rate: spec.dram_bytes_per_us.min((board * of_cus) as u64),
            board: board as u64,
            l2: ((slices * 1e6) as u64).clamp(1, 1_000_000),
            supply: Board::of(device),
        }
    }

    /// Jobs of a lane, those that go first first.
    fn order(&self, p: usize, lane: usize) -> Vec<usize> {
        let jobs = &self.pools[p].jobs;
        let mut order: Vec<usize> = (0..jobs.len()).filter(|&i| jobs[i].lane == lane).collect();
        order.sort_by_key(|&i| (-i32::from(jobs[i].priority), jobs[i].order));
        order
    }

    /// CUs that count for a job: its cap's, its lane's, its mask's.
    fn cus_for(&self, p: usize, job: &Job) -> u64 {
        let pool = &self.pools[p];
        let capacity = pool.spec.lanes[job.lane];
        let mut cus = job.cap.min(capacity);
        if pool.masked[job.lane] {
            let allowed: Vec<u32> = self.allowed(p, job);
            let counts = match self.setup.device.dispatch.rule {
                DispatchRule::LeastLoaded => allowed.len() as u32,
                DispatchRule::EvenGroups => self.even(&allowed, u32::MAX).0,
            };
            cus = cus.min(counts);
        }
        u64::from(cus)
    }

    fn allowed(&self, p: usize, job: &Job) -> Vec<u32> {
        let capacity = self.pools[p].spec.lanes[job.lane];
        (0..capacity).filter(|&cu| job.mask.is_none_or(|m| m.contains(cu))).collect()
    }

    /// CUs' worth of blocks that a job would have at once if it could.
    fn limit(&self, p: usize, job: &Job) -> u64 {
        let kernel = self.code(job);
        kernel.blocks.div_ceil(u64::from(kernel.blocks_per_cu)).min(self.cus_for(p, job))
    }

    /// Blocks of the job wait for room.
    pub(crate) fn short(&self, p: usize, i: usize) -> bool {
        let job = &self.pools[p].jobs[i];
        if self.code(job).fair || job.last || job.leaving {
            return false;
        }
        if self.pools[p].masked[job.lane] { job.squeezed } else { job.held < self.limit(p, job) }
    }

    /// Room goes to those who wait for it, in order. Where CUs have no names, who still waits keeps
    /// those behind from going first.
    pub(crate) fn hand_out(&mut self, p: usize, lane: usize) {
        let order = self.order(p, lane);
        // Those who take no room start as they come.
        let mut came = order.clone();
        came.sort_by_key(|&i| self.pools[p].jobs[i].order);
        for i in came {
            let job = &self.pools[p].jobs[i];
            if self.code(job).fair && job.way.is_none() {
                let cus = self.cus_for(p, job);
                let way = self.memory(p).roomy(self.code(job), cus);
                if self.pools[p].masked[lane] {
                    let allowed = self.allowed(p, &self.pools[p].jobs[i]);
                    self.pools[p].jobs[i].cus = allowed.into_iter().take(cus as usize).collect();
                }
                self.goes_on(p, i, Some(way));
            }
        }
        let mut blocked = false;
        for i in order {
            if !self.short(p, i) {
                continue;
            }
            if self.pools[p].masked[lane] {
                self.take_named(p, i);
            } else if !blocked {
                self.take_room(p, i);
                blocked = self.short(p, i);
            }
        }
    }

    fn take_room(&mut self, p: usize, i: usize) {
        let pool = &self.pools[p];
        let job = &pool.jobs[i];
        let topology = &self.setup.device.topology;
        let mut room = [u64::from(pool.spec.lanes[job.lane]) * 1024; 4];
        for other in pool.jobs.iter().filter(|j| j.lane == job.lane) {
            let share = share_of_a_cu(self.code(other), topology);
            (0..4).for_each(|r| room[r] -= other.held * share[r]);
        }
        let kernel = self.code(job);
        let (fit, limit) = (u64::from(kernel.blocks_per_cu), self.limit(p, job));
        // Who made way for others needs room for what is left.
        let mut wants = limit;
        let share = if job.whole == 0.0 { job.part } else { job.left / job.whole };
        if job.held == 0 && share < 1.0 {
            let blocks = kernel.blocks as f64 * share;
            wants = ((blocks / fit as f64).ceil() as u64).clamp(1, limit);
        }
        let share = share_of_a_cu(kernel, topology);
        let fits = |n: u64| (0..4).all(|r| n * share[r] <= room[r]);
        let more = (0..=wants - job.held.min(wants)).rev().find(|&n| fits(n)).unwrap();
        if more > 0 {
            let (cus, held) = (self.cus_for(p, job), job.held + more);
            let memory = self.memory(p);
            let way = if held < limit {
                memory.tight(kernel, cus, held * fit)
            } else {
                memory.roomy(kernel, cus)
            };
            let last = more >= wants && wants < limit;
            self.pools[p].jobs[i].held = held;
            self.goes_on(p, i, Some(way));
            self.pools[p].jobs[i].last = last;
        }
    }

    /// CUs with nobody on them, then those with most room.
    fn take_named(&mut self, p: usize, i: usize) {
        let pool = &self.pools[p];
        let job = &pool.jobs[i];
        let (kernel, cus) = (self.code(job), self.cus_for(p, job));
        if cus == 0 {
            return;
        }
        let fit = u64::from(kernel.blocks_per_cu);
        let blocks = if job.part < 1.0 { blocks_in(kernel, job.part) } else { kernel.blocks };
        let wants = blocks.min(cus);
        let on_each = blocks.min(wants * fit).div_ceil(wants);
        let fill = (on_each * 1024).div_ceil(fit);
        let taken = |cu: u32| -> Option<u64> {
            let others = pool.jobs.iter().filter(|j| j.lane == job.lane && j.order != job.order);
            let there: Vec<u64> = others.filter(|j| j.cus.contains(&cu)).map(|j| j.fill).collect();
            (!there.is_empty()).then(|| there.iter().sum())
        };
        let others = || self.allowed(p, job).into_iter().filter(|cu| !job.cus.contains(cu));
        let open: Vec<u32> = others().filter(|&cu| taken(cu).is_none()).collect();
        let mut chosen = self.choose(&job.cus, &open, wants);
        if chosen.0 < wants {
            let mut roomy: Vec<(u64, u32)> = others()
                .filter_map(|cu| taken(cu).map(|t| (t, cu)))
                .filter(|(t, _)| t + fill <= 1024)
                .collect();
            roomy.sort_unstable();
            if self.setup.device.dispatch.rule == DispatchRule::LeastLoaded {
                roomy.truncate((wants - chosen.0) as usize);
            }
            let mut more = open;
            more.extend(roomy.into_iter().map(|(_, cu)| cu));
            more.sort_unstable();
            let shared = self.choose(&job.cus, &more, wants);
            if shared.0 > chosen.0 {
                chosen = shared;
            }
        }
        let (count, list) = chosen;
        if count == 0 || list == job.cus {
            return;
        }
        let memory = self.memory(p);
        let mut way = memory.roomy(kernel, cus);
        if count < wants {
            let ns = memory.alone(kernel, count).max(way.ns);
            way = memory.way(kernel, ns, kernel.blocks.min(count * fit), count);
        }
        way.lies = list.len() as u64;
        let job = &mut self.pools[p].jobs[i];
        (job.cus, job.fill, job.squeezed) = (list, fill, count < wants);
        self.goes_on(p, i, Some(way));
    }

    /// Which CUs a job has that had some and may take others, and how many count.
    fn choose(&self, had: &[u32], more: &[u32], wants: u64) -> (u64, Vec<u32>) {
        let mut list = had.to_vec();
        let count = match self.setup.device.dispatch.rule {
            DispatchRule::LeastLoaded => {
                list.extend(more.iter().take((wants as usize).saturating_sub(had.len())));
                list.len() as u64
            }
            DispatchRule::EvenGroups => {
                let mut all = list.clone();
                all.extend(more);
                all.sort_unstable();
                let (count, even) = self.even(&all, wants as u32);
                list.extend(even.into_iter().filter(|cu| !had.contains(cu)));
                u64::from(count)
            }
        };
        list.sort_unstable();
        (count, list)
    }

    /// Jobs that lay on some number of CUs lie on certain ones from now on: those with most room, as
    /// they came.
    pub(crate) fn name_cus(&mut self, p: usize, lane: usize) {
        let capacity = self.pools[p].spec.lanes[lane];
        let mut full = vec![0; capacity as usize];
        let mut order: Vec<usize> =
            (0..self.pools[p].jobs.len()).filter(|&i| self.pools[p].jobs[i].lane == lane).collect();
        order.sort_by_key(|&i| self.pools[p].jobs[i].order);
        for i in order {
            let job = &self.pools[p].jobs[i];
            let kernel = self.code(job);
            let fit = u64::from(kernel.blocks_per_cu);
            let lies = job.way.map_or(0, |w| w.lies);
            let blocks = kernel.blocks.min(job.held * fit);
            let fill = (blocks.div_ceil(lies.max(1)) * 1024).div_ceil(fit).min(1024);
            let squeezed = self.short(p, i);
            let mut cus: Vec<u32> = (0..capacity).collect();
            cus.sort_by_key(|&cu| (full[cu as usize], cu));
            cus.truncate(lies as usize);
            cus.sort_unstable();
            cus.iter().for_each(|&cu| full[cu as usize] += fill);
            let job = &mut self.pools[p].jobs[i];
            (job.cus, job.fill, job.squeezed) = (cus, fill, squeezed);
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

    /// The job runs in another way from now on, or waits.
    pub(crate) fn goes_on(&mut self, p: usize, i: usize, way: Option<Way>) {
        let Self { now, pools, contention, kernels, .. } = self;
        let (now, pool) = (*now, &mut pools[p]);
        let beside = (0..pool.jobs.len())
            .filter(|&j| pool.on(pool.jobs[j].lane) && pool.jobs[j].way.is_some() && j != i)
            .count();
        let job = &mut pool.jobs[i];
        if job.way.is_some() {
            job.age(now);
        }
        job.since = now;
        let Some(mut way) = way else {
            (job.slow, job.heat, job.way) = (1.0, 1.0, None);
            return;
        };
        let kernel = &kernels[job.kernel];
        let by_blocks = job.counts_blocks(kernel);
        let blocks = blocks_in(kernel, job.part);
        if job.whole == 0.0 && by_blocks {
            let (lies, masked) = (way.lies, !job.cus.is_empty());
            way = way.with_blocks(kernel, blocks);
            if masked {
                way.lies = lies;
            }
        }
        if job.whole == 0.0 {
            let ns = if job.scale == 1.0 { way.ns } else { (way.ns as f64 * job.scale) as u64 + 1 };
            let mut extra = job.extra_ns;
            if let (ContentionModel::Igniter { sched_ns, .. }, true) = (&*contention, beside > 0) {
                extra += (sched_ns[0] * (beside + 1) as f64 + sched_ns[1]).max(0.0) as u64;
            }
            job.left = (ns + extra) as f64;
            job.whole = job.left;
            if job.part != 1.0 {
                // A part is so many waves, or just so much of the time.
                job.whole = (job.whole - job.extra_ns as f64).max(1.0);
                let wave = job.whole / way.waves as f64;
                let waves = blocks.div_ceil(way.there).min(way.waves);
                let time = if by_blocks { wave * waves as f64 } else { job.whole * job.part };
                job.left = time + job.extra_ns as f64;
            }
        } else if way.ns != job.ns {
            let ratio = way.ns as f64 / job.ns as f64;
            job.whole *= ratio;
            job.left *= ratio;
        }
        (job.ns, job.way) = (way.ns, Some(way));
        // Blocks that have just begun take as long as the others.
        if !job.saved && !kernel.fair {
            job.left = job.left.max(job.whole / way.waves as f64);
        }
    }

    /// When a wave of the job's blocks ends for which somebody waits.
    pub(crate) fn wave_that_counts(&self, p: usize, i: usize) -> u64 {
        let pool = &self.pools[p];
        let job = &pool.jobs[i];
        let Some(way) = job.way else { return NEVER };
        let lane: Vec<usize> =
            (0..pool.jobs.len()).filter(|&j| pool.jobs[j].lane == job.lane).collect();
        let hungry: Vec<usize> = lane.into_iter().filter(|&j| self.short(p, j)).collect();
        if way.waves < 2 || job.last || hungry.is_empty() && !job.leaving {
            return NEVER;
        }
        let wave = job.whole / way.waves as f64;
        let first = hungry.iter().any(|&j| {
            let other = &pool.jobs[j];
            let before =
                (-i32::from(other.priority), other.order) < (-i32::from(job.priority), job.order);
            let here = |cu: &u32| other.mask.is_none_or(|m| m.contains(*cu));
            before && (!pool.masked[job.lane] || job.cus.iter().any(here))
        });
        let mut ahead = 1.0;
        if first || job.leaving {
            let left = job.left - (self.now - job.since) as f64 / job.slow;
            ahead = (left / wave).ceil();
        } else if self.code(job).blocks.is_multiple_of(way.there) && !self.short(p, i) {
            return NEVER;
        }
        while ahead > 0.5 {
            let at = job.since + ((job.left - ahead * wave) * job.slow).ceil() as u64;
            if at >= self.now && job.left > ahead * wave {
                return at;
            }
            ahead -= 1.0;
        }
        NEVER
    }

    /// Blocks end: the last wave needs less room, and before it those who go first take what they want.
    pub(crate) fn wave_ended(&mut self, p: usize, i: usize) {
        let now = self.now;
        let (blocks, fit) = {
            let kernel = self.code(&self.pools[p].jobs[i]);
            (kernel.blocks, u64::from(kernel.blocks_per_cu))
        };
        let job = &mut self.pools[p].jobs[i];
        job.age(now);
        let way = job.way.expect("it runs");
        let lane = job.lane;
        let last = job.left <= job.whole / way.waves as f64 * (1.0 + 1e-10);
        if last {
            let left = blocks - (way.waves - 1) * way.there;
            job.last = true;
            job.squeezed = false;
            job.held = job.held.min(left.div_ceil(fit));
            job.fill = (left.div_ceil(way.lies) * 1024).div_ceil(fit);
        } else {
            job.held = 0;
            job.cus.clear();
            job.squeezed = true;
        }
        self.hand_out(p, lane);
        let masked = self.pools[p].masked[lane];
        let job = &self.pools[p].jobs[i];
        let nothing = if masked { job.cus.is_empty() } else { job.held == 0 };
        if !last && nothing {
            self.goes_on(p, i, None);
        }
    }
}
