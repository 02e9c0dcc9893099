//! What is illegal, rounded or ignored in files that others wrote.

use cotenant_deploy::{Found, Gpu, Plan, Sharing, TimeSlice, Weight};

use super::{device, read_all, tenant};

fn findings(path: &str, text: &str) -> Vec<String> {
    read_all([(path, text)].into_iter()).findings.iter().map(ToString::to_string).collect()
}

fn error(path: &str, text: &str) -> String {
    cotenant_deploy::read(path, text, &mut Found::new(device())).unwrap_err().to_string()
}

fn says(all: &[String], parts: &[&str]) -> bool {
    all.iter().any(|f| parts.iter().all(|p| f.contains(p)))
}

#[test]
fn a_mig_layout_that_does_not_fit_is_illegal() {
    let text = "version: v1\nmig-configs:\n  big:\n    - devices: all\n      mig-enabled: true\n      \
                mig-devices:\n        4g.40gb: 2\n";
    let all = findings("mig.yaml", text);
    assert!(says(&all, &["illegal: mig.yaml:5", "`4g`", "at most 1"]), "{all:#?}");
    let text = text.replace("4g.40gb: 2", "3g.40gb: 2\n        1g.10gb: 1");
    let all = findings("mig.yaml", &text);
    assert!(says(&all, &["illegal", "memory slices"]), "{all:#?}");
}

#[test]
fn mig_parted_refuses_what_its_grammar_does() {
    let text = |tail: &str| {
        format!(
            "version: v1\nmig-configs:\n  a:\n    - devices: [0]\n      mig-enabled: true\n{tail}"
        )
    };
    assert!(
        error("m.yaml", &text("      mig-device: {}\n")).contains("unknown field `mig-device`")
    );
    assert!(error("m.yaml", &text("")).contains("without `mig-devices`"));
    let minus = error("m.yaml", &text("      mig-devices: {1g.10gb: -1}\n"));
    assert!(minus.contains("m.yaml:6: mig-configs.a[0].mig-devices: counts"), "{minus}");
    let other = error("m.yaml", &text("      mig-devices: {1g.5gb: 1}\n"));
    assert!(other.contains("1g.10gb"), "{other}");
    assert!(
        error("m.yaml", &text("      mig-devices: {}\n").replace("v1", "v2"))
            .contains("version v1")
    );
    assert!(error("m.yaml", "mig-configs: [\n").contains("m.yaml:"));
}

#[test]
fn the_device_plugin_shares_equally_and_ignores_devices() {
    let text = "version: v1\nsharing:\n  mps:\n    resources:\n    - name: nvidia.com/gpu\n      \
                replicas: 3\n      devices: [0]\n  timeSlicing:\n    resources:\n    - name: \
                nvidia.com/gpu\n      replicas: 4\n";
    let all = findings("plugin.yaml", text);
    assert!(says(&all, &["ignored: plugin.yaml:8", "timeSlicing"]), "{all:#?}");
    assert!(says(&all, &["ignored: plugin.yaml:7", "devices", "never per GPU"]), "{all:#?}");
    assert!(says(&all, &["rounded", "33 % (42 of 132 SMs)"]), "{all:#?}");
    let mixed = format!("flags:\n  migStrategy: mixed\n{text}");
    assert!(says(&findings("plugin.yaml", &mixed), &["illegal: plugin.yaml:2"]));
    let one = error("p.yaml", &text.replace("replicas: 3", "replicas: 1"));
    assert!(
        one.contains("p.yaml:6: sharing.mps.resources[0].replicas: is required and at least 2"),
        "{one}"
    );
    assert!(error("p.yaml", "sharing:\n  mpi: {}\n").contains("not by `mpi`"));
}

#[test]
fn percentages_become_whole_steps() {
    let mut found = read_all(
        [
            ("a.env", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=33\n"),
            ("b.env", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=50\n"),
        ]
        .into_iter(),
    );
    let all: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
    assert!(says(&all, &["rounded: a.env:1", "33 % of 132 SMs is 43.56", "42 SMs"]), "{all:#?}");
    assert_eq!(all.len(), 1, "{all:#?}");
    let gpus = found.resolve(&[tenant("a", 1, 1), tenant("b", 1, 1)]).unwrap();
    assert_eq!(gpus[0].sharing, Sharing::Mps { percent: vec![33, 50] });
    let wrong = error("a.env", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=130\n");
    assert!(wrong.starts_with("a.env:1: CUDA_MPS_ACTIVE_THREAD_PERCENTAGE: `130`"), "{wrong}");
}

#[test]
fn a_client_can_only_lower_the_default() {
    let mut found = read_all(
        [
            (
                "start.sh",
                "export CUDA_MPS_PIPE_DIRECTORY=/tmp/p\nnvidia-cuda-mps-control -d\necho \
              set_default_active_thread_percentage 40 | nvidia-cuda-mps-control\n",
            ),
            ("a.env", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=60\n"),
        ]
        .into_iter(),
    );
    let gpus = found.resolve(&[tenant("a", 1, 1), tenant("b", 1, 1)]).unwrap();
    assert_eq!(gpus[0].sharing, Sharing::Mps { percent: vec![40, 40] });
}

#[test]
fn sixteen_chunks_are_one_too_many() {
    let script = |n: u32| {
        format!(
            "nvidia-cuda-mps-control -d -S\n# tenant=a\necho sm_partition add GPU-1 8 | \
             nvidia-cuda-mps-control\n# tenant=b\necho sm_partition add GPU-1 {n} | nvidia-cuda-mps-control\n"
        )
    };
    let all = findings("s.sh", &script(8));
    assert!(
        says(&all, &["illegal: s.sh:5", "16 chunks of 8 SMs", "strands 12 of its 132"]),
        "{all:#?}"
    );
    assert!(!says(&findings("s.sh", &script(7)), &["illegal"]));
    let mut found = read_all([("s.sh", script(7).as_str())].into_iter());
    let error = found.resolve(&[tenant("a", 1, 1), tenant("c", 1, 1)]).unwrap_err();
    assert!(error.contains("`c` has no static partition"), "{error}");
}

#[test]
fn tritons_own_syntax_is_read() {
    let text = r#"
name: "text"
platform: "onnxruntime_onnx"
max_batch_size: 16
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] } ]
instance_group [{ kind: KIND_GPU count: 2
  rate_limiter { resources [{ name: "R" count: 1 }] priority: 2 } }]
dynamic_batching { preferred_batch_size: [8, 16] max_queue_delay_microseconds: 2000
  priority_levels: 2 default_priority_level: 2
  default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 50000 max_queue_size: 64 } }
parameters: { key: "k" value: { string_value: "v" } }
"#;
    let mut found = read_all([("models/text/config.pbtxt", text)].into_iter());
    let all: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
    assert!(says(&all, &["ignored", "rate_limiter", "--rate-limit"]), "{all:#?}");
    assert!(says(&all, &["on every GPU"]), "{all:#?}");
    let gpus = found.resolve(&[tenant("text", 1, 1)]).unwrap();
    let t = &gpus[0].tenants[0];
    assert_eq!((t.workers, t.batch_max, t.batch_timeout.0), (2, 16, 2_000_000));
    assert_eq!(gpus[0].sharing, Sharing::Streams);
    let typo = error("config.pbtxt", "name: \"a\"\ninput [ ]\nmax_batch: 3\n");
    assert!(typo.starts_with("config.pbtxt:3: ") && typo.contains("max_batch"), "{typo}");
}

/// A claim under MPS, and a pod with it.
const CLAIM: &str = r#"
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: shared}
spec:
  devices:
    requests:
    - name: gpu
      exactly: {deviceClassName: gpu.nvidia.com}
    config:
    - requests: [gpu]
      opaque:
        driver: gpu.nvidia.com
        parameters:
          apiVersion: resource.nvidia.com/v1beta1
          kind: GpuConfig
          sharing:
            strategy: MPS
            mpsConfig: {defaultActiveThreadPercentage: 40}
---
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  resourceClaims: [{name: gpu, resourceClaimName: shared}]
  containers:
  - name: c
    image: x
    resources: {claims: [{name: gpu}]}
"#;

#[test]
fn claims_say_what_they_need() {
    let text = CLAIM;
    let mut found = read_all([("c.yaml", text)].into_iter());
    let all: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
    assert!(says(&all, &["MPSSupport", "off by default"]), "{all:#?}");
    let gpus = found.resolve(&[tenant("a", 3, 1)]).unwrap();
    assert_eq!(gpus[0].sharing, Sharing::Mps { percent: vec![40] });
    assert_eq!(gpus[0].tenants[0].workers, 1);
    let mixed = text.replace("strategy: MPS", "strategy: TimeSlicing");
    assert!(error("c.yaml", &mixed).contains("mpsConfig: is set beside the strategy TimeSlicing"));
}

#[test]
fn engines_with_defaults_do_not_fit_together() {
    let text = "# tenant=a\nvllm serve x\n# tenant=b\nvllm serve y --gpu-memory-utilization 0.5\n";
    let all = findings("run.sh", text);
    assert!(says(&all, &["illegal: run.sh:4", "1.42"]), "{all:#?}");
}

#[test]
fn green_contexts_round_up() {
    let text = "import torch\nSMS = {\"a\": 51, \"b\": 64}\nGreenContext\n";
    let all = findings("g.py", text);
    assert!(says(&all, &["rounded: g.py:2", "51 SMs: the driver rounds up to 52"]), "{all:#?}");
}

#[test]
fn fractions_of_schedulers_limit_nothing() {
    let pod = |extra: &str| format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n{extra}");
    let kai = pod("  annotations:\n    gpu-fraction: \"0.5\"\nspec:\n  containers: []\n");
    assert!(says(&findings("k.yaml", &kai), &["note", "limits neither memory nor compute"]));
    let hami = pod(
        "spec:\n  containers:\n  - name: c\n    image: x\n    resources:\n      limits:\n        \
         nvidia.com/gpu: 1\n        nvidia.com/gpumem: 1000\n        nvidia.com/gpucores: 30\n",
    );
    let mut found = read_all([("h.yaml", hami.as_str())].into_iter());
    let gpus = found.resolve(&[tenant("a", 1, 1)]).unwrap();
    assert_eq!(gpus[0].sharing, Sharing::TURNS);
    let all: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
    assert!(says(&all, &["rounded", "token bucket"]), "{all:#?}");
    assert!(says(&all, &["illegal", "tenant.a", "below the"]), "{all:#?}");
}

#[test]
fn an_unknown_file_is_refused_with_what_is_known() {
    assert!(error("x.txt", "hello").contains("mig-parted"));
    assert!(error("x.yaml", "a: 1\n").contains("neither a workload"));
    let mut nothing = Found::new(device());
    assert!(nothing.resolve(&[tenant("a", 1, 1)]).unwrap_err().contains("do not say how"));
}

#[test]
fn a_parvagpu_map_is_read() {
    let header = "Num instance,Num GPU,Model,Placement,Instance size,Batch size,Num proc\n";
    let read = |rows: &str| {
        let mut found = Found::new(device());
        cotenant_deploy::read("map.csv", &format!("{header}{rows}"), &mut found)
            .map_err(|e| e.to_string())?;
        Ok::<_, String>(found)
    };
    let mut found = read("0,0,text,0,4,8,3\n0,0,tiny,4,3,16,1\n1,0,text,0,1,2,2\n").unwrap();
    let gpus = found.resolve(&[tenant("text", 1, 1), tenant("tiny", 1, 1)]).unwrap();
    assert_eq!(gpus.len(), 2, "GPU 0 of each of two nodes");
    let settings = |g: &Gpu| g.tenants.iter().map(|t| (t.workers, t.batch_max)).collect::<Vec<_>>();
    assert_eq!(settings(&gpus[0]), [(3, 8), (1, 16)]);
    assert_eq!(settings(&gpus[1]), [(2, 2)]);
    let mig = |names: &[&str], place: &[usize]| Sharing::Mig {
        instances: names.iter().map(|&n| n.to_owned()).collect(),
        place: place.to_vec(),
        percent: vec![100; place.len()],
    };
    assert_eq!(gpus[0].sharing, mig(&["4g", "3g"], &[0, 1]));
    assert_eq!(gpus[1].sharing, mig(&["1g"], &[0]));
    // What no board holds, and what no file means.
    let found = read("0,0,text,0,4,8,3\n0,0,tiny,4,4,16,1\n").unwrap();
    assert!(found.findings.iter().any(|f| f.weight == Weight::Illegal), "{:?}", found.findings);
    for (rows, says) in [
        ("0,0,text,0,5,8,3\n", "map.csv:2: Instance size: 5 slices"),
        ("0,0,text,0,4,8,0\n", "map.csv:2: Num proc"),
        ("0,0,text,0,4,8,1\n0,0,text,0,many,8,1\n", "map.csv:3"),
        ("", "lists no instance"),
    ] {
        let said = read(rows).unwrap_err();
        assert!(said.contains(says), "{rows:?}: {said}");
    }
}

#[test]
fn turns_of_a_claim_have_a_length() {
    let turns =
        "strategy: TimeSlicing\n            timeSlicingConfig:\n              interval: Long";
    let mps = "strategy: MPS\n            mpsConfig: {defaultActiveThreadPercentage: 40}";
    let text = CLAIM.replace(mps, turns);
    let mut found = read_all([("c.yaml", text.as_str())].into_iter());
    let all: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
    assert!(says(&all, &["note: c.yaml:20", "does not publish how long Long is"]), "{all:#?}");
    let gpus = found.resolve(&[tenant("a", 1, 1)]).unwrap();
    assert_eq!(gpus[0].sharing, Sharing::TimeSlicing { slice: TimeSlice::Long });
    let wrong = error("c.yaml", &text.replace("interval: Long", "interval: long"));
    assert!(wrong.contains("c.yaml:20: sharing.interval: `long` is none of"), "{wrong}");
}

const V3: &str = r#"schema_version = "1.0"

[servers.gpu0]
allowed_devices = "GPU-1"
active_thread_percentage = "50"

[servers.gpu0.namespaces.a]
active_thread_percentage = "33"
pinned_memory_limit = "8G"

[servers.gpu0.namespaces.b]
active_thread_percentage = "67"
"#;

#[test]
fn namespaces_of_mps_v3_hold_over_what_clients_ask_for() {
    let client = ("b.env", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=20\n");
    let mut found = read_all([client, ("mps.toml", V3)].into_iter());
    let all: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
    assert!(says(&all, &["rounded: mps.toml:8", "33 % of 132 SMs is 43.56"]), "{all:#?}");
    assert!(says(&all, &["ignored: mps.toml:12", "67 %", "(20 %)"]), "{all:#?}");
    let gpus = found.resolve(&[tenant("a", 1, 1), tenant("b", 1, 1)]).unwrap();
    // The server's own limit is that of clients without a namespace.
    assert_eq!(gpus[0].sharing, Sharing::Mps { percent: vec![33, 67] });
    // Namespaces have no capitals; the tenant is the same in whatever order files are read.
    let toml = V3.replace("namespaces.b", "namespaces.vision_1");
    let env = "# tenant=Vision_1 gpu=0 processes=1\nCUDA_MPS_ACTIVE_THREAD_PERCENTAGE=20\n";
    let files = [("mps.toml", toml.as_str()), ("vision-1.env", env)];
    for files in [files, [files[1], files[0]]] {
        let mut found = read_all(files.into_iter());
        let gpus = found.resolve(&[tenant("a", 1, 1), tenant("Vision_1", 1, 1)]).unwrap();
        assert_eq!(gpus[0].sharing, Sharing::Mps { percent: vec![33, 67] });
    }
    let typo = findings("mps.toml", &V3.replace("pinned_memory_limit", "memory_limit"));
    assert!(says(&typo, &["illegal: mps.toml:9", "memory_limit", "no such key"]), "{typo:#?}");
    let name = findings("mps.toml", &V3.replace("namespaces.a", "namespaces.A-1"));
    assert!(says(&name, &["illegal", "lower-case letters"]), "{name:#?}");
    let broken = error("mps.toml", &V3.replace("\"33\"", "\"33"));
    assert!(broken.starts_with("mps.toml:"), "{broken}");
}

#[test]
fn partitions_of_mps_v3_are_read_from_commands_and_files() {
    let file = |chunks: u32, more: &str| {
        format!(
            "schema_version = \"1.0\"\n[servers.x]\n{more}\n[[servers.x.devices]]\nuuid = \"GPU-1\"\n\
             [[servers.x.devices.sm_partitions]]\nname = \"a\"\nchunks = 8\n\
             [[servers.x.devices.sm_partitions]]\nname = \"b\"\nchunks = {chunks}\ninclude_remainder = true\n"
        )
    };
    let script = "nvidia-cuda-mps-control -d -p 3\nnvidia-cuda-mps-control server create x\n\
                  nvidia-cuda-mps-control sm-partition create a --server=x --device=0 --chunks=8\n\
                  nvidia-cuda-mps-control sm-partition create b --server=x --device=0 chunks=7\n";
    for (path, text) in [("mps.toml", file(7, "")), ("start.sh", script.to_owned())] {
        let mut found = read_all([(path, text.as_str())].into_iter());
        let gpus = found.resolve(&[tenant("a", 1, 1), tenant("b", 1, 1)]).unwrap();
        assert_eq!(gpus[0].sharing, Sharing::Static { chunks: vec![8, 7] }, "{path}");
    }
    let all = findings("mps.toml", &file(8, "locality_domains = true"));
    assert!(says(&all, &["illegal: mps.toml:10", "16 chunks of 8 SMs", "strands 12"]), "{all:#?}");
    assert!(says(&all, &["illegal", "exclude each other"]), "{all:#?}");
    assert!(says(&all, &["note: mps.toml:10", "fill no chunk"]), "{all:#?}");
    let none = error("s.sh", "nvidia-cuda-mps-control sm-partition create a --server=x\n");
    assert!(none.contains("s.sh:1: sm-partition create: `` is not a number of chunks"), "{none}");
}

/// Before Hopper a chunk has 4 SMs under the older commands and 2 under MPS v3.
#[test]
fn chunks_differ_between_the_interfaces_before_hopper() {
    let device = || cotenant_profiles::Device::builtin("a100-sxm-40").unwrap();
    let read = |text: &str| {
        let mut found = Found::new(device());
        cotenant_deploy::read("s.sh", text, &mut found).unwrap();
        found.resolve(&[tenant("a", 1, 1)]).unwrap()[0].sharing.clone()
    };
    let chunks = |n: u32| Sharing::Static { chunks: vec![n] };
    let older = read("# tenant=a\necho sm_partition add GPU-1 5 | nvidia-cuda-mps-control\n");
    assert_eq!(older, chunks(10), "20 SMs in chunks of 2");
    let newer = read("nvidia-cuda-mps-control sm-partition create a --server=x --chunks=5\n");
    assert_eq!(newer, chunks(5), "10 SMs");
    // What the older commands cannot say is left to the newer.
    let plan = |n: u32| Plan {
        device: device(),
        header: vec![],
        gpus: vec![Gpu { sharing: chunks(n), tenants: vec![tenant("a", 1, 1)] }],
    };
    for (n, scripts) in [(10, 2), (5, 1)] {
        let files = cotenant_deploy::emit(&plan(n)).unwrap();
        let starts = files.iter().filter(|f| f.path.contains("/start")).count();
        assert_eq!(starts, scripts);
        let mut found = Found::new(device());
        for file in files.iter().filter(|f| !f.path.ends_with(".md")) {
            cotenant_deploy::read(&file.path, &file.text, &mut found).unwrap();
        }
        assert_eq!(found.resolve(&[tenant("a", 1, 1)]).unwrap()[0].sharing, chunks(n));
    }
}

#[test]
fn gpus_that_cannot_say_what_they_can() {
    let on = |device: &str, path: &str, text: &str| {
        let mut found = Found::new(cotenant_profiles::Device::builtin(device).unwrap());
        let read = cotenant_deploy::read(path, text, &mut found);
        (read.map_err(|e| e.to_string()), found)
    };
    // Before Volta a percentage has no effect.
    let (_, found) = on("p40", "a.env", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=40\n");
    let said = found.findings[0].to_string();
    assert!(said.starts_with("ignored: a.env:1") && said.contains("Volta"), "{said}");
    // AMD's have no MPS.
    let (_, found) = on("mi50", "a.env", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=40\n");
    let said = found.findings[0].to_string();
    assert!(said.starts_with("illegal: a.env") && said.contains("HSA_CU_MASK"), "{said}");
    let (_, found) = on("h100-sxm", "a.env", "HSA_CU_MASK=0:0-29\n");
    assert_eq!(found.findings[0].weight, Weight::Illegal);
    // Without instances, what there is in place of them.
    let mig = "version: v1\nmig-configs:\n  a:\n  - devices: all\n    mig-enabled: true\n    \
               mig-devices: {1g.10gb: 2}\n";
    let (read, _) = on("l4", "mig.yaml", mig);
    let why = read.unwrap_err();
    assert!(why.contains("time slicing, MPS or MPS percentages") && why.contains("a100-"), "{why}");
}

#[test]
fn masks_of_cus_come_back() {
    let device = cotenant_profiles::Device::builtin("mi50").unwrap();
    for sharing in [
        Sharing::TURNS,
        Sharing::Mps { percent: vec![100, 100] },
        Sharing::Static { chunks: vec![40, 20] },
    ] {
        let tenants = vec![tenant("Vision_1", 2, 1), tenant("text", 1, 1)];
        let gpus = vec![Gpu { sharing, tenants }];
        let plan = Plan { device: device.clone(), header: vec![], gpus };
        let files = cotenant_deploy::emit(&plan).unwrap();
        let nvidia = |text: &str| text.contains("nvidia") || text.contains("CUDA_");
        assert!(!files.iter().any(|f| nvidia(&f.text)), "{files:#?}");
        let own = files.iter().filter(|f| f.path.starts_with("rocm/"));
        // In any order.
        for reversed in [false, true] {
            let mut own: Vec<_> = own.clone().collect();
            if reversed {
                own.reverse();
            }
            let mut found = Found::new(device.clone());
            for file in own {
                cotenant_deploy::read(&file.path, &file.text, &mut found).unwrap();
            }
            let known: Vec<_> = plan.gpus[0].tenants.clone();
            assert_eq!(found.resolve(&known).unwrap(), plan.gpus);
            assert!(found.findings.is_empty(), "{:?}", found.findings);
        }
    }
    let mut found = Found::new(device.clone());
    let read = |name: &str, mask: &str, found: &mut Found| {
        let text = format!("export HSA_CU_MASK=\"{mask}\"\n");
        cotenant_deploy::read(&format!("{name}.env"), &text, found).map_err(|e| e.to_string())
    };
    read("a", "0:0-15,32", &mut found).unwrap();
    read("b", "0:0xF0000", &mut found).unwrap();
    assert!(found.findings.is_empty(), "{:?}", found.findings);
    read("c", "0:15-70", &mut found).unwrap();
    let said: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
    assert!(says(&said, &["ignored: c.env:1", "CU 60 of 60"]), "{said:#?}");
    assert!(says(&said, &["note: c.env:1", "shared with a, b"]), "{said:#?}");
    let known = ["a", "b", "c"].map(|name| tenant(name, 1, 1));
    let gpus = found.resolve(&known).unwrap();
    assert_eq!(gpus[0].sharing, Sharing::Static { chunks: vec![17, 4, 45] });
    assert!(read("d", "all", &mut found).unwrap_err().contains("0:0-29"));
    assert!(read("d", "0:9-3", &mut found).unwrap_err().contains("0:0-29"));
    // All of it beyond: said, and however long, no more than the GPU has is kept in mind.
    let before = found.findings.len();
    read("e", "0:5000-6000", &mut found).unwrap();
    read("f", &format!("0:{}", vec!["0-4294967295"; 100_000].join(",")), &mut found).unwrap();
    let said: Vec<String> = found.findings[before..].iter().map(ToString::to_string).collect();
    assert!(says(&said, &["ignored: e.env:1", "CU 5000 of 60"]), "{said:#?}");
    assert!(says(&said, &["ignored: f.env:1", "CU 60 of 60"]), "{said:#?}");
}
