use cotenant_sim::CuMask;
use cotenant_sim::layout::Discipline;

use super::*;

/// Kernels: 0 and 1 have ten waves of 100 ns on 8 CUs; 2 has two blocks of 400 ns.
struct World {
    gpu: Gpu,
    context: u32,
    tickets: u64,
}

fn spin(blocks: u32, ns: u64) -> KernelCode {
    super::super::spin("k", blocks, ns, 8)
}

fn description() -> GpuDescription {
    let mut device = GpuDescription::builtin("h100-sxm").unwrap();
    device.topology.groups = vec![4, 4];
    device
}

fn pool(lanes: Vec<u32>, discipline: Discipline) -> PoolSpec {
    PoolSpec {
        cus: 8,
        lanes,
        discipline,
        dram_bytes_per_us: 1_000_000,
        l2: Bytes(1 << 20),
        memory: Bytes(1000),
        copy_engines: 1,
        host: cotenant_sim::layout::Host::Own,
    }
}

impl World {
    fn new(pools: &[PoolSpec]) -> Self {
        let device = description();
        let code = Code::of(vec![spin(80, 100), spin(80, 100), spin(2, 400)]);
        let costs = device.costs.clone();
        let mut gpu = Gpu::new(&device, costs, code, pools, ContentionModel::None);
        let context = gpu.open_context();
        Self { gpu, context, tickets: 0 }
    }

    fn whole() -> Self {
        Self::new(&[pool(vec![8], Discipline::Concurrent)])
    }

    fn stream(&mut self, lane: u32, mask: Option<CuMask>) -> u32 {
        self.gpu.add_stream(self.context, Site { pool: 0, lane, mask, cap: 8 })
    }

    fn shoot(&mut self, now: u64, stream: u32, shot: Shot, issued: u64) -> Ticket {
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.gpu.launch(now, stream, ticket, Nanos(issued), true, shot).unwrap();
        ticket
    }

    fn launch(&mut self, now: u64, stream: u32, kernel: u32) -> Ticket {
        self.shoot(now, stream, shot(kernel), 0)
    }

    /// Ticket, end, duration of what has ended until then.
    fn ended(&mut self, until: u64) -> Vec<(u64, u64, u64)> {
        let mut ended = Vec::new();
        self.gpu.run_to(until);
        self.gpu.take_ended(self.context, &mut ended).unwrap();
        ended.iter().map(|c| (c.ticket.0, c.at.0, c.duration.0)).collect()
    }
}

fn shot(kernel: u32) -> Shot {
    let part = cotenant_sim::host::Part::WHOLE;
    Shot { kernel, mask: None, priority: 0, part, scale: 1.0, first: false, last: false }
}

fn upper() -> Option<CuMask> {
    Some(CuMask::first(8).without(&CuMask::first(4)))
}

#[test]
fn a_partition_stretches_a_kernel_as_its_curve_says() {
    let mut w = World::whole();
    let whole = w.stream(0, None);
    w.launch(0, whole, 0);
    let half = w.stream(0, Some(CuMask::first(4)));
    w.launch(10_000, half, 0);
    assert_eq!(w.ended(20_000), [(0, 1000, 1000), (1, 12_000, 2000)]);
}

#[test]
fn disjoint_partitions_do_not_touch_and_a_queue_is_in_order() {
    let mut w = World::whole();
    let (low, high) = (w.stream(0, Some(CuMask::first(4))), w.stream(0, upper()));
    w.launch(0, low, 0);
    w.launch(0, low, 2);
    w.launch(0, high, 1);
    assert_eq!(w.ended(2399), [(0, 2000, 2000), (2, 2000, 2000)]);
    assert_eq!(w.ended(2400), [(1, 2400, 400)]);
}

#[test]
fn on_the_same_cus_the_later_takes_what_is_left_and_priority_goes_first() {
    let mut w = World::whole();
    let (first, urgent) = (w.stream(0, None), w.stream(0, None));
    w.launch(0, first, 0);
    // Takes every CU away for 1000 ns: the other resumes where it stopped.
    w.shoot(500, urgent, Shot { priority: 1, ..shot(1) }, 0);
    assert_eq!(w.ended(1500), [(1, 1500, 1000)]);
    assert_eq!(w.ended(2000), [(0, 2000, 2000)]);
}

#[test]
fn a_launch_may_bring_its_own_mask_and_scale_and_waits_for_its_host() {
    let mut w = World::whole();
    let s = w.stream(0, None);
    w.shoot(0, s, Shot { mask: upper(), ..shot(0) }, 300);
    // Scaled durations are whole nanoseconds rounded up past the product, as in the simulator.
    w.shoot(0, s, Shot { scale: 2.0, ..shot(2) }, 0);
    assert_eq!(w.ended(10_000), [(0, 2300, 2000), (1, 3101, 801)]);
}

#[test]
fn contexts_take_turns_with_quantum_and_switch() {
    let discipline = Discipline::TimeSliced {
        quantum: Nanos(600),
        switch: Nanos(50),
        make_way: Nanos(10),
        run_to_completion: false,
    };
    let mut w = World::new(&[pool(vec![8, 8], discipline)]);
    let (a, b) = (w.stream(0, None), w.stream(1, None));
    w.launch(0, a, 0);
    w.launch(0, b, 1);
    // a until 600, b from 650 to 1250, a from 1300 to its end at 1700; it makes way; b from 1710.
    assert_eq!(w.ended(10_000), [(0, 1700, 1700), (1, 2110, 2110)]);
}

#[test]
fn a_turn_run_to_completion_ends_with_its_batch() {
    let discipline = Discipline::TimeSliced {
        quantum: Nanos(100),
        switch: Nanos(50),
        make_way: Nanos(10),
        run_to_completion: true,
    };
    let mut w = World::new(&[pool(vec![8, 8], discipline)]);
    let (a, b) = (w.stream(0, None), w.stream(1, None));
    w.shoot(0, a, Shot { first: true, ..shot(0) }, 0);
    w.shoot(0, b, Shot { first: true, last: true, ..shot(1) }, 0);
    // The host is late with the batch's last kernel: the turn is kept for it.
    w.shoot(0, a, Shot { last: true, ..shot(2) }, 1500);
    assert_eq!(w.ended(10_000), [(0, 1000, 1000), (2, 1900, 400), (1, 2910, 2910)]);
}

#[test]
fn copies_queue_on_the_engine_they_share() {
    let mut w = World::whole();
    let (a, b) = (w.stream(0, None), w.stream(0, None));
    w.gpu.device.pcie.h2d_gbps = 1.0;
    w.gpu.copy(0, a, Ticket(0), Nanos(100), Direction::In, Bytes(1000)).unwrap();
    w.gpu.copy(0, b, Ticket(1), Nanos(0), Direction::In, Bytes(500)).unwrap();
    w.tickets = 2;
    w.launch(0, a, 2);
    assert_eq!(w.ended(10_000), [(1, 500, 500), (0, 1500, 1400), (2, 1900, 400)]);
}

#[test]
fn merged_kernels_are_one_launch() {
    let mut w = World::whole();
    let s = w.stream(0, None);
    let merged = w.gpu.merge(vec![2, 2]);
    assert_eq!(w.gpu.merge(vec![2, 2]), merged);
    w.launch(0, s, merged);
    let expected = w.gpu.kernels()[merged as usize].at(8);
    assert_eq!(w.ended(10_000), [(0, expected, expected)]);
}

#[test]
fn streams_beyond_the_hardware_queues_wait_in_them() {
    let mut w = World::whole();
    let (a, b) = (w.stream(0, None), w.stream(0, None));
    w.gpu.limit_queues(0, 1);
    w.launch(0, a, 2);
    w.launch(0, b, 2);
    let extra = w.gpu.device.queues.overflow.0;
    let one = 400 + extra;
    assert_eq!(w.ended(1_000_000), [(0, one, one), (1, 2 * one, 2 * one)]);
}

#[test]
fn a_context_that_goes_takes_its_queue_and_memory_along() {
    let mut w = World::whole();
    let other = w.gpu.open_context();
    let doomed = w.gpu.add_stream(other, Site { pool: 0, lane: 0, mask: None, cap: 8 });
    w.gpu.take_memory(other, 0, Bytes(800)).unwrap();
    let full = w.gpu.take_memory(w.context, 0, Bytes(300)).unwrap_err();
    assert_eq!(full, DeviceError::OutOfMemory { need: Bytes(300), free: Bytes(200) });
    w.gpu.launch(0, doomed, Ticket(0), Nanos(0), true, shot(0)).unwrap();
    w.gpu.launch(0, doomed, Ticket(1), Nanos(0), true, shot(1)).unwrap();
    w.gpu.close_context(100, other);
    w.gpu.take_memory(w.context, 0, Bytes(1000)).unwrap();
    let s = w.stream(0, None);
    w.launch(100, s, 0);
    // What was on the CUs ends there; what was queued never comes.
    assert_eq!(w.ended(1_999), []);
    assert_eq!(w.ended(2_000), [(0, 2000, 1900)]);
    assert_eq!((w.gpu.busy(), w.gpu.outstanding(other)), (0, 0));
    assert!(!w.gpu.has_news(other));
}

#[test]
fn a_failed_kernel_loses_its_context_and_under_mps_the_neighbours() {
    for spreads in [false, true] {
        let mut w = World::whole();
        w.gpu.set_fault(Some(Fault { launch: 2, spreads }));
        let other = w.gpu.open_context();
        let beside = w.gpu.add_stream(other, Site { pool: 0, lane: 0, mask: upper(), cap: 8 });
        let s = w.stream(0, Some(CuMask::first(4)));
        w.launch(0, s, 2);
        w.launch(0, s, 2);
        w.launch(0, s, 2);
        w.gpu.launch(0, beside, Ticket(0), Nanos(0), true, shot(0)).unwrap();
        w.gpu.run_to(10_000);
        let mut ended = Vec::new();
        let lost = w.gpu.take_ended(w.context, &mut ended).unwrap_err();
        assert_eq!((ended.len(), lost), (1, DeviceError::KernelFailed("k".to_owned())));
        let refused = w.gpu.launch(10_000, s, Ticket(9), Nanos(0), true, shot(0));
        assert!(refused.is_err());
        ended.clear();
        let told = w.gpu.take_ended(other, &mut ended);
        assert_eq!(told.is_err(), spreads, "{told:?}");
        assert_eq!(ended.len(), usize::from(!spreads));
        assert_eq!(w.gpu.busy(), 0);
    }
}

#[test]
fn uneven_masks_count_as_the_device_dispatches() {
    let mut device = description();
    device.dispatch.rule = cotenant_profiles::device::DispatchRule::EvenGroups;
    let code = Code::of(vec![spin(80, 100)]);
    let costs = device.costs.clone();
    let pools = [pool(vec![8], Discipline::Concurrent)];
    let mut gpu = Gpu::new(&device, costs, code, &pools, ContentionModel::None);
    let context = gpu.open_context();
    // Four CUs of one group and one of the other: as fast as two.
    let site = Site { pool: 0, lane: 0, mask: Some(CuMask::first(5)), cap: 8 };
    let s = gpu.add_stream(context, site);
    gpu.launch(0, s, Ticket(0), Nanos(0), true, shot(0)).unwrap();
    gpu.run_to(10_000);
    let mut ended = Vec::new();
    gpu.take_ended(context, &mut ended).unwrap();
    assert_eq!(ended[0].duration, Nanos(4000));
}
