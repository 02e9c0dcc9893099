//! Layer times of a generating model out of operator tables.

use std::collections::BTreeMap;

use super::super::{ImportError, LayerImport};
use super::{Call, LONGEST_NS, NEIGHBOURS, Operators, nearest};
use crate::Device;
use crate::files::{FileError, Problem};
use crate::lower::{AttentionCall, Precision, linear};
use crate::roofline;
use crate::steps::{LayerTimes, TimedLayer};
use crate::zoo::decoder::{Decoder, FeedForward, Matrix, StepLayer, StepShape};

/// The times of a decoder's products, attention and experts on a whole GPU, as [`LayerTimes`]: at every
/// number of rows that the tables hold, and at every call of attention. Experts need a table of just
/// their shape. A shape that was not measured takes
/// the computed time times what the nearest measured ones take over what they are computed to take;
/// layers that are neither stay as computed.
///
/// # Errors
/// Tables without a product.
pub fn aiconfigurator_layers(
    file: &str,
    operators: &Operators,
    device: &Device,
    model: &Decoder,
    precision: Precision,
) -> Result<(LayerImport, [usize; 2]), ImportError> {
    if operators.products.is_empty() {
        let wanted = format!("a product in {precision}");
        let problem = Problem::Value { text: "no row".to_owned(), wanted };
        return Err(FileError::bad(file, 1, "latency", problem));
    }
    let mut times = LayerTimes {
        model: model.name.to_string(),
        device: device.name.clone(),
        ..LayerTimes::default()
    };
    let facts = [("precision", precision.name()), ("tool", "AIConfigurator operator tables")];
    times.provenance.extend(facts.map(|(k, v)| (k.to_owned(), v.to_owned())));
    // Points of shapes that were measured, and of others.
    let mut points = [0, 0];
    products(&mut times, &mut points, operators, device, model, precision);
    attention(&mut times, &mut points, operators, device, model, precision);
    let timed = experts(&mut times, operators, model);
    points[0] += timed;
    let used = operators.products.len() + operators.calls.len() + timed;
    let dropped = operators.left(used).map(|(why, n)| (why.to_owned(), n)).collect();
    let (rows_in, rows_used) = (operators.rows.max(used) + operators.unread, used);
    Ok((LayerImport { times, rows_in, rows_used, dropped }, points))
}

fn products(
    times: &mut LayerTimes,
    points: &mut [usize; 2],
    operators: &Operators,
    device: &Device,
    model: &Decoder,
    precision: Precision,
) {
    let ours = |shape: [u32; 3]| {
        let kernel = linear(device, shape, precision);
        roofline::duration_ns(device, &kernel, device.cus()) as f64
    };
    let rows: std::collections::BTreeSet<u32> = operators.products.keys().map(|s| s[0]).collect();
    for (layer, n, k) in matrices(model) {
        for &m in &rows {
            let shape = [m, n, k];
            let ns = if let Some(&ns) = operators.products.get(&shape) {
                points[0] += 1;
                ns
            } else {
                points[1] += 1;
                let near = nearest(&operators.products, shape);
                let logs: f64 = near.iter().map(|&(s, ns)| libm::log(ns / ours(s))).sum();
                ours(shape) * libm::exp(logs / near.len().clamp(1, NEIGHBOURS) as f64)
            };
            times
                .rows
                .entry(layer)
                .or_default()
                .insert(m, ns.round().clamp(1.0, LONGEST_NS) as u64);
        }
    }
}

/// The experts of the model's layers at every number of tokens that was measured with just their
/// shape: the mean over how tokens spread. How many there are.
fn experts(times: &mut LayerTimes, operators: &Operators, model: &Decoder) -> usize {
    let FeedForward::Experts { experts, active, inner } = model.feed_forward else { return 0 };
    let wanted = [model.width, inner, active, experts];
    let of = operators.experts.iter().filter(|(shape, _)| shape[1..] == wanted);
    let mut timed = 0;
    for (&[tokens, ..], &(sum, n)) in of.filter(|(shape, _)| shape[0] > 0) {
        let ns = (sum / f64::from(n)).round().clamp(1.0, LONGEST_NS) as u64;
        times.rows.entry(TimedLayer::Moe).or_default().insert(tokens, ns);
        timed += 1;
    }
    timed
}

/// The products of a layer with columns and inner length. Experts are timed by other tables.
fn matrices(model: &Decoder) -> Vec<(TimedLayer, u32, u32)> {
    let step = model.step(&StepShape::new(&[], &[1]));
    let layers = step.segments.iter().flat_map(|s| &s.layers);
    layers
        .filter_map(|layer| match *layer {
            StepLayer::Linear { matrix, in_features, out_features, .. } => {
                let timed = match matrix {
                    Matrix::QkvProj => TimedLayer::QkvProj,
                    Matrix::OProj => TimedLayer::OProj,
                    Matrix::GateUpProj => TimedLayer::GateUpProj,
                    Matrix::DownProj => TimedLayer::DownProj,
                    Matrix::LmHead => TimedLayer::LmHead,
                    Matrix::Router => return None,
                };
                Some((timed, out_features, in_features))
            }
            _ => None,
        })
        .collect()
}

fn attention(
    times: &mut LayerTimes,
    points: &mut [usize; 2],
    operators: &Operators,
    device: &Device,
    model: &Decoder,
    precision: Precision,
) {
    let precision = precision.activations();
    let wanted = [model.heads, model.kv_heads, model.head_dim];
    // Of all layouts of heads that were measured, the nearest one.
    let apart = |call: &Call| -> f64 {
        let log = |n: u32| libm::log2(f64::from(n.max(1)));
        (0..3).map(|i| (log(call[3 + i]) - log(wanted[i])).abs()).sum()
    };
    let mut best: BTreeMap<[u32; 3], (f64, Call, f64)> = BTreeMap::new();
    for (call, &ns) in &operators.calls {
        let place = [call[0], call[1], call[2]];
        let distance = apart(call);
        if best.get(&place).is_none_or(|(d, ..)| distance < *d) {
            best.insert(place, (distance, *call, ns));
        }
    }
    for ([sequences, queries, context], (distance, [.., heads, kv_heads, head_dim], ns)) in best {
        let call = |[heads, kv_heads, head_dim]: [u32; 3]| {
            AttentionCall { sequences, queries, context, heads, kv_heads, head_dim }
                .duration_ns(device, precision) as f64
        };
        points[usize::from(distance > 0.0)] += 1;
        let ns = ns * call(wanted) / call([heads, kv_heads, head_dim]);
        let mut shape = StepShape::default();
        if queries > 1 {
            for _ in 0..sequences {
                shape.add_prefill(queries, context);
            }
        } else {
            shape.decode.sequences = sequences;
            shape.decode.context = u64::from(sequences) * u64::from(context);
        }
        let key = (shape.prefill, shape.decode);
        times.attention.insert(key, ns.round().clamp(1.0, LONGEST_NS) as u64);
    }
}
