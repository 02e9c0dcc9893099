//! Who goes first under the bound.
//!
//! Latency-critical requests go before best-effort ones. Among them as many as possible are to meet
//! their deadlines: those with a deadline are looked at in its order, and whenever the work until
//! some deadline exceeds the device, the largest of it is given up (Moore and Hodgson 1968). What
//! slack that leaves goes to the least work, whoever's it is: that completes the most requests. What
//! was given up, and what is late already, comes last, the least work first again.

use std::collections::{BTreeMap, BinaryHeap};
use std::iter::Peekable;

/// A request under way or waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) tenant: u32,
    pub(super) items: u32,
    pub(super) arrival: u64,
    /// `u64::MAX`: none.
    pub(super) deadline: u64,
    pub(super) best_effort: bool,
    /// Of arrival.
    pub(super) order: u64,
    /// Share of the request that is left, 1 to 0, times its shortest duration: ns.
    pub(super) left_ns: f64,
    /// CUs while at full speed.
    pub(super) cus: f64,
    /// Bytes per ns while at full speed.
    pub(super) rate: f64,
    /// Of the device while at full speed: its CUs or its bandwidth, whichever is scarcer.
    pub(super) share: f64,
}

impl Flow {
    /// What is left of it, ns of the whole device.
    fn work(&self) -> f64 {
        self.left_ns * self.share
    }

    /// What is left of it if nothing is in its way.
    fn shortest(&self) -> u64 {
        libm::ceil(self.left_ns) as u64
    }

    fn late(&self, now: u64) -> bool {
        self.deadline < now.saturating_add(self.shortest())
    }

    /// Counts towards what can be met.
    fn has_goal(&self, now: u64) -> bool {
        self.deadline != u64::MAX && !self.best_effort && !self.late(now)
    }
}

/// Least work first, then in order of arrival. Positive numbers sort as their bits do.
type ByWork = (u64, u64);

fn by_work(flow: &Flow) -> ByWork {
    (flow.work().max(0.0).to_bits(), flow.order)
}

/// Requests that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Latency-critical ones with a deadline that they can meet, by deadline and order.
    goals: BTreeMap<(u64, u64), Flow>,
    /// The others: best-effort, late, and then by work.
    rest: BTreeMap<(bool, bool, ByWork), Flow>,
}

/// A request that may go before those with earlier deadlines.
#[derive(Clone, Copy, Debug)]
struct Plan {
    flow: Flow,
    /// How long those may wait, ns of the whole device.
    slack: f64,
}

impl Waiting {
    pub(super) fn add(&mut self, flow: Flow, now: u64) {
        if flow.has_goal(now) {
            self.goals.insert((flow.deadline, flow.order), flow);
        } else {
            let key = (flow.best_effort, flow.late(now), by_work(&flow));
            self.rest.insert(key, flow);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.goals.values().chain(self.rest.values())
    }

    /// Offers requests to `take`, in order, until it takes no more; what it took is gone from here.
    pub(super) fn serve(&mut self, now: u64, mut take: impl FnMut(Flow) -> bool) {
        self.give_up_late(now);
        let (mut kept, given_up, slack) = self.plan(now);
        kept.sort_unstable_by_key(|p| by_work(&p.flow));
        let mut early = Early { stolen: 0.0, slack };
        let mut waits = vec![];
        let mut open = true;
        let mut kept = kept.into_iter().peekable();
        while open {
            let next = kept.peek().map(|p| by_work(&p.flow));
            let other = self.rest.first_key_value().filter(|(k, _)| !k.0 && !k.1);
            let first = other.filter(|(k, f)| early.admits(f) && next.is_none_or(|n| k.2 < n));
            if let Some((&key, &flow)) = first {
                early.stolen += flow.work();
                open = take(flow);
                if open {
                    self.rest.remove(&key);
                }
            } else if let Some(plan) = kept.next() {
                if plan.slack >= early.stolen + plan.flow.work() {
                    early.stolen += plan.flow.work();
                    open = self.take_goal(plan.flow, &mut take);
                } else {
                    waits.push(plan.flow);
                }
            } else {
                break;
            }
        }
        waits.sort_unstable_by_key(|f| (f.deadline, f.order));
        open = open && waits.into_iter().all(|flow| self.take_goal(flow, &mut take));
        if open {
            self.serve_rest(given_up.into_iter().peekable(), take);
        }
    }

    /// What neither has a goal nor can reach it, best-effort requests last.
    fn serve_rest(
        &mut self,
        mut given_up: Peekable<impl Iterator<Item = Flow>>,
        mut take: impl FnMut(Flow) -> bool,
    ) {
        let mut open = true;
        while open {
            let other = self.rest.first_key_value().map(|(k, f)| (*k, *f));
            let next = given_up.peek().map(|f| (false, false, by_work(f)));
            match (other, next) {
                (Some((key, flow)), next) if next.is_none_or(|n| key < n) => {
                    open = take(flow);
                    if open {
                        self.rest.remove(&key);
                    }
                }
                (_, Some(_)) => {
                    let flow = given_up.next().expect("it was peeked at");
                    open = self.take_goal(flow, &mut take);
                }
                _ => return,
            }
        }
    }

    fn take_goal(&mut self, flow: Flow, take: &mut impl FnMut(Flow) -> bool) -> bool {
        let taken = take(flow);
        if taken {
            self.goals.remove(&(flow.deadline, flow.order));
        }
        taken
    }

    /// Those that can no longer make it have no goal any more.
    fn give_up_late(&mut self, now: u64) {
        let late: Vec<Flow> = self.goals.values().filter(|f| f.late(now)).copied().collect();
        for flow in late {
            self.goals.remove(&(flow.deadline, flow.order));
            self.add(flow, now);
        }
    }

    /// Which goals can be met together, each with how long those with earlier deadlines may wait;
    /// which are given up for that, least work first; and how long all that are kept may wait.
    fn plan(&self, now: u64) -> (Vec<Plan>, Vec<Flow>, f64) {
        let mut kept: BinaryHeap<(ByWork, u64)> = BinaryHeap::new();
        let mut given_up: Vec<Flow> = vec![];
        let mut work = 0.0;
        for flow in self.goals.values() {
            work += flow.work();
            kept.push((by_work(flow), flow.deadline));
            while work > (flow.deadline - now) as f64 {
                let ((_, order), deadline) = kept.pop().expect("no work, no lack of time");
                let out = self.goals[&(deadline, order)];
                work -= out.work();
                given_up.push(out);
            }
        }
        given_up.sort_unstable_by_key(by_work);
        let out = |f: &&Flow| given_up.binary_search_by_key(&by_work(f), by_work).is_err();
        let (mut before, mut slack) = (0.0, f64::INFINITY);
        let plan = |flow: &Flow| {
            let plan = Plan { flow: *flow, slack };
            before += flow.work();
            let time = (flow.deadline - now) as f64;
            slack = slack.min(time - before).min(time - flow.left_ns).max(0.0);
            plan
        };
        let plans: Vec<Plan> = self.goals.values().filter(out).map(plan).collect();
        (plans, given_up, slack)
    }
}

/// Requests that go before others with earlier deadlines.
struct Early {
    /// Their work so far, ns of the whole device.
    stolen: f64,
    slack: f64,
}

impl Early {
    /// Whether a request without a goal may go first.
    fn admits(&self, flow: &Flow) -> bool {
        self.slack >= self.stolen + flow.work()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request of so many ns on the whole device.
    fn flow(order: u64, ns: f64, deadline: u64) -> Flow {
        Flow {
            tenant: 0,
            items: 1,
            arrival: 0,
            deadline,
            best_effort: false,
            order,
            left_ns: ns,
            cus: 10.0,
            rate: 0.0,
            share: 1.0,
        }
    }

    const NONE: u64 = u64::MAX;

    /// The order in which all are taken.
    fn order(flows: &[Flow]) -> Vec<u64> {
        let mut waiting = Waiting::default();
        flows.iter().for_each(|&f| waiting.add(f, 0));
        let mut taken = vec![];
        waiting.serve(0, |f| {
            taken.push(f.order);
            true
        });
        assert_eq!(waiting.iter().count(), 0);
        taken
    }

    #[test]
    fn deadlines_that_leave_no_slack_come_in_their_order() {
        assert_eq!(order(&[flow(1, 50.0, 100), flow(2, 50.0, 50), flow(3, 10.0, NONE)]), [2, 1, 3]);
    }

    #[test]
    fn slack_goes_to_the_least_work() {
        // The two with goals need 100 of 200 ns: 60 of what is left can go first.
        let flows = [flow(1, 50.0, 200), flow(2, 50.0, 210), flow(3, 40.0, NONE)];
        assert_eq!(order(&flows), [3, 1, 2]);
        // Nor do the first 70 ns wait for the next 80, which together would be 150.
        let flows = [flow(1, 70.0, 100), flow(2, 40.0, 400), flow(3, 80.0, NONE)];
        assert_eq!(order(&flows), [1, 2, 3]);
    }

    #[test]
    fn of_too_much_the_largest_is_given_up() {
        let flows = [flow(1, 90.0, 100), flow(2, 30.0, 110), flow(3, 40.0, 120)];
        assert_eq!(order(&flows), [2, 3, 1]);
    }

    #[test]
    fn late_ones_then_best_effort_come_last() {
        let effort = Flow { best_effort: true, ..flow(1, 1.0, 1_000) };
        assert_eq!(order(&[effort, flow(2, 20.0, 10), flow(3, 30.0, NONE)]), [3, 2, 1]);
    }

    #[test]
    fn what_is_not_taken_stays() {
        let mut waiting = Waiting::default();
        (1..=4).for_each(|i| waiting.add(flow(i, 10.0, if i < 3 { 100 } else { NONE }), 0));
        let mut taken = vec![];
        waiting.serve(0, |f| {
            let room = taken.len() < 2;
            if room {
                taken.push(f.order);
            }
            room
        });
        let mut left: Vec<u64> = waiting.iter().map(|f| f.order).collect();
        left.extend(&taken);
        left.sort_unstable();
        assert_eq!((taken.len(), left), (2, vec![1, 2, 3, 4]));
    }
}
