//! Writes the device file with the measured lines.

use std::path::{Path, PathBuf};

use cotenant_profiles::device::Mechanism;
use cotenant_profiles::{Device as GpuDescription, Nanos};

use super::{Cost, CostError, Request, STAND_IN, write_whole};
use crate::device::{DeviceInfo, Kind};

/// One line: its table and key, its value as TOML, and the cost that it comes from.
struct Line<'a> {
    table: &'static str,
    key: &'static str,
    value: String,
    cost: &'a Cost,
}

/// Writes `NAME.toml` into `folder`. Returns its path and the measured keys.
pub(super) fn write(
    request: &Request,
    folder: &Path,
    info: &DeviceInfo,
    costs: &[Cost],
) -> Result<(PathBuf, Vec<String>), CostError> {
    let stand_in = info.kind != Kind::Gpu;
    let lines = lines(&request.device, costs);
    let mut text = request.text.clone();
    let date = crate::collect::today();
    for line in &lines {
        let spread = format!(
            "{} of {} samples, p05 {:.4}, p95 {:.4} {}",
            line.cost.step,
            line.cost.samples.len(),
            line.cost.quantile(5).unwrap_or(0.0),
            line.cost.quantile(95).unwrap_or(0.0),
            line.cost.unit
        );
        let source = if stand_in {
            format!("knob: {STAND_IN}")
        } else {
            format!("measured: {date}, CUDA {}, {spread}; {}", info.driver, line.cost.note)
        };
        text = with_line(&text, line.table, line.key, &format!("{}  # {source}", line.value));
    }
    let name = if stand_in { "stand-in" } else { request.device.name.as_str() };
    if stand_in {
        text = with_line(&text, "", "name", &format!("\"stand-in\"  # {STAND_IN}"));
        text = with_line(&text, "", "title", &format!("\"NOT A MEASUREMENT\"  # {STAND_IN}"));
    }
    let path = folder.join(format!("{name}.toml"));
    GpuDescription::parse(&text, &path.display().to_string())
        .map_err(|e| CostError::DeviceFile(e.to_string()))?;
    write_whole(&path, &text)?;
    Ok((path, lines.iter().map(|l| format!("{}.{}", l.table, l.key)).collect()))
}

fn lines<'a>(device: &GpuDescription, costs: &'a [Cost]) -> Vec<Line<'a>> {
    let find = |step: &str| {
        let cost = costs.iter().find(|c| c.step == step)?;
        cost.quantile(50).map(|median| (cost, median))
    };
    let mut lines = Vec::new();
    let mut put = |table, key, step: &str, value: &dyn Fn(f64) -> Option<String>| {
        let Some((cost, median)) = find(step) else { return false };
        let Some(value) = value(median) else { return false };
        lines.push(Line { table, key, value, cost });
        true
    };
    let c = &device.costs;
    let time = |ns: f64| Some(format!("\"{}\"", Nanos(ns.max(0.0).round() as u64)));
    let held = |m: Mechanism| {
        move |ns: f64| Some(mechanism(Mechanism { cost: Nanos(ns.max(0.0).round() as u64), ..m }))
    };
    put("costs", "launch", "launch", &time);
    put("costs", "quantum", "quantum", &time);
    put("costs", "context_switch", "context_switch", &held(c.context_switch));
    // A policy's masks are partitions, so it pays for the hop between partitions.
    if !put("costs", "stream_hop", "partition_hop", &held(c.stream_hop)) {
        put("costs", "stream_hop", "stream_hop", &held(c.stream_hop));
    }
    put("costs", "barrier", "barrier", &held(c.barrier));
    let start = c.process_start;
    put("costs", "process_start", "process_start", &|ns| {
        Some(mechanism(Mechanism { delay: Nanos(ns.round() as u64), ..start }))
    });
    let rate = |v: f64| Some(format!("{v:.1}"));
    put("pcie", "h2d_gbps", "h2d", &rate);
    put("pcie", "d2h_gbps", "d2h", &rate);
    put("memory", "l2_gbps", "l2_read", &rate);
    let pins = device.memory.dram_gbps;
    // The share of the pins' bandwidth that a kernel reaches. A share above one would be a measurement
    // error.
    put("analytic", "dram_efficiency", "dram_read", &|v| {
        (v <= pins).then(|| format!("{:.3}", (v / pins).max(0.001)))
    });
    if device.mps.is_some() {
        put("mps", "round_cus", "mps_round_cus", &|v| Some(format!("{v}")));
    }
    lines
}

/// A mechanism in the notation of device files.
fn mechanism(m: Mechanism) -> String {
    let mut parts = Vec::new();
    if m.cost != Nanos::ZERO {
        parts.push(format!("cost = \"{}\"", m.cost));
    }
    if m.delay != Nanos::ZERO {
        parts.push(format!("delay = \"{}\"", m.delay));
    }
    parts.push(format!("resident = \"{}\"", m.resident.name()));
    format!("{{ {} }}", parts.join(", "))
}

/// `text` with the line of `key` in `table` replaced by `key = value`, or with that line added if there
/// is none.
#[must_use]
pub fn with_line(text: &str, table: &str, key: &str, value: &str) -> String {
    let mut here = table.is_empty();
    let (mut out, mut done) = (Vec::new(), false);
    let line_of = |l: &str| l.split_once('=').is_some_and(|(k, _)| k.trim() == key);
    for line in text.lines() {
        if line.starts_with('[') {
            if here && !done {
                out.push(format!("{key} = {value}"));
                done = true;
            }
            here =
                line.trim_end().split('#').next().is_some_and(|l| l.trim() == format!("[{table}]"));
        }
        if here && !done && line_of(line) {
            out.push(format!("{key} = {value}"));
            done = true;
        } else {
            out.push(line.to_owned());
        }
    }
    if here && !done {
        out.push(format!("{key} = {value}"));
    }
    out.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_lines_take_the_place_of_the_others_and_read_again() {
        let device = GpuDescription::builtin("h200-sxm").unwrap();
        let text = GpuDescription::builtin_text("h200-sxm").unwrap();
        let cost = |step: &str, value: f64| Cost::of(step, "ns", vec![value], "");
        let costs = [
            cost("launch", 2345.4),
            cost("partition_hop", 3210.0),
            cost("stream_hop", 99.0),
            cost("process_start", 4.2e8),
            cost("dram_read", 4000.0),
            cost("h2d", 55.25),
            cost("mps_round_cus", 2.0),
            Cost::none("quantum", "ns", "no second process"),
        ];
        let lines = lines(&device, &costs);
        let mut new = text.to_owned();
        for l in &lines {
            new = with_line(&new, l.table, l.key, &format!("{}  # measured: test", l.value));
        }
        let read = GpuDescription::parse(&new, "test").unwrap();
        assert_eq!(read.costs.launch, Nanos(2345));
        assert_eq!(read.costs.stream_hop.cost, Nanos(3210));
        assert_eq!(read.costs.stream_hop.resident, device.costs.stream_hop.resident);
        assert_eq!(read.costs.process_start.delay, Nanos::from_millis(420));
        assert_eq!(read.costs.quantum, device.costs.quantum, "what was not measured stays");
        assert!((read.analytic.dram_efficiency - 4000.0 / 4800.0).abs() < 1e-3);
        assert_eq!((read.pcie.h2d_gbps, read.pcie.d2h_gbps), (55.2, device.pcie.d2h_gbps));
        assert_eq!(new.lines().count(), text.lines().count());
        assert_eq!(new.matches("# measured: test").count(), lines.len());
        assert!(mechanism(Mechanism::FREE).contains("keeps"));
    }

    #[test]
    fn a_key_that_is_not_there_is_put_into_its_table() {
        let text = "a = 1\n[x]\nb = 2\n[y]\nb = 3\n";
        assert_eq!(with_line(text, "x", "c", "4"), "a = 1\n[x]\nb = 2\nc = 4\n[y]\nb = 3\n");
        assert_eq!(with_line(text, "y", "b", "5"), "a = 1\n[x]\nb = 2\n[y]\nb = 5\n");
        assert_eq!(with_line(text, "", "a", "6"), "a = 6\n[x]\nb = 2\n[y]\nb = 3\n");
    }
}
