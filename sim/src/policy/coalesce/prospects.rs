//! Which other streams will reach a kernel of a class, and how soon.

use super::law::ALONE;
use super::under_way;
use crate::scenario::Setup;
use crate::view::{View, Worker};

/// By program and class: the next kernel of the class from each position on.
#[derive(Debug, Default)]
pub(super) struct Prospects {
    /// By tenant: where its programs begin in `programs`.
    tenants: Vec<usize>,
    programs: Vec<Upcoming>,
}

#[derive(Debug, Default)]
struct Upcoming {
    /// By kernel: the class's row in `next`, or [`ALONE`]; classes are named by a kernel.
    row: Vec<u32>,
    /// Rows of one entry per position and one more.
    next: Vec<u32>,
    width: usize,
}

impl Prospects {
    pub(super) fn new(setup: &Setup, class: &[u32]) -> Self {
        let mut all = Self::default();
        for tenant in &setup.tenants {
            all.tenants.push(all.programs.len());
            for program in tenant.model.programs.iter() {
                let mut upcoming = Upcoming {
                    row: vec![ALONE; class.len()],
                    width: program.kernels.len() + 1,
                    next: vec![],
                };
                let mut rows = 0;
                for &k in &program.kernels {
                    let c = class[k as usize];
                    if c != ALONE && upcoming.row[c as usize] == ALONE {
                        upcoming.row[c as usize] = rows;
                        rows += 1;
                        upcoming.next.extend(positions(&program.kernels, class, c));
                    }
                }
                all.programs.push(upcoming);
            }
        }
        all
    }

    /// How many streams reach a kernel of `class` within `ns` of GPU time, at most `most`; streams that
    /// already hold one are not counted.
    pub(super) fn within(&self, view: &View<'_>, class: u32, ns: u64, most: usize) -> usize {
        let mut count = 0;
        // Steps of generating models are put together as they come: they are not known in advance.
        let known = |w: &&Worker| under_way(w.status) && w.step.is_none();
        for w in view.workers.iter().filter(known) {
            let model = &view.setup.tenants[w.spec.tenant as usize].model;
            let items = (w.items as usize).min(model.program_for.len() - 1);
            let index = model.program_for[items] as usize;
            let upcoming = &self.programs[self.tenants[w.spec.tenant as usize] + index];
            let program = &model.programs[index];
            let at = w.position as usize;
            // A held or running kernel is behind us; one that the host has yet to issue is not.
            let from = at + usize::from(w.status != crate::view::Status::Host);
            let row = upcoming.row[class as usize];
            if row == ALONE {
                continue;
            }
            let next = upcoming.next[row as usize * upcoming.width + from] as usize;
            let held = w.status == crate::view::Status::Held
                && upcoming.next[row as usize * upcoming.width + at] as usize == at;
            if held || next + 1 >= upcoming.width {
                continue;
            }
            let reach = program.remaining_ns[at] - program.remaining_ns[next];
            count += usize::from(reach <= ns);
            if count >= most {
                break;
            }
        }
        count
    }
}

/// By position: the next one of a kernel of the class; the length if there is none.
fn positions(kernels: &[u32], class: &[u32], wanted: u32) -> Vec<u32> {
    let mut next = kernels.len() as u32;
    let mut row: Vec<u32> = std::iter::once(next)
        .chain(kernels.iter().enumerate().rev().map(|(i, &k)| {
            if class[k as usize] == wanted {
                next = i as u32;
            }
            next
        }))
        .collect();
    row.reverse();
    row
}
