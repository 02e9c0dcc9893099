//! A session's plan: which model is placed when, side by side within the GPU.

/// One run of a model that a session owes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) tenant: usize,
    /// CUs that it holds.
    pub(super) cus: u32,
    /// For how long.
    pub(super) ns: u64,
    /// The earliest start.
    pub(super) release: u64,
    /// The instant by which it should be over, if that is possible.
    pub(super) deadline: u64,
}

/// CUs held from one instant to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) tenant: usize,
    pub(super) cus: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) deadline: u64,
}

impl Slot {
    /// The last instant at which it can begin and still end by its deadline.
    pub(super) fn latest(&self) -> u64 {
        self.start.max(self.deadline.saturating_sub(self.end - self.start))
    }
}

/// Places jobs, earliest deadline first, each at the earliest instant from its release at which its CUs
/// are free for as long as it needs them. Jobs that cannot begin before `end` are not placed, and are
/// returned as the second list. Slots are returned in order of start.
pub(super) fn plan(
    capacity: u32,
    busy: &[Slot],
    mut jobs: Vec<Job>,
    end: u64,
) -> (Vec<Slot>, Vec<Job>) {
    jobs.sort_by_key(|j| (j.deadline, j.release, j.tenant));
    let mut held = busy.to_vec();
    let mut left = vec![];
    for job in jobs {
        let start = earliest(capacity, &held, &job);
        if start >= end {
            left.push(job);
            continue;
        }
        let Job { tenant, cus, ns, deadline, .. } = job;
        held.push(Slot { tenant, cus, start, end: start.saturating_add(ns), deadline });
    }
    let mut slots = held.split_off(busy.len());
    slots.sort_by_key(|s| (s.start, s.deadline, s.tenant));
    (slots, left)
}

/// CUs only become free when a run ends, so these are the instants to examine.
fn earliest(capacity: u32, held: &[Slot], job: &Job) -> u64 {
    let mut starts: Vec<u64> = held.iter().map(|s| s.end).filter(|&e| e > job.release).collect();
    starts.push(job.release);
    starts.sort_unstable();
    let fits = |&start: &u64| free(capacity, held, start, job.ns) >= job.cus;
    starts.into_iter().find(fits).expect("everything has ended at the last end")
}

/// CUs that are free during all of `ns` from `start`.
pub(super) fn free(capacity: u32, held: &[Slot], start: u64, ns: u64) -> u32 {
    let end = start.saturating_add(ns);
    let at = |instant: u64| -> u32 {
        let there = held.iter().filter(|s| s.start <= instant && instant < s.end);
        there.map(|s| s.cus).sum()
    };
    let begins = held.iter().map(|s| s.start).filter(|&s| start < s && s < end);
    let most = begins.map(at).fold(at(start), u32::max);
    capacity.saturating_sub(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn job(tenant: usize, cus: u32, ns: u64, release: u64, deadline: u64) -> Job {
        Job { tenant, cus, ns, release, deadline }
    }

    fn starts(slots: &[Slot]) -> Vec<(usize, u64, u64)> {
        slots.iter().map(|s| (s.tenant, s.start, s.end)).collect()
    }

    /// 100 CUs, a session of 100. Model 0: 40 CUs for 10, every 25. Model 1: 50 CUs for 20, every
    /// 50. Model 2: 60 CUs for 40, once.
    ///
    /// ```text
    ///         0    10   20   25   35        50   60   75   80   85
    /// 0 (40)  #####          #####          #####     ##########
    /// 1 (50)  ##########                         ##########
    /// 2 (60)            #########################
    /// ```
    /// By deadline: 0 at 0 (25); 0 at 25 and 1 at 0 (50); 0 at 50 (75); then those of 100 by
    /// release: 2 finds its 60 CUs when 1 has ended, beside 0; 1 is released at 50, beside 0 and 2
    /// there are none left until both end at 60; 0 at 75 is beside 1.
    #[test]
    fn a_session_by_hand() {
        let mut jobs: Vec<Job> = (0..4).map(|i| job(0, 40, 10, 25 * i, 25 * (i + 1))).collect();
        jobs.extend((0..2).map(|i| job(1, 50, 20, 50 * i, 50 * (i + 1))));
        jobs.push(job(2, 60, 40, 0, 100));
        let (slots, left) = plan(100, &[], jobs.clone(), 100);
        let expected = [
            (0, 0, 10),
            (1, 0, 20),
            (2, 20, 60),
            (0, 25, 35),
            (0, 50, 60),
            (1, 60, 80),
            (0, 75, 85),
        ];
        assert_eq!((starts(&slots), left), (expected.to_vec(), vec![]));
        // With 61 CUs, model 2 fits beside no other: it goes when 0 is done, and 1, whose turn it then
        // would be, finds no room before the session ends.
        jobs[6] = job(2, 61, 40, 0, 100);
        let (slots, left) = plan(100, &[], jobs.clone(), 100);
        assert!(starts(&slots).contains(&(2, 60, 100)), "{slots:?}");
        assert_eq!(left[0], jobs[5]);
    }

    #[test]
    fn what_runs_already_is_in_the_way_and_what_has_no_room_is_left() {
        let busy = [Slot { tenant: 9, cus: 80, start: 0, end: 90, deadline: 0 }];
        let jobs = vec![job(0, 40, 10, 0, 50), job(1, 20, 30, 5, 60), job(2, 100, 10, 0, 100)];
        let (slots, left) = plan(100, &busy, jobs.clone(), 100);
        assert_eq!(starts(&slots), [(1, 5, 35), (0, 90, 100)]);
        assert_eq!(left, [jobs[2]]);
    }

    proptest! {
        #[test]
        fn nothing_overlaps_the_gpu_and_nothing_is_lost(
            raw in prop::collection::vec((1u32..=100, 1u64..50, 0u64..100, 0u64..200), 0..30),
        ) {
            let jobs: Vec<Job> = raw
                .iter()
                .enumerate()
                .map(|(t, &(cus, ns, release, deadline))| job(t, cus, ns, release, deadline))
                .collect();
            let (slots, left) = plan(100, &[], jobs.clone(), 100);
            prop_assert_eq!(slots.len() + left.len(), jobs.len());
            for slot in &slots {
                prop_assert!(slot.start >= jobs[slot.tenant].release && slot.start < 100);
                prop_assert_eq!(slot.end - slot.start, jobs[slot.tenant].ns);
                let held: u32 = slots
                    .iter()
                    .filter(|s| s.start <= slot.start && slot.start < s.end)
                    .map(|s| s.cus)
                    .sum();
                prop_assert!(held <= 100);
            }
        }
    }
}
