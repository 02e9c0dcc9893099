//! What any driver of policies stands on, by hand: requests from arrival to account, and a pool that
//! is taken from instant to instant.

use crate::common::{self, World, device, model, program, tenant, waves};
use cotenant_profiles::Nanos;
use cotenant_sim::action::Preemption;
use cotenant_sim::contention::ContentionModel;
use cotenant_sim::layout::{Discipline, PoolSpec};
use cotenant_sim::mask::CuMask;
use cotenant_sim::pool::{Ended, Job, NEVER, Note, Pool, Taken};
use cotenant_sim::program::Code;
use cotenant_sim::scenario::DropAfter;
use cotenant_sim::serving::{Due, Serving};
use cotenant_sim::source::Source;
use cotenant_sim::view::Execution;
use cotenant_traces::Request;

/// One tenant: batches of up to four items, which wait 100 ns to fill; deadlines 1000 ns away.
fn serving() -> Serving {
    let mut world = World::new(device(&[4]), vec![waves(4, 4, 100)]);
    let programs = (0..4).map(|_| program(&world.code, &[0], 0)).collect();
    let mut one = tenant("t", model(programs));
    (one.batch_timeout, one.slo) = (Nanos(100), Some(Nanos(1_000)));
    world.tenants = vec![one];
    Serving::new(&world.scenario(vec![]).setup)
}

fn ask(serving: &mut Serving, at: u64, items: u32) {
    serving.admit(0, &Request { items, ..Request::at(Nanos(at)) });
}

#[test]
fn a_batch_starts_when_it_is_full_or_its_oldest_request_has_waited_long_enough() {
    let mut s = serving();
    ask(&mut s, 10, 1);
    assert_eq!(s.due(0, Nanos(10), false), Due::Nothing, "no worker is idle");
    s.idle(0, 7);
    assert_eq!(s.due(0, Nanos(10), false), Due::WakeAt(Nanos(110)));
    assert_eq!(s.due(0, Nanos(20), false), Due::Nothing, "asked for a wake-up already");
    ask(&mut s, 50, 3);
    assert_eq!(s.due(0, Nanos(50), false), Due::Batch { worker: 7 }, "four items are a full batch");
    let mut batch = vec![];
    let taken = s.take(0, 4, Nanos(50), &mut batch);
    assert_eq!((taken.items, taken.requests, taken.ordinal), (4, 2, 0));
    assert_eq!(taken.deadline, Nanos(1_010), "the earlier one");
    assert_eq!(s.due(0, Nanos(50), false), Due::Nothing);

    ask(&mut s, 60, 1);
    s.idle(0, 3);
    // The wake-up set for the first request is the earlier one, and still to come.
    assert_eq!(s.due(0, Nanos(60), false), Due::Nothing);
    s.woken(0, Nanos(110));
    assert_eq!(s.due(0, Nanos(110), true), Due::WakeAt(Nanos(160)));
    s.woken(0, Nanos(160));
    assert_eq!(s.due(0, Nanos(160), true), Due::Batch { worker: 3 });
}

#[test]
fn requests_of_one_instant_gather_before_a_batch_starts() {
    let mut s = serving();
    s.set_batch(0, 4, Nanos::ZERO);
    s.idle(0, 7);
    for n in 0..3 {
        ask(&mut s, 10, 1);
        let due = if n == 0 { Due::WakeAt(Nanos(10)) } else { Due::Nothing };
        assert_eq!(s.due(0, Nanos(10), false), due);
    }
    s.woken(0, Nanos(10));
    assert_eq!(s.due(0, Nanos(10), true), Due::Batch { worker: 7 });
    assert_eq!(s.take(0, 4, Nanos(10), &mut vec![]).requests, 3);
}

/// As [`serving`], where requests are given up.
fn impatient(limit: Option<u64>, predict: bool) -> Serving {
    let mut world = World::new(device(&[4]), vec![waves(4, 4, 100)]);
    let programs = (0..4).map(|_| program(&world.code, &[0, 0], 0)).collect();
    let mut one = tenant("t", model(programs));
    one.slo = Some(Nanos(1_000));
    one.drop_after = Some(DropAfter { limit: limit.map(Nanos), predict });
    world.tenants = vec![one];
    Serving::new(&world.scenario(vec![]).setup)
}

fn given_up(s: &mut Serving, now: u64) -> Vec<u64> {
    s.woken(0, Nanos(now));
    std::iter::from_fn(|| s.expire(0, Nanos(now))).map(|e| e.limit.0).collect()
}

#[test]
fn requests_are_given_up_when_their_time_is_over() {
    let mut s = impatient(None, false);
    ask(&mut s, 10, 1);
    s.admit(0, &Request { slo: Some(Nanos(50)), ..Request::at(Nanos(20)) });
    assert_eq!(s.next_look(0), Some(Nanos(70)), "it has a deadline of its own");
    assert_eq!(s.next_look(0), None, "asked for already");
    assert!(given_up(&mut s, 69).is_empty());
    assert_eq!(given_up(&mut s, 70), [70]);
    assert_eq!(s.next_look(0), Some(Nanos(1_010)));
    assert_eq!(given_up(&mut s, 1_010), [1_010]);
    assert_eq!((s.next_look(0), s.views()[0].queued), (None, 0));
    let c = &s.reports(Nanos(2_000))[0].counts;
    assert_eq!((c.offered, c.dropped.as_slice()), (2, &[("expired", 2)][..]));

    // A time of its own, whatever the goal is; and who is being served is not given up.
    let mut s = impatient(Some(300), false);
    ask(&mut s, 0, 1);
    ask(&mut s, 0, 1);
    s.take(0, 1, Nanos(5), &mut vec![]);
    assert_eq!(given_up(&mut s, 300), [300]);
    assert!(given_up(&mut s, 5_000).is_empty());
}

#[test]
fn and_earlier_where_it_is_certain_that_they_come_too_late() {
    // Two kernels of 100 ns: begun at 800, a request is there at 1000, just in time.
    let mut s = impatient(None, true);
    ask(&mut s, 0, 1);
    assert_eq!(s.next_look(0), Some(Nanos(801)));
    assert!(given_up(&mut s, 800).is_empty());
    assert_eq!(given_up(&mut s, 801), [1_000]);
    // Five passes of 200 ns take the whole time, six cannot make it.
    ask(&mut s, 10_000, 20);
    ask(&mut s, 10_000, 21);
    assert_eq!(given_up(&mut s, 10_000), [11_000]);
    assert_eq!(s.views()[0].queued_items, 20);
    let c = &s.reports(Nanos(20_000))[0].counts;
    assert_eq!(c.dropped, [("would-expire", 2)]);
}

#[test]
fn a_request_can_be_a_batch_of_its_own() {
    let mut world = World::new(device(&[4]), vec![waves(4, 4, 100)]);
    let programs = (0..4).map(|_| program(&world.code, &[0], 0)).collect();
    let mut one = tenant("t", model(programs));
    (one.batch_timeout, one.per_request_batches) = (Nanos(100), true);
    world.tenants = vec![one];
    let mut s = Serving::new(&world.scenario(vec![]).setup);
    s.idle(0, 7);
    ask(&mut s, 0, 2);
    ask(&mut s, 0, 1);
    assert_eq!(s.due(0, Nanos(0), false), Due::Batch { worker: 7 }, "it waits for nobody");
    assert_eq!(s.take(0, 4, Nanos(0), &mut vec![]).items, 2);
    assert_eq!(s.take(0, 4, Nanos(0), &mut vec![]).items, 1);
}

#[test]
fn a_request_larger_than_the_batch_goes_alone_and_the_others_wait() {
    let mut s = serving();
    for (at, items) in [(0, 9), (1, 2), (2, 3)] {
        ask(&mut s, at, items);
    }
    let mut batch = vec![];
    let taken = s.take(0, 4, Nanos(5), &mut batch);
    assert_eq!((taken.items, taken.requests), (9, 1));
    let view = &s.views()[0];
    assert_eq!((view.queued, view.queued_items, view.oldest), (2, 5, Nanos(1)));
    assert_eq!((view.oldest_deadline, view.arrived), (Nanos(1_001), 3));
    // Two and three do not fit into one batch of four.
    assert_eq!(s.take(0, 4, Nanos(6), &mut batch).items, 2);
    assert_eq!(s.take(0, 4, Nanos(7), &mut batch).items, 3);
    assert_eq!((s.views()[0].queued, s.views()[0].oldest), (0, Nanos::MAX));
}

#[test]
fn every_request_is_accounted_for() {
    let mut s = serving();
    for at in [0, 10, 20, 30] {
        ask(&mut s, at, 1);
    }
    let mut batch = vec![];
    s.take(0, 2, Nanos(40), &mut batch);
    let done = s.finish(batch[0], Nanos(900));
    assert_eq!((done.tenant, done.arrival), (0, Nanos(0)));
    assert_eq!((done.latency, done.queued), (Nanos(900), Nanos(40)));
    // Three are in the system when the window opens; the first is forgotten.
    s.open_window(Nanos(950), Nanos(81));
    s.finish(batch[1], Nanos(1_500));
    s.batch_ended(0, 2, Execution { began: Nanos(40), took: Nanos(1_460) });
    s.drop(s.oldest(0).unwrap(), "late");
    s.stood_still(0, Nanos(900), Nanos(1_000));
    let report = &s.reports(Nanos(1_031))[0];
    let c = &report.counts;
    assert_eq!((c.offered, c.completed, c.dropped_total(), report.in_flight), (3, 1, 1, 1));
    assert_eq!((c.good, c.with_deadline, c.dropped.as_slice()), (0, 1, &[("late", 1)][..]));
    assert_eq!((c.latency_sum, c.queue_sum), (1_490, 30));
    assert_eq!((c.batches, c.batch_items, c.downtime_ns), (1, 2, 50));
    assert_eq!(report.in_flight_late, 1, "the fourth was due at 1030");
    // A place in the table is used again, and its old tenant's request is not found in it.
    ask(&mut s, 2_000, 1);
    assert_eq!(s.reports(Nanos(1_000))[0].in_flight_late, 0);
}

#[test]
fn limits_stay_within_what_is_configured() {
    let mut s = serving();
    for (asked, got) in [(0, 1), (3, 3), (99, 4)] {
        s.set_batch(0, asked, Nanos(5));
        assert_eq!(s.views()[0].batch_max, got);
    }
    assert_eq!(s.views()[0].batch_timeout, Nanos(5));
}

#[test]
fn a_closed_loop_asks_again_up_to_its_limit() {
    let closed = |concurrency, limit| {
        let think = cotenant_sim::scenario::Think::Constant(Nanos(7));
        Source::new(cotenant_sim::Load::Closed {
            concurrency,
            think,
            items: 2,
            limit,
            tokens: None,
        })
    };
    let mut source = closed(3, Some(4));
    assert_eq!(source.first().collect::<Vec<_>>(), [Nanos::ZERO; 3]);
    assert_eq!(source.arrive(Nanos(5)).0, Request { items: 2, ..Request::at(Nanos(5)) });
    assert_eq!(source.again(Nanos(10)), Some(Nanos(17)));
    assert_eq!(source.again(Nanos(11)), None);
    assert_eq!(closed(3, Some(2)).first().count(), 2);

    let mut open = Source::new(common::at(vec![3, 9]));
    assert!(open.is_open());
    assert_eq!(open.first().collect::<Vec<_>>(), [Nanos(3)]);
    assert_eq!(open.arrive(Nanos(3)), (Request::at(Nanos(3)), Some(Nanos(9))));
    assert_eq!(open.arrive(Nanos(9)), (Request::at(Nanos(9)), None));
    assert_eq!(open.again(Nanos(9)), None, "nobody waits for answers");
}

/// A pool of four CUs and kernels that last 100 and 300 ns on all of them.
fn pool(lanes: &[u32], discipline: Discipline) -> (Pool, Code) {
    let world = World::new(device(&[4]), vec![waves(4, 4, 100), waves(4, 4, 300)]);
    let setup = world.scenario(vec![]).setup;
    let spec = PoolSpec { lanes: lanes.to_vec(), discipline, ..setup.whole_gpu() };
    (Pool::new(&spec, &setup.device, &ContentionModel::None, true), world.code)
}

fn job(owner: u32, kernel: u32, lane: u32) -> Job {
    Job {
        owner,
        tenant: owner,
        kernel,
        lane,
        cap: 4,
        priority: 0,
        scale: 1.0,
        extra_ns: 0,
        part: 1.0,
        saved: false,
    }
}

fn settle(pool: &mut Pool, now: u64, code: &Code) {
    let drawn = pool.weigh(now, code);
    pool.settle(now, drawn, code);
}

/// Advances to the end: who ended when, and when turns did.
fn ends(pool: &mut Pool, code: &Code) -> Vec<(u64, Option<u32>)> {
    let mut ends = vec![];
    while pool.next() != NEVER {
        let now = pool.next();
        let owner = match pool.advance(now, code) {
            Ended::Kernel { owner, .. } => Some(owner),
            Ended::Turn | Ended::Left { .. } => None,
        };
        ends.push((now, owner));
        settle(pool, now, code);
    }
    ends
}

#[test]
fn a_pool_taken_from_instant_to_instant() {
    let (mut pool, code) = pool(&[4], Discipline::Concurrent);
    assert_eq!(pool.next(), NEVER);
    pool.submit(5, job(0, 0, 0), None, &code);
    pool.submit(5, job(1, 1, 0), None, &code);
    settle(&mut pool, 5, &code);
    assert_eq!((pool.next(), pool.busy()), (105, 4));
    let granted = |owner, kernel| Note::Granted { owner, kernel, cus: 4 };
    assert_eq!(pool.notes().drain(..).collect::<Vec<_>>(), [granted(0, 0)]);
    assert_eq!(ends(&mut pool, &code), [(105, Some(0)), (405, Some(1))]);
    assert_eq!(*pool.notes(), [granted(1, 1)]);
    assert_eq!(pool.totals(500).busy_cu_ns, 4 * 400);
}

#[test]
fn masks_keep_kernels_apart_and_the_later_one_waits_where_they_meet() {
    let (mut pool, code) = pool(&[4], Discipline::Concurrent);
    let mask = |cus: &[u32]| cus.iter().copied().collect::<CuMask>();
    // Half of the CUs: two waves instead of one.
    pool.submit(0, job(0, 0, 0), Some(&mask(&[0, 1])), &code);
    pool.submit(0, job(1, 1, 0), Some(&mask(&[2, 3])), &code);
    pool.submit(0, job(2, 0, 0), Some(&mask(&[0, 1])), &code);
    settle(&mut pool, 0, &code);
    assert_eq!(ends(&mut pool, &code), [(200, Some(0)), (400, Some(2)), (600, Some(1))]);
}

#[test]
fn contexts_take_turns() {
    let turns = Discipline::TimeSliced {
        quantum: Nanos(200),
        switch: Nanos(10),
        make_way: Nanos(1),
        run_to_completion: false,
    };
    let (mut pool, code) = pool(&[4, 4], turns);
    pool.submit(0, job(0, 1, 0), None, &code);
    pool.submit(0, job(1, 0, 1), None, &code);
    settle(&mut pool, 0, &code);
    // A slice of 200, a switch, the second context's 100, out of the idle one's way, the rest.
    let expected = [(200, None), (210, None), (310, Some(1)), (311, None), (411, Some(0))];
    assert_eq!(ends(&mut pool, &code), expected);
    assert_eq!(pool.totals(411).switches, 2);
}

/// Twelve blocks, one to a CU: three waves of 100 ns on 4 CUs.
fn in_waves() -> (Pool, Code) {
    let world = World::new(device(&[4]), vec![waves(4, 12, 100)]);
    let setup = world.scenario(vec![]).setup;
    (Pool::new(&setup.whole_gpu(), &setup.device, &ContentionModel::None, false), world.code)
}

#[test]
fn a_part_of_a_kernel_takes_the_waves_of_its_blocks() {
    let (mut pool, code) = in_waves();
    let mut now = 0;
    for (blocks, ns) in [(4, 100), (5, 200), (8, 200), (1, 100), (12, 300)] {
        pool.submit(now, Job { part: f64::from(blocks) / 12.0, ..job(0, 0, 0) }, None, &code);
        settle(&mut pool, now, &code);
        assert_eq!(ends(&mut pool, &code), [(now + ns, Some(0))], "{blocks} blocks");
        now += ns;
    }
}

#[test]
fn what_becomes_of_a_preempted_kernel_depends_on_how() {
    for (how, taken) in [
        (Preemption::Reset, Taken::Now(1.0)),
        (Preemption::Save, Taken::Now(0.5)),
        (Preemption::Unstarted, Taken::Nothing),
        (Preemption::Blocks, Taken::Later),
    ] {
        let (mut pool, code) = in_waves();
        pool.submit(0, job(0, 0, 0), None, &code);
        pool.submit(0, job(1, 0, 0), None, &code);
        settle(&mut pool, 0, &code);
        assert_eq!(pool.preempt(150, 0, how, &code), taken, "{how:?}");
        settle(&mut pool, 150, &code);
        // The other one has its CUs at once, when blocks end, or not before the first one's end.
        let done = ends(&mut pool, &code);
        let other = match how {
            Preemption::Reset | Preemption::Save => 450,
            Preemption::Blocks => 500,
            Preemption::Unstarted => 600,
        };
        assert_eq!(done.last(), Some(&(other, Some(1))), "{how:?}: {done:?}");
    }
}

#[test]
fn saved_work_goes_on_inside_of_its_blocks_and_other_work_begins_blocks_anew() {
    let (mut pool, code) = in_waves();
    let half = Job { part: 0.5, saved: true, extra_ns: 80, ..job(0, 0, 0) };
    pool.submit(0, half, None, &code);
    settle(&mut pool, 0, &code);
    assert_eq!(ends(&mut pool, &code), [(230, Some(0))], "restored in 80 ns, half a kernel left");
    pool.submit(230, Job { part: 0.5, ..job(0, 0, 0) }, None, &code);
    settle(&mut pool, 230, &code);
    assert_eq!(ends(&mut pool, &code), [(430, Some(0))], "six blocks are two waves");
}

#[test]
fn who_waits_for_cus_is_taken_back_at_once() {
    let (mut pool, code) = in_waves();
    pool.submit(0, job(0, 0, 0), None, &code);
    pool.submit(0, job(1, 0, 0), None, &code);
    settle(&mut pool, 0, &code);
    assert_eq!(pool.preempt(10, 1, Preemption::Unstarted, &code), Taken::Now(1.0));
    assert_eq!(pool.preempt(10, 7, Preemption::Reset, &code), Taken::Nothing, "there is none");
    settle(&mut pool, 10, &code);
    assert_eq!(ends(&mut pool, &code), [(300, Some(0))]);
}
