//! Devices: the files that ship, what bad ones are told, and the arithmetic of hardware instances.

use std::path::Path;

use cotenant_profiles::Device;
use cotenant_profiles::device::{DispatchRule, Mig, MigPlacement};
use cotenant_profiles::lower::Precision;
use proptest::prelude::*;

fn builtin(name: &str) -> Device {
    Device::builtin(name).unwrap()
}

fn mig(name: &str) -> Mig {
    builtin(name).mig.unwrap()
}

/// The comment of a line, if it sets a value.
fn value_comment(line: &str) -> Option<&str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') || line.starts_with('[') {
        return None;
    }
    let mut quoted = false;
    let hash = line.char_indices().find(|&(_, c)| {
        quoted ^= c == '"';
        c == '#' && !quoted
    });
    Some(hash.map_or("", |(i, _)| line[i + 1..].trim()))
}

#[test]
fn every_value_says_where_it_comes_from() {
    let sources = [
        "data sheet: ",
        "white paper: ",
        "docs: ",
        "paper: ",
        "source code: ",
        "measured: ",
        "calibrated: ",
        "derived: ",
        "knob: ",
    ];
    for name in Device::builtin_names() {
        let text = Device::builtin_text(name).unwrap();
        for (number, line) in text.lines().enumerate() {
            let Some(comment) = value_comment(line) else { continue };
            let sourced = sources.iter().any(|s| comment.len() > s.len() && comment.starts_with(s));
            assert!(sourced, "{name}.toml:{}: no source: {line}", number + 1);
        }
    }
}

#[test]
fn every_device_file_is_built_in_and_reads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("devices");
    let mut files: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|f| f.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    assert_eq!(files, Device::builtin_names().collect::<Vec<_>>());
    for name in &files {
        let by_path = Device::find(&format!("{name}.toml"), &folder).unwrap();
        assert_eq!(by_path, Device::find(name, Path::new("/nowhere")).unwrap());
    }
}

#[test]
fn compute_units_are_those_of_the_data_sheets() {
    let cus = |name| builtin(name).cus();
    assert_eq!(cus("mi50"), 60);
    assert_eq!(cus("p40"), 30);
    assert_eq!(cus("v100-sxm2-16"), 80);
    assert_eq!((cus("a100-sxm-40"), cus("a100-sxm-80"), cus("a30")), (108, 108, 56));
    assert_eq!((cus("h100-sxm"), cus("h200-sxm")), (132, 132));
    assert_eq!(builtin("mi50").topology.groups, [15; 4]);
    assert_eq!(builtin("mi50").dispatch.rule, DispatchRule::EvenGroups);
}

#[test]
fn peak_rates_follow_from_lanes_and_clock() {
    // Lanes of a CU times two operations times the boost clock: catches a rate of another board.
    for (name, lanes) in [
        ("mi50", 64.0),
        ("p40", 128.0),
        ("v100-sxm2-16", 64.0),
        ("a100-sxm-40", 64.0),
        ("a100-sxm-80", 64.0),
        ("a30", 64.0),
        ("h100-sxm", 128.0),
        ("h200-sxm", 128.0),
    ] {
        let d = builtin(name);
        let tflops = f64::from(d.cus()) * lanes * 2.0 * d.clock.boost_mhz / 1e6;
        let error = (d.compute.fp32_tflops / tflops - 1.0).abs();
        assert!(error < 0.01, "{name}: {} against {tflops}", d.compute.fp32_tflops);
    }
}

#[test]
fn full_load_stays_near_the_board_limit() {
    for name in Device::builtin_names() {
        let d = builtin(name);
        let dram = d.memory.dram_gbps * d.power.dram_pj_per_byte / 1e3;
        let watts = d.power.idle_w + d.power.cu_w * f64::from(d.cus()) + dram;
        assert!((watts / d.power.cap_w - 1.0).abs() < 0.01, "{name}: {watts} W");
    }
}

#[test]
fn mps_shares_round_down_to_whole_tpcs() {
    let h200 = builtin("h200-sxm");
    let granted = [10.0, 25.0, 30.0, 33.0, 40.0, 50.0, 75.0, 100.0].map(|p| h200.mps_cus(p));
    assert_eq!(granted, [12, 32, 38, 42, 52, 66, 98, 132]);
    // Percentages need Volta: on Pascal every client may use every SM.
    assert_eq!(builtin("p40").mps_cus(10.0), 30);
    assert_eq!(h200.mps_cus(0.1), 2);
}

#[test]
fn real_boards_and_not_the_mocks() {
    for name in ["h100-sxm", "h200-sxm"] {
        let cus: Vec<(String, u32)> =
            mig(name).profiles.into_iter().map(|p| (p.name, p.cus)).collect();
        let want = [("1g", 16), ("1g+mem", 26), ("2g", 32), ("3g", 60), ("4g", 64), ("7g", 132)];
        assert_eq!(cus, want.map(|(n, c)| (n.to_owned(), c)), "{name}");
    }
    let a100 = mig("a100-sxm-40");
    assert_eq!(a100.profile("7g").unwrap().1.cus, 98);
    assert_eq!(a100.profile("1g").unwrap().1.capacity, "4.75GiB".parse().unwrap());
}

#[test]
fn an_instance_has_its_share_of_memory() {
    let h100 = builtin("h100-sxm");
    let (_, three) = h100.mig.as_ref().unwrap().profile("3g").unwrap();
    let instance = h100.mig_instance(three);
    assert_eq!((instance.cus, instance.copy_engines), (60, 3));
    assert_eq!(instance.dram_share, 0.5);
    assert_eq!(instance.dram_gbps, 1676.0);
    assert_eq!(instance.l2, "25MiB".parse().unwrap());
    let (_, double) = h100.mig.as_ref().unwrap().profile("1g+mem").unwrap();
    let instance = h100.mig_instance(double);
    assert_eq!((instance.dram_share, instance.l2_share), (0.25, 0.125));

    let device = h100.mig_device(three);
    assert_eq!((device.cus(), device.topology.groups.len()), (60, 3));
    assert_eq!(device.memory.capacity, "39.5GiB".parse().unwrap());
    assert!((device.compute.fp32_tflops - 66.9 * 60.0 / 132.0).abs() < 1e-9);
}

fn starts(mig: &Mig, names: &[&str]) -> Vec<u32> {
    mig.placements(names).unwrap().into_iter().map(|p| p.start).collect()
}

#[test]
fn instances_are_placed_in_tenant_order_with_legal_starts() {
    let h100 = mig("h100-sxm");
    assert_eq!(starts(&h100, &["1g"; 7]), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(starts(&h100, &["3g", "4g"]), [4, 0]);
    // Created in this order without explicit starts, the driver refuses it on a real A100.
    assert_eq!(starts(&mig("a100-sxm-40"), &["1g", "1g", "2g", "3g"]), [2, 3, 0, 4]);
    assert_eq!(h100.placements(&[]).unwrap(), Vec::<MigPlacement>::new());
}

#[test]
fn impossible_sets_say_why() {
    let h100 = mig("h100-sxm");
    for (names, message) in [
        (
            &["1g", "1g.30gb"][..],
            "no instance profile `1g.30gb`: did you mean `1g`?; this device has 1g.10gb (1g), \
             1g.20gb (1g+mem), 2g.20gb (2g), 3g.40gb (3g), 4g.40gb (4g), 7g.80gb (7g)",
        ),
        (&["4g", "4g"], "2 instances of `4g`: this device holds at most 1"),
        (&["7g", "1g"], "7g + 1g take 8 compute slices: this device has 7"),
        (
            &["3g", "3g", "1g"],
            "3g + 3g + 1g do not fit the 8 memory slices from any legal starts \
             (1g from [0, 1, 2, 3, 4, 5, 6], 3g from [0, 4])",
        ),
    ] {
        assert_eq!(h100.placements(names).unwrap_err().to_string(), message);
    }
}

/// The sets that nothing beats, by name, largest first.
fn best(device: &str, n: usize) -> Vec<String> {
    let mig = mig(device);
    mig.combinations(n)
        .iter()
        .map(|set| set.iter().map(|&i| mig.profiles[i].name.as_str()).collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
fn a_search_sees_only_sets_that_nothing_beats() {
    assert_eq!(best("h100-sxm", 1), ["7g"]);
    assert_eq!(best("h100-sxm", 2), ["4g 3g"]);
    assert_eq!(best("h100-sxm", 3), ["4g 2g 1g+mem", "3g 2g 2g"]);
    // The placement table leaves slot 7 to a double-memory instance that starts at 6.
    assert_eq!(best("h100-sxm", 7), ["1g+mem 1g 1g 1g 1g 1g 1g"]);
    assert_eq!(best("h100-sxm", 8), Vec::<String>::new());
    assert_eq!(best("a30", 3), ["2g 1g 1g"]);
}

fn broken(device: &str, from: &str, to: &str) -> String {
    let text = Device::builtin_text(device).unwrap();
    assert!(text.contains(from), "{from}");
    Device::parse(&text.replacen(from, to, 1), "x.toml").unwrap_err().to_string()
}

#[test]
fn bad_device_files_say_file_line_and_field() {
    for (from, to, message) in [
        (
            "[15, 15, 15, 15]",
            "[15, 0, 15]",
            "x.toml:9: topology.groups: a group of 0 CUs: every group has at least one",
        ),
        ("[15, 15, 15, 15]", "[400]", "x.toml:9: topology.groups: 400 CUs in all: at most 320"),
        (
            "threads_per_cu",
            "thread_per_cu",
            "x.toml:10: topology.thread_per_cu: unknown field `thread_per_cu`, expected one of \
             `groups`, `threads_per_cu`, `blocks_per_cu`, `registers_per_cu`, `smem_per_cu`: did \
             you mean `threads_per_cu`?",
        ),
        (
            "\"16GiB\"",
            "\"16 gigs\"",
            "x.toml:26: memory.capacity: `16 gigs` is not a size: write a number and a unit, such \
             as `64MiB`, `1.5GiB` or `4096B`",
        ),
        (
            "dram_gbps = 1024.0",
            "dram_gbps = -1.0",
            "x.toml:27: memory.dram_gbps: -1 is not plausible: give a value from 0.1 to 1000000",
        ),
        (
            "\"even-groups\"",
            "\"even\"",
            "x.toml:41: dispatch.rule: unknown variant `even`, expected `least-loaded` or \
             `even-groups`",
        ),
        ("step_cus = 1 ", "step_cus = 61 ", "x.toml:45: mask.step_cus: 61 must be from 1 to 60"),
    ] {
        assert_eq!(broken("mi50", from, to), message);
    }
    for (from, to, message) in [
        (
            "starts = [0, 1, 2, 3, 4, 5, 6]",
            "starts = [0, 8]",
            "mig.profiles[0].starts: start 8 with 1 slices ends beyond 8",
        ),
        ("name = \"2g\"", "name = \"1g\"", "mig.profiles[2].name: `1g` is there twice"),
        ("cus = 60 ", "cus = 72 ", "mig.profiles[3].max: 2 instances of 72 CUs are more than 132"),
    ] {
        let error = broken("h100-sxm", from, to);
        assert!(error.ends_with(message), "{error}");
    }
}

#[test]
fn unknown_devices_and_files_are_named() {
    let error = Device::builtin("h100").unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "no device `h100`: did you mean `h100-nvl`, `h100-pcie` or `h100-sxm`? Built-in devices: \
             {}, or give the path of a .toml file",
            Device::builtin_names().collect::<Vec<_>>().join(", ")
        )
    );
    for (asked, meant) in [
        ("NVIDIA A100 80GB PCIe", ": did you mean `a100-pcie-80`?"),
        ("NVIDIA A100-SXM4-40GB", ": did you mean `a100-sxm-40`?"),
        ("GeForce RTX 4090", ": did you mean `rtx-4090`?"),
        ("Tesla T4", ": did you mean `t4`?"),
        ("a31", ": did you mean `a30`?"),
        ("radeon", ". Built-in devices"),
    ] {
        let error = Device::builtin(asked).unwrap_err().to_string();
        assert!(error.starts_with(&format!("no device `{asked}`{meant}")), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let error = Device::find("mine.toml", folder.path()).unwrap_err().to_string();
    assert!(error.contains("mine.toml: ") && error.contains("No such file"), "{error}");
    std::fs::write(folder.path().join("mine.toml"), Device::builtin_text("mi50").unwrap()).unwrap();
    let error = Device::find("mine.toml", folder.path()).unwrap_err().to_string();
    assert!(error.ends_with("name: `mi50` in the file of `mine`: they must agree"), "{error}");
}

proptest! {
    #[test]
    fn any_text_is_an_answer_not_a_panic(text in "[ -~\n]{0,200}") {
        let _ = Device::parse(&text, "x.toml");
    }

    #[test]
    fn any_change_of_one_line_is_an_answer_not_a_panic(line in 0usize..200, with in "[ -~]{0,40}") {
        let text = Device::builtin_text("h100-sxm").unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        let at = line % lines.len();
        lines[at] = &with;
        if let Ok(device) = Device::parse(&lines.join("\n"), "x.toml") {
            prop_assert!(device.cus() > 0);
        }
    }

    #[test]
    fn placements_never_overlap(picks in prop::collection::vec(0usize..6, 0..8)) {
        let mig = mig("h100-sxm");
        let names: Vec<&str> = picks.iter().map(|&i| mig.profiles[i].name.as_str()).collect();
        if let Ok(placed) = mig.placements(&names) {
            let mut taken = [false; 8];
            for (p, &pick) in placed.iter().zip(&picks) {
                prop_assert_eq!(p.profile, pick);
                let profile = &mig.profiles[pick];
                prop_assert!(profile.starts.contains(&p.start));
                for slot in p.start..p.start + profile.memory {
                    prop_assert!(!taken[slot as usize]);
                    taken[slot as usize] = true;
                }
            }
        }
    }
}

#[test]
fn instances_answer_to_nvidias_names() {
    let names = |device: &str| {
        let device = Device::builtin(device).unwrap();
        let mig = device.mig.unwrap();
        mig.profiles.iter().map(|p| mig.nvidias_name(p)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("a100-sxm-40"), "1g.5gb 1g.10gb 2g.10gb 3g.20gb 4g.20gb 7g.40gb");
    assert_eq!(names("a100-sxm-80"), "1g.10gb 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb");
    assert_eq!(names("h100-sxm"), "1g.10gb 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb");
    assert_eq!(names("h200-sxm"), "1g.18gb 1g.35gb 2g.35gb 3g.71gb 4g.71gb 7g.141gb");
    assert_eq!(names("a30"), "1g.6gb 2g.12gb 4g.24gb");
    let mig = Device::builtin("a100-sxm-80").unwrap().mig.unwrap();
    let short = |name: &str| mig.profile(name).map(|(_, p)| p.name.clone());
    assert_eq!(short("3g.40gb").as_deref(), Ok("3g"));
    assert_eq!(short("1g.20gb").as_deref(), Ok("1g+mem"));
    assert_eq!(short("1g.10gb+me").as_deref(), Ok("1g"));
    assert_eq!(short("2g").as_deref(), Ok("2g"));
    let error = short("3g.20gb").unwrap_err().to_string();
    assert!(error.contains("3g.40gb (3g)"), "{error}");
    let error = mig.placements(&["1g.10gb+me", "1g.10gb+me"]).unwrap_err().to_string();
    assert!(error.contains("at most 1"), "{error}");
    assert!(mig.placements(&["1g.10gb+me", "1g.10gb", "3g.40gb"]).is_ok());
}

#[test]
fn small_boards_do_not_hold_their_clock() {
    let held = |name: &str, precision: Precision| {
        let d = Device::builtin(name).unwrap();
        d.held_clock(precision.on_matrix_units(&d), precision.peak_tops(&d))
    };
    assert!(held("l4", Precision::Fp32) < 0.5 && held("t4", Precision::Fp32) < 0.6);
    assert!(held("v100-sxm2-16", Precision::Fp32) > 0.99);
    assert!((held("h100-sxm", Precision::Bf16) - 1.0).abs() < 1e-9);
    let served = |name: &str| Device::builtin(name).unwrap().default_precision();
    assert_eq!((served("h100-sxm"), served("rtx-4090")), (Precision::Fp16, Precision::Fp16));
    assert_eq!((served("p40"), served("mi50")), (Precision::Fp32, Precision::Fp32));
}
