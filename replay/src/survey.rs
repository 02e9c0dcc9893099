//! Surveys what this machine's GPU and driver can do for collection, capture and replay, and what is
//! missing.

use crate::cuda::{self, CudaDevice, Granularity, LibraryState};
use crate::device::{Device, Kind};
use crate::mps::{self, MpsError};
use crate::nvml::Nvml;

/// Something that is available or missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked for.
    pub what: &'static str,
    /// Whether it can be used.
    pub works: bool,
    /// What was found, or what is missing and how to get it.
    pub detail: String,
}

fn found(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { what, works: true, detail: detail.into() }
}

fn missing(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { what, works: false, detail: detail.into() }
}

/// Checks everything. It never fails, whatever the machine lacks.
#[must_use]
pub fn survey() -> Vec<Finding> {
    let mut findings = Vec::new();
    driver(&mut findings);
    for (library, state) in cuda::libraries() {
        findings.push(match state {
            LibraryState::Found(name) => {
                found(library.title, format!("{name} ({})", library.purpose))
            }
            LibraryState::Missing(_) if library.title == "NVML" => missing(
                library.title,
                format!("{} comes with the driver ({})", library.names[0], library.purpose),
            ),
            LibraryState::Missing(_) => missing(
                library.title,
                format!(
                    "{} is not on the loader's path ({}): pip install {}, then add its lib folder \
                     to LD_LIBRARY_PATH",
                    library.names[0], library.purpose, library.package
                ),
            ),
        });
    }
    findings.push(match mps::find_program() {
        Some(path) => found("MPS", path.display().to_string()),
        None => missing("MPS", MpsError::Missing.to_string()),
    });
    findings
}

fn driver(findings: &mut Vec<Finding>) {
    let probe = match cuda::probe() {
        Ok(probe) => probe,
        Err(why) => {
            findings.push(missing("driver", why.to_string()));
            findings.push(missing("GPU", "there is no driver to ask"));
            findings.push(missing("green contexts", "they need a driver and a GPU"));
            return;
        }
    };
    let stand_in = if probe.stand_in { ", a stand-in: nothing here is a GPU" } else { "" };
    findings.push(found("driver", format!("CUDA {}{stand_in}", probe.cuda_version())));
    let device = match CudaDevice::open(0, Granularity::Fine) {
        Ok(device) => device,
        Err(why) => {
            findings.push(missing("GPU", why.to_string()));
            return;
        }
    };
    let info = device.info();
    let count = if probe.devices > 1 {
        format!("; {} in all, number 0 is used", probe.devices)
    } else {
        String::new()
    };
    let detail = format!("{}, {} SMs, {}{count}", info.name, info.cus, info.memory);
    let works = info.kind == Kind::Gpu;
    findings.push(Finding { what: "GPU", works, detail });
    if let Err(why) = device.require_partitions() {
        findings.push(missing("green contexts", why.to_string()));
    } else {
        let coarse = CudaDevice::open(0, Granularity::Coarse);
        let coarse = coarse.map_or_else(
            |e| e.to_string(),
            |c| {
                format!(
                    "{} groups of {}",
                    c.divisible_cus() / c.info().grain.max(1),
                    c.info().grain
                )
            },
        );
        let (fine, grain) = (device.divisible_cus() / info.grain.max(1), info.grain);
        let detail = format!("{fine} atoms of {grain} SMs, or {coarse}");
        findings.push(found("green contexts", detail));
    }
    if let Ok(nvml) = Nvml::open(&info.uuid) {
        findings.push(match nvml.mig() {
            Some(true) => found("MIG", "on: its instances are used as they are"),
            Some(false) => missing("MIG", "off; cotenant never turns it on: nvidia-smi -mig 1"),
            None => missing("MIG", "this GPU has none"),
        });
    }
}
