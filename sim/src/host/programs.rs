//! The launches of every program, in one table.

pub use crate::program::Step;
use crate::scenario::Setup;

/// The launches of all programs, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    steps: Vec<Step>,
    /// By tenant and program: the index of its first launch, and the number of launches.
    spans: Vec<Vec<(u32, u32)>>,
    /// By worker: the index of the first launch that was loaded for it, the number of them, and the
    /// capacity reserved there.
    loaded: Vec<(u32, u32, u32)>,
}

impl Programs {
    /// The programs of every tenant's model.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        let mut programs = Self::default();
        for tenant in &setup.tenants {
            let mut spans = vec![];
            for program in tenant.model.programs.iter() {
                spans.push((programs.steps.len() as u32, program.kernels.len() as u32));
                let steps = program.kernels.iter().zip(&program.issued_ns);
                programs
                    .steps
                    .extend(steps.map(|(&kernel, &issued_ns)| Step { kernel, issued_ns }));
            }
            programs.spans.push(spans);
        }
        programs
    }

    /// The index of the first launch of a tenant's program, and the number of launches.
    #[inline]
    #[must_use]
    pub fn span(&self, tenant: u32, program: u32) -> (u32, u32) {
        self.spans[tenant as usize][program as usize]
    }

    /// Stores a worker's own launches, in place of those loaded before. Returns the index of the first one,
    /// and their number.
    pub fn load(&mut self, worker: u32, steps: &[Step]) -> (u32, u32) {
        let worker = worker as usize;
        let workers = self.loaded.len().max(worker + 1);
        self.loaded.resize(workers, (0, 0, 0));
        let (first, count, room) = &mut self.loaded[worker];
        *count = steps.len() as u32;
        if *count > *room {
            *room = count.next_power_of_two();
            *first = self.steps.len() as u32;
            let end = self.steps.len() + *room as usize;
            self.steps.resize(end, Step { kernel: 0, issued_ns: 0 });
        }
        self.steps[*first as usize..][..steps.len()].copy_from_slice(steps);
        (*first, *count)
    }

    /// The index of the first of a worker's loaded launches, and their number.
    #[must_use]
    pub fn loaded(&self, worker: u32) -> (u32, u32) {
        let (first, count, _) = self.loaded[worker as usize];
        (first, count)
    }

    /// Launch `position` of the program whose first launch is at index `first`.
    #[inline]
    #[must_use]
    pub fn step(&self, first: u32, position: u32) -> Step {
        self.steps[(first + position) as usize]
    }

    /// Host time of that launch, ns.
    #[must_use]
    pub fn launch_ns(&self, first: u32, position: u32) -> u64 {
        let before = if position > 0 { self.step(first, position - 1).issued_ns } else { 0 };
        self.step(first, position).issued_ns - before
    }
}
