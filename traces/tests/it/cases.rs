//! Traces that users bring and that are not quite right: what is said of each. The rows that come
//! from a table of cases run where `COTENANT_PUBLIC_DATA` names a folder with `cases/`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use cotenant_profiles::Nanos;
use cotenant_traces::{ArrivalSpec, ReadOptions, convert, read};

fn rows(path: &Path, options: &ReadOptions) -> Result<Vec<cotenant_traces::Row>, String> {
    let stream = read::open(path, None, options).map_err(|e| e.to_string())?;
    stream.map(|row| row.map_err(|e| e.to_string())).collect()
}

fn spec(json: &str) -> ArrivalSpec {
    serde_json::from_str(json).unwrap_or_else(|e| panic!("{json}: {e}"))
}

fn notes(folder: &Path, json: &str, seconds: u64) -> Vec<String> {
    let notes = spec(json).notes(folder, 1, "t", Nanos::from_secs(seconds));
    notes.unwrap_or_else(|e| panic!("{json}: {e}"))
}

fn case(file: &str) -> Option<PathBuf> {
    let Some(root) = std::env::var_os("COTENANT_PUBLIC_DATA") else {
        eprintln!("COTENANT_PUBLIC_DATA is not set: {file} is not tried");
        return None;
    };
    Some(Path::new(&root).join("cases").join(file)).filter(|path| path.exists())
}

fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

/// File and arrivals in ns, or a part of the error.
const CASES: &[(&str, Result<&[u64], &str>)] = &[
    ("azure-fractions.csv", Ok(&[0, 1_000_000, 8_000_000, 10_000_000, 999_000_000, 999_000_000])),
    ("azure-bom-tz.csv", Ok(&[0, 3_600_000_000_000])),
    ("azure-newyear.csv", Ok(&[0, 200])),
    ("mooncake-two-numbers.jsonl", Err("mooncake-two-numbers.jsonl:2: ")),
    ("iv-neg.json", Err("iv-neg.json")),
    ("dup-header.csv", Err("dup-header.csv:3: ")),
    ("burst-restart.csv", Err("burst-restart.csv:4: the clock restarts")),
];

#[test]
fn traces_of_the_table_give_their_arrivals_or_their_error() {
    for (name, want) in CASES {
        let Some(path) = case(name) else { continue };
        let found = rows(&path, &ReadOptions::default());
        match (found, want) {
            (Ok(rows), Ok(want)) => {
                let at: Vec<u64> = rows.iter().map(|row| row.arrival.0).collect();
                assert_eq!(&at[..want.len()], *want, "{name}");
            }
            (Err(error), Err(want)) => assert!(error.contains(want), "{name}: {error}"),
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}

#[test]
fn a_run_without_a_request_of_its_trace_is_told_where_the_nearest_is() {
    for (name, window) in
        [("burst2-offset.csv", "5300000s"), ("mooncake-epoch.jsonl", "28588320min")]
    {
        let Some(path) = case(name) else { continue };
        let json = format!(r#"{{"kind":"trace","file":"{}"}}"#, path.display());
        let said = notes(Path::new("/"), &json, 60).join("\n");
        assert!(said.contains("no request falls into the run of 1min"), "{said}");
        assert!(said.contains(&format!("give window = \"{window}..\"")), "{said}");
        let json =
            format!(r#"{{"kind":"trace","file":"{}","window":"{window}.."}}"#, path.display());
        assert_eq!(notes(Path::new("/"), &json, 60), [""; 0]);
    }
}

#[test]
fn fractional_milliseconds_are_pointed_out() {
    let line =
        |at: &str| format!("{{\"timestamp\": {at}, \"input_length\": 10, \"output_length\": 5}}\n");
    let (folder, _) = file("seconds.jsonl", &["0.0", "0.2", "0.4"].map(line).concat());
    let said = notes(folder.path(), r#"{"kind":"trace","file":"seconds.jsonl"}"#, 60);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("seconds.jsonl:2: timestamp `0.2` is a fraction"), "{said:?}");
    let (folder, _) = file("whole.jsonl", &["0.0", "200", "400"].map(line).concat());
    assert_eq!(notes(folder.path(), r#"{"kind":"trace","file":"whole.jsonl"}"#, 60), [""; 0]);
}

const QUIET: &str = "# cotenant-trace v1\n# duration_ns=100000000000\narrival_s,tenant,model\n\
    1,a,m\n20,b,m\n90,a,m\n";

#[test]
fn an_empty_window_is_a_quiet_tenant_and_a_wrong_filter_a_mistake() {
    let (folder, _) = file("t.csv", QUIET);
    let open = |json: &str| {
        let spec = spec(json);
        let mut arrivals = spec.open(folder.path(), 1, "t").map_err(|e| e.to_string())?;
        Ok::<_, String>(std::iter::from_fn(|| arrivals.next_request()).count())
    };
    let empty = r#"{"kind":"trace","file":"t.csv","tenant":"b","window":"30s..60s"}"#;
    assert_eq!(open(empty), Ok(0));
    let said = notes(folder.path(), empty, 60).join("\n");
    assert!(
        said.ends_with("no request in the window 30s..60s; the nearest arrives at 20s"),
        "{said}"
    );
    let looped = r#"{"kind":"trace","file":"t.csv","tenant":"b","window":"30s..60s","loop":true}"#;
    assert_eq!(open(looped), Ok(0));
    let wrong = open(r#"{"kind":"trace","file":"t.csv","tenant":"nobody","window":"30s..60s"}"#);
    assert!(wrong.as_ref().is_err_and(|e| e.contains("no row is left")), "{wrong:?}");
    let within = r#"{"kind":"trace","file":"t.csv","window":"10s..30s"}"#;
    assert_eq!((open(within), notes(folder.path(), within, 60)), (Ok(1), vec![]));
    // 20 s stand before the one request of this window, and the run lasts 5.
    let late = notes(
        folder.path(),
        r#"{"kind":"trace","file":"t.csv","window":"0..30s","tenant":"b"}"#,
        5,
    );
    assert!(late[0].contains("the nearest arrives at 20s: give a later `window`"), "{late:?}");
}

#[test]
fn a_clock_that_restarts_is_no_disorder() {
    let head = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n";
    let row = |at: u64| format!("{at},m,1,1,2,API log\n");
    let text = |stamps: &[u64]| stamps.iter().fold(head.to_owned(), |t, &at| t + &row(at));
    let (_folder, path) = file("restart.csv", &text(&[100, 200, 5]));
    let error = rows(&path, &ReadOptions::default()).unwrap_err();
    assert!(error.ends_with("split the file here") && error.contains(":4: the clock"), "{error}");
    let output = path.with_file_name("out.csv");
    let sorted = ReadOptions { sort: true, ..ReadOptions::default() };
    let report = convert(None, &path, &output, &[], &sorted).unwrap();
    assert!(report.warnings.iter().any(|w| w.contains(":4: the clock restarts")), "{report:?}");
    let (_folder, path) = file("disorder.csv", &text(&[100, 200, 190]));
    let error = rows(&path, &ReadOptions::default()).unwrap_err();
    assert!(error.contains("convert with `sort`"), "{error}");
}

#[test]
fn splitwise_and_image_generation_are_read() {
    let (_folder, path) = file(
        "splitwise.csv",
        "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,\
         token_size\n0,2,0,1,1,4096,32\n1,2,7,3.5,2,2048,8\n",
    );
    let read = rows(&path, &ReadOptions::default()).unwrap();
    assert_eq!((read[1].arrival, read[1].items), (Nanos::from_millis(3500), 2));
    assert_eq!(
        (&*read[1].tenant, read[1].tokens_in, read[1].tokens_out),
        ("app-7", Some(2048), Some(8))
    );
    let (_folder, path) = file(
        "lora_request_trace.csv",
        "gmt_create,predict_type,predict_status,exec_time_seconds,groupId,prompt_length,\
         negative_prompt_length,num_images_per_prompt,num_inference_steps,\
         checkpoint_model_version_id,num_lora\n\
         2024-11-15 16:57:50,TXT_2_IMG,SUCCEED,32.0,G0000,63.0,26.0,1.0,30.0,M0000,0\n\
         2024-11-15 18:16:14,TXT_2_IMG,FAILED,43.0,G0001,93.0,,8.0,60.0,M0001,0\n\
         2024-11-15 18:17:06,TXT_2_IMG,PENDING,0.0,G0001,93.0,,,,,0\n",
    );
    let stream = read::open(&path, None, &ReadOptions::default()).unwrap();
    let tally = std::sync::Arc::clone(&stream.tally);
    let read: Vec<_> = stream.map(Result::unwrap).collect();
    assert_eq!(read.len(), 2);
    assert_eq!(
        (&*read[1].tenant, &*read[1].model, read[1].items, read[1].work),
        ("G0001", "M0001", 8, 2.0)
    );
    assert_eq!(read[1].arrival, Nanos::from_secs(4704));
    assert_eq!(tally.counts().dropped["incomplete"], 1);
}

#[test]
fn what_holds_no_requests_is_said_to() {
    for (name, text) in [
        (
            "cluster_job_log",
            "[\n{\"status\": \"Pass\", \"vc\": \"ee9e8c\", \"jobid\": \"app_1\", \"attempts\": []}\n]\n",
        ),
        ("helios.csv", "job_id,user,vc,gpu_num,cpu_num,state,submit_time\n1,u,v,1,1,ok,2020\n"),
        ("pods.csv", "name,cpu_milli,memory_mib,num_gpu,gpu_milli\np,1,1,1,1\n"),
        ("kernels.json", "{\"schemaVersion\": 1, \"traceEvents\": []}\n"),
    ] {
        let (_folder, path) = file(name, text);
        let error = rows(&path, &ReadOptions::default()).unwrap_err();
        assert!(error.contains("this is not a request trace"), "{name}: {error}");
    }
}

#[test]
fn unknown_columns_are_kept_on_request() {
    let (_folder, path) = file(
        "conv.csv",
        "TIMESTAMP,ContextTokens,GeneratedTokens,Region Name\n2023-11-16 18:15:46,1,2,\"a,b\"\n",
    );
    let refused = rows(&path, &ReadOptions::default()).unwrap_err();
    assert!(refused.contains("unknown column `Region Name`"), "{refused}");
    let keep = ReadOptions { keep_extra: true, ..ReadOptions::default() };
    let output = path.with_file_name("out.csv");
    convert(None, &path, &output, &[], &keep).unwrap();
    let text = std::fs::read_to_string(&output).unwrap();
    assert!(
        text.ends_with("tokens_in,tokens_out,x_region_name\n0,conv,llm,1,2,\"a,b\"\n"),
        "{text}"
    );
    let (_folder, path) = file(
        "m.jsonl",
        "{\"timestamp\":0,\"input_length\":1,\"output_length\":2,\"delay\":4}\n\
         {\"timestamp\":5,\"input_length\":1,\"output_length\":2}\n",
    );
    let kept: Vec<_> = rows(&path, &keep).unwrap().into_iter().map(|row| row.extra).collect();
    assert_eq!((&*kept[0][0], &*kept[1][0]), ("4", ""));
}

#[test]
fn nothing_that_never_ends_is_read() {
    let (folder, _) = file("x", "");
    for (path, want) in
        [(Path::new("/dev/zero"), "is a device or a pipe"), (folder.path(), "is a folder")]
    {
        let error = read::open(path, Some("vidur"), &ReadOptions::default()).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }
    // A line without end, a quote without end, nothing but line ends; and each as a gzip bomb.
    let head = "arrived_at,num_prefill_tokens,num_decode_tokens\n";
    for filler in ["0", "\"a\n", "\n"] {
        let text = head.to_owned() + &filler.repeat((32 << 20) / filler.len());
        let path = folder.path().join("long.csv");
        std::fs::write(&path, &text).unwrap();
        let error = rows(&path, &ReadOptions::default()).unwrap_err();
        assert!(
            error.contains("over 1 MiB") || error.contains("fields where"),
            "{filler:?}: {error}"
        );
        let bomb = folder.path().join("bomb.csv.gz");
        let file = std::fs::File::create(&bomb).unwrap();
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap();
        let again = rows(&bomb, &ReadOptions::default()).unwrap_err();
        assert_eq!(again.replace("bomb.csv.gz", "long.csv"), error);
    }
}
