//! Shapes, shrinking and counters of masks.

use super::*;
use Shape::{Conserved, Distributed, Packed};
use proptest::prelude::*;

fn board(groups: &[u32], rule: DispatchRule, step: u32, kernels: u32) -> Board {
    let mut device = Device::builtin("mi50").unwrap();
    device.topology.groups = groups.to_vec();
    device.dispatch.rule = rule;
    device.mask.step_cus = step;
    Board::new(&device, kernels).unwrap()
}

fn counts(b: &Board, mask: &CuMask) -> Vec<u32> {
    b.groups.iter().map(|g| mask.bits(g.start, g.size).count_ones()).collect()
}

/// CUs per shader engine and effective CUs of an MI50, cell by cell.
#[test]
fn masks_have_the_shapes_that_the_authors_code_gives_them() {
    type Cell = ([u32; 4], u32);
    #[rustfmt::skip]
    let golden: [(u32, Cell, Cell, Cell); 10] = [
        (8,  ([8, 0, 0, 0], 8),      ([2, 2, 2, 2], 8),      ([8, 0, 0, 0], 8)),
        (15, ([15, 0, 0, 0], 15),    ([4, 4, 4, 3], 12),     ([15, 0, 0, 0], 15)),
        (16, ([15, 1, 0, 0], 2),     ([4, 4, 4, 4], 16),     ([8, 8, 0, 0], 16)),
        (17, ([15, 2, 0, 0], 4),     ([5, 4, 4, 4], 16),     ([9, 8, 0, 0], 16)),
        (20, ([15, 5, 0, 0], 10),    ([5, 5, 5, 5], 20),     ([10, 10, 0, 0], 20)),
        (30, ([15, 15, 0, 0], 30),   ([8, 8, 7, 7], 28),     ([15, 15, 0, 0], 30)),
        (31, ([15, 15, 1, 0], 3),    ([8, 8, 8, 7], 28),     ([11, 11, 9, 0], 27)),
        (45, ([15, 15, 15, 0], 45),  ([12, 11, 11, 11], 44), ([15, 15, 15, 0], 45)),
        (46, ([15, 15, 15, 1], 4),   ([12, 12, 11, 11], 44), ([12, 12, 12, 10], 40)),
        (60, ([15, 15, 15, 15], 60), ([15, 15, 15, 15], 60), ([15, 15, 15, 15], 60)),
    ];
    for (n, packed, distributed, conserved) in golden {
        for (shape, (want, effective)) in
            [(Packed, packed), (Distributed, distributed), (Conserved, conserved)]
        {
            let mut b = board(&[15; 4], DispatchRule::EvenGroups, 1, 1);
            assert_eq!(b.effective(shape, n), effective, "{shape:?} {n}");
            let mask = b.acquire(n, shape, 0, Shrink::Stop).mask;
            assert_eq!(counts(&b, &mask), want, "{shape:?} {n}");
            assert_eq!(mask.even_groups(&[15; 4]), effective, "{shape:?} {n}");
        }
    }
}

#[test]
fn groups_of_unequal_size_and_masks_in_steps() {
    // Seven groups of an A100; legal masks are whole pairs of SMs.
    let groups = [16, 16, 16, 16, 16, 14, 14];
    let mut b = board(&groups, DispatchRule::LeastLoaded, 2, 1);
    assert_eq!((b.cus(), b.legal(17), b.legal(200)), (108, 18, 108));
    for (n, want) in [
        (18, [10, 8, 0, 0, 0, 0, 0]),
        (34, [12, 12, 10, 0, 0, 0, 0]),
        (100, [16, 16, 16, 16, 16, 14, 6]),
        (108, groups),
    ] {
        let mask = b.acquire(n, Conserved, 0, Shrink::Stop).mask;
        assert_eq!(counts(&b, &mask), want, "{n}");
        b.release(&mask);
    }
}

/// Two engines of four CUs, worked by hand; CU 0 to 3 and 4 to 7.
#[test]
fn allocation_on_a_small_gpu_by_hand() {
    let cus = |list: &[u32]| list.iter().copied().collect::<CuMask>();
    let mut b = board(&[4, 4], DispatchRule::EvenGroups, 1, 5);
    let take = |b: &mut Board, n, limit| b.acquire(n, Conserved, limit, Shrink::Stop);
    // Idle: both engines at load 0, the first one; its three lowest CUs.
    let a = take(&mut b, 3, 0);
    assert_eq!((a.mask, a.overlap), (cus(&[0, 1, 2]), 0));
    // The second engine is less loaded.
    let second = take(&mut b, 2, 0);
    assert_eq!((second.mask, second.overlap), (cus(&[4, 5]), 0));
    // Five CUs take two engines, three each: 6 and 7 are free on the second (load 2), 3 on the
    // first (load 3). Without oversubscription it stays at three.
    let third = take(&mut b, 5, 0);
    assert_eq!((third.mask, third.overlap), (cus(&[3, 6, 7]), 0));
    // Nothing is free: one CU all the same, the lowest of the least loaded engine (both 4).
    let fourth = take(&mut b, 4, 0);
    assert_eq!((fourth.mask, fourth.overlap), (cus(&[0]), 1));
    // With all CUs allowed: the second engine (load 4 against 5), whole.
    let fifth = take(&mut b, 4, 8);
    assert_eq!((fifth.mask, fifth.overlap), (cus(&[4, 5, 6, 7]), 4));
    // At the limit: 0, 3 (load 5 against 8) are asked first, CUs with fewest kernels first.
    b.release(&fourth.mask);
    b.release(&a.mask);
    let limited = take(&mut b, 6, 1);
    // First engine: 0, 1, 2 free. Second: one of 4 to 7, which all run two kernels.
    assert_eq!((limited.mask, limited.overlap), (cus(&[0, 1, 2, 4]), 1));
    for grant in [second, third, fifth, limited] {
        b.release(&grant.mask);
    }
    assert!(b.above.iter().all(|&level| level == 0) && b.levels == 0);
    assert!(b.load == [0, 0] && b.free == [0b1111, 0b1111]);
}

#[test]
fn a_shrunk_mask_wastes_nothing_under_an_even_split() {
    let mut b = board(&[15; 4], DispatchRule::EvenGroups, 1, 4);
    // Leaves 2, 9, 15 and 15 CUs free.
    for n in [13, 6] {
        b.acquire(n, Packed, 0, Shrink::Stop);
    }
    let mask = b.acquire(60, Conserved, 0, Shrink::Balance).mask;
    // 2 × 15 beats 4 × 2 and 3 × 9.
    assert_eq!(counts(&b, &mask), [0, 0, 15, 15]);
    b.release(&mask);
    let mask = b.acquire(60, Conserved, 0, Shrink::Stop).mask;
    assert_eq!((counts(&b, &mask), mask.even_groups(&[15; 4])), (vec![2, 9, 15, 15], 8));
}

#[test]
fn a_shrunk_mask_takes_every_free_sm_where_blocks_go_to_the_emptiest() {
    let mut b = board(&[4, 4], DispatchRule::LeastLoaded, 2, 3);
    b.acquire(2, Conserved, 0, Shrink::Stop);
    let mask = b.acquire(8, Conserved, 0, Shrink::Balance).mask;
    assert_eq!(counts(&b, &mask), [2, 4]);
    let last = b.acquire(8, Conserved, 0, Shrink::Balance);
    assert_eq!((last.mask.count(), last.overlap), (2, 2));
}

proptest! {
    /// For any sequence of kernels: at least a step, at most what was asked for, no more overlap than
    /// allowed unless nothing is free, counters that add up and return to zero.
    #[test]
    fn counters_and_limits_hold(
        asks in proptest::collection::vec((1u32..70, 0u32..70, 0usize..3, any::<bool>()), 1..40),
        groups in proptest::collection::vec(1u32..12, 1..7),
        even in any::<bool>(), step in 1u32..3, resident in 1usize..6,
    ) {
        let rule = if even { DispatchRule::EvenGroups } else { DispatchRule::LeastLoaded };
        let groups: Vec<u32> = groups.iter().map(|g| g * step).collect();
        let mut b = board(&groups, rule, step, resident as u32);
        let mut live: Vec<CuMask> = vec![];
        for (n, limit, shape, stop) in asks {
            if live.len() == resident {
                b.release(&live.remove(0));
            }
            let n = b.legal(n);
            let shape = [Packed, Distributed, Conserved][shape];
            let shrink = if stop { Shrink::Stop } else { Shrink::Balance };
            let busy = live.iter().fold(CuMask::EMPTY, |all, m| all.or(m));
            let free = b.cus() - busy.count();
            let grant = b.acquire(n, shape, limit, shrink);
            let count = grant.mask.count();
            prop_assert_eq!(grant.count, count);
            prop_assert!(count >= step && count <= n.max(step));
            prop_assert_eq!(grant.overlap, grant.mask.and(&busy).count());
            prop_assert!(grant.overlap <= limit || count == step && grant.overlap == step);
            if free >= n && matches!(shrink, Shrink::Balance) && rule == DispatchRule::LeastLoaded {
                prop_assert_eq!(count, n);
            }
            live.push(grant.mask);
            let total: u32 = live.iter().map(CuMask::count).sum();
            prop_assert_eq!(b.load.iter().sum::<u32>(), total);
            for (g, group) in b.groups.iter().enumerate() {
                for i in 0..group.size {
                    let resident = live.iter().filter(|m| m.contains(group.start + i)).count();
                    let levels = (0..=live.len()).map(|k| b.above[k * b.groups.len() + g]);
                    let counted = levels.filter(|l| l >> i & 1 == 1).count();
                    prop_assert_eq!(resident, counted);
                    prop_assert_eq!(resident == 0, b.free[g] >> i & 1 == 1);
                }
            }
        }
    }
}
