//! Which layers share a kernel.

use super::Group;
use crate::zoo::layer::Function;
use crate::zoo::{Layer, ModelSpec, Node};

/// Every layer for itself.
pub(super) fn singles(spec: &ModelSpec) -> Vec<Group<'_>> {
    let single = |main| Group { main, epilogue: Vec::new(), attention: false };
    spec.nodes.iter().map(single).collect()
}

/// Layers merged as an inference compiler would: a convolution or matrix product takes the
/// normalisation, additions and activations behind it; pointwise chains become one kernel; the
/// chain from scores to context becomes one attention kernel. A layer joins only the layer right
/// before it in the list, and only if nobody else reads what lies between.
pub(super) fn groups(spec: &ModelSpec) -> Vec<Group<'_>> {
    let uses = uses(spec);
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut at = 0;
    while at < spec.nodes.len() {
        let main = &spec.nodes[at];
        if let Some(length) = attention_length(&spec.nodes[at..], &uses) {
            let epilogue = spec.nodes[at + 1..at + length].iter().collect();
            groups.push(Group { main, epilogue, attention: true });
            at += length;
            continue;
        }
        let mut group = Group { main, epilogue: Vec::new(), attention: false };
        at += 1;
        while let Some(next) = spec.nodes.get(at) {
            let previous = group.epilogue.last().map_or(main, |n| n);
            if uses[previous.output] != 1
                || !next.inputs.contains(&previous.output)
                || !joins(&main.layer, &next.layer)
            {
                break;
            }
            group.epilogue.push(next);
            at += 1;
        }
        groups.push(group);
    }
    groups
}

/// How many layers read each tensor; what the model returns counts as read once more.
fn uses(spec: &ModelSpec) -> Vec<u32> {
    let tensors = spec.nodes.iter().map(|n| n.output + 1).max().unwrap_or(0);
    let mut uses = vec![0; tensors];
    for &t in spec.nodes.iter().flat_map(|n| &n.inputs) {
        uses[t] += 1;
    }
    if let Some(last) = spec.nodes.last() {
        uses[last.output] += 1;
    }
    uses
}

fn joins(main: &Layer, next: &Layer) -> bool {
    let follows = matches!(next, Layer::Pointwise { .. } | Layer::BatchNorm { .. });
    match main {
        Layer::Conv(_) | Layer::Linear(_) => follows,
        Layer::BatchNorm { .. } | Layer::Pointwise { .. } => {
            follows || matches!(next, Layer::LayerNorm { .. })
        }
        _ => false,
    }
}

/// The length of `scores, scale, [mask], softmax, context` at the head of the list.
fn attention_length(nodes: &[Node], uses: &[u32]) -> Option<usize> {
    let chained = |i: usize| {
        let before = nodes.get(i.checked_sub(1)?)?.output;
        let node = nodes.get(i)?;
        (uses[before] == 1 && node.inputs.contains(&before)).then_some(&node.layer)
    };
    let is = |layer: Option<&Layer>, wanted: Function| matches!(layer, Some(Layer::Pointwise { function, .. }) if *function == wanted);
    if !matches!(nodes.first()?.layer, Layer::Matmul(_)) || !is(chained(1), Function::Scale) {
        return None;
    }
    let softmax = if is(chained(2), Function::Mask) { 3 } else { 2 };
    let parts = matches!(chained(softmax), Some(Layer::Softmax { .. }))
        && matches!(chained(softmax + 1), Some(Layer::Matmul(_)));
    parts.then_some(softmax + 2)
}
