//! Kernels that name the CUs they may use. Their lane counts room CU by CU: several kernels may have
//! blocks on one CU, as long as it has space.

use cotenant_profiles::device::DispatchRule;

use super::Pool;
use super::shape::PARTS;
use crate::mask::CuMask;
use crate::program::Code;

/// Mask entry of a job that may use any CU of its lane.
pub(super) const UNMASKED: u32 = u32::MAX;

/// Which CUs a job may use and which ones its blocks are on; kept beside the residents, because few
/// residents have a mask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) allowed: CuMask,
    pub(super) used: CuMask,
    /// Space that its blocks take on each CU they are on, in [`PARTS`].
    pub(super) fill: u32,
    /// Its blocks would spread over more CUs if there were room.
    pub(super) short: bool,
}

#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) list: Vec<Place>,
    free: Vec<u32>,
}

impl Places {
    pub(super) fn add(&mut self, allowed: CuMask) -> u32 {
        let place = Place { allowed, used: CuMask::EMPTY, fill: 0, short: true };
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

    /// Frees the entry of a job that has ended.
    pub(super) fn remove(&mut self, entry: u32) {
        self.free.push(entry);
    }

    pub(super) fn short(&self, entry: u32) -> bool {
        self.list[entry as usize].short
    }

    /// Places small kernels that come and go on `cus` of the CUs that they may use.
    pub(super) fn lie(&mut self, entry: u32, cus: u32) {
        let place = &mut self.list[entry as usize];
        (place.used, place.short) = (place.allowed.lowest(cus), false);
    }
}

impl Pool {
    /// How many of the CUs named by a mask contribute under the dispatch rule.
    pub(super) fn reach(&self, mask: u32) -> u32 {
        reach(self.rule, &self.places.list[mask as usize].allowed, &self.groups)
    }

    /// Recomputes which CUs of a masked lane have no blocks.
    pub(super) fn reopen(&mut self, l: usize) {
        let here = self.run.iter().filter(|r| r.lane as usize == l);
        let used =
            here.fold(CuMask::EMPTY, |all, r| all.or(&self.places.list[r.mask as usize].used));
        let lane = &mut self.lanes[l];
        lane.open = lane.all.without(&used);
    }

    /// Gives a resident CUs that it may use: CUs without blocks first, then those with the most room
    /// left for its blocks.
    pub(super) fn take_masked(&mut self, now: u64, i: usize, code: &Code) {
        let r = &self.run[i];
        let (k, l, cus, entry) = (r.kernel, r.lane as usize, r.cus, r.mask as usize);
        if cus == 0 {
            return;
        }
        let kernel = &code.kernels[k as usize];
        // A part of a kernel takes no more CUs than it has blocks.
        let blocks = if r.part < 1.0 {
            super::preempt::blocks_of(kernel.blocks, r.part)
        } else {
            kernel.blocks
        };
        let wants = blocks.min(u64::from(cus)) as u32;
        let at_once = blocks.min(u64::from(wants) * u64::from(kernel.blocks_per_cu));
        let each = at_once.div_ceil(u64::from(wants));
        let fill = (each * u64::from(PARTS)).div_ceil(u64::from(kernel.blocks_per_cu)) as u32;
        let Self { places, lanes, rule, groups, run, scratch, .. } = self;
        let place = places.list[entry];
        let mut open = place.allowed.and(&lanes[l].open);
        let (mut used, mut count) = choose(*rule, &place.used, &open, wants, groups);
        if count < wants {
            let with_room = &mut scratch.with_room;
            with_room.clear();
            for cu in place.allowed.without(&open.or(&place.used)).iter() {
                let here = run.iter().filter(|r| r.lane as usize == l);
                let on =
                    here.map(|r| &places.list[r.mask as usize]).filter(|p| p.used.contains(cu));
                let taken: u32 = on.map(|p| p.fill).sum();
                if taken + fill <= PARTS {
                    with_room.push((taken, cu));
                }
            }
            with_room.sort_unstable();
            let more = match rule {
                DispatchRule::LeastLoaded => (wants - count) as usize,
                DispatchRule::EvenGroups => with_room.len(),
            };
            with_room.iter().take(more).for_each(|&(_, cu)| open.insert(cu));
            let shared = choose(*rule, &place.used, &open, wants, groups);
            // A group with few CUs could hold the others up.
            if shared.1 > count {
                (used, count) = shared;
            }
        }
        if count == 0 || used == place.used {
            return;
        }
        lanes[l].open = lanes[l].open.without(&used);
        places.list[entry] = Place { used, fill, short: count < wants, ..place };
        let shape = self.shape(k);
        let mut config = if count < wants {
            shape.confined(kernel, cus, count, &self.shared)
        } else {
            shape.on(kernel, cus, &self.shared)
        };
        // Unevenly filled groups occupy more CUs than contribute.
        config.lies = used.count();
        self.run_as(now, i, config);
    }

    /// The blocks of a masked resident leave their CUs; it may be placed on fewer next time.
    pub(super) fn leave_masked(&mut self, i: usize) {
        let place = &mut self.places.list[self.run[i].mask as usize];
        (place.used, place.short) = (CuMask::EMPTY, true);
    }

    /// Assigns specific CUs to the residents of a lane that until now only counted how many they use:
    /// the lowest CUs with room, in order of submission.
    #[cold]
    pub(super) fn name_cus(&mut self, l: usize, code: &Code) {
        let Self { run, lanes, places, rule, groups, .. } = self;
        let lane = &mut lanes[l];
        let reach = reach(*rule, &lane.all, groups);
        let here = run.iter_mut().filter(|r| r.lane as usize == l);
        let mut residents: Vec<_> = here.chain(&mut lane.parked).collect();
        residents.sort_unstable_by_key(|r| r.seq);
        let mut taken = vec![0; lane.capacity as usize];
        for r in residents {
            let kernel = &code.kernels[r.kernel as usize];
            if r.mask == UNMASKED {
                r.mask = places.add(lane.all);
                r.cus = r.cus.min(reach);
            }
            let mut by_room: Vec<(u32, u32)> = (0..).zip(&taken).map(|(cu, &t)| (t, cu)).collect();
            by_room.sort_unstable();
            let mut used = CuMask::EMPTY;
            by_room.iter().take(r.now.lies as usize).for_each(|&(_, cu)| used.insert(cu));
            let blocks = kernel.blocks.min(u64::from(r.held) * u64::from(kernel.blocks_per_cu));
            let each = blocks.div_ceil(u64::from(r.now.lies.max(1)));
            let whole = u64::from(kernel.blocks_per_cu);
            let fill = (each * u64::from(PARTS)).div_ceil(whole).min(u64::from(PARTS)) as u32;
            used.iter().for_each(|cu| taken[cu as usize] += fill);
            let short = !r.fair && !r.last && (r.held < r.limit);
            let place = &mut places.list[r.mask as usize];
            (place.used, place.fill, place.short) = (used, fill, short);
        }
    }
}

fn reach(rule: DispatchRule, allowed: &CuMask, groups: &[u32]) -> u32 {
    match rule {
        DispatchRule::LeastLoaded => allowed.count(),
        DispatchRule::EvenGroups => allowed.even_groups(groups),
    }
}

/// Chooses the CUs for the blocks of a kernel that wants `wants` CUs, already has `has`, and may take
/// any of the `open` ones. Returns them and how many of them contribute.
fn choose(
    rule: DispatchRule,
    has: &CuMask,
    open: &CuMask,
    wants: u32,
    groups: &[u32],
) -> (CuMask, u32) {
    match rule {
        DispatchRule::LeastLoaded => {
            let held = has.count();
            let (more, n) = open.without(has).lowest_counted(wants.saturating_sub(held));
            (has.or(&more), held + n)
        }
        DispatchRule::EvenGroups => {
            let (count, used) = even_groups(&open.or(has), wants, groups);
            (used.or(has), count)
        }
    }
}

/// Splits blocks evenly over the groups of `allowed`: how many CUs contribute, and which are taken.
fn even_groups(allowed: &CuMask, limit: u32, groups: &[u32]) -> (u32, CuMask) {
    let effective = allowed.even_groups(groups);
    if effective < limit {
        return (effective, *allowed);
    }
    let in_use = allowed.per_group(groups).filter(|&n| n > 0).count() as u32;
    let each = limit.div_ceil(in_use);
    let parts = CuMask::each_group(groups).map(|group| allowed.and(&group).lowest(each));
    (limit, parts.fold(CuMask::EMPTY, |used, part| used.or(&part)))
}
