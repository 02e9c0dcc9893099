//! Importers: what the published measurements come to, and what bad input is told.
//!
//! Tests on public data find it through `COTENANT_PUBLIC_DATA`, the folder that contains
//! `profiles/`, and pass over themselves where that is unset.

use std::path::PathBuf;

use cotenant_profiles::import::{
    self, Import, ImportError, Input, LaunchFloor, MODEL_TIMES_US, OrionOptions, ReefOptions,
    TableOptions,
};
use cotenant_profiles::{Device, Op, Profile, Source, files};
use proptest::prelude::*;

fn device(name: &str) -> Device {
    Device::builtin(name).unwrap()
}

fn public(path: &str) -> Option<PathBuf> {
    match std::env::var_os("COTENANT_PUBLIC_DATA") {
        Some(folder) => Some(PathBuf::from(folder).join("profiles").join(path)),
        None => {
            eprintln!("COTENANT_PUBLIC_DATA is unset: not tested on {path}");
            None
        }
    }
}

fn orion(inputs: &[(&str, &str)]) -> Result<Import, ImportError> {
    let inputs: Vec<Input<'_>> = inputs.iter().map(|&(file, text)| Input { file, text }).collect();
    import::orion(&inputs, &device("v100-sxm2-16"), &OrionOptions::default())
}

fn reef(text: &str) -> Result<Import, ImportError> {
    let input = Input { file: "reef.csv", text };
    import::reef(&input, &device("mi50"), &ReefOptions::default())
}

fn table(text: &str) -> Result<Import, ImportError> {
    import::table(&Input { file: "t.csv", text }, &device("v100-sxm2-16"), &TableOptions::default())
}

/// Sum of the durations of one inference on all CUs, ns.
fn solo_ns(profile: &Profile, model: &str, batch: u32, cus: u32) -> u64 {
    let launches = &profile.models[model].batches[&batch];
    launches.iter().map(|l| profile.kernels[l.kernel].at(cus)).sum()
}

#[test]
fn orions_models_add_up_to_the_published_times() {
    let Some(folder) = public("orion_v100") else { return };
    let names = [
        "resnet50_4",
        "resnet101_4",
        "mobilenetv2_4",
        "bert_2",
        "transformer_xl_4",
        "resnet50_32",
        "mobilenetv2_32",
        "gnmt_16",
    ];
    let texts: Vec<(String, String)> = names
        .iter()
        .map(|n| folder.join(format!("{n}_fwd.csv")))
        .map(|p| (p.display().to_string(), std::fs::read_to_string(&p).unwrap()))
        .collect();
    let inputs: Vec<(&str, &str)> = texts.iter().map(|(f, t)| (f.as_str(), t.as_str())).collect();
    let import = orion(&inputs).unwrap();
    assert_eq!((import.rows_in, import.dropped.len()), (2194, 0));
    for (model, batch, launches, ns) in [
        ("resnet50", 4, 175, 6_498_424),
        ("resnet101", 4, 345, 11_567_105),
        ("mobilenetv2", 4, 152, 2_262_977),
        ("bert", 2, 572, 48_625_298),
        ("transformer_xl", 4, 459, 16_671_218),
        ("resnet50", 32, 228, 32_790_016),
        ("mobilenetv2", 32, 205, 11_183_104),
        ("gnmt", 16, 58, 691_456),
    ] {
        assert_eq!(import.profile.models[model].batches[&batch].len(), launches, "{model}");
        assert_eq!(solo_ns(&import.profile, model, batch, 80), ns, "{model} b{batch}");
        eprintln!("{model} b{batch}: {ns} ns on 80 SMs");
    }
    // Of BERT's time 7 % is in kernels that need fewer than 80 SMs, of ResNet-50's 70 %.
    let small = |model: &str, batch: u32| {
        let kernels = import.profile.models[model].batches[&batch].iter();
        let kernels = kernels.map(|l| &import.profile.kernels[l.kernel]);
        let time = |k: &cotenant_profiles::Kernel| k.at(80) as f64;
        let small: f64 = kernels.clone().filter(|k| k.cus_wanted() < 80).map(time).sum();
        small / kernels.map(time).sum::<f64>()
    };
    assert!((small("bert", 2) - 0.07).abs() < 0.01, "{}", small("bert", 2));
    assert!((small("resnet50", 4) - 0.70).abs() < 0.01, "{}", small("resnet50", 4));
}

#[test]
fn an_imported_profile_survives_the_disk() {
    let Some(folder) = public("orion_v100") else { return };
    let path = folder.join("resnet50_4_fwd.csv");
    let text = std::fs::read_to_string(&path).unwrap();
    let import = orion(&[(&path.display().to_string(), &text)]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    files::write(dir.path(), &import.profile).unwrap();
    let read = files::read_for(dir.path(), &device("v100-sxm2-16")).unwrap();
    assert_eq!(read, import.profile);
    assert_eq!(solo_ns(&read, "resnet50", 4, 80), 6_498_424);
}

#[test]
fn reefs_kernels_keep_their_sums_and_name_the_models_time() {
    let Some(path) = public("reef_mi50/tidy_kernels.csv") else { return };
    let text = std::fs::read_to_string(&path).unwrap();
    let input = Input { file: "tidy_kernels.csv", text: &text };
    let import = import::reef(&input, &device("mi50"), &ReefOptions::default()).unwrap();
    assert_eq!(import.rows_used, 1270);
    for (model, kernels, us) in [
        ("alexnet", 13, 8740),
        ("bert", 205, 7472),
        ("densenet", 207, 6132),
        ("inception", 146, 9492),
        ("mobilenet", 31, 1260),
        ("resnet", 330, 25608),
        ("resnet152", 207, 15864),
        ("resnet18", 57, 2640),
        ("vgg", 71, 5294),
    ] {
        assert_eq!(import.profile.models[model].batches[&1].len(), kernels, "{model}");
        assert_eq!(solo_ns(&import.profile, model, 1, 60), us * 1000, "{model}");
    }
    assert_eq!(import.profile.provenance["model_time_us.densenet"], "3743");
    assert_eq!(import.profile.provenance["kernel_sum_us.densenet"], "6132");

    let options = ReefOptions { rescale: true };
    let scaled = import::reef(&input, &device("mi50"), &options).unwrap().profile;
    for (model, us) in MODEL_TIMES_US {
        let ns = solo_ns(&scaled, model, 1, 60);
        // Each kernel rounds to a nanosecond.
        assert!(ns.abs_diff(us * 1000) <= 330, "{model}: {ns} against {us} us");
    }
}

const HEAD: &str = "Name,Profile,Memory_footprint,SM_usage,Duration\n";

#[test]
fn a_need_and_a_duration_make_a_staircase() {
    let text = format!("{HEAD}Conv,1,0,98,1000\nBatchNorm,0,0,20,500\n");
    let profile = orion(&[("m_2_fwd.csv", &text)]).unwrap().profile;
    let [conv, norm] = &profile.kernels[..] else { panic!("{:?}", profile.kernels) };
    // 98 SMs' worth on 80 takes two waves; on 49 still two, on 48 three, on 10 ten, on 1 98.
    let at = [80, 49, 48, 10, 1].map(|c| conv.at(c));
    assert_eq!(at, [1000, 1000, 1500, 5000, 49_000]);
    assert_eq!((norm.at(80), norm.at(20), norm.at(10)), (500, 500, 1000));
    for c in 1..=80u32 {
        assert_eq!(conv.at(c), 500 * u64::from(98u32.div_ceil(c)), "on {c}");
    }
    assert_eq!(norm.min_cu(80, 0.05), 20);
    assert_eq!((conv.cus_wanted(), conv.op, norm.op), (98, Op::Conv, Op::Norm));
    assert!(conv.curve.points().iter().all(|p| p.samples == 0));
    assert_eq!(profile.provenance["curves"], "derived-from-sm-need");
    assert_eq!(profile.source, Source::Imported);
}

#[test]
fn the_class_is_kept_and_becomes_a_demand_on_bandwidth() {
    let text = format!("{HEAD}a,1,0,80,1000\nb,0,0,80,1000\nc,-1,0,80,1000\nd,0,0,9,1000\n");
    let profile = orion(&[("m_2_fwd.csv", &text)]).unwrap().profile;
    let class = |id: &str| id.split('/').nth(1).unwrap().to_owned();
    let got: Vec<(String, u64)> =
        profile.kernels.iter().map(|k| (class(&k.id), k.dram_bytes)).collect();
    // 900 GB/s for 1 us is 900,000 bytes; 9 of the 36 SMs that saturate it draw a quarter.
    let want =
        [("compute", 270_000), ("memory", 720_000), ("unknown", 270_000), ("memory", 180_000)]
            .map(|(class, bytes)| (class.to_owned(), bytes));
    assert_eq!(got, want);
    assert!(profile.provenance["dram_bytes"].starts_with("assumed: 0.8 / 0.3 / 0.3 of DRAM"));
}

#[test]
fn names_with_commas_and_quotes_are_one_cell() {
    let text = format!(
        "\u{feff}{}\"void f<int, \"\"x\"\">(int, int)\",1,0,4,10\r\nvoid g<a, b>(c),0,0,4,10\r\n\
         \r\nsay \"\"hi, -1,0,120,12.0\r\n",
        HEAD.replace('\n', "\r\n")
    );
    let profile = orion(&[("dir/m_x_8_fwd.csv", &text)]).unwrap().profile;
    let names: Vec<&str> = profile.kernels.iter().map(|k| k.name.as_str()).collect();
    assert_eq!(names, ["void f<int, \"x\">(int, int)", "void g<a, b>(c)", "say \"\"hi"]);
    assert_eq!(profile.models["m_x"].batches[&8].len(), 3);
}

#[test]
fn equal_rows_are_one_kernel_launched_again() {
    let text = format!("{HEAD}a,1,0,8,10\nb,1,0,8,10\na,1,0,8,10\n");
    let profile = orion(&[("m_2_fwd.csv", &text)]).unwrap().profile;
    let order: Vec<usize> = profile.models["m"].batches[&2].iter().map(|l| l.kernel).collect();
    assert_eq!((profile.kernels.len(), order), (2, vec![0, 1, 0]));
}

#[test]
fn bad_orion_rows_say_where() {
    let row = |row: &str| format!("{HEAD}ok,1,0,8,10\n{row}\n");
    for (file, text, message) in [
        (
            "m_4_fwd.csv",
            row("k,2,0,8,10"),
            "m_4_fwd.csv:3: Profile: `2` is not 1 (compute), 0 (memory) or -1 (unknown)",
        ),
        (
            "m_4_fwd.csv",
            row("k,1,0,0,10"),
            "m_4_fwd.csv:3: SM_usage: `0` is not a whole number of SMs, at least 1",
        ),
        (
            "m_4_fwd.csv",
            row("k,1,0,8,0"),
            "m_4_fwd.csv:3: Duration: `0` is not nanoseconds, at least 1",
        ),
        ("m_4_fwd.csv", row("k,1,0"), "m_4_fwd.csv:3: row: 3 cells, the header has 5"),
        (
            "m_4_fwd.csv",
            "Name,Profile,Memory_footprint,SM_used,Duration\n".to_owned(),
            "m_4_fwd.csv:1: SM_used: unknown column: did you mean `SM_usage`?; known are Name, \
             Profile, Memory_footprint, SM_usage, Duration",
        ),
        (
            "m_4_fwd.csv",
            HEAD.to_owned(),
            "m_4_fwd.csv:1: file: no rows: expected at least one kernel",
        ),
        (
            "resnet50.csv",
            row("k,1,0,8,10"),
            "resnet50.csv:1: file: `resnet50.csv` is not `<model>_<batch>_fwd.csv`, such as \
             `resnet50_4_fwd.csv`, with a model name of letters, digits, `-`, `_`, `.` and `@` \
             that begins with a letter, a digit or `_`",
        ),
    ] {
        assert_eq!(orion(&[(file, &text)]).unwrap_err().to_string(), message);
    }
    let text = row("k,1,0,8,10");
    let error = orion(&[("m_4_fwd.csv", &text), ("d/m_4_fwd.csv", &text)]).unwrap_err();
    let message = "d/m_4_fwd.csv:1: file: `m at batch 4` is there twice";
    assert_eq!(error.to_string(), message);
}

const REEF: &str = "model,order,kernel,grid_x,grid_y,grid_z,block_x,block_y,block_z,blocks,\
                    threads_per_block,solo_us,lat_occ1_us,lat_by_occupancy_us\n";

#[test]
fn latency_by_occupancy_shapes_the_curve() {
    // 90 blocks: on 60 CUs two per CU at the most, on 45 two, on 30 three, on 15 two waves of 3.
    let text = format!("{REEF}m,0,fused_nn_dense_add_kernel0,90,1,1,64,1,1,90,64,24,10,10|12|18\n");
    let profile = reef(&text).unwrap().profile;
    let kernel = &profile.kernels[0];
    assert_eq!([60, 45, 30, 15].map(|c| kernel.at(c)), [24_000, 24_000, 36_000, 72_000]);
    assert_eq!((kernel.blocks_per_cu, kernel.op, kernel.block), (3, Op::Gemm, 64));
}

#[test]
fn bad_reef_rows_say_where() {
    for (row, message) in [
        (
            "m,1,k,90,1,1,64,1,1,90,64,24,10,10",
            "reef.csv:2: order: `1` is not 0, the next launch of `m`",
        ),
        (
            "m,0,k,90,1,1,64,1,1,91,64,24,10,10",
            "reef.csv:2: blocks: `91` is not 90, the product of the grid",
        ),
        (
            "m,0,k,90,1,1,64,1,1,90,64,24,10,10|0",
            "reef.csv:2: lat_by_occupancy_us: `0` is not microseconds above 0, separated by `|`",
        ),
        (
            "m,0,k,90,1,1,64,1,1,90,64,-3,10,10",
            "reef.csv:2: solo_us: `-3` is not a number above 0, up to 600000000",
        ),
    ] {
        assert_eq!(reef(&format!("{REEF}{row}\n")).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_table_becomes_one_pseudo_kernel_per_batch() {
    let text = "model,batch,share_pct,latency_ms,dram_util_pct,l2_util_pct,power_w\n\
                resnet50,1,10,7.69,,,80\nresnet50,1,50,2.85,,,\nresnet50,1,100,2.39,40,15.4,133\n\
                resnet50,16,100,11.54,,,288\n";
    let import = table(text).unwrap();
    let profile = &import.profile;
    assert_eq!((import.rows_in, import.rows_used), (4, 4));
    assert_eq!(solo_ns(profile, "resnet50", 1, 80), 2_390_000);
    assert_eq!(solo_ns(profile, "resnet50", 1, 40), 2_850_000);
    assert_eq!(solo_ns(profile, "resnet50", 1, 8), 7_690_000);
    assert_eq!(solo_ns(profile, "resnet50", 16, 80), 11_540_000);
    let kernel = &profile.kernels[0];
    assert_eq!((kernel.op, kernel.cus_wanted()), (Op::Pseudo, 80));
    assert_eq!(kernel.dram_bytes, 860_400_000); // 40 % of 900 GB/s for 2.39 ms
    let drawn = kernel.curve.drawn_at(80).unwrap();
    assert_eq!((drawn.watts(), drawn.l2(), drawn.dram()), (Some(133.0), Some(0.154), Some(0.4)));
    assert_eq!(kernel.curve.drawn_at(8).unwrap().watts(), Some(80.0));
    let warned = |what: &str| import.warnings.iter().any(|w| w.contains(what));
    assert!(warned("give `kernels`") && warned("one share alone at batch 16"));
    let folder = tempfile::tempdir().unwrap();
    files::write(folder.path(), profile).unwrap();
    assert_eq!(files::read(folder.path()).unwrap(), *profile);
}

#[test]
fn a_table_with_kernels_becomes_equal_ones_behind_a_host_part() {
    let text = "model,batch,share_pct,latency_ms,kernels,width_cus,host_ms,weights_mib\n\
                m,8,50,10,100,40,4,97.5\nm,8,100,6,100,40,4,97.5\n";
    let profile = table(text).unwrap().profile;
    let launches = &profile.models["m"].batches[&8];
    assert_eq!(launches.len(), 100);
    assert!(launches.iter().all(|l| l.host.0 == 40_000));
    // Host and GPU side by side: one launch, then the kernels, are the latency.
    assert_eq!(solo_ns(&profile, "m", 8, 80) + 40_000, 6_000_000);
    assert_eq!(solo_ns(&profile, "m", 8, 40) + 40_000, 10_000_000);
    assert_eq!((profile.kernels[0].op, profile.kernels[0].cus_wanted()), (Op::Other, 40));
    assert_eq!(profile.models["m"].weights.0, 102_236_160);
}

#[test]
fn a_latency_that_is_flat_over_batches_is_the_hosts() {
    let text = "model,batch,share_pct,latency_ms,kernels\n\
                m,1,100,5.0,50\nm,2,100,5.1,50\nm,4,100,9.0,50\nm,8,100,17.0,50\n";
    let input = Input { file: "t.csv", text };
    let options = TableOptions { launch_floor: LaunchFloor::Auto };
    let import = import::table(&input, &device("v100-sxm2-16"), &options).unwrap();
    let host =
        |batch| import.profile.models["m"].batches[&batch].iter().map(|l| l.host.0).sum::<u64>();
    assert!((4_900_000..=5_000_000).contains(&host(1)) && host(8) == 5_000_000);
    // 2 ms an item and 0.9 ms besides: what batches 4 and 8 say.
    assert_eq!(solo_ns(&import.profile, "m", 1, 80) / 100_000, 29);
    assert_eq!(solo_ns(&import.profile, "m", 8, 80), 16_900_000);
    assert!(import.warnings.iter().any(|w| w.contains("flat over batches 1, 2")), "{import:?}");
    let none = import::table(&input, &device("v100-sxm2-16"), &TableOptions::default()).unwrap();
    assert_eq!(solo_ns(&none.profile, "m", 1, 80), 5_000_000);
}

/// A table of latencies: the host's 3 ms of every item, 4 ms of launches beside the GPU, and the GPU's
/// work of so many ms of one CU for every item.
fn items(host_ms: u32, cus: &[u32]) -> String {
    let mut text = "model,batch,cus,latency_ms,kernels\n".to_owned();
    for (batch, &cus) in [4, 8, 16, 32].into_iter().flat_map(|b| cus.iter().map(move |c| (b, c))) {
        let gpu = f64::from(batch * 80) / f64::from(cus);
        text += &format!("m,{batch},{cus},{},100\n", f64::from(host_ms * batch) + gpu.max(4.0));
    }
    text
}

#[test]
fn what_no_share_shortens_is_the_hosts_of_every_item() {
    let options = TableOptions { launch_floor: LaunchFloor::Auto };
    let read = |text: &str| {
        let input = Input { file: "t.csv", text };
        import::table(&input, &device("v100-sxm2-16"), &options).unwrap()
    };
    let import = read(&items(3, &[10, 20, 40, 80]));
    for batch in [4, 8, 16, 32] {
        let launches = &import.profile.models["m"].batches[&batch];
        let serial = launches[0].host.0 - launches[1].host.0;
        assert!(serial.abs_diff(3_000_000 * u64::from(batch)) < 1000, "{batch}: {serial}");
        let alone = solo_ns(&import.profile, "m", batch, 10) + launches[0].host.0;
        let latency = 11_000_000 * u64::from(batch);
        assert!(alone.abs_diff(latency) < latency / 100, "{batch}: {alone} of {latency}");
    }
    let said = "m: 3.000 ms of every item taken as the host's";
    assert!(import.warnings.iter().any(|w| w.starts_with(said)), "{:?}", import.warnings);
    // Wide shares alone say nothing: kernels may be too narrow for them. Nor does a twentieth.
    for text in [items(3, &[40, 80]), items(0, &[10, 20, 40, 80])] {
        let import = read(&text);
        let launches = &import.profile.models["m"].batches[&32];
        assert_eq!(launches[0].host, launches[1].host);
    }
}

#[test]
fn shares_that_come_to_the_same_cus_are_accounted_for() {
    let text = "model,batch,share_pct,latency_ms\nm,1,51.5,2\nm,1,50,3\nm,1,100,1\n";
    let import = table(text).unwrap();
    assert_eq!((import.rows_in, import.rows_used), (3, 2));
    assert_eq!(import.dropped.values().sum::<usize>(), 1);
    assert_eq!(solo_ns(&import.profile, "m", 1, 40), 3_000_000);
    // Percentages mean nothing to MPS on Pascal, and the table was still measured at something.
    let input = Input { file: "t.csv", text };
    let p40 = import::table(&input, &device("p40"), &TableOptions::default()).unwrap();
    assert_eq!(solo_ns(&p40.profile, "m", 1, 15), 3_000_000);
}

#[test]
fn bad_tables_say_where() {
    for (text, message) in [
        (
            "model,batch,share,latency_ms\n",
            "t.csv:1: share: unknown column: did you mean `share_pct`?; known are model, batch, \
             latency_ms, share_pct, cus, kernels, width_cus, host_ms, l2_util_pct, dram_util_pct, \
             power_w, weights_mib",
        ),
        (
            "model,batch,latency_ms\nm,1,2\n",
            "t.csv:1: share_pct: missing column; needed are one of share_pct and cus, not both",
        ),
        (
            "model,batch,cus,latency_ms\r\nm,1,80,2\r\n\r\nm,1,81,2\r\n",
            "t.csv:4: cus: 81 CUs: v100-sxm2-16 has 80",
        ),
        (
            "model,batch,share_pct,latency_ms\nm,1,120,2\n",
            "t.csv:2: share_pct: `120` is not a number above 0, up to 100",
        ),
        (
            "model,batch,share_pct,latency_ms\nm,0,20,2\n",
            "t.csv:2: batch: `0` is not a whole number from 1 to 1048576",
        ),
        (
            "model,batch,share_pct,latency_ms\n../m,1,20,2\n",
            "t.csv:2: model: `../m` is not a model name of letters, digits, `-`, `_`, `.` and `@` \
             that begins with a letter, a digit or `_`",
        ),
        (
            "model,batch,share_pct,latency_ms\nm,1,20,0\n",
            "t.csv:2: latency_ms: `0` is not a number above 0, up to 3600000",
        ),
        (
            "model,batch,share_pct,latency_ms\nm,1,20,2\nm,1,20,3\n",
            "t.csv:3: model: `m at the same batch and share` is there twice",
        ),
        (
            "model,batch,cus,latency_ms,kernels\nm,1,20,2,10\nm,1,40,1,11\n",
            "t.csv:3: kernels: `11` is not the one of the other rows of `m` at batch 1",
        ),
        (
            "",
            "t.csv:1: file: no header; expected the columns model, batch, latency_ms, share_pct, \
              cus, kernels, width_cus, host_ms, l2_util_pct, dram_util_pct, power_w, weights_mib",
        ),
    ] {
        assert_eq!(table(text).unwrap_err().to_string(), message);
    }
}

proptest! {
    #[test]
    fn any_text_is_an_answer_not_a_panic(text in "(?s).{0,200}") {
        let _ = orion(&[("m_1_fwd.csv", &text)]);
        let _ = reef(&text);
        let _ = table(&text);
    }

    #[test]
    fn any_row_is_an_answer_not_a_panic(row in "[-a-z0-9.,|\"\n]{0,80}") {
        let _ = orion(&[("m_1_fwd.csv", &format!("{HEAD}{row}"))]);
        let _ = reef(&format!("{REEF}m,0,k,1,1,1,1,1,1,1,1,{row}"));
        let _ = table(&format!("model,batch,cus,latency_ms\nm,{row}"));
    }

    #[test]
    fn whatever_a_table_says_is_accounted_for(
        rows in prop::collection::vec((1u32..4, 1u32..=1000, 1u32..100_000), 1..40)
    ) {
        let mut text = "model,batch,share_pct,latency_ms\n".to_owned();
        for (batch, share, us) in &rows {
            let (share, ms) = (f64::from(*share) / 10.0, f64::from(*us) / 1e3);
            text += &format!("m,{batch},{share},{ms}\n");
        }
        if let Ok(import) = table(&text) {
            let dropped: usize = import.dropped.values().sum();
            let points: usize =
                import.profile.kernels.iter().map(|k| k.curve.points().len()).sum();
            prop_assert_eq!(import.rows_in, rows.len());
            prop_assert_eq!(import.rows_used + dropped, rows.len());
            prop_assert_eq!(import.rows_used, points);
        }
    }
}

/// The zoo writes sizes as `bert_base@384`, and people name their measurements after it.
#[test]
fn a_model_with_its_size_in_the_name_is_written_and_read() {
    let text = "model,batch,share_pct,latency_ms\nbert_base@384,1,100,9.5\n";
    let input = Input { file: "t.csv", text };
    let import = import::table(&input, &device("a100-sxm-40"), &TableOptions::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    files::write(folder.path(), &import.profile).unwrap();
    assert!(folder.path().join("models/bert_base@384.csv").exists());
    let read = files::read(folder.path()).unwrap();
    assert_eq!(read.models.keys().collect::<Vec<_>>(), ["bert_base@384"]);
}
