//! Requests, queues and batches.

use cotenant_profiles::Nanos;
use cotenant_sim::action::{Closes, Event};
use cotenant_sim::observe::Happening;
use cotenant_sim::policy::Depth;
use cotenant_sim::scenario::{Load, Think};
use cotenant_sim::serving::RequestId;
use cotenant_sim::view::{Execution, Status, Window};
use cotenant_traces::Request;

use super::{NEVER, Oracle, Pending, Timer, deadline};

impl Oracle<'_> {
    pub(super) fn arm_loads(&mut self) {
        for t in 0..self.sources.len() {
            match &mut self.sources[t].load {
                Load::Open(arrivals) => {
                    self.sources[t].next = arrivals.next_request();
                    if let Some(at) = self.sources[t].next.map(|r| r.arrival.0) {
                        self.set(at, Timer::Arrival(t));
                    }
                }
                Load::Closed { concurrency, limit, .. } => {
                    let n = u64::from(*concurrency).min(limit.unwrap_or(u64::MAX));
                    self.sources[t].issued = n;
                    (0..n).for_each(|_| self.set(0, Timer::Asks(t)));
                }
            }
        }
    }

    pub(super) fn arrival(&mut self, t: usize) {
        let request = self.sources[t].next.expect("it arrives");
        if let Load::Open(arrivals) = &mut self.sources[t].load {
            self.sources[t].next = arrivals.next_request();
        }
        if let Some(next) = self.sources[t].next {
            self.set(next.arrival.0, Timer::Arrival(t));
        }
        self.admit(t, request);
    }

    pub(super) fn asks(&mut self, t: usize) {
        let Load::Closed { items, .. } = self.sources[t].load else { unreachable!() };
        self.admit(t, Request { items, ..Request::at(Nanos(self.now)) });
    }

    fn admit(&mut self, t: usize, request: Request) {
        let number = self.sources[t].arrived;
        self.sources[t].arrived += 1;
        if let Some(window) = self.open_window(t) {
            window.arrived += 1;
        }
        let deadline = deadline(&request, self.setup.tenants[t].slo);
        let (expires, limit) = self.patience(t, &request, deadline);
        self.sources[t].queue.push_back(Pending {
            arrival: request.arrival.0,
            items: request.items,
            work: request.work,
            deadline,
            limit,
            expires,
            began: 0,
            number,
            prio: request.prio,
            tokens: (request.tokens_in, request.tokens_out),
            id: RequestId(self.admitted),
        });
        self.admitted += 1;
        self.out.counts[t].offered += 1;
        self.out.counts[t].in_system += 1;
        let tenant = t as u32;
        self.out.log.push((self.now, Happening::Arrived { tenant }));
        self.give_up_late(t);
        if self.depth_of(t) >= Depth::Request {
            self.tell(Event::RequestArrived { tenant });
        }
        self.form(t, false);
    }

    /// When a request is given up if it still waits, and when its time is over.
    fn patience(&self, t: usize, request: &Request, deadline: u64) -> (u64, u64) {
        let tenant = &self.setup.tenants[t];
        let Some(rule) = tenant.drop_after else { return (NEVER, NEVER) };
        let limit = rule.limit.map_or(deadline, |limit| request.arrival.0 + limit.0);
        if limit == NEVER || !rule.predict {
            return (limit, limit);
        }
        // Alone: passes over the largest program that it fills, and one over the whole GPU each.
        let model = &tenant.model;
        let largest = model.programs.len() as u32;
        let program = &model.programs[request.items.min(largest) as usize - 1];
        let best = |&k: &u32| *self.kernels[k as usize].duration_ns[1..].iter().min().unwrap();
        let gpu: u64 = program.kernels.iter().map(best).sum();
        let gpu = (gpu as f64 * f64::from(request.work)) as u64;
        let pass = gpu.max(*program.issued_ns.last().unwrap());
        let (h2d, d2h) = (self.setup.device.pcie.h2d_gbps, self.setup.device.pcie.d2h_gbps);
        let each = model.input_per_item.0 as f64 / h2d + model.output_per_item.0 as f64 / d2h;
        let copies = (each * f64::from(request.items)) as u64;
        let passes = u64::from(request.items.div_ceil(largest));
        let least = model.host_per_request.0 + pass * passes + copies;
        // At `limit - least` it can still begin.
        ((limit + 1).saturating_sub(least), limit)
    }

    /// Requests that can no longer be answered in time, the first to expire first.
    pub(super) fn give_up_late(&mut self, t: usize) {
        loop {
            let queue = &self.sources[t].queue;
            let first = queue.iter().min_by_key(|r| (r.expires, r.number));
            let Some(r) = first.filter(|r| r.expires != NEVER) else { return };
            let (id, limit, expires) = (r.id, r.limit, r.expires);
            if expires > self.now {
                if expires < self.sources[t].look {
                    self.sources[t].look = expires;
                    self.set(expires, Timer::Batch(t));
                }
                return;
            }
            self.unqueue(id);
            self.out.counts[t].dropped += 1;
            self.out.counts[t].in_system -= 1;
            self.out.log.push((self.now, Happening::Dropped { tenant: t as u32 }));
            self.asks_again(t, limit);
        }
    }

    /// Unless the policy does: batches that are full, or whose first request has waited long enough
    /// and through this instant.
    pub(super) fn form(&mut self, t: usize, settled: bool) {
        if self.policy_batches {
            return;
        }
        while !self.sources[t].queue.is_empty() && !self.sources[t].idle.is_empty() {
            let s = &mut self.sources[t];
            let due = (s.queue[0].arrival + s.batch_timeout).max(self.now);
            let waiting: u32 = s.queue.iter().map(|r| r.items).sum();
            let full = waiting >= s.batch_max || self.setup.tenants[t].per_request_batches;
            let due_now = settled && due == self.now;
            if !full && !due_now {
                if s.batch_timer > due {
                    s.batch_timer = due;
                    self.set(due, Timer::Batch(t));
                }
                return;
            }
            let most = s.batch_max;
            let w = s.idle.pop().expect("one is idle");
            self.begin(t, w, most);
        }
    }

    pub(super) fn begin(&mut self, t: usize, w: usize, most: u32) {
        let queue = &mut self.sources[t].queue;
        let mut batch: Vec<Pending> = vec![];
        while let Some(r) = queue.front() {
            let items: u32 = batch.iter().map(|r| r.items).sum();
            let one_each = self.setup.tenants[t].per_request_batches;
            if !batch.is_empty() && (items + r.items > most || one_each) {
                break;
            }
            batch.extend(queue.pop_front());
        }
        self.begin_with(t, w, batch);
    }

    pub(super) fn begin_with(&mut self, t: usize, w: usize, mut batch: Vec<Pending>) {
        batch.iter_mut().for_each(|r| r.began = self.now);
        let model = &self.setup.tenants[t].model;
        let items: u32 = batch.iter().map(|r| r.items).sum();
        let largest = model.programs.len() as u32;
        let worker = &mut self.workers[w];
        assert_eq!(worker.status, Status::Idle);
        worker.status = Status::Host;
        (worker.handed, worker.opened) = (false, false);
        worker.items = items;
        worker.began = self.now;
        worker.deadline = batch.iter().map(|r| r.deadline).min().expect("a batch of something");
        worker.number = batch[0].number;
        worker.passes = items.div_ceil(largest);
        worker.program = model.programs[items.min(largest) as usize - 1].clone();
        worker.scale = f64::from(batch.iter().map(|r| r.work).fold(0.0, f32::max));
        worker.position = 0;
        let prepare = model.host_per_request.0 * batch.len() as u64;
        worker.batch = batch;
        self.out.log.push((self.now, Happening::BatchBegan { worker: w as u32, items }));
        if prepare > 0 {
            self.set(self.now + prepare, Timer::Prepared(w));
        } else {
            self.prepared(w);
        }
    }

    pub(super) fn batch_done(&mut self, w: usize) {
        let (t, items) = (self.workers[w].spec.tenant as usize, self.workers[w].items);
        let worker = w as u32;
        self.out.counts[t].batches += 1;
        self.out.counts[t].batch_items += u64::from(items);
        let began = Nanos(self.workers[w].began);
        let took = Nanos(self.now - began.0);
        if let Some(window) = self.open_window(t) {
            window.executions.push(Execution { began, took });
        }
        self.out.log.push((self.now, Happening::BatchEnded { worker, items }));
        for r in std::mem::take(&mut self.workers[w].batch) {
            let c = &mut self.out.counts[t];
            c.completed += 1;
            c.good += u64::from(self.now <= r.deadline);
            c.with_deadline += u64::from(r.deadline != NEVER);
            c.in_system -= 1;
            c.latency_sum += u128::from(self.now - r.arrival);
            c.queue_sum += u128::from(r.began - r.arrival);
            let latency = Nanos(self.now - r.arrival);
            if let Some(window) = self.open_window(t) {
                window.latencies.push(latency);
            }
            self.asks_again(t, 0);
            let tenant = t as u32;
            let arrival = Nanos(r.arrival);
            self.out.log.push((self.now, Happening::RequestDone { tenant, arrival }));
            if self.depth_of(t) >= Depth::Request {
                let latency = Nanos(self.now - r.arrival);
                let queued = Nanos(r.began - r.arrival);
                self.tell(Event::RequestDone { tenant, worker, latency, queued });
            }
        }
        // The worker is idle when all of its requests have been answered, not before.
        self.idle_again(w);
        if self.depth_of(t) >= Depth::Request {
            self.tell(Event::BatchDone { worker, items, took });
            self.close_window(t, Closes::WithBatch);
        }
        self.form(t, false);
    }

    /// Now, or at `from` if that is later.
    /// A tenant's statistics window, while it is open.
    fn open_window(&mut self, t: usize) -> Option<&mut Window> {
        let s = &mut self.sources[t];
        s.window.as_mut().filter(|_| s.open.is_some())
    }

    fn asks_again(&mut self, t: usize, from: u64) {
        let s = &mut self.sources[t];
        let Load::Closed { think, limit, .. } = &mut s.load else { return };
        if limit.is_some_and(|n| s.issued >= n) {
            return;
        }
        s.issued += 1;
        let pause = match think {
            Think::Constant(pause) => pause.0,
            Think::Exponential(mean, rng) => (rng.exp1() * mean.0 as f64) as u64,
        };
        self.set(self.now.max(from) + pause, Timer::Asks(t));
    }

    /// Takes a request off its queue.
    pub(super) fn unqueue(&mut self, id: RequestId) -> Pending {
        let queues = self.sources.iter_mut().map(|s| &mut s.queue);
        let mut found = queues.filter_map(|q| Some((q.iter().position(|r| r.id == id)?, q)));
        let (at, queue) = found.next().expect("a policy names what is queued");
        queue.remove(at).expect("it was found there")
    }

    pub(super) fn drop(&mut self, id: RequestId) {
        let queued = |s: &super::Source| s.queue.iter().any(|r| r.id == id);
        let t = self.sources.iter().position(queued).expect("a policy drops what is queued");
        self.unqueue(id);
        self.out.counts[t].dropped += 1;
        self.out.counts[t].in_system -= 1;
        self.out.log.push((self.now, Happening::Dropped { tenant: t as u32 }));
        self.asks_again(t, 0);
    }

    pub(super) fn count_late(&mut self) {
        let waiting = self.sources.iter().enumerate().map(|(t, s)| (t, s.queue.iter().collect()));
        let running =
            self.workers.iter().map(|w| (w.spec.tenant as usize, w.batch.iter().collect()));
        for (t, requests) in waiting.chain(running) {
            let requests: Vec<&Pending> = requests;
            let late = requests.into_iter().filter(|r| r.deadline < self.end).count();
            self.out.counts[t].in_flight_late += late as u64;
        }
    }
}
