//! What is written is read as what it was written from.

use cotenant_deploy::{Engine, Gpu, Sharing, Tenant, TimeSlice, Weight};

use super::{plan, read_all, sharings, tenant, three};

#[test]
fn every_sharing_comes_back() {
    for sharing in sharings() {
        let plan = three(sharing.clone());
        let files = cotenant_deploy::emit(&plan).unwrap();
        let mut found = read_all(files.iter().map(|f| (f.path.as_str(), f.text.as_str())));
        // The mix knows other settings than the plan: the files' own count.
        let known: Vec<Tenant> = plan.gpus[0]
            .tenants
            .iter()
            .map(|t| Tenant { workers: 1, batch_max: 1, ..t.clone() })
            .collect();
        let back = found.resolve(&known).unwrap_or_else(|e| panic!("{sharing:?}: {e}"));
        assert_eq!(back, plan.gpus, "{sharing:?}");
        let bad: Vec<_> = found.findings.iter().filter(|f| f.weight == Weight::Illegal).collect();
        assert!(bad.is_empty(), "{sharing:?}: {bad:?}");
    }
}

#[test]
fn each_kubernetes_file_alone_comes_back() {
    let names = ["kubernetes.yaml", "dra.yaml", "kai.yaml", "hami.yaml"];
    for sharing in sharings() {
        let plan = three(sharing.clone());
        let files = cotenant_deploy::emit(&plan).unwrap();
        let slices =
            matches!(&sharing, Sharing::TimeSlicing { slice } if *slice != TimeSlice::Default);
        for file in files.iter().filter(|f| names.contains(&f.path.as_str())) {
            // Nobody else can say how long a turn is.
            if slices && file.path != "dra.yaml" {
                continue;
            }
            let alone = [(file.path.as_str(), file.text.as_str())];
            let with: Vec<_> = files
                .iter()
                .filter(|f| f.path == "device-plugin.yaml" && file.path == "kubernetes.yaml")
                .map(|f| (f.path.as_str(), f.text.as_str()))
                .collect();
            let mut found = read_all(alone.into_iter().chain(with));
            let back = found.resolve(&plan.gpus[0].tenants).unwrap();
            assert_eq!(back[0].sharing, sharing, "{}", file.path);
        }
    }
}

#[test]
fn several_gpus_and_split_tenants_come_back() {
    let half = |gpu: usize| Tenant {
        requests: if gpu == 0 { 0.75 } else { 0.25 },
        ..tenant("vision", 1 + gpu as u32, 8)
    };
    let mig = Sharing::Mig {
        instances: vec!["4g".to_owned(), "3g".to_owned()],
        place: vec![0, 1],
        percent: vec![100, 100],
    };
    for second in [mig.clone(), Sharing::TURNS] {
        let same = second == mig;
        let first = if same { mig.clone() } else { Sharing::TURNS };
        let plan = plan(vec![
            Gpu { sharing: first, tenants: vec![half(0), tenant("text", 1, 4)] },
            Gpu { sharing: second, tenants: vec![half(1), tenant("tiny", 1, 1)] },
        ]);
        let files = cotenant_deploy::emit(&plan).unwrap();
        let mut found = read_all(files.iter().map(|f| (f.path.as_str(), f.text.as_str())));
        let known = [tenant("vision", 1, 1), tenant("text", 1, 1), tenant("tiny", 1, 1)];
        let mut back = found.resolve(&known).unwrap();
        for gpu in &mut back {
            for t in &mut gpu.tenants {
                // `known` says nothing of batches that Triton's files do not override.
                assert!(t.requests > 0.0);
            }
        }
        assert_eq!(back, plan.gpus);
    }
}

#[test]
fn instances_planned_in_any_order_come_back() {
    let planned = Sharing::Mig {
        instances: vec!["3g".to_owned(), "4g".to_owned()],
        place: vec![0, 1, 0],
        percent: vec![100; 3],
    };
    let files = cotenant_deploy::emit(&three(planned.clone())).unwrap();
    let mut found = read_all(files.iter().map(|f| (f.path.as_str(), f.text.as_str())));
    let back = found.resolve(&three(planned).gpus[0].tenants).unwrap();
    let Sharing::Mig { instances, place, .. } = &back[0].sharing else { panic!("{back:?}") };
    let on: Vec<&str> = place.iter().map(|&p| instances[p].as_str()).collect();
    assert_eq!(on, ["3g", "4g", "3g"]);
}

#[test]
fn an_engine_keeps_to_its_fraction() {
    let own = |cache| Engine { memory_fraction: Some(0.04), cache, step_tokens: 2048 };
    let engine = |name: &str| Tenant { engine: Some(own(None)), ..tenant(name, 1, 64) };
    let plan = plan(vec![Gpu {
        sharing: Sharing::Mps { percent: vec![100, 100] },
        tenants: vec![engine("chat"), engine("code")],
    }]);
    let files = cotenant_deploy::emit(&plan).unwrap();
    let chat = files.iter().find(|f| f.path == "engines/chat.sh").unwrap();
    assert!(chat.text.contains("--gpu-memory-utilization 0.04"), "{}", chat.text);
    assert!(chat.text.contains("--max-num-batched-tokens 2048"), "{}", chat.text);
    assert!(!files.iter().any(|f| f.path.starts_with("triton/")));
    let mut found = read_all(files.iter().map(|f| (f.path.as_str(), f.text.as_str())));
    assert_eq!(found.resolve(&plan.gpus[0].tenants).unwrap(), plan.gpus);
}

#[test]
fn what_a_format_cannot_say_is_said() {
    let readme = |sharing| {
        let files = cotenant_deploy::emit(&three(sharing)).unwrap();
        files.into_iter().find(|f| f.path == "README.md").unwrap().text
    };
    let unequal = readme(Sharing::Mps { percent: vec![60, 30, 100] });
    assert!(unequal.contains("gives every one of 4 clients 25 %"), "{unequal}");
    let fixed = readme(Sharing::Static { chunks: vec![8, 5, 2] });
    assert!(fixed.contains("knows no static partitions"), "{fixed}");
    assert!(fixed.contains("| mps/ |"), "{fixed}");
}

#[test]
fn a_gpu_for_each_shares_nothing_and_comes_back() {
    let gpu = |name: &str| Gpu { sharing: Sharing::TURNS, tenants: vec![tenant(name, 1, 1)] };
    let plan = plan(vec![gpu("vision"), gpu("text")]);
    let files = cotenant_deploy::emit(&plan).unwrap();
    let alone = files.iter().filter(|f| f.path == "kubernetes.yaml");
    let mut found = read_all(alone.map(|f| (f.path.as_str(), f.text.as_str())));
    let known = [tenant("vision", 1, 1), tenant("text", 1, 1)];
    assert_eq!(found.resolve(&known).unwrap(), plan.gpus);
}
