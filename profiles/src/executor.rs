//! How a framework issues kernels: what the host pays for each.

use std::fmt;
use std::str::FromStr;

use crate::device::Device;
use crate::text;
use crate::units::Nanos;

/// How a framework issues the kernels of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Executor {
    /// One dispatch per operator (PyTorch, TensorFlow as they come).
    Eager,
    /// A compiled graph walks its kernels (TensorRT, TVM, `torch.compile`).
    Compiled,
    /// One launch of a captured CUDA graph per batch.
    Graphs,
}

impl Executor {
    /// Every executor.
    pub const ALL: [Self; 3] = [Self::Eager, Self::Compiled, Self::Graphs];

    /// The name that files use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Eager => "eager",
            Self::Compiled => "compiled",
            Self::Graphs => "graphs",
        }
    }

    /// What a model has whose file does not say: fused operators come from a compiler.
    #[must_use]
    pub fn of(fused: bool) -> Self {
        if fused { Self::Compiled } else { Self::Eager }
    }

    /// Host time before the launch at `position` of a batch. A kernel that a library starts within
    /// the call of another one (`helper`) costs no dispatch of its own, only the bare launch.
    #[must_use]
    pub fn host(self, device: &Device, position: usize, helper: bool) -> Nanos {
        let host = &device.host;
        match self {
            Self::Eager if helper => device.costs.launch.min(host.eager),
            Self::Eager => host.eager,
            Self::Compiled => host.compiled,
            Self::Graphs if position == 0 => host.graph_launch,
            Self::Graphs => host.graph_kernel,
        }
    }
}

impl fmt::Display for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No such executor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no executor `{name}`{hint}: eager, compiled and graphs are possible")]
pub struct ExecutorError {
    name: String,
    hint: String,
}

impl FromStr for Executor {
    type Err = ExecutorError;
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|e| e.name() == name.trim()).ok_or_else(|| ExecutorError {
            name: name.to_owned(),
            hint: text::did_you_mean(name, Self::ALL.iter().map(|e| e.name())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executor_decides_what_a_launch_costs_the_host() {
        let device = Device::builtin("a100-sxm-80").expect("it ships");
        let host = |e: Executor, position, helper| e.host(&device, position, helper);
        assert_eq!(host(Executor::Eager, 3, false), device.host.eager);
        assert_eq!(host(Executor::Eager, 3, true), device.costs.launch);
        assert_eq!(host(Executor::Compiled, 0, false), device.host.compiled);
        assert!(host(Executor::Graphs, 0, false) > host(Executor::Graphs, 1, false));
        assert_eq!("graphs".parse(), Ok(Executor::Graphs));
        let error = "graph".parse::<Executor>().unwrap_err().to_string();
        assert!(error.contains("did you mean `graphs`"), "{error}");
    }
}
