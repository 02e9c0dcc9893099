//! Kernels that name the CUs they may use.

use cotenant_profiles::device::DispatchRule;

use super::Pool;
use super::grants::Turn;
use crate::mask::CuMask;
use crate::program::Code;

/// Of a job that may use any CU of its lane.
pub(super) const UNMASKED: u32 = u32::MAX;

/// Which CUs a job may use and which it occupies; kept beside the residents, because few have one.
#[derive(Clone, Copy, Debug)]
struct Place {
    allowed: CuMask,
    used: CuMask,
}

#[derive(Debug, Default)]
pub(super) struct Places {
    list: Vec<Place>,
    free: Vec<u32>,
}

impl Places {
    pub(super) fn add(&mut self, allowed: CuMask) -> u32 {
        let place = Place { allowed, used: CuMask::EMPTY };
        match self.free.pop() {
            Some(i) => {
                self.list[i as usize] = place;
                i
            }
            None => {
                self.list.push(place);
                self.list.len() as u32 - 1
            }
        }
    }

    /// The job that had this entry has ended.
    pub(super) fn remove(&mut self, entry: u32) {
        self.free.push(entry);
    }
}

impl Pool {
    /// The same where kernels name the CUs they may use.
    pub(super) fn leave_over_masked(&mut self, now: u64, l: usize, order: &[Turn], code: &Code) {
        let mut free = self.lanes[l].all;
        for &(_, _, i) in order {
            let r = &self.run[i as usize];
            if r.settled() {
                free = free.without(&self.places.list[r.mask as usize].used);
            }
        }
        for &(_, _, i) in order {
            let r = &self.run[i as usize];
            if r.settled() {
                continue;
            }
            let (used, _) = self.take_masked(now, i as usize, &free, code);
            free = free.without(&used);
        }
        self.lanes[l].free = free.count();
    }

    /// Gives a resident what it may use of the `free` CUs, and says which ones it occupies.
    fn take_masked(&mut self, now: u64, i: usize, free: &CuMask, code: &Code) -> (CuMask, u32) {
        let r = &self.run[i];
        let place = r.mask as usize;
        let allowed = self.places.list[place].allowed.and(free);
        let (used, grant, taken) = match self.rule {
            DispatchRule::LeastLoaded => {
                let (used, count) = allowed.lowest_counted(r.limit);
                (used, count, count)
            }
            DispatchRule::EvenGroups => {
                let (grant, used) = even_groups(&allowed, r.limit, &self.groups);
                (used, grant, used.count())
            }
        };
        self.places.list[place].used = used;
        self.set_grant(now, i, grant, taken, code);
        (used, taken)
    }

    /// A kernel that came last to a masked lane, and whose blocks go last, changes nothing for the
    /// others: it takes what they leave. Whether that was so.
    pub(super) fn join_masked(&mut self, now: u64, l: usize, code: &Code) -> bool {
        let i = self.run.len() - 1;
        let (last, others) = (&self.run[i], &self.run[..i]);
        if last.fair {
            return false;
        }
        let mut free = self.lanes[l].all;
        for r in others.iter().filter(|r| r.lane as usize == l) {
            if r.priority < last.priority || r.fair {
                return false;
            }
            free = free.without(&self.places.list[r.mask as usize].used);
        }
        let (_, taken) = self.take_masked(now, i, &free, code);
        self.lanes[l].free -= taken;
        true
    }

    /// CUs that nobody else in the lane may use just fall free. Whether that is so of those that the
    /// kernel at `place` occupied.
    pub(super) fn leave_masked(&self, l: usize, place: u32) -> bool {
        if !self.lanes[l].masked {
            return false;
        }
        let freed = &self.places.list[place as usize].used;
        self.run.iter().filter(|r| r.lane as usize == l).all(|r| {
            let allowed = &self.places.list[r.mask as usize].allowed;
            allowed.and(freed).is_empty() && !r.fair
        })
    }

    /// Gives the residents of a lane, who held some number of CUs, certain ones: the lowest, in the
    /// order in which they came.
    #[cold]
    pub(super) fn name_cus(&mut self, l: usize) {
        let Self { run, lanes, places, .. } = self;
        let lane = &mut lanes[l];
        let here = run.iter_mut().filter(|r| r.lane as usize == l);
        let mut residents: Vec<_> = here.chain(&mut lane.parked).collect();
        residents.sort_unstable_by_key(|r| r.seq);
        let all = lane.all;
        let mut free = all;
        for r in residents {
            if r.mask == UNMASKED {
                r.mask = places.add(all);
            }
            let used = free.lowest(r.used);
            free = free.without(&used);
            places.list[r.mask as usize].used = used;
        }
    }
}

/// Blocks split evenly over the groups of `allowed`: how many CUs count, and which are taken.
fn even_groups(allowed: &CuMask, limit: u32, groups: &[u32]) -> (u32, CuMask) {
    let effective = allowed.even_groups(groups);
    if effective < limit {
        return (effective, *allowed);
    }
    let in_use = allowed.per_group(groups).filter(|&n| n > 0).count() as u32;
    let each = limit.div_ceil(in_use);
    let mut used = CuMask::EMPTY;
    let mut start = 0;
    for &n in groups {
        let group = CuMask::first(start + n).without(&CuMask::first(start));
        used = used.or(&allowed.and(&group).lowest(each));
        start += n;
    }
    (limit, used)
}
