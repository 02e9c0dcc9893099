//! Profiles on disk: what is written reads back, and what does not fit together is refused.

use std::collections::BTreeMap;
use std::path::Path;

use cotenant_profiles::files::{self, FileError, Measurement, Problem, Store};
use cotenant_profiles::{
    Bytes, CoRun, Curve, Device, Kernel, Launch, Model, Nanos, Op, Point, Profile, Source,
};
use proptest::prelude::*;

fn kernel(id: &str, points: &[(u32, u64)]) -> Kernel {
    Kernel {
        id: id.to_owned(),
        name: format!("void {id}<float, 4>(\"x\")"),
        op: Op::Gemm,
        grid: [12, 3, 1],
        block: 256,
        regs: 64,
        smem_bytes: 49_152,
        blocks_per_cu: 2,
        flops: 1 << 40,
        dram_bytes: 123_456,
        curve: Curve::new(points.iter().map(|&(c, d)| Point::exact(c, d)).collect()).unwrap(),
    }
}

fn model(name: &str, launches: &[(usize, u64)]) -> Model {
    let launches =
        launches.iter().map(|&(kernel, ns)| Launch { kernel, host: Nanos(ns) }).collect();
    Model {
        name: name.to_owned(),
        weights: Bytes(102_234_112),
        activations_per_item: Bytes(12_345),
        input_per_item: Bytes(602_112),
        output_per_item: Bytes(4_000),
        load: Nanos::from_millis(1500),
        host_per_request: Nanos(7),
        batches: BTreeMap::from([(4, launches)]),
    }
}

fn profile() -> Profile {
    Profile {
        device: "mi50".to_owned(),
        source: Source::Analytic,
        provenance: BTreeMap::from([("tool".to_owned(), "test 1.0, precision=fp32".to_owned())]),
        kernels: vec![kernel("a", &[(15, 900), (60, 300)]), kernel("b", &[(60, 100)])],
        models: BTreeMap::from([
            ("one".to_owned(), model("one", &[(0, 10), (1, 20), (0, 30)])),
            ("two".to_owned(), model("two", &[(1, 5)])),
        ]),
        corun: vec![CoRun {
            a: (0, 30),
            b: (1, 30),
            duration_a_ns: 500,
            duration_b_ns: 150,
            samples: 9,
        }],
    }
}

fn written() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    files::write(dir.path(), &profile()).unwrap();
    dir
}

fn change(dir: &Path, file: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(dir.join(file)).unwrap();
    assert!(text.contains(from), "{file}: {from} not in {text}");
    std::fs::write(dir.join(file), text.replacen(from, to, 1)).unwrap();
}

#[test]
fn files_are_as_documented() {
    let dir = written();
    let read = |file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap();
    let head = "# cotenant-profile v1\n# device=mi50\n# source=analytic\n\
                # tool=test 1.0, precision=fp32\n";
    assert_eq!(
        read("kernels.csv"),
        format!(
            "{head}kernel,name,op,grid,block,regs,smem_bytes,blocks_per_cu,flops,dram_bytes\n\
             a,\"void a<float, 4>(\"\"x\"\")\",gemm,12x3x1,256,64,49152,2,1099511627776,123456\n\
             b,\"void b<float, 4>(\"\"x\"\")\",gemm,12x3x1,256,64,49152,2,1099511627776,123456\n"
        )
    );
    assert_eq!(
        read("curves.csv"),
        format!(
            "{head}kernel,cus,duration_ns,p05_ns,p95_ns,samples\na,15,900,900,900,0\n\
             a,60,300,300,300,0\nb,60,100,100,100,0\n"
        )
    );
    assert_eq!(
        read("models/one.csv"),
        format!("{head}batch,position,kernel,host_ns\n4,0,a,10\n4,1,b,20\n4,2,a,30\n")
    );
    assert_eq!(
        read("models/one.toml"),
        format!(
            "{head}\nname = \"one\"\nweights = \"99838KiB\"\nactivations_per_item = \"12345B\"\n\
             input_per_item = \"588KiB\"\noutput_per_item = \"4000B\"\nload = \"1.5s\"\n\
             host_per_request = \"7ns\"\n"
        )
    );
    assert_eq!(
        read("corun.csv"),
        format!(
            "{head}kernel_a,cus_a,kernel_b,cus_b,duration_a_ns,duration_b_ns,samples\n\
             a,30,b,30,500,150,9\n"
        )
    );
    assert_eq!(files::read(dir.path()).unwrap(), profile());
}

/// Curves in whole groups stand beside those in the finest atoms, and are compared where both are.
#[test]
fn curves_in_whole_groups_read_back() {
    let dir = written();
    let device = Device::builtin("mi50").unwrap();
    assert!(files::read_coarse(dir.path(), &device).unwrap().is_empty(), "none were measured");
    let points = vec![Point::exact(15, 810), Point::exact(30, 500)];
    let coarse = BTreeMap::from([("a".to_owned(), points.clone())]);
    files::write_coarse(dir.path(), 15, &coarse).unwrap();
    let text = std::fs::read_to_string(dir.path().join("curves_coarse.csv")).unwrap();
    assert!(text.contains("# tool=test 1.0, precision=fp32\n# granularity=groups of 15 CUs"));
    let read = files::read_coarse(dir.path(), &device).unwrap();
    assert_eq!(read, BTreeMap::from([("a".to_owned(), Curve::new(points).unwrap())]));
    let both: Vec<_> = files::both(&profile().kernels[0], &read).collect();
    assert_eq!(both, [files::Both { cus: 15, ratio: 0.9 }], "30 CUs were measured in groups alone");
    assert_eq!(files::both(&profile().kernels[1], &read).count(), 0);
    change(dir.path(), "curves_coarse.csv", "a,30", "c,30");
    let why = files::read_coarse(dir.path(), &device).unwrap_err().to_string();
    assert!(why.contains("curves_coarse.csv:") && why.contains('c'), "{why}");
    files::write_coarse(dir.path(), 15, &BTreeMap::new()).unwrap();
    assert!(!dir.path().join("curves_coarse.csv").exists(), "nothing is left of an earlier one");
}

#[test]
fn windows_text_and_a_plain_grid_read_too() {
    let dir = written();
    for file in ["kernels.csv", "curves.csv", "models/one.csv"] {
        let text = std::fs::read_to_string(dir.path().join(file)).unwrap().replace('\n', "\r\n");
        std::fs::write(dir.path().join(file), format!("\u{feff}{text}")).unwrap();
    }
    assert_eq!(files::read(dir.path()).unwrap(), profile());
    change(dir.path(), "kernels.csv", "12x3x1", "36");
    assert_eq!(files::read(dir.path()).unwrap().kernels[0].grid, [36, 1, 1]);
}

#[test]
fn bad_files_say_file_line_and_field() {
    for (file, from, to, message) in [
        (
            "kernels.csv",
            "profile v1",
            "profile v2",
            "1: file: the first line is `# cotenant-profile v2`, expected `# cotenant-profile v1`",
        ),
        (
            "kernels.csv",
            "# source=analytic\n",
            "",
            "1: source: missing: expected a line `# \
          source=…` before the header",
        ),
        (
            "kernels.csv",
            "# tool=test 1.0, precision=fp32",
            "# words",
            "4: header: `# words` is not `# key=value`",
        ),
        (
            "kernels.csv",
            "source=analytic",
            "source=guessed",
            "3: source: `guessed` is not `measured`, `analytic` or `imported`",
        ),
        (
            "curves.csv",
            "source=analytic",
            "source=imported",
            "3: source: `imported` here, `analytic` in kernels.csv",
        ),
        (
            "models/one.csv",
            "device=mi50",
            "device=p40",
            "2: device: `p40` here, `mi50` in kernels.csv",
        ),
        (
            "curves.csv",
            "duration_ns",
            "duration_us",
            "5: duration_us: unknown column: did you mean `duration_ns`?; known are kernel, cus, \
             duration_ns, p05_ns, p95_ns, samples, l2_util_pct, dram_util_pct, power_w",
        ),
        (
            "curves.csv",
            ",samples",
            "",
            "5: samples: missing column; needed are kernel, cus, duration_ns, p05_ns, p95_ns, \
             samples",
        ),
        ("curves.csv", "p05_ns", "cus", "5: cus: `cus` is there twice"),
        ("curves.csv", "a,15,900,900,900,0", "a,15,900", "6: row: 3 cells, the header has 6"),
        (
            "curves.csv",
            "a,15,900,900",
            "a,15,0,900",
            "6: duration_ns: `0` is not a whole number from 1 to 18014398509481984",
        ),
        (
            "curves.csv",
            "a,15,900,900",
            "a,15,900,901",
            "6: p05_ns: `901` is not a whole number from 1 to 900",
        ),
        ("curves.csv", "a,60", "a,61", "7: cus: 61 CUs: mi50 has 60"),
        ("curves.csv", "a,15", "a,60", "7: cus: `a on 60 CUs` is there twice"),
        (
            "curves.csv",
            "b,60",
            "bb,60",
            "8: kernel: no kernel `bb` in kernels.csv: did you mean \
          `b`?",
        ),
        (
            "curves.csv",
            "b,60,100,100,100,0\n",
            "",
            "7: kernel: kernel `b` has no point in curves.csv",
        ),
        ("kernels.csv", "\nb,", "\na,", "7: kernel: `a` is there twice"),
        (
            "kernels.csv",
            ",gemm,",
            ",gem,",
            "6: op: `gem` is not an operation: did you mean `gemm`?; known are gemm, \
             batched-gemm, conv, depthwise-conv, norm, activation, elementwise, pool, softmax, \
             attention, embedding, concat, reduce, copy, pseudo, other",
        ),
        (
            "kernels.csv",
            "12x3x1",
            "12x0",
            "6: grid: `12x0` is not a grid such as `128x1x1`, or a number of blocks",
        ),
        ("models/one.csv", "4,1,b", "4,1,c", "7: kernel: no kernel `c` in kernels.csv"),
        (
            "models/one.csv",
            "4,1,b",
            "4,3,b",
            "8: position: position 2 of batch 4, expected 1: launches count from 0",
        ),
        ("models/one.csv", "4,1,b", "4,0,b", "7: position: `batch 4, position 0` is there twice"),
        (
            "models/one.toml",
            "name = \"one\"",
            "name = \"two\"",
            "6: name: `two` here, `one` in the file's name",
        ),
        (
            "models/one.toml",
            "weights",
            "weight",
            "7: weight: unknown field `weight`, expected one of `name`, `weights`, \
             `activations_per_item`, `input_per_item`, `output_per_item`, `load`, \
             `host_per_request`: did you mean `weights`?",
        ),
        (
            "models/one.toml",
            "1.5s",
            "1.5",
            "11: load: `1.5` is not a duration: write a number and a unit, such as `250us`, \
             `3ms`, `1.5s` or `2min`",
        ),
        ("corun.csv", "a,30", "a,90", "6: cus_a: 90 CUs: mi50 has 60"),
    ] {
        let dir = written();
        change(dir.path(), file, from, to);
        let error = files::read(dir.path()).unwrap_err().to_string();
        // The reader names the file that shows the contradiction, not always the one changed.
        let found = error.split_once(".csv:").or_else(|| error.split_once(".toml:"));
        assert_eq!(found.map(|f| f.1), Some(message), "{file}: {error}");
    }
}

#[test]
fn empty_and_foreign_files_are_refused() {
    let dir = written();
    for (text, message) in [
        ("", "the first line is ``, expected `# cotenant-profile v1`"),
        ("# cotenant-profile v1\n# device=mi50\n# source=analytic\n", "no header; expected"),
    ] {
        std::fs::write(dir.path().join("curves.csv"), text).unwrap();
        let error = files::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    std::fs::write(dir.path().join("curves.csv"), [0xff, 0xfe, 0]).unwrap();
    let error = files::read(dir.path()).unwrap_err();
    assert_eq!(error.problem(), Some(&Problem::Encoding));
    std::fs::remove_file(dir.path().join("curves.csv")).unwrap();
    assert!(matches!(files::read(dir.path()), Err(FileError::Io { .. })));
    let error = files::read_for(written().path(), &Device::builtin("p40").unwrap()).unwrap_err();
    let message = "device: `mi50` here, `p40` in the device asked for";
    assert!(error.to_string().ends_with(message), "{error}");
}

#[test]
fn only_a_measurement_writes_measured() {
    let dir = tempfile::tempdir().unwrap();
    let mut profile = profile();
    let evidence =
        Measurement::of_this_run("GPU-1234", "580.95", "1980 MHz", "2026-11-21T06:00Z").unwrap();
    assert!(Measurement::of_this_run("GPU-1234", " ", "1980 MHz", "2026-11-21").is_err());
    let refused = files::write_measured(dir.path(), &profile, &evidence);
    assert!(matches!(refused, Err(FileError::NotAMeasurement)), "analytic is not measured");
    profile.source = Source::Measured;
    assert!(matches!(files::write(dir.path(), &profile), Err(FileError::NotAMeasurement)));
    assert!(!dir.path().join("kernels.csv").exists());
    files::write_measured(dir.path(), &profile, &evidence).unwrap();
    let read = files::read(dir.path()).unwrap();
    assert_eq!(read.source, Source::Measured);
    assert_eq!(
        (read.provenance["gpu"].as_str(), read.provenance["tool"].as_str()),
        ("GPU-1234", "test 1.0, precision=fp32",)
    );
}

#[test]
fn writing_loses_nobody_elses_model() {
    let dir = written();
    let mut less = profile();
    less.models.remove("two");
    let error = files::write(dir.path(), &less).unwrap_err().to_string();
    assert!(error.ends_with("holds the models two already; choose another folder, or merge"));
    assert_eq!(files::read(dir.path()).unwrap(), profile());
    files::write(dir.path(), &profile()).unwrap();
}

#[test]
fn what_would_not_read_back_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |change: &dyn Fn(&mut Profile)| {
        let mut profile = profile();
        change(&mut profile);
        files::write(dir.path(), &profile).unwrap_err().to_string()
    };
    let error = refused(&|p| p.kernels[1].id = "a".to_owned());
    assert_eq!(error, "cannot write the profile: kernel: `a` is there twice");
    let error = refused(&|p| p.kernels[1].id = "#b".to_owned());
    assert!(error.contains("does not open with `#`"), "{error}");
    let error = refused(&|p| p.kernels[1].name = "x\ny".to_owned());
    assert!(error.contains("a name on one line"), "{error}");
    let error = refused(&|p| {
        p.provenance.insert("a b".to_owned(), String::new());
    });
    assert!(error.contains("`a b` is not a key of letters"), "{error}");
    let error = refused(&|p| {
        let model = model("../up", &[(0, 1)]);
        p.models.insert(model.name.clone(), model);
    });
    assert!(error.contains("`../up` is not a model name of letters"), "{error}");
    let error = refused(&|p| {
        p.models.get_mut("one").unwrap().batches.insert(8, vec![]);
    });
    assert!(error.ends_with("model `one`: no rows: expected at least one launch"), "{error}");
}

#[test]
fn merging_keeps_both_and_refuses_contradictions() {
    let mut more = profile();
    more.kernels = vec![kernel("c", &[(60, 7)]), kernel("b", &[(60, 100)])];
    more.models = BTreeMap::from([("three".to_owned(), model("three", &[(0, 1), (1, 2)]))]);
    more.corun.clear();
    more.provenance.insert("tool".to_owned(), "other".to_owned());
    let both = files::merge(profile(), &more).unwrap();
    let ids: Vec<&str> = both.kernels.iter().map(|k| k.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    let order: Vec<usize> = both.models["three"].batches[&4].iter().map(|l| l.kernel).collect();
    assert_eq!(order, [2, 1]);
    assert_eq!(both.provenance["tool"], "test 1.0, precision=fp32; other");
    assert_eq!(files::merge(both.clone(), &more).unwrap(), both);

    more.kernels[1].flops = 1;
    let error = files::merge(profile(), &more).unwrap_err().to_string();
    assert!(error.contains("kernel `b`: has other numbers in the profile"), "{error}");
    more.device = "p40".to_owned();
    let error = files::merge(profile(), &more).unwrap_err().to_string();
    assert!(error.contains("device: `p40` here, `mi50` in the profile"), "{error}");
}

#[test]
fn the_first_folder_with_model_and_device_wins() {
    let (device, other) = (Device::builtin("mi50").unwrap(), Device::builtin("p40").unwrap());
    let (first, second) = (written(), tempfile::tempdir().unwrap());
    let mut two = profile();
    two.models.get_mut("two").unwrap().load = Nanos(1);
    two.models.remove("one");
    two.models.insert("three".to_owned(), model("three", &[(1, 3)]));
    files::write(&second.path().join("mi50"), &two).unwrap();
    let folders = vec![first.path().to_path_buf(), second.path().to_path_buf()];
    let store = Store::new(folders);

    let found = store.find("two", &device).unwrap().unwrap();
    assert_eq!(found.models["two"].load, Nanos::from_millis(1500));
    // The model and what it launches alone; its launches still point at the right kernel.
    assert_eq!((found.kernels.len(), found.models.len(), found.corun.len()), (1, 1, 0));
    assert_eq!(found.kernels[found.models["two"].batches[&4][0].kernel].id, "b");
    let found = store.find("three", &device).unwrap().unwrap();
    assert_eq!(found.kernels[found.models["three"].batches[&4][0].kernel].id, "b");
    assert!(store.find("four", &device).unwrap().is_none());
    assert!(store.find("two", &other).unwrap().is_none());
    assert_eq!(store.folder_of("three", &device), Some(second.path().join("mi50")));

    // A folder that claims to have it and does not read is an error, not a reason to go on.
    change(first.path(), "curves.csv", "a,15", "a,16000");
    assert!(store.find("two", &device).is_err());
}

fn any_name() -> impl Strategy<Value = String> {
    "[a-zA-Z(<:*&][ -~]{0,20}[a-z)>\",#']"
}

fn any_points() -> impl Strategy<Value = Vec<Point>> {
    let values = (1u64..1 << 40, 0u64..1000, 0u64..1000, any::<u32>());
    prop::collection::btree_map(1u32..=60, values, 1..8).prop_map(|points| {
        points
            .into_iter()
            .map(|(cus, (duration_ns, below, above, samples))| Point {
                cus,
                duration_ns,
                p05_ns: duration_ns.saturating_sub(below).max(1),
                p95_ns: duration_ns + above,
                samples,
            })
            .collect()
    })
}

fn any_kernel() -> impl Strategy<Value = Kernel> {
    let sizes = (prop::array::uniform3(1u32..1 << 20), 0u32..1025, 0u32..256, any::<u32>());
    let work = (1u32..33, any::<u64>(), any::<u64>());
    (any_name(), 0..Op::ALL.len(), sizes, work, any_points()).prop_map(
        |(name, op, (grid, block, regs, smem_bytes), work, points)| Kernel {
            id: String::new(),
            name,
            op: Op::ALL[op].0,
            grid,
            block,
            regs,
            smem_bytes,
            blocks_per_cu: work.0,
            flops: work.1,
            dram_bytes: work.2,
            curve: Curve::new(points).unwrap(),
        },
    )
}

fn any_model() -> impl Strategy<Value = Model> {
    let sizes = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    let launches = prop::collection::vec((any::<prop::sample::Index>(), 0u64..1 << 40), 1..9);
    let batches = prop::collection::btree_map(1u32..200, launches, 1..4);
    (sizes, any::<u64>(), any::<u64>(), batches).prop_map(|(sizes, load, host, batches)| Model {
        name: String::new(),
        weights: Bytes(sizes.0),
        activations_per_item: Bytes(sizes.1),
        input_per_item: Bytes(sizes.2),
        output_per_item: Bytes(sizes.3),
        load: Nanos(load),
        host_per_request: Nanos(host),
        batches: batches
            .into_iter()
            .map(|(batch, launches)| {
                // Any index for now: `any_profile` knows how many kernels there are.
                let launch = |(k, ns): &(prop::sample::Index, u64)| Launch {
                    kernel: k.index(1 << 16),
                    host: Nanos(*ns),
                };
                (batch, launches.iter().map(launch).collect())
            })
            .collect(),
    })
}

prop_compose! {
    fn any_profile()(
        names in prop::collection::btree_set(any_name(), 1..6),
        mut kernels in prop::collection::vec(any_kernel(), 6),
        models in prop::collection::btree_map("[a-z][a-z0-9_.-]{0,8}", any_model(), 0..3),
        provenance in prop::collection::btree_map("x[a-z0-9._-]{0,8}", "[a-z=#,\"]{0,12}", 0..4),
        pairs in prop::collection::vec((0usize..6, 1u32..=60, 0usize..6, 1u32..=60), 0..3),
        imported in any::<bool>(),
    ) -> Profile {
        let count = names.len();
        kernels.truncate(count);
        for (kernel, id) in kernels.iter_mut().zip(names) {
            kernel.id = id;
        }
        let models = models.into_iter().map(|(name, mut model)| {
            model.name.clone_from(&name);
            model.batches.values_mut().flatten().for_each(|l| l.kernel %= count);
            (name, model)
        }).collect();
        let corun = pairs.into_iter().map(|(a, on_a, b, on_b)| CoRun {
            a: (a % count, on_a),
            b: (b % count, on_b),
            duration_a_ns: 5,
            duration_b_ns: 6,
            samples: 7,
        }).collect();
        let source = if imported { Source::Imported } else { Source::Analytic };
        Profile { device: "mi50".to_owned(), source, provenance, kernels, models, corun }
    }
}

proptest! {
    // Each case writes and reads some ten files.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_reads_back(profile in any_profile()) {
        let dir = tempfile::tempdir().unwrap();
        files::write(dir.path(), &profile).unwrap();
        prop_assert_eq!(files::read(dir.path()).unwrap(), profile);
    }

    #[test]
    fn any_text_is_an_answer_not_a_panic(
        text in "(?s).{0,120}",
        which in 0usize..5,
        keep_head in any::<bool>(),
    ) {
        let dir = written();
        let file = ["kernels.csv", "curves.csv", "corun.csv", "models/one.csv", "models/one.toml"]
            [which];
        let head = "# cotenant-profile v1\n# device=mi50\n# source=analytic\n";
        let head = if keep_head { head } else { "" };
        std::fs::write(dir.path().join(file), format!("{head}{text}")).unwrap();
        let _ = files::read(dir.path());
    }
}
