//! Broken traces, each with its exact message; and any bytes at all, which must never panic.

use std::path::Path;

use cotenant_traces::read::{self, FORMATS};
use cotenant_traces::{ReadOptions, Transform};
use proptest::prelude::*;

/// Reads a file to its end.
fn read(path: &Path, format: Option<&str>) -> Result<u64, String> {
    let stream = read::open(path, format, &ReadOptions::default()).map_err(|e| e.to_string())?;
    let mut rows = 0;
    for row in stream {
        row.map_err(|e| e.to_string())?;
        rows += 1;
    }
    Ok(rows)
}

/// File name and format (empty: told from the file), and the message behind the file's path.
const CORPUS: &[(&str, &str, &str)] = &include!("../broken/messages.in");

#[test]
fn every_broken_trace_has_its_message() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut wrong = Vec::new();
    for (file, format, want) in CORPUS {
        let path = folder.join(file);
        let format = (!format.is_empty()).then_some(*format);
        let error = read(&path, format).expect_err(file);
        let error = error.replace(&path.display().to_string(), "FILE");
        if error != *want {
            wrong.push(format!("(\"{file}\", \"{}\", {error:?}),", format.unwrap_or("")));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_corpus_is_the_folder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".csv"))
        .collect();
    files.sort();
    let mut listed: Vec<&str> = CORPUS.iter().map(|entry| entry.0).collect();
    listed.sort_unstable();
    assert_eq!(files, listed);
}

#[test]
fn a_missing_file_is_named() {
    let error = read(Path::new("/no/such/trace.csv"), None).unwrap_err();
    assert!(error.starts_with("/no/such/trace.csv: No such file"), "{error}");
}

#[test]
fn a_damaged_compressed_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for (name, magic) in
        [("a.gz", &[0x1F, 0x8B, 8][..]), ("a.zst", &[0x28, 0xB5, 0x2F, 0xFD, 4][..])]
    {
        let path = folder.path().join(name);
        std::fs::write(&path, magic).unwrap();
        assert!(read(&path, Some("canonical")).is_err(), "{name}");
    }
}

/// Headers that lead each reader past its first check.
const HEADERS: [&str; 11] = [
    "",
    "# cotenant-trace v1\narrival_ns,tenant,model,items,slo_ms,prio,work,x_a\n",
    "# cotenant-counts v1\n# bin_ns=1000\nbin,tenant,model,count\n",
    "# cotenant-counts v1\n# bin_ns=1000\nbin,tenant,model,rate_rps,cv,dist,p1,p2\n",
    "TIMESTAMP,ContextTokens,GeneratedTokens\n",
    "HashOwner,HashApp,HashFunction,Trigger,1,2\n",
    "app,func,end_timestamp,duration\n",
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n",
    "arrived_at,num_prefill_tokens,num_decode_tokens\n",
    "{\"timestamp\":1,\"input_length\":1,\"output_length\":1}\n",
    "{\"time\":1,\"tasks\":[\n",
];

/// Fields that are nearly right.
fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,3}",
        "-?[0-9]{1,22}(\\.[0-9]{0,3})?(e-?[0-9]{1,3})?",
        Just("2023-11-16 18:15:46.1".to_owned()),
        Just("Gamma".to_owned()),
        Just("NaN".to_owned()),
        "[a-z\"#{}\\[\\]:é\\r]{0,5}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_reader_panics(
        header in 0..HEADERS.len(),
        lines in prop::collection::vec(prop::collection::vec(field(), 1..9), 0..6),
        cut in 0..400usize,
    ) {
        let mut text = HEADERS[header].to_owned();
        for fields in lines {
            text.push_str(&fields.join(","));
            text.push('\n');
        }
        let mut bytes = text.into_bytes();
        bytes.truncate(cut.max(1));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any.csv");
        std::fs::write(&path, bytes).unwrap();
        for format in FORMATS {
            if let Ok(mut stream) = read::open(&path, Some(format.name), &ReadOptions::default()) {
                // A legal count may ask for very many requests: the first thousand will do.
                let rows: Vec<_> = stream.by_ref().take(1000).take_while(Result::is_ok).collect();
                let times = rows.iter().flatten().map(|row| row.arrival);
                prop_assert!(times.is_sorted(), "{}", format.name);
            }
        }
        let _ = read::sniff(&path);
    }

    #[test]
    fn no_transform_text_panics(text in "(window|filter|map|top|load|refit|rename)?:?.{0,20}") {
        let _ = text.parse::<Transform>();
    }
}
