//! What no device can be, however well its file reads.

use super::{Costs, Device, MAX_CUS, Mechanism, Mig, MigProfile, Resident};

/// Field and message of the first thing that cannot be.
type Fault = (String, String);

fn ensure(right: bool, field: &str, message: impl FnOnce() -> String) -> Result<(), Fault> {
    if right { Ok(()) } else { Err((field.to_owned(), message())) }
}

fn positive(field: &str, value: f64) -> Result<(), Fault> {
    ensure(value.is_finite() && value > 0.0, field, || format!("{value} must be above 0"))
}

/// A rate within what can be built: a factor of a hundred and more around all that is sold.
fn rate(field: &str, value: f64, low: f64, high: f64) -> Result<(), Fault> {
    ensure((low..=high).contains(&value), field, || {
        format!("{value} is not plausible: give a value from {low} to {high}")
    })
}

fn not_negative(field: &str, value: f64) -> Result<(), Fault> {
    ensure(value.is_finite() && value >= 0.0, field, || format!("{value} must be 0 or more"))
}

fn in_range(field: &str, value: u64, low: u64, high: u64) -> Result<(), Fault> {
    ensure((low..=high).contains(&value), field, || format!("{value} must be from {low} to {high}"))
}

pub(super) fn check(d: &Device) -> Result<(), Fault> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    ensure(!d.name.is_empty() && d.name.chars().all(plain), "name", || {
        format!("`{}` must be letters, digits, `-`, `_` and `.`", d.name)
    })?;
    topology(d)?;
    rates(d)?;
    sharing(d)?;
    if let Some(mig) = &d.mig {
        instances(d, mig)?;
    }
    models(d)
}

fn topology(d: &Device) -> Result<(), Fault> {
    let t = &d.topology;
    ensure(!t.groups.is_empty(), "topology.groups", || "at least one group of CUs".to_owned())?;
    ensure(t.groups.iter().all(|&g| g > 0), "topology.groups", || {
        "a group of 0 CUs: every group has at least one".to_owned()
    })?;
    let cus: u64 = t.groups.iter().map(|&g| u64::from(g)).sum();
    ensure(cus <= u64::from(MAX_CUS), "topology.groups", || {
        format!("{cus} CUs in all: at most {MAX_CUS}")
    })?;
    in_range("topology.threads_per_cu", t.threads_per_cu.into(), 1, 1 << 16)?;
    in_range("topology.blocks_per_cu", t.blocks_per_cu.into(), 1, 1 << 16)?;
    in_range("topology.registers_per_cu", t.registers_per_cu.into(), 1, u32::MAX.into())?;
    in_range("topology.smem_per_cu", t.smem_per_cu.0, 1, u32::MAX.into())
}

fn rates(d: &Device) -> Result<(), Fault> {
    rate("clock.boost_mhz", d.clock.boost_mhz, 10.0, 1e5)?;
    rate("compute.fp32_tflops", d.compute.fp32_tflops, 1e-3, 1e6)?;
    rate("compute.tf32_tflops", d.compute.tf32_tflops, 1e-3, 1e6)?;
    rate("compute.fp16_tflops", d.compute.fp16_tflops, 1e-3, 1e6)?;
    if let Some(tflops) = d.compute.bf16_tflops {
        rate("compute.bf16_tflops", tflops, 1e-3, 1e6)?;
    }
    if let Some(tflops) = d.compute.fp8_tflops {
        rate("compute.fp8_tflops", tflops, 1e-3, 1e6)?;
    }
    rate("compute.int8_tops", d.compute.int8_tops, 1e-3, 1e6)?;
    in_range("memory.capacity", d.memory.capacity.0, 1, 1 << 50)?;
    rate("memory.dram_gbps", d.memory.dram_gbps, 0.1, 1e6)?;
    in_range("memory.l2", d.memory.l2.0, 1, 1 << 50)?;
    rate("memory.l2_gbps", d.memory.l2_gbps, 0.1, 1e6)?;
    rate("pcie.h2d_gbps", d.pcie.h2d_gbps, 0.01, 1e5)?;
    rate("pcie.d2h_gbps", d.pcie.d2h_gbps, 0.01, 1e5)?;
    in_range("pcie.copy_engines", d.pcie.copy_engines.into(), 1, 64)
}

fn sharing(d: &Device) -> Result<(), Fault> {
    let cus = u64::from(d.cus());
    in_range("queues.hardware", d.queues.hardware.into(), 1, 1 << 16)?;
    in_range("mask.min_cus", d.mask.min_cus.into(), 1, cus)?;
    in_range("mask.step_cus", d.mask.step_cus.into(), 1, cus)?;
    if let Some(mps) = d.mps {
        in_range("mps.round_cus", mps.round_cus.into(), 1, cus)?;
        in_range("mps.max_clients", mps.max_clients.into(), 1, 1 << 16)?;
        in_range("mps.chunk_cus", mps.chunk_cus.into(), 1, cus)?;
        let handed_out = u64::from(mps.chunk_cus) * u64::from(mps.chunks);
        ensure(handed_out <= cus, "mps.chunks", || {
            format!("{} chunks of {} CUs are more than {cus}", mps.chunks, mps.chunk_cus)
        })?;
    }
    in_range("costs.quantum", d.costs.quantum.0, 1, 3_600_000_000_000)?;
    in_range("costs.load_mbps", d.costs.load_mbps.into(), 1, u32::MAX.into())?;
    effects(&d.costs)
}

/// What mechanisms do to resident work is part of how they are carried out: a file states it, and
/// cannot change it.
fn effects(c: &Costs) -> Result<(), Fault> {
    use Resident::{Drains, Keeps, Restarts, Saves};
    let all: [(&str, Mechanism, Resident); 17] = [
        ("context_switch", c.context_switch, Saves),
        ("context_yield", c.context_yield, Keeps),
        ("stream_hop", c.stream_hop, Keeps),
        ("barrier", c.barrier, Keeps),
        ("mask_ioctl", c.mask_ioctl, Keeps),
        ("mask_tpc", c.mask_tpc, Keeps),
        ("mask_firmware", c.mask_firmware, Keeps),
        ("kernel_intercept", c.kernel_intercept, Keeps),
        ("kernel_slice", c.kernel_slice, Keeps),
        ("preempt_reset", c.preempt_reset, Restarts),
        ("preempt_blocks", c.preempt_blocks, Drains),
        ("preempt_save", c.preempt_save, Saves),
        ("clock_switch", c.clock_switch, Keeps),
        ("process_start", c.process_start, Keeps),
        ("shadow_switch", c.shadow_switch, Drains),
        ("mig_destroy", c.mig_destroy, Restarts),
        ("mig_create", c.mig_create, Restarts),
    ];
    for (name, mechanism, does) in all {
        ensure(mechanism.resident == does, &format!("costs.{name}.resident"), || {
            format!(
                "`{}`: it {} what runs; write \"{}\"",
                mechanism.resident.name(),
                does.name(),
                does.name()
            )
        })?;
    }
    Ok(())
}

fn instances(d: &Device, mig: &Mig) -> Result<(), Fault> {
    in_range("mig.compute_slices", mig.compute_slices.into(), 1, 32)?;
    in_range("mig.memory_slices", mig.memory_slices.into(), 1, 32)?;
    ensure(!mig.profiles.is_empty(), "mig.profiles", || "at least one profile".to_owned())?;
    for (i, p) in mig.profiles.iter().enumerate() {
        profile(d, mig, p, &format!("mig.profiles[{i}]"))?;
        let twice = mig.profiles[..i].iter().any(|other| other.name == p.name);
        ensure(!twice, &format!("mig.profiles[{i}].name"), || {
            format!("`{}` is there twice", p.name)
        })?;
    }
    Ok(())
}

fn profile(d: &Device, mig: &Mig, p: &MigProfile, at: &str) -> Result<(), Fault> {
    let slices = u64::from(mig.memory_slices);
    ensure(!p.name.is_empty(), &format!("{at}.name"), || "a name".to_owned())?;
    in_range(&format!("{at}.cus"), p.cus.into(), 1, d.cus().into())?;
    in_range(&format!("{at}.compute"), p.compute.into(), 1, mig.compute_slices.into())?;
    in_range(&format!("{at}.memory"), p.memory.into(), 1, slices)?;
    in_range(&format!("{at}.l2_slices"), p.l2_slices.into(), 1, slices)?;
    in_range(&format!("{at}.capacity"), p.capacity.0, 1, d.memory.capacity.0)?;
    in_range(&format!("{at}.copy_engines"), p.copy_engines.into(), 1, 64)?;
    let field = format!("{at}.starts");
    ensure(!p.starts.is_empty(), &field, || "at least one start".to_owned())?;
    for (i, &start) in p.starts.iter().enumerate() {
        let end = u64::from(start) + u64::from(p.memory);
        ensure(end <= slices, &field, || {
            format!("start {start} with {} slices ends beyond {slices}", p.memory)
        })?;
        ensure(!p.starts[..i].contains(&start), &field, || format!("start {start} twice"))?;
    }
    in_range(&format!("{at}.max"), p.max.into(), 1, p.starts.len() as u64)?;
    // As many CUs as its most numerous legal set needs must exist.
    let all = u64::from(p.cus) * u64::from(p.max);
    ensure(all <= u64::from(d.cus()), &format!("{at}.max"), || {
        format!("{} instances of {} CUs are more than {}", p.max, p.cus, d.cus())
    })
}

fn models(d: &Device) -> Result<(), Fault> {
    let c = &d.contention;
    not_negative("contention.l2_penalty", c.l2_penalty)?;
    let finite = c.linear.iter().chain(&c.igniter_sched_ns).all(|x| x.is_finite());
    ensure(finite, "contention.linear", || "every coefficient must be finite".to_owned())?;
    not_negative("contention.igniter_cache", c.igniter_cache)?;
    not_negative("contention.igniter_mhz_per_watt", c.igniter_mhz_per_watt)?;
    not_negative("power.idle_w", d.power.idle_w)?;
    not_negative("power.active_w", d.power.active_w)?;
    not_negative("power.cu_w", d.power.cu_w)?;
    positive("power.vector_pj_per_flop", d.power.vector_pj_per_flop)?;
    positive("power.matrix_pj_per_flop", d.power.matrix_pj_per_flop)?;
    not_negative("power.dram_pj_per_byte", d.power.dram_pj_per_byte)?;
    ensure(d.power.cap_w.is_finite() && d.power.cap_w > d.power.idle_w, "power.cap_w", || {
        format!("{} must be above idle_w, {}", d.power.cap_w, d.power.idle_w)
    })?;
    for (field, share) in [
        ("analytic.matmul_efficiency", d.analytic.matmul_efficiency),
        ("analytic.conv_efficiency", d.analytic.conv_efficiency),
        ("analytic.grouped_efficiency", d.analytic.grouped_efficiency),
        ("analytic.dram_efficiency", d.analytic.dram_efficiency),
    ] {
        ensure(share > 0.0 && share <= 1.0, field, || format!("{share} must be above 0, up to 1"))?;
    }
    let serial = d.analytic.serial_share;
    ensure((0.0..=1.0).contains(&serial), "analytic.serial_share", || {
        format!("{serial} must be from 0 to 1")
    })?;
    in_range(
        "analytic.dram_saturating_cus",
        d.analytic.dram_saturating_cus.into(),
        1,
        d.cus().into(),
    )
}
