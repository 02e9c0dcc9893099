//! The kernels among which a tuner chooses.

use super::{Config, Context, Group, KernelShape, LowerError, prepare};
use crate::device::Device;
use crate::roofline;
use crate::zoo::{Layer, ModelSpec};

/// An operator for which there is a choice of kernels.
#[derive(Clone, Debug, PartialEq)]
pub struct Operator {
    /// Readable, and the same for the same problem.
    pub name: String,
    /// How often the model computes it.
    pub launches: u32,
    /// The kernels on offer, in the order in which a library prefers them.
    pub variants: Vec<KernelShape>,
}

/// The operators of a model that a tuner has to decide about: dense convolutions and matrix
/// products, each distinct problem once, in the order of their first use.
///
/// # Errors
/// As [`super::lower`].
pub fn operators(
    spec: &ModelSpec,
    device: &Device,
    config: Config,
) -> Result<Vec<Operator>, LowerError> {
    let (context, groups) = prepare(spec, device, config, None)?;
    let mut operators: Vec<Operator> = vec![];
    for (name, variants) in groups.iter().filter_map(|g| context.variants(g)) {
        match operators.iter_mut().find(|o| o.name == name) {
            Some(known) => known.launches += 1,
            None => operators.push(Operator { name, launches: 1, variants }),
        }
    }
    Ok(operators)
}

/// The first of the kernels that is fastest on `cus` compute units: what a tuner that measures them
/// there takes. `None` of none.
#[must_use]
pub fn fastest_on<'a>(
    device: &Device,
    kernels: &'a [KernelShape],
    cus: u32,
) -> Option<&'a KernelShape> {
    kernels.iter().min_by_key(|k| roofline::duration_ns(device, k, cus))
}

impl Context<'_> {
    /// The kernels on offer for a group's operator, and its name; `None` where there is no choice.
    fn variants(&self, group: &Group<'_>) -> Option<(String, Vec<KernelShape>)> {
        if group.attention {
            return None;
        }
        let (problem, variants) = match &group.main.layer {
            Layer::Conv(c) if c.groups == 1 => {
                let problem = self.conv_problem(c, group);
                let variants = self.dense_variants(c, &problem);
                (problem, variants)
            }
            Layer::Linear(l) => {
                let problem = self.linear_problem(l, group);
                let variants = self.products(&problem);
                (problem, variants)
            }
            Layer::Matmul(p) => {
                let problem = self.batched_problem(p, group);
                let variants = self.products(&problem);
                (problem, variants)
            }
            _ => return None,
        };
        Some((problem.id, variants))
    }
}
