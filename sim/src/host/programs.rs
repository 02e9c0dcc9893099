//! Every program's launches in one table.

use crate::scenario::Setup;

/// One launch of a program.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// An index into the setup's kernels.
    pub kernel: u32,
    /// When the host has issued it, after it began the pass.
    pub issued_ns: u64,
}

/// The launches of all programs, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    steps: Vec<Step>,
    /// By tenant and program: where its launches begin, and how many.
    spans: Vec<Vec<(u32, u32)>>,
}

impl Programs {
    /// Those of every tenant's model.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        let mut programs = Self::default();
        for tenant in &setup.tenants {
            let mut spans = vec![];
            for program in &tenant.model.programs {
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

    /// Where the launches of a tenant's program begin, and how many they are.
    #[inline]
    #[must_use]
    pub fn span(&self, tenant: u32, program: u32) -> (u32, u32) {
        self.spans[tenant as usize][program as usize]
    }

    /// Launch number `position` of the program whose launches begin at `first`.
    #[inline]
    #[must_use]
    pub fn step(&self, first: u32, position: u32) -> Step {
        self.steps[(first + position) as usize]
    }

    /// Host time of that launch.
    #[must_use]
    pub fn launch_ns(&self, first: u32, position: u32) -> u64 {
        let before = if position > 0 { self.step(first, position - 1).issued_ns } else { 0 };
        self.step(first, position).issued_ns - before
    }
}
