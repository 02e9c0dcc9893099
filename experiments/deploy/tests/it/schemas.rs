//! Files against the grammar of those who read them: Kubernetes' own schemas, where Python's
//! `kubernetes-validate` is installed (`pip install kubernetes-validate`, also in the folder that
//! `COTENANT_KUBERNETES_VALIDATE` names: then the test is not skipped), the DRA driver's types, the MPS daemon's
//! configuration file, the shell. Triton's schema is part of the crate: reading parses by it.

use std::process::Command;

use cotenant_deploy::{Sharing, TimeSlice};
use serde::Deserialize as _;

use super::{sharings, three};

#[test]
fn kubernetes_files_keep_to_its_schemas() {
    let folder = std::env::var_os("COTENANT_KUBERNETES_VALIDATE");
    let python = |args: &[&str]| {
        let mut python = Command::new("python3");
        if let Some(folder) = &folder {
            python.env("PYTHONPATH", folder);
        }
        python.args(args);
        python
    };
    let there = python(&["-c", "import kubernetes_validate"]).output();
    if !there.as_ref().is_ok_and(|o| o.status.success()) {
        assert!(folder.is_none(), "{there:?}");
        eprintln!("skipped: Python has no kubernetes-validate");
        return;
    }
    let dir = std::env::temp_dir().join(format!("cotenant-deploy-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let mut paths = vec![];
    for (i, sharing) in sharings().into_iter().enumerate() {
        for file in cotenant_deploy::emit(&three(sharing)).unwrap() {
            let named = ["kubernetes.yaml", "dra.yaml", "kai.yaml", "hami.yaml"];
            if named.contains(&file.path.as_str()) {
                let path = dir.join(format!("{i}-{}", file.path));
                std::fs::write(&path, &file.text).unwrap();
                paths.push(path);
            }
        }
    }
    let program = "import sys, yaml, kubernetes_validate as k\n\
                   for f in sys.argv[1:]:\n    for d in yaml.safe_load_all(open(f)):\n        k.validate(d, '1.34', strict=True)\n";
    let said = python(&["-c", program]).args(&paths).output().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

/// Parameters of claims as the DRA driver's types have them (`resource.nvidia.com/v1beta1`,
/// dra-driver-nvidia-gpu at 9593204: `gpuconfig.go`, `migconfig.go`, `sharing.go`). Its decoder is strict: a
/// field that it does not know is an error.
mod dra {
    use serde::Deserialize;

    #[derive(Deserialize)]
    #[serde(tag = "kind")]
    pub(super) enum Parameters {
        GpuConfig(Config<Turns>),
        MigDeviceConfig(Config<Never>),
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct Config<T> {
        pub(super) api_version: String,
        pub(super) sharing: Sharing<T>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct Sharing<T> {
        pub(super) strategy: Strategy,
        pub(super) time_slicing_config: Option<T>,
        pub(super) mps_config: Option<Mps>,
    }

    #[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
    pub(super) enum Strategy {
        TimeSlicing,
        #[serde(rename = "MPS")]
        Mps,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Turns {
        pub(super) interval: Option<Interval>,
    }

    #[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
    pub(super) enum Interval {
        Default,
        Short,
        Medium,
        Long,
    }

    /// What no instance has.
    #[derive(Deserialize)]
    pub(super) enum Never {}

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct Mps {
        pub(super) default_active_thread_percentage: Option<u32>,
    }
}

/// The opaque parameters of every claim of a plan, and the requests that they are for.
fn parameters(sharing: Sharing) -> Vec<(dra::Parameters, Vec<String>)> {
    let files = cotenant_deploy::emit(&three(sharing)).unwrap();
    let Some(file) = files.iter().find(|f| f.path == "dra.yaml") else { return vec![] };
    let mut all = vec![];
    for document in serde_yaml_ng::Deserializer::from_str(&file.text) {
        let document = serde_yaml_ng::Value::deserialize(document).unwrap();
        if document["kind"] != "ResourceClaim" {
            continue;
        }
        let devices = &document["spec"]["devices"];
        let requests = devices["requests"].as_sequence().unwrap();
        for config in devices["config"].as_sequence().into_iter().flatten() {
            assert_eq!(config["opaque"]["driver"], "gpu.nvidia.com");
            let of: Vec<String> = serde_yaml_ng::from_value(config["requests"].clone()).unwrap();
            assert!(of.iter().all(|name| requests.iter().any(|r| r["name"] == name.as_str())));
            let parameters = serde_yaml_ng::from_value(config["opaque"]["parameters"].clone());
            all.push((parameters.unwrap(), of));
        }
    }
    all
}

#[test]
fn claims_keep_to_the_driver_s_types() {
    use dra::{Interval, Parameters, Strategy};
    let slices = [TimeSlice::Default, TimeSlice::Short, TimeSlice::Medium, TimeSlice::Long];
    let turns = slices.map(|slice| Sharing::TimeSlicing { slice });
    let mut seen = vec![];
    for sharing in sharings().into_iter().chain(turns) {
        for (parameters, _) in parameters(sharing.clone()) {
            let (version, strategy, interval, mps) = match parameters {
                Parameters::GpuConfig(c) => {
                    let s = c.sharing;
                    let interval = s.time_slicing_config.map(|t| t.interval.unwrap());
                    (c.api_version, s.strategy, interval, s.mps_config)
                }
                Parameters::MigDeviceConfig(c) => {
                    assert!(c.sharing.time_slicing_config.is_none());
                    (c.api_version, c.sharing.strategy, None, c.sharing.mps_config)
                }
            };
            assert_eq!(version, "resource.nvidia.com/v1beta1");
            // Settings of the other strategy beside one are an error.
            assert_eq!(interval.is_some(), strategy == Strategy::TimeSlicing, "{sharing:?}");
            let percent = mps.and_then(|m| m.default_active_thread_percentage);
            assert!(percent.is_none() || strategy == Strategy::Mps, "{sharing:?}");
            assert!(percent.is_none_or(|p| (1..=100).contains(&p)), "{sharing:?}");
            seen.extend(interval);
        }
    }
    for interval in [Interval::Default, Interval::Short, Interval::Medium, Interval::Long] {
        assert!(seen.contains(&interval), "{interval:?}");
    }
}

/// The configuration file of the MPS daemon as NVIDIA's documentation has it (releases 615 and 620, "MPS v3
/// Configuration File"): any other key is an error.
mod v3 {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct File {
        pub(super) schema_version: String,
        pub(super) servers: BTreeMap<String, Server>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Server {
        pub(super) active_thread_percentage: Option<String>,
        pub(super) namespaces: BTreeMap<String, Namespace>,
        #[serde(default)]
        pub(super) devices: Vec<Device>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Namespace {
        pub(super) active_thread_percentage: Option<String>,
        pub(super) pinned_memory_limit: Option<String>,
        pub(super) client_priority: Option<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Device {
        pub(super) uuid: String,
        pub(super) sm_partitions: Vec<Partition>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Partition {
        pub(super) name: String,
        pub(super) chunks: u32,
    }
}

#[test]
fn v3_files_keep_to_the_daemon_s_grammar() {
    let mut partitions = 0;
    for sharing in sharings() {
        for file in cotenant_deploy::emit(&three(sharing.clone())).unwrap() {
            if !file.path.ends_with("control-v3.toml") {
                continue;
            }
            let all: v3::File = toml::from_str(&file.text).unwrap();
            assert_eq!(all.schema_version, "1.0");
            let name = |n: &str| n.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
            let percent = |p: &Option<String>| {
                p.as_ref().is_none_or(|p| (1..=100).contains(&p.parse::<u32>().unwrap()))
            };
            for (server, s) in &all.servers {
                assert!(name(server) && percent(&s.active_thread_percentage));
                assert_eq!(s.namespaces.len(), 3);
                for (namespace, n) in &s.namespaces {
                    assert!(name(namespace) && percent(&n.active_thread_percentage));
                    let limit = n.pinned_memory_limit.as_deref();
                    let whole = |l: &str| l.strip_suffix('M').unwrap().parse::<u64>().is_ok();
                    assert!(limit.is_none_or(whole), "{limit:?}");
                    assert!(n.client_priority.as_deref().is_none_or(|p| p == "0" || p == "1"));
                }
                for device in &s.devices {
                    assert_eq!(device.uuid, "@UUID@", "start-v3.sh puts the GPU's in");
                    let chunks: u32 = device.sm_partitions.iter().map(|p| p.chunks).sum();
                    // An H100 has 16 chunks of 8 SMs, and 15 under MPS.
                    assert!(chunks <= 15, "{chunks}");
                    for p in &device.sm_partitions {
                        assert!(name(&p.name) && s.namespaces.contains_key(&p.name));
                        partitions += 1;
                    }
                }
            }
        }
    }
    assert_eq!(partitions, 3);
}

/// Scripts are a POSIX shell's.
#[test]
fn scripts_keep_to_the_shell_s_grammar() {
    for sharing in sharings() {
        for file in cotenant_deploy::emit(&three(sharing)).unwrap() {
            if !file.path.ends_with(".sh") {
                continue;
            }
            let mut sh = Command::new("sh");
            let mut sh = sh.arg("-n").stdin(std::process::Stdio::piped()).spawn().unwrap();
            std::io::Write::write_all(&mut sh.stdin.take().unwrap(), file.text.as_bytes()).unwrap();
            assert!(sh.wait().unwrap().success(), "{}:\n{}", file.path, file.text);
        }
    }
}
