//! The GPU's timeline: an observer that records events, and prints them as text for tests and as Chrome
//! trace events (which Perfetto opens) for people.

use std::fmt::Write as _;

use cotenant_profiles::Nanos;

use crate::observe::{Happening, Observer};
use crate::program::Code;

/// Records all events between two instants, up to a limit.
#[derive(Clone, Debug)]
pub struct Timeline {
    rows: Vec<(Nanos, Happening)>,
    from: Nanos,
    to: Nanos,
    limit: usize,
    lost: u64,
}

impl Timeline {
    /// Records at most `limit` events within `from..to`.
    #[must_use]
    pub fn new(from: Nanos, to: Nanos, limit: usize) -> Self {
        Self { rows: vec![], from, to, limit, lost: 0 }
    }

    /// The number of events within the window that exceeded the limit and were not recorded.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The recorded events, in time order.
    #[must_use]
    pub fn rows(&self) -> &[(Nanos, Happening)] {
        &self.rows
    }

    /// One line per event: the time in ns, what happened, and the tenant, worker or pool. `names` are the
    /// tenants' names.
    #[must_use]
    pub fn text(&self, names: &[&str]) -> String {
        let mut out = String::new();
        for (now, what) in &self.rows {
            let at = now.0;
            let line = match *what {
                Happening::Arrived { tenant } => format!("arrive   {}", names[tenant as usize]),
                Happening::BatchBegan { worker, items } => format!("begin    w{worker} {items}"),
                Happening::Granted { worker, kernel, cus } => {
                    format!("grant    w{worker} k{kernel} {cus}")
                }
                Happening::KernelEnded { worker, kernel } => {
                    format!("end      w{worker} k{kernel}")
                }
                Happening::BatchEnded { worker, items } => format!("batch    w{worker} {items}"),
                Happening::RequestDone { tenant, arrival } => {
                    format!("done     {} {}", names[tenant as usize], at - arrival.0)
                }
                Happening::Dropped { tenant } => format!("drop     {}", names[tenant as usize]),
                Happening::Switching { pool, lane } => format!("switch   p{pool} c{lane}"),
                Happening::WorkerUp { worker } => format!("up       w{worker}"),
                Happening::WorkerDown { worker } => format!("down     w{worker}"),
                Happening::Busy { pool, cus } => format!("busy     p{pool} {cus}"),
            };
            writeln!(out, "{at:>12} {line}").expect("writing to a string");
        }
        out
    }

    /// Chrome trace events (JSON): a track per worker with its kernels, a counter of busy CUs per pool, and
    /// instants for other events. `workers` names each worker's track.
    #[must_use]
    pub fn chrome(&self, workers: &dyn Fn(u32) -> String, code: &Code) -> String {
        let mut out = String::from("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n");
        let mut first = true;
        let mut named: Vec<bool> = vec![];
        // Per worker: the kernel on the CUs, since when, and on how many CUs.
        let mut open: Vec<Option<(u32, Nanos, u32)>> = vec![];
        let mut push = |event: String| {
            if !std::mem::take(&mut first) {
                out.push_str(",\n");
            }
            out.push_str(&event);
        };
        let slice = |worker: u32, kernel: u32, from: Nanos, to: Nanos, cus: u32| {
            let name = code.kernels.get(kernel as usize).map_or("merged", |k| &k.id);
            format!(
                "{{\"ph\":\"X\",\"pid\":0,\"tid\":{worker},\"name\":{},\"ts\":{},\"dur\":{},\
                 \"args\":{{\"cus\":{cus}}}}}",
                quoted(name),
                micros(from),
                micros(to.since(from)),
            )
        };
        for &(now, what) in &self.rows {
            let worker = match what {
                Happening::Granted { worker, .. }
                | Happening::KernelEnded { worker, .. }
                | Happening::WorkerUp { worker }
                | Happening::WorkerDown { worker } => worker,
                Happening::Busy { pool, cus } => {
                    push(format!(
                        "{{\"ph\":\"C\",\"pid\":0,\"name\":\"busy CUs, pool {pool}\",\"ts\":{},\
                         \"args\":{{\"CUs\":{cus}}}}}",
                        micros(now)
                    ));
                    continue;
                }
                _ => continue,
            };
            let w = worker as usize;
            if named.len() <= w {
                named.resize(w + 1, false);
                open.resize(w + 1, None);
            }
            if !std::mem::replace(&mut named[w], true) {
                push(format!(
                    "{{\"ph\":\"M\",\"pid\":0,\"tid\":{worker},\"name\":\"thread_name\",\
                     \"args\":{{\"name\":{}}}}}",
                    quoted(&workers(worker))
                ));
            }
            if let Some((kernel, from, cus)) = open[w].take()
                && now > from
            {
                push(slice(worker, kernel, from, now, cus));
            }
            match what {
                Happening::Granted { kernel, cus, .. } if cus > 0 => {
                    open[w] = Some((kernel, now, cus));
                }
                Happening::WorkerUp { .. } | Happening::WorkerDown { .. } => {
                    let name =
                        if matches!(what, Happening::WorkerUp { .. }) { "up" } else { "down" };
                    push(format!(
                        "{{\"ph\":\"i\",\"s\":\"t\",\"pid\":0,\"tid\":{worker},\"name\":\"{name}\",\
                         \"ts\":{}}}",
                        micros(now)
                    ));
                }
                _ => {}
            }
        }
        out.push_str("\n]}\n");
        out
    }
}

impl Observer for Timeline {
    fn happened(&mut self, now: Nanos, what: Happening) {
        if now < self.from || now >= self.to {
            return;
        }
        if self.rows.len() < self.limit {
            self.rows.push((now, what));
        } else {
            self.lost += 1;
        }
    }
}

/// Microseconds with three decimals, the unit of the trace format.
fn micros(t: Nanos) -> String {
    format!("{}.{:03}", t.0 / 1000, t.0 % 1000)
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_preempted_and_resumed_is_two_slices() {
        let mut t = Timeline::new(Nanos::ZERO, Nanos::MAX, 100);
        let granted = |cus| Happening::Granted { worker: 0, kernel: 0, cus };
        t.happened(Nanos(1000), granted(80));
        t.happened(Nanos(3000), granted(0));
        t.happened(Nanos(7500), granted(80));
        t.happened(Nanos(8500), Happening::KernelEnded { worker: 0, kernel: 0 });
        let json = t.chrome(&|w| format!("a \"{w}\""), &Code::default());
        assert_eq!(json.matches("\"ph\":\"X\"").count(), 2, "{json}");
        assert!(json.contains("\"ts\":1.000,\"dur\":2.000"), "{json}");
        assert!(json.contains("\"ts\":7.500,\"dur\":1.000"), "{json}");
        assert!(json.contains(r#""name":"a \"0\"""#), "{json}");
    }

    #[test]
    fn what_the_limit_keeps_out_is_counted() {
        let mut t = Timeline::new(Nanos(5), Nanos(10), 1);
        for at in [4, 5, 6, 10] {
            t.happened(Nanos(at), Happening::Arrived { tenant: 0 });
        }
        assert_eq!(t.text(&["a"]), "           5 arrive   a\n");
        assert_eq!(t.lost(), 1);
    }
}
