//! Watches over processes as they start, report, fall silent and go.

use std::time::{Duration, Instant};

use cotenant_profiles::{Bytes, Nanos};
use cotenant_sim::layout::WorkerSpec;

use super::{Member, Processes, ROUND};
use crate::device::End;
use crate::drive::{Ended, Lost};
use crate::error::DeviceError;
use crate::process::handle::{Heard, Process};
use crate::process::messages::{Assignment, Command, Message, Program, Site};

impl Processes {
    pub(super) fn start(
        &mut self,
        worker: u32,
        spec: &WorkerSpec,
        memory: Bytes,
    ) -> Result<Member, DeviceError> {
        let model = &self.setup.tenants[spec.tenant as usize].model;
        let programs = model
            .programs
            .iter()
            .map(|p| Program { kernels: p.kernels.clone(), issued_ns: p.issued_ns.clone() });
        let WorkerSpec { pool, lane, cap, priority, .. } = *spec;
        let mut command = self.launcher.command();
        let (on, gpu) = self.ground.prepare(&mut command, &self.setup, spec)?;
        let assignment = Assignment {
            parent: 0,
            counters: String::new(),
            on,
            site: Site { pool, lane, cap, priority },
            memory: memory.0,
            programs: programs.collect(),
            copies: self.copies(spec),
        };
        let token = self.next_token;
        self.next_token += 1;
        let inbox = self.inbox.clone();
        let process = Process::start(command, assignment, gpu, token, inbox)
            .map_err(|e| DeviceError::Gone(format!("a worker process does not start: {e}")))?;
        self.owners.insert(token, worker);
        self.started.processes += 1;
        if let Some(announced) = &self.announced {
            // If the receiver has gone, the message is not missed.
            let _ = announced.send((worker, process.id()));
        }
        let (up, running, failed, since) = (false, None, None, Instant::now());
        Ok(Member { process, token, spec: *spec, up, running, failed, since })
    }

    /// Most bytes that a worker of this tenant copies in and out at once.
    fn copies(&self, spec: &WorkerSpec) -> [u64; 2] {
        let tenant = &self.setup.tenants[spec.tenant as usize];
        let items = u64::from(tenant.batch_max.max(1));
        let (input, output) = (tenant.model.input_per_item, tenant.model.output_per_item);
        [input, output].map(|bytes| bytes.0.saturating_mul(items))
    }

    /// Memory that a worker of this tenant takes: model and context.
    pub(super) fn memory(&self, spec: &WorkerSpec) -> Bytes {
        let model = &self.setup.tenants[spec.tenant as usize].model;
        Bytes(model.memory().0 + spec.overhead.0)
    }

    pub(super) fn let_go(&mut self, mut member: Member) {
        self.owners.remove(&member.token);
        // A process that has already gone does not need the message.
        let _ = member.process.say(&Command::Retire);
        self.leaving.push((member.process, Instant::now()));
    }

    /// The process with this token, and whether it is a shadow.
    pub(super) fn member(&mut self, token: u64) -> Option<(u32, &mut Member, bool)> {
        let worker = *self.owners.get(&token)?;
        let slot = self.slots.get_mut(worker as usize)?;
        let is = |m: &&mut Member| m.token == token;
        match slot.member.as_mut().filter(is) {
            Some(member) => Some((worker, member, false)),
            None => Some((worker, slot.shadow.as_mut().filter(is)?, true)),
        }
    }

    pub(super) fn heard(&mut self, token: u64, heard: Heard) {
        let clock = self.clock;
        // A process that was let go may still send messages.
        let Some((worker, member, _)) = self.member(token) else { return };
        match heard {
            Heard::Message(Message::Up { cus }) => {
                member.up = true;
                let spec = member.spec;
                let other = self.ground.share(&spec).is_some_and(|asked| asked != cus);
                self.deviations.other_cus += u64::from(other);
            }
            Heard::Message(Message::Ended { number, at, copies_left_out, .. }) => {
                if member.running.take_if(|n| *n == number).is_some() {
                    self.ended.push(Ended { worker, at: clock.in_run(Nanos(at)), end: End::Done });
                    self.deviations.copies_left_out += u64::from(copies_left_out);
                }
            }
            Heard::Message(Message::Failed { kind, reason }) => {
                member.failed = Some((kind, reason));
            }
            Heard::Closed => {
                /// A killed process has ended by now; a process that is tearing its context down has
                /// not.
                const SOON: Duration = Duration::from_millis(200);
                let status = member.process.ends_within(SOON);
                let status = status.map_or_else(String::new, |s| s.to_string());
                let (cause, why) = match member.failed.take() {
                    Some((kind, reason)) => (kind.cause(), reason),
                    None => ("worker-killed", format!("its process ended: {status}")),
                };
                self.lose(token, cause, why);
            }
        }
    }

    /// A process has gone. If it was a shadow, its worker stays as it was.
    pub(super) fn lose(&mut self, token: u64, cause: &'static str, why: String) {
        let Some((worker, _, is_shadow)) = self.member(token) else { return };
        let slot = &mut self.slots[worker as usize];
        let gone = if is_shadow { slot.shadow.take() } else { slot.member.take() };
        self.owners.remove(&token);
        if let Some(member) = gone {
            member.process.hang_up();
            self.leaving.push((member.process, Instant::now()));
        }
        self.lost.push(Lost { worker, shadow: is_shadow, cause, why });
    }

    /// Looks after the processes: kills silent ones, and waits for those that were let go.
    pub(super) fn look(&mut self) {
        if self.looked.elapsed() < ROUND {
            return;
        }
        self.looked = Instant::now();
        let patience = self.patience;
        let mut silent = vec![];
        for slot in &mut self.slots {
            for m in slot.member.iter_mut().chain(&mut slot.shadow) {
                let quiet = m.process.silent();
                let (limit, quiet) = match m.up {
                    true => (patience.silence, quiet),
                    false => (patience.start, m.since.elapsed()),
                };
                if quiet > limit {
                    silent.push((m.token, limit));
                }
            }
        }
        for (token, limit) in silent {
            if let Some((_, member, _)) = self.member(token) {
                member.process.kill();
            }
            let why = format!("it gave no sign of life for {} s", limit.as_secs_f64());
            self.lose(token, "worker-hung", why);
        }
        self.leaving.retain_mut(|(process, since)| {
            let done = process.ended().is_some();
            if !done && since.elapsed() > patience.silence {
                process.kill();
                return false;
            }
            !done
        });
    }

    pub(super) fn drain_letters(&mut self) {
        while let Ok((token, heard)) = self.letters.try_recv() {
            self.heard(token, heard);
        }
    }
}
