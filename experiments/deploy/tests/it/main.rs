//! Plans written, read back, and what reading says of files that others wrote.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod findings;
mod round_trip;
mod schemas;

use cotenant_deploy::{Found, Gpu, Plan, Sharing, Tenant, TimeSlice};
use cotenant_profiles::{Bytes, Device, Nanos};

fn device() -> Device {
    Device::builtin("h100-sxm").unwrap()
}

fn tenant(name: &str, workers: u32, batch_max: u32) -> Tenant {
    Tenant {
        name: name.to_owned(),
        model: format!("{name}_model"),
        requests: 1.0,
        workers,
        batch_max,
        batch_timeout: if batch_max > 1 { Nanos::from_millis(2) } else { Nanos::ZERO },
        slo: None,
        best_effort: false,
        memory: Bytes(3 << 30),
        engine: None,
    }
}

fn plan(gpus: Vec<Gpu>) -> Plan {
    let header = vec!["mix: vision, text".to_owned(), "cotenant 0.1.0".to_owned()];
    Plan { device: device(), header, gpus }
}

/// Three tenants on one GPU.
fn three(sharing: Sharing) -> Plan {
    plan(vec![Gpu {
        sharing,
        tenants: vec![tenant("Vision_1", 2, 8), tenant("text", 1, 4), tenant("tiny", 1, 1)],
    }])
}

/// Every sharing, for three tenants with 2, 1 and 1 workers.
fn sharings() -> Vec<Sharing> {
    let mig = |instances: &[&str], place: &[usize], percent: &[u32]| Sharing::Mig {
        instances: instances.iter().map(|&i| i.to_owned()).collect(),
        place: place.to_vec(),
        percent: percent.to_vec(),
    };
    vec![
        Sharing::TURNS,
        Sharing::TimeSlicing { slice: TimeSlice::Long },
        Sharing::Streams,
        Sharing::Mps { percent: vec![100, 100, 100] },
        Sharing::Mps { percent: vec![25, 25, 25] },
        Sharing::Mps { percent: vec![60, 30, 100] },
        Sharing::Static { chunks: vec![8, 5, 2] },
        mig(&["3g", "2g", "1g"], &[0, 1, 2], &[100; 3]),
        mig(&["3g", "3g"], &[0, 1, 0], &[100, 100, 100]),
        mig(&["4g", "3g"], &[1, 0, 0], &[100, 70, 40]),
    ]
}

/// Reads files as one deployment.
fn read_all<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Found {
    let mut found = Found::new(device());
    for (path, text) in files.filter(|(p, _)| !p.ends_with(".md")) {
        cotenant_deploy::read(path, text, &mut found).unwrap_or_else(|e| panic!("{e}\n{text}"));
    }
    found
}
