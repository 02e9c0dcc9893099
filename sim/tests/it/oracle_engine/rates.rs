//! How fast everybody is.

use cotenant_sim::contention::ContentionModel;

use super::Oracle;
use super::power::Board;

impl Oracle<'_> {
    /// Everybody's slow-down from scratch: first at the boost clock, then at the one that is left.
    pub(crate) fn rerate(&mut self) {
        let now = self.now;
        let pools = 0..self.pools.len();
        let running: Vec<Vec<usize>> = pools.clone().map(|p| self.running(p)).collect();
        let slow: Vec<Vec<f64>> = pools.clone().map(|p| self.slow_downs(p, &running[p])).collect();
        let mut drawn = 0;
        for p in pools.clone() {
            for (&i, s) in running[p].iter().zip(&slow[p]) {
                drawn += (self.pools[p].jobs[i].way.unwrap().power as f64 / s) as u64;
            }
        }
        let device = &self.setup.device;
        let board = Board::of(device);
        let by_limit = board.clock(device, &self.contention, drawn);
        self.clock = by_limit.min(self.most_clock);
        let set = self.clock == self.most_clock && self.most_clock < 1.0;
        let left = board.most as f64 / drawn.max(1) as f64;
        let clock = self.clock;
        for p in pools {
            let bandwidth = self.memory(p).rate as f64;
            for (&i, s) in running[p].iter().zip(&slow[p]) {
                let job = &mut self.pools[p].jobs[i];
                // Time at DRAM goes on as fast at any clock.
                let busy = job.way.unwrap().rate as f64 / bandwidth;
                let (slow, heat) = if clock < 1.0 {
                    let longer = 1.0 + (1.0 / clock - 1.0) * (1.0 - busy);
                    let way = job.way.unwrap();
                    let bytes = board.for_bytes(way.rate, way.power);
                    // A clock that was asked for saves voltage; bytes cost what they cost.
                    let cubed = clock * clock * clock;
                    let asked = bytes + (1.0 - bytes) * longer * cubed;
                    (s * longer, if set { asked.min(longer * left) } else { longer * left })
                } else {
                    (*s, 1.0)
                };
                if job.slow != slow || job.heat != heat {
                    job.age(now);
                    (job.slow, job.heat) = (slow, heat);
                }
            }
        }
    }

    fn running(&self, p: usize) -> Vec<usize> {
        let pool = &self.pools[p];
        let runs = |&i: &usize| pool.on(pool.jobs[i].lane) && pool.jobs[i].way.is_some();
        (0..pool.jobs.len()).filter(runs).collect()
    }

    /// CUs with blocks in a pool.
    pub(crate) fn busy(&self, p: usize) -> u64 {
        let pool = &self.pools[p];
        let running = self.running(p);
        let lanes = pool.spec.lanes.iter().enumerate();
        lanes
            .map(|(lane, &capacity)| {
                let here = running.iter().map(|&i| &pool.jobs[i]).filter(|j| j.lane == lane);
                if pool.masked[lane] {
                    let mut cus: Vec<u32> = here.flat_map(|j| j.cus.clone()).collect();
                    cus.sort_unstable();
                    cus.dedup();
                    cus.len() as u64
                } else {
                    here.map(|j| j.way.unwrap().lies).sum::<u64>().min(u64::from(capacity))
                }
            })
            .sum()
    }

    /// Within the time to come, at today's rates: CU-ns of speed, bytes to and from DRAM, mJ.
    pub(crate) fn using(&self, ns: u64) -> (f64, f64, f64) {
        let (mut speed, mut bytes, mut energy) = (0.0, 0.0, 0.0);
        for p in 0..self.pools.len() {
            for i in self.running(p) {
                let job = &self.pools[p].jobs[i];
                let way = job.way.unwrap();
                speed += way.speed as f64 / 1024.0 / job.slow * ns as f64;
                bytes += way.rate as f64 / 1000.0 / job.slow * ns as f64;
                energy += way.power as f64 / 1e9 / job.slow * job.heat * ns as f64;
            }
        }
        (speed, bytes, energy)
    }

    /// Of those on its CUs: on how many of them others lie, and what these ask there of a CU's speed.
    fn company(&self, p: usize, i: usize, running: &[usize]) -> (u64, f64) {
        let pool = &self.pools[p];
        let me = &pool.jobs[i];
        let mine = me.way.unwrap();
        let others: Vec<usize> =
            running.iter().copied().filter(|&j| j != i && pool.jobs[j].lane == me.lane).collect();
        if pool.masked[me.lane] {
            let on = |j: usize, cu: &u32| pool.jobs[j].cus.contains(cu);
            let met: Vec<u32> =
                me.cus.iter().copied().filter(|cu| others.iter().any(|&j| on(j, cu))).collect();
            let asked: u64 = others
                .iter()
                .map(|&j| {
                    let way = pool.jobs[j].way.unwrap();
                    way.speed / way.lies * met.iter().filter(|cu| on(j, cu)).count() as u64
                })
                .sum();
            let n = met.len() as u64;
            return (n, if n == 0 { 0.0 } else { asked as f64 / (n * 1024) as f64 });
        }
        let capacity = u64::from(pool.spec.lanes[me.lane]);
        let lie: u64 = others.iter().map(|&j| pool.jobs[j].way.unwrap().lies).sum();
        let ask: u64 = others.iter().map(|&j| pool.jobs[j].way.unwrap().speed).sum();
        let theirs = lie.min(capacity);
        let free = capacity - theirs;
        let shared = mine.lies.saturating_sub(free);
        (shared, if shared == 0 { 0.0 } else { ask as f64 / (theirs * 1024) as f64 })
    }

    fn by_speed(&self, p: usize, i: usize, running: &[usize]) -> f64 {
        let pool = &self.pools[p];
        let job = &pool.jobs[i];
        let way = job.way.unwrap();
        let (shared, others) = self.company(p, i, running);
        if shared == 0 {
            return 1.0;
        }
        let own = way.speed as f64 / (way.lies * 1024) as f64;
        let crowded = (own + others).max(1.0);
        let in_turn = way.waves > 1 && !job.last || self.code(job).fair;
        let slow = if in_turn {
            way.lies as f64 / ((way.lies - shared) as f64 + shared as f64 / crowded)
        } else {
            crowded
        };
        let lane = running.iter().filter(|&&j| pool.jobs[j].lane == job.lane);
        let all: u64 = lane.map(|&j| pool.jobs[j].way.unwrap().speed).sum();
        slow.max(all as f64 / (u64::from(pool.spec.lanes[job.lane]) * 1024) as f64)
    }

    fn slow_downs(&self, p: usize, running: &[usize]) -> Vec<f64> {
        let pool = &self.pools[p];
        let jobs = || running.iter().map(|&i| &pool.jobs[i]);
        let memory = self.memory(p);
        let (dram, l2_rate) = (memory.rate, memory.l2);
        let rates: Vec<u64> = jobs().map(|j| j.way.unwrap().rate).collect();
        let total: u64 = rates.iter().sum();
        let cached: Vec<u64> = jobs().map(|j| j.way.unwrap().cache).collect();
        let all_cached: u64 = cached.iter().sum();
        let part = |a: u64, b: u64| (a as f64 / b as f64).min(1.0);
        let by_speed: Vec<f64> = running.iter().map(|&i| self.by_speed(p, i, running)).collect();
        let costs: Vec<f64> = match self.contention {
            ContentionModel::None => vec![1.0; running.len()],
            ContentionModel::Bandwidth { l2_penalty } => {
                let l2 = pool.spec.l2.0;
                let sets: u64 = jobs().map(|j| self.code(j).dram_bytes.min(l2)).sum();
                let crowded = running.len() > 1 && sets > l2;
                let lost = if crowded { 1.0 - l2 as f64 / sets as f64 } else { 0.0 };
                let slow = |(&rate, s): (&u64, &f64)| {
                    1.0 + l2_penalty * lost * part((rate as f64 / s) as u64, dram)
                };
                rates.iter().zip(&by_speed).map(slow).collect()
            }
            ContentionModel::Linear { c } => {
                let slow = |(&rate, &l2): (&u64, &u64)| {
                    let s = c[0] * part(l2, l2_rate)
                        + c[1] * part(all_cached - l2, l2_rate)
                        + c[2] * part(rate, dram)
                        + c[3] * part(total - rate, dram)
                        + c[4];
                    if running.len() > 1 { s.max(1.0) } else { 1.0 }
                };
                rates.iter().zip(&cached).map(slow).collect()
            }
            ContentionModel::Igniter { cache, .. } | ContentionModel::Cache { cache } => {
                cached.iter().map(|l2| 1.0 + cache * part(all_cached - l2, l2_rate)).collect()
            }
            ContentionModel::Measured { cache } => running
                .iter()
                .map(|&i| {
                    let me = pool.jobs[i].kernel as u32;
                    let others = running.iter().filter(|&&j| j != i).map(|&j| &pool.jobs[j]);
                    let mut others: Vec<(u32, u64)> =
                        others.map(|o| (o.kernel as u32, o.way.unwrap().cache)).collect();
                    others.sort_unstable();
                    others.iter().fold(1.0, |s, &(k, l2)| {
                        let pair = self.setup.code.pairs.get(me, k);
                        s * pair.unwrap_or(1.0 + cache * part(l2, l2_rate))
                    })
                })
                .collect(),
        };
        let slow: Vec<f64> = by_speed.into_iter().zip(costs).map(|(s, c)| s * c).collect();
        // Who is slowed asks for less, and nobody gets more than a fair share of what there is.
        let asked: Vec<u64> =
            rates.iter().zip(&slow).map(|(&rate, s)| (rate as f64 / s) as u64).collect();
        if asked.iter().sum::<u64>() <= dram {
            return slow;
        }
        let fair = max_min(&asked, dram);
        let each = slow.into_iter().zip(asked).zip(rates);
        each.map(
            |((s, asked), rate)| if asked > fair { s.max(rate as f64 / fair as f64) } else { s },
        )
        .collect()
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
