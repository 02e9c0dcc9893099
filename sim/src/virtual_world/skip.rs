//! Skipping of events that cannot matter. While a pass has a pool to itself, its kernels affect nothing
//! else: the end of the pass is known from its beginning, and the world jumps there at once. If
//! something interferes earlier, the world goes back to the launch that runs at that instant, as if it
//! had stopped at every kernel.
//!
//! A [`Stretch`] is such a pass, or the rest of one. It ends with its last kernel; with the turn of its
//! context; with anything that touches its pool (a kernel of another stream, a reading of the account);
//! or when the board might not have the power. The kernels that ended before that instant are booked in
//! one sum, and the kernel that runs at that instant is put on the CUs with the time at which it began.
//! There are no stretches where every kernel matters: with policies that launch a tenant's kernels,
//! observers of the GPU, or random durations.

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
    /// Whether the launch with the known end (`course.from`) is on the CUs; otherwise nothing is.
    placed: bool,
    /// When its last launch ends.
    over: u64,
    /// The instant at which the world leaves the stretch: at its end, or because something interferes.
    pub(super) at: u64,
    /// The highest power that it draws, mW.
    pub(super) peak: u64,
}

/// Where the world is within an instant: everything before this position has been handled.
#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    /// At an event of a pool: the events of pools with lower numbers came before.
    Pool(u32),
    /// At an alarm of the GPU: the events of all pools came before, and alarms that were set earlier.
    Gpu(Armed),
    /// At anything else, which comes last.
    Host,
}

/// When an alarm of the GPU was set, and during which pool's event, if during one.
pub(super) type Armed = (u64, u32);

/// Tracks by worker and program. The outer `None`: not looked for yet; the inner: there is none.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    all: Vec<Track>,
    known: Vec<Vec<Option<Option<u32>>>>,
    /// By worker: the track of the launches that were put together for its pass.
    loaded: Vec<Loaded>,
}

/// A track that lasts for a pass.
#[derive(Clone, Copy, Debug, Default)]
struct Loaded {
    /// Its index among the tracks, which the next pass reuses.
    place: Option<u32>,
    /// Whether there is one; `None`: not looked for yet.
    found: Option<bool>,
}

impl Tracks {
    /// A worker is added, or comes back with another share.
    pub(super) fn open(&mut self, worker: u32) {
        let workers = self.known.len().max(worker as usize + 1);
        self.known.resize(workers, vec![]);
        self.known[worker as usize].clear();
        self.loaded.resize(workers, Loaded::default());
        self.loaded[worker as usize].found = None;
    }

    /// The launches of a worker have been put together anew.
    pub(super) fn reload(&mut self, worker: u32) {
        self.loaded[worker as usize].found = None;
    }

    /// Stores a track, at `place` if there is one. Returns its index.
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
    /// Goes through every event, whether it can matter or not. The results are the same.
    #[must_use]
    pub fn event_by_event(mut self) -> Self {
        self.skips = false;
        self
    }

    /// The [`Armed`] of an alarm that is set now.
    pub(super) fn armed_now(&self) -> Armed {
        (self.now, if let At::Pool(p) = self.at { p } else { u32::MAX })
    }

    /// Whether nothing but the worker itself needs to see each of its launches.
    #[inline]
    fn skippable(&self, worker: u32) -> bool {
        let s = &self.streams[worker as usize];
        self.skips && s.ahead && !s.asked && s.work == 1.0 && s.count > 1
    }

    /// The track of the program that a worker runs, if there is one.
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

    /// Whether the board has the power for one more stretch, as long as the other pools draw no more.
    fn has_power(&self, pool: usize, peak: u64) -> bool {
        let others = self.sites.iter().enumerate().filter(|&(p, _)| p != pool);
        let drawn: u64 = others.map(|(_, site)| site.most_drawn()).sum();
        self.sites[pool].pool.boosts(drawn + peak)
    }

    /// Lets the launch at the head of a worker's stream, which is due, begin a stretch if its pool is
    /// empty. Returns whether it does.
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

    /// Turns the only kernel in a settled pool into a stretch, if possible. Returns whether it did.
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
        // A kernel that ends at this instant may meet others that come or go at the same time.
        if ends <= self.now {
            return None;
        }
        let stream = &self.streams[worker as usize];
        let (position, base) = (stream.position, stream.base);
        // With only two launches left there is nothing to skip.
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

    /// Leaves the pool's stretch, if there is one: something happens now that affects it.
    #[inline]
    pub(super) fn touch(&mut self, p: usize) {
        if self.sites[p].stretch.is_some() {
            self.leave(p);
        }
    }

    /// Like [`touch`](Self::touch), for all pools.
    pub(super) fn touch_all(&mut self) {
        (0..self.sites.len()).for_each(|p| self.touch(p));
    }

    /// Counts the skipped events of a part of a course.
    fn pass_over(&mut self, worker: u32, passed: Passed) {
        self.events += passed.ends + passed.issues;
        self.skipped += passed.ends + passed.issues;
        let ends = weight(KERNEL_ENDED, worker).wrapping_mul(passed.ends_sum);
        let issues = weight(Alarm::Issued as u32, worker).wrapping_mul(passed.issues_sum);
        self.instants = self.instants.wrapping_add(ends).wrapping_add(issues);
    }

    /// Leaves a pool's stretch now. Its worker is then where it would be had every event been gone
    /// through.
    #[inline(never)]
    fn leave(&mut self, p: usize) {
        let stretch = self.sites[p].stretch.take().expect("there is one to leave");
        let Stretch { worker, track, course, placed, .. } = stretch;
        let track = self.tracks.get(track);
        // The pool's own event at this instant has already happened, unless the event of an earlier
        // pool is under way.
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

    /// Number of CUs that hold blocks of a worker's kernel now, if the worker runs in a stretch.
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

    /// Whether an alarm with this `armed`, due at this instant, has been handled already.
    fn was_before(&self, armed: Armed) -> bool {
        match self.at {
            At::Pool(_) => false,
            At::Gpu(other) => armed < other,
            At::Host => true,
        }
    }

    /// Sets the alarm for the issue of a worker's launch, in the place that it would have had if set at
    /// `armed`.
    fn arm_late(&mut self, at: u64, worker: u32, armed: Armed) {
        let parcels = &self.parcels;
        let later = |alarm: Alarm, other: u32| parcels[other as usize].armed_for(alarm) > armed;
        self.timers.arm_gpu_before(at, Alarm::Issued, worker, later);
        self.parcels[worker as usize].armed = armed;
    }

    /// Submits the launch at the head of a worker's stream as if at `began`.
    fn submit_at(&mut self, began: u64, worker: u32) {
        let now = std::mem::replace(&mut self.now, began);
        let super::Stream { kernel, priority, .. } = self.streams[worker as usize];
        self.submit(worker, kernel, None, priority, &Part::WHOLE);
        self.now = now;
    }

    /// Handles the event of a pool whose stretch has come to its end.
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

    /// Leaves the pool's stretch if it is due for a reason other than its end. Returns whether it was.
    #[inline]
    pub(super) fn leaves_stretch(&mut self, p: usize) -> bool {
        let Some(stretch) = &self.sites[p].stretch else { return false };
        if stretch.at == stretch.over {
            return false;
        }
        // A kernel that ends at this very instant is an event of its own.
        self.at = At::Pool(p as u32);
        self.leave(p);
        true
    }
}

/// When something interferes with a course, or when it ends.
fn left_at(track: &Track, course: &Course, until: Undisturbed) -> u64 {
    let mut at = track.over(course).min(until.until);
    if until.gapless
        && let Some(k) = track.first_awaited(course)
    {
        at = at.min(track.end(course, k - 1));
    }
    at
}

/// The weight of the instants of frequent events in the digest.
#[inline]
pub(super) fn weight(kind: u32, index: u32) -> u64 {
    let word = u64::from(kind) << 32 | u64::from(index);
    word.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
}
