//! Events that cannot matter are not gone through. While a pass has a pool to itself, nothing that its
//! kernels do touches anybody else: its end is known from the beginning, and the world goes there at once.
//! Where somebody comes before, it goes back to the launch that runs then, as if it had stopped at each.
//!
//! A [`Stretch`] is such a pass, or the rest of one. What ends it: its last kernel's end; the end of its
//! context's turn; anything that touches its pool (a kernel of another stream, a reading of the account);
//! power that the board might not have. What ended before that instant is booked in one sum, and the
//! kernel that runs then is put on the CUs with the instant at which it began. Policies that launch a
//! tenant's kernels, observers of the GPU and random durations are told of, or need, every kernel: then there
//! are not stretches.

use super::track::{Course, Passed, Track};
use super::{KERNEL_ENDED, VirtualWorld};
use crate::host::{Alarm, Part, Signal};
use crate::pool::Undisturbed;

/// A pass that has its pool to itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    worker: u32,
    track: u32,
    course: Course,
    /// The launch that is known to end at some instant is on the CUs; otherwise nothing is.
    placed: bool,
    /// When its last launch ends.
    over: u64,
    /// It is left at this instant: at its end, or because others interfere.
    pub(super) at: u64,
    /// Most that it draws, mW.
    pub(super) peak: u64,
}

/// Where the world is within an instant: what comes before has been seen to.
#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    /// At an event of a pool: those of pools with lower numbers came before.
    Pool(u32),
    /// At an alarm of the GPU's: those of pools came before, and alarms set earlier.
    Gpu(Armed),
    /// At anything else: it comes last.
    Host,
}

/// When an alarm of the GPU's was set, and by which pool's event, if by one.
pub(super) type Armed = (u64, u32);

/// By worker and program: its track, once looked for, if there is one.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    all: Vec<Track>,
    known: Vec<Vec<Option<Option<u32>>>>,
    /// By worker: that of the launches that were put together for its pass.
    loaded: Vec<Loaded>,
}

/// A track that lasts for a pass.
#[derive(Clone, Copy, Debug, Default)]
struct Loaded {
    /// Its place among the tracks, which the next pass takes over.
    place: Option<u32>,
    /// Whether there is one, once looked for.
    found: Option<bool>,
}

impl Tracks {
    /// A worker comes, or comes back with another share.
    pub(super) fn open(&mut self, worker: u32) {
        let workers = self.known.len().max(worker as usize + 1);
        self.known.resize(workers, vec![]);
        self.known[worker as usize].clear();
        self.loaded.resize(workers, Loaded::default());
        self.loaded[worker as usize].found = None;
    }

    /// A worker's launches are put together anew.
    pub(super) fn reload(&mut self, worker: u32) {
        self.loaded[worker as usize].found = None;
    }

    /// Takes this track in, at this place if there is one: its place.
    fn put(&mut self, track: Track, place: Option<u32>) -> u32 {
        if let Some(place) = place {
            self.all[place as usize] = track;
            return place;
        }
        self.all.push(track);
        self.all.len() as u32 - 1
    }

    fn get(&self, track: u32) -> &Track {
        &self.all[track as usize]
    }
}

impl VirtualWorld<'_> {
    /// Every event is gone through, whether it can matter or not. Results are the same.
    #[must_use]
    pub fn event_by_event(mut self) -> Self {
        self.skips = false;
        self
    }

    /// When an alarm is set that is set now.
    pub(super) fn armed_now(&self) -> Armed {
        (self.now, if let At::Pool(p) = self.at { p } else { u32::MAX })
    }

    /// Whether a worker's launches are nobody's business but their own.
    #[inline]
    fn skippable(&self, worker: u32) -> bool {
        let s = &self.streams[worker as usize];
        self.skips && s.ahead && !s.asked && s.work == 1.0 && s.count > 1
    }

    /// The track of what a worker runs, if there is one.
    #[inline]
    fn track(&mut self, worker: u32) -> Option<u32> {
        let stream = &self.streams[worker as usize];
        if stream.loaded() {
            return self.loaded_track(worker);
        }
        match self.tracks.known[worker as usize].get(stream.program as usize) {
            Some(Some(known)) => *known,
            _ => self.known_track(worker),
        }
    }

    #[cold]
    fn known_track(&mut self, worker: u32) -> Option<u32> {
        let program = self.streams[worker as usize].program as usize;
        let track = self.new_track(worker).map(|track| self.tracks.put(track, None));
        let known = &mut self.tracks.known[worker as usize];
        known.resize(known.len().max(program + 1), None);
        known[program] = Some(track);
        track
    }

    fn loaded_track(&mut self, worker: u32) -> Option<u32> {
        let Loaded { place, found } = self.tracks.loaded[worker as usize];
        match found {
            Some(true) => place,
            Some(false) => None,
            None => {
                let track = self.new_track(worker).map(|track| self.tracks.put(track, place));
                let place = track.or(place);
                self.tracks.loaded[worker as usize] =
                    Loaded { place, found: Some(track.is_some()) };
                track
            }
        }
    }

    fn new_track(&mut self, worker: u32) -> Option<Track> {
        let stream = &self.streams[worker as usize];
        let site = &mut self.sites[stream.pool as usize];
        if site.shares_queues() {
            return None;
        }
        let launches = (0..stream.count).map(|k| {
            let step = self.programs.step(stream.first, k);
            (step.kernel, step.issued_ns)
        });
        let place = (stream.lane, stream.cap());
        Track::new(launches, &mut site.pool, place, &self.code)
    }

    /// Whether the board has the power for one more stretch, as long as the others draw no more.
    fn has_power(&self, pool: usize, peak: u64) -> bool {
        let others = self.sites.iter().enumerate().filter(|&(p, _)| p != pool);
        let drawn: u64 = others.map(|(_, site)| site.most_drawn()).sum();
        self.sites[pool].pool.boosts(drawn + peak)
    }

    /// The launch at a worker's head, which is due, begins a stretch if nobody is in its pool.
    #[inline]
    pub(super) fn begin_stretch(&mut self, worker: u32) -> bool {
        if !self.skippable(worker) {
            return false;
        }
        let s = &self.streams[worker as usize];
        let (p, position, base) = (s.pool as usize, s.position, s.base);
        let site = &self.sites[p];
        if site.stretch.is_some() || !site.pool.vacant(s.lane, s.priority) {
            return false;
        }
        let Some(id) = self.track(worker) else { return false };
        let track = self.tracks.get(id);
        let ends = self.now + track.lasts(position);
        let Some(course) = track.course(position, ends, base) else { return false };
        let (over, peak) = (track.over(&course), track.peak);
        if !self.has_power(p, peak) {
            return false;
        }
        let stretch = Stretch { worker, track: id, course, placed: false, over, at: over, peak };
        let site = &mut self.sites[p];
        site.pool.vacate();
        site.stretch = Some(stretch);
        true
    }

    /// The one kernel in a settled pool goes on as a stretch, if there is one: whether it does.
    #[inline]
    pub(super) fn join_stretch(&mut self, p: usize) -> bool {
        let site = &self.sites[p];
        match site.pool.only() {
            Some(worker) if site.stretch.is_none() && self.skippable(worker) => {
                self.try_to_join(p).is_some()
            }
            _ => false,
        }
    }

    #[inline(never)]
    fn try_to_join(&mut self, p: usize) -> Option<()> {
        let pool = &self.sites[p].pool;
        let (worker, ends, until) = pool.sole(|w| self.streams[w as usize].priority)?;
        // What ends at this instant may meet others that come or go at it.
        if ends <= self.now {
            return None;
        }
        let stream = &self.streams[worker as usize];
        let (position, base) = (stream.position, stream.base);
        // Of the last two there is nothing to skip.
        if position + 2 >= stream.count {
            return None;
        }
        let id = self.track(worker)?;
        let track = self.tracks.get(id);
        let course = track.course(position, ends, base)?;
        let (over, peak) = (track.over(&course), track.peak);
        let at = left_at(track, &course, until);
        if at < track.end(&course, position + 2) || !self.has_power(p, peak) {
            return None;
        }
        let stretch = Stretch { worker, track: id, course, placed: true, over, at, peak };
        self.sites[p].stretch = Some(stretch);
        Some(())
    }

    /// Something happens now that the pool's stretch has to give way to.
    #[inline]
    pub(super) fn touch(&mut self, p: usize) {
        if self.sites[p].stretch.is_some() {
            self.leave(p);
        }
    }

    /// The same for all pools.
    pub(super) fn touch_all(&mut self) {
        (0..self.sites.len()).for_each(|p| self.touch(p));
    }

    /// Counts the events of a part of a course.
    fn pass_over(&mut self, worker: u32, passed: Passed) {
        self.events += passed.ends + passed.issues;
        self.skipped += passed.ends + passed.issues;
        let ends = weight(KERNEL_ENDED, worker).wrapping_mul(passed.ends_sum);
        let issues = weight(Alarm::Issued as u32, worker).wrapping_mul(passed.issues_sum);
        self.instants = self.instants.wrapping_add(ends).wrapping_add(issues);
    }

    /// Leaves a pool's stretch now: its worker is where it would be had every event been gone through.
    #[inline(never)]
    fn leave(&mut self, p: usize) {
        let stretch = self.sites[p].stretch.take().expect("there is one to leave");
        let Stretch { worker, track, course, placed, .. } = stretch;
        let track = self.tracks.get(track);
        // At this instant the pool's own event has been, unless that of a pool before it is under way.
        let with = !matches!(self.at, At::Pool(q) if q as usize <= p);
        let k = track.ended(&course, self.now, with);
        assert!(k < track.len(), "the end of a stretch is an event");
        let stream = &mut self.streams[worker as usize];
        stream.position = k;
        stream.kernel = self.programs.step(stream.first, k).kernel;
        let pool = &mut self.sites[p].pool;
        if k == course.from {
            if !placed {
                pool.vacate();
                let began = course.ends - track.lasts(k);
                self.submit_at(began, worker);
            }
            return;
        }
        if placed {
            pool.end_sole(course.ends, &self.code);
        } else {
            pool.vacate();
        }
        pool.did(stream.tenant, &track.work(course.from + u32::from(placed), k));
        let last = track.end(&course, k - 1);
        let (awaited, mut passed) = (track.awaited(&course, k), track.passed(&course, k));
        let armed = (last, p as u32);
        match awaited {
            Some(issued) if issued > self.now || issued == self.now && !self.was_before(armed) => {
                self.arm_late(issued, worker, armed);
            }
            Some(issued) => {
                passed.issues += 1;
                passed.issues_sum = passed.issues_sum.wrapping_add(issued);
                self.submit_at(issued, worker);
            }
            None => self.submit_at(last, worker),
        }
        self.pass_over(worker, passed);
    }

    /// CUs on which blocks of a worker's kernel lie now, if it goes on in a stretch.
    pub(super) fn held_in_stretch(&self, worker: u32) -> Option<u32> {
        let p = self.streams[worker as usize].pool;
        let stretch = self.sites[p as usize].stretch.as_ref().filter(|s| s.worker == worker)?;
        let Stretch { track, course, placed, .. } = stretch;
        let track = self.tracks.get(*track);
        let with = !matches!(self.at, At::Pool(q) if q <= p);
        let k = track.ended(course, self.now, with);
        if k == course.from {
            return (!placed).then(|| track.lies(k));
        }
        let armed = (track.end(course, k - 1), p);
        Some(match track.awaited(course, k) {
            Some(at) if at > self.now || at == self.now && !self.was_before(armed) => 0,
            _ => track.lies(k),
        })
    }

    /// Whether an alarm set then, and due at this instant, has been seen to.
    fn was_before(&self, armed: Armed) -> bool {
        match self.at {
            At::Pool(_) => false,
            At::Gpu(other) => armed < other,
            At::Host => true,
        }
    }

    /// The alarm for the issue of a worker's launch, which would have been set then.
    fn arm_late(&mut self, at: u64, worker: u32, armed: Armed) {
        let parcels = &self.parcels;
        let later = |alarm: Alarm, other: u32| parcels[other as usize].armed_for(alarm) > armed;
        self.timers.arm_gpu_before(at, Alarm::Issued, worker, later);
        self.parcels[worker as usize].armed = armed;
    }

    /// The launch at a worker's head began then.
    fn submit_at(&mut self, began: u64, worker: u32) {
        let now = std::mem::replace(&mut self.now, began);
        let super::Stream { kernel, priority, .. } = self.streams[worker as usize];
        self.submit(worker, kernel, None, priority, &Part::WHOLE);
        self.now = now;
    }

    /// The event of a pool with a stretch, if it is its end. Otherwise the world has to look closer.
    #[inline]
    pub(super) fn stretch_ended(&mut self, p: usize) -> Option<Signal> {
        let stretch = self.sites[p].stretch.take().expect("its end is due");
        let Stretch { worker, track, course, placed, .. } = stretch;
        let track = self.tracks.get(track);
        let n = track.len();
        let pool = &mut self.sites[p].pool;
        if placed {
            pool.end_sole(course.ends, &self.code);
        } else {
            pool.vacate();
        }
        let stream = &mut self.streams[worker as usize];
        stream.position = n;
        pool.did(stream.tenant, &track.work(course.from + u32::from(placed), n));
        let passed = track.passed(&course, n);
        self.pass_over(worker, passed);
        self.pass_ended(worker)
    }

    /// Whether what is due in a pool is an event of its stretch: its end, or something that others do.
    #[inline]
    pub(super) fn leaves_stretch(&mut self, p: usize) -> bool {
        let Some(stretch) = &self.sites[p].stretch else { return false };
        if stretch.at == stretch.over {
            return false;
        }
        // What ends at this very instant is an event of its own.
        self.at = At::Pool(p as u32);
        self.leave(p);
        true
    }
}

/// When somebody interferes with a course, or its end.
fn left_at(track: &Track, course: &Course, until: Undisturbed) -> u64 {
    let mut at = track.over(course).min(until.until);
    if until.gapless
        && let Some(k) = track.first_awaited(course)
    {
        at = at.min(track.end(course, k - 1));
    }
    at
}

/// By what the instants of frequent events count in the digest.
#[inline]
pub(super) fn weight(kind: u32, index: u32) -> u64 {
    let word = u64::from(kind) << 32 | u64::from(index);
    word.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
}
