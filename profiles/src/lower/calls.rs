//! Kernels apart from any model: one layer, one product.

use super::{Config, Context, Group, KernelShape, Precision};
use crate::device::Device;
use crate::zoo::layer::Linear;
use crate::zoo::{Layer, Node};

/// The kernels of one layer.
#[must_use]
pub fn layer(device: &Device, layer: &Layer, config: Config) -> Vec<KernelShape> {
    let context = Context::new(device, config, None, false);
    let main = Node { layer: layer.clone(), inputs: vec![0], output: 1, in_place: false };
    context.kernels(&Group { main: &main, epilogue: Vec::new(), attention: false })
}

/// The kernel of a linear layer without bias: `m` rows, `n` columns, inner products of length `k`.
#[must_use]
pub fn linear(device: &Device, [m, n, k]: [u32; 3], precision: Precision) -> KernelShape {
    let linear = Linear { rows: m, in_features: k, out_features: n, bias: false };
    let config = Config { batch: 1, precision, fused: false };
    let mut kernels = layer(device, &Layer::Linear(linear), config);
    kernels.pop().expect("a linear layer is one kernel")
}
