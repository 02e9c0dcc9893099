//! rocprofv3, CSV of Nsight Systems, tables of serving tools, a trace that PyTorch wrote.

use cotenant_profiles::import::{
    self, Import, Input, Recording, StreamOptions, Tool, WholeOptions,
};
use rusqlite::Connection;

use super::fuzz::readers::ROCPROF_JSON;
use super::{alone_ns, databases, device, fixture, import, launches_and_ns, options};

pub(super) fn stream(tool: Tool, text: &str, options: &StreamOptions) -> Result<Import, String> {
    let read = Recording::stream(tool, "f.csv", text.as_bytes()).map_err(|e| e.to_string())?;
    read.model(&device(), options).map_err(|e| e.to_string())
}

#[test]
fn a_trace_that_pytorch_wrote_gives_its_steps() {
    let read = super::read(Tool::Torch, &fixture("torch_real.json.gz")).unwrap();
    let gpu = read.gpu(None).unwrap().unwrap();
    assert_eq!((gpu.name.as_str(), gpu.cus), ("NVIDIA H100 80GB HBM3", Some(132)));
    assert_eq!(gpu.mismatch(&device()), None);
    let import = read.model(&device(), &options()).unwrap();
    // As fixtures/torch_real.py prints it.
    assert_eq!(launches_and_ns(&import), (9, 91_500), "{:?}", import.notes);
    assert!(import.notes[0].starts_with("passes: 5 marks `ProfilerStep#3`"), "{:?}", import.notes);
    let took: u64 = import.profile.provenance["took_ns"].parse().unwrap();
    assert!(alone_ns(&import).abs_diff(took) * 20 <= took, "{} {took}", alone_ns(&import));
}

const TRACE: &str = "Generating SQLite file report.sqlite from report.nsys-rep\n\nStart (ns),Duration (ns),CorrId,GrdX,GrdY,GrdZ,BlkX,BlkY,BlkZ,Reg/Trd,StcSMem (MB),DymSMem (MB),Bytes (MB),Throughput (MBps),SrcMemKd,DstMemKd,Device,Ctx,Strm,Name\n";

#[test]
fn nsys_stats_prints_a_trace() {
    let mut text = TRACE.to_owned();
    for i in 0..4 {
        let at = 1_000_000 + i * 100_000;
        text += &format!(
            "{at},20000,{i},,,,,,,,,,1.000,50.0,Pageable,Device,NVIDIA H100 80GB HBM3 (0),1,7,[CUDA memcpy Host-to-Device]\n"
        );
        text += &format!(
            "{},5000,{i},8,1,1,128,1,1,32,0.000,0.002,,,,,NVIDIA H100 80GB HBM3 (0),1,7,\"void gemm<1, 2>(float*)\"\n",
            at + 30_000
        );
        text += &format!(
            "{},6000,{i},8,2,1,128,1,1,32,0.000,0.000,,,,,NVIDIA H100 80GB HBM3 (0),1,7,relu\n",
            at + 45_000
        );
    }
    let import = stream(Tool::Nsys, &text, &StreamOptions { batch: 1, ..options() }).unwrap();
    assert_eq!(launches_and_ns(&import), (2, 11_000));
    let gemm = &import.profile.kernels[0];
    assert_eq!(
        (gemm.name.as_str(), gemm.grid, gemm.smem_bytes),
        ("void gemm<1, 2>(float*)", [8, 1, 1], 2000)
    );
    assert_eq!(import.profile.models["net"].input_per_item.0, 1_000_000);
    // From the begin of the copy to the end of the second kernel.
    assert!(alone_ns(&import).abs_diff(51_000) < 500, "{}", alone_ns(&import));
    // The same in other units.
    let micros = text.replace("Start (ns),Duration (ns)", "Start (us),Duration (us)");
    let import = stream(Tool::Nsys, &micros, &options()).unwrap();
    assert_eq!(launches_and_ns(&import), (2, 11_000_000));
}

#[test]
fn nsys_stats_prints_a_summary() {
    let head =
        "Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name\n";
    let text = format!(
        "{head}60.0,6000000,20,3,3,1,2,0.1,gemm\n39.9,4000000,10,4,4,1,2,0.1,relu\n0.0,1000,1,1,1,1,1,0,init\n"
    );
    let import = stream(Tool::Nsys, &text, &options()).unwrap();
    // Ten passes: 2 × 300 and 1 × 400 µs.
    assert_eq!(launches_and_ns(&import), (3, 1_000_000));
    assert!(import.warnings[0].contains("10 passes (the common factor"), "{:?}", import.warnings);
    let launches = &import.profile.models["net"].batches[&8];
    assert!(launches.iter().all(|l| l.host == device().costs.launch));
    let odd = text.replace(",10,4", ",7,4");
    let error = stream(Tool::Nsys, &odd, &options()).unwrap_err();
    assert!(error.ends_with("is not enough by itself: give --passes N"), "{error}");
    let given = StreamOptions { passes: Some(20), ..options() };
    assert_eq!(launches_and_ns(&stream(Tool::Nsys, &text, &given).unwrap()), (2, 500_000));
}

#[test]
fn rocprof_counts_work_items() {
    let csv = "\"Kind\",\"Agent_Id\",\"Queue_Id\",\"Thread_Id\",\"Dispatch_Id\",\"Kernel_Id\",\"Kernel_Name\",\"Correlation_Id\",\"Start_Timestamp\",\"End_Timestamp\",\"Private_Segment_Size\",\"Group_Segment_Size\",\"Workgroup_Size_X\",\"Workgroup_Size_Y\",\"Workgroup_Size_Z\",\"Grid_Size_X\",\"Grid_Size_Y\",\"Grid_Size_Z\"\n";
    let mut text = csv.to_owned();
    for i in 0..4 {
        let at = 1_000_000_000_000i64 + i * 100_000;
        text += &format!(
            "\"KERNEL_DISPATCH\",\"Agent 4\",1,99,{i},5,\"gemm(float*, int)\",{i},{at},{},0,1024,256,2,1,25600,4,1\n",
            at + 7_000
        );
    }
    let import = stream(Tool::Rocprof, &text, &options()).unwrap();
    assert_eq!(launches_and_ns(&import), (1, 7_000));
    let gemm = &import.profile.kernels[0];
    assert_eq!((gemm.grid, gemm.block, gemm.smem_bytes), ([100, 2, 1], 512, 1024));
    let first = StreamOptions { step: Some(0), ..options() };
    let json = stream(Tool::Rocprof, ROCPROF_JSON, &first).unwrap();
    assert_eq!(launches_and_ns(&json), (1, 4_000));
    let gemm = &json.profile.kernels[0];
    assert_eq!(
        (gemm.name.as_str(), gemm.grid, gemm.block, gemm.regs),
        ("gemm", [100, 2, 1], 256, 64)
    );
    let read = Recording::stream(Tool::Rocprof, "f", ROCPROF_JSON.as_bytes()).unwrap();
    assert_eq!(read.gpu(None).unwrap().unwrap().cus, Some(104));
    for other in ["a,b\n1,2\n", "{\"traceEvents\": []}"] {
        let error = stream(Tool::Rocprof, other, &options()).unwrap_err();
        assert!(error.contains("is not what rocprofv3 writes"), "{error}");
    }
}

#[test]
fn rocprof_json_is_read_record_by_record() {
    // Two markers: the second holds two dispatches, so only one pass launches once.
    let json = stream(Tool::Rocprof, ROCPROF_JSON, &StreamOptions { step: Some(1), ..options() });
    let json = json.unwrap();
    assert!(json.notes[0].starts_with("passes: 2 marks `forward`, 2 of them"), "{:?}", json.notes);
    assert_eq!(launches_and_ns(&json), (2, 8_000));
    // Symbols, agents and names behind the records that need them.
    let late = |key: &str| {
        let text = ROCPROF_JSON;
        let at = text.find(&format!("\"{key}\":")).unwrap();
        let end = at + text[at..].find("\n").unwrap();
        let member = text[at..end].trim_end_matches(',').to_owned();
        let rest = format!("{}{}", &text[..at], &text[end + 1..]);
        rest.replacen("\"bytes\":4096}]}", &format!("\"bytes\":4096}}]}},{member}"), 1)
    };
    for key in ["agents", "kernel_symbols", "strings"] {
        let text = late(key);
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{key}: {text}");
        let moved = stream(Tool::Rocprof, &text, &options()).unwrap();
        assert_eq!(moved.profile.kernels[0].name, "gemm", "{key}");
        let read = Recording::stream(Tool::Rocprof, "f", text.as_bytes()).unwrap();
        assert_eq!(read.gpu(None).unwrap().unwrap().cus, Some(104), "{key}");
    }
    // A dispatch without its end costs itself; a file that is cut off gives what it holds.
    let damaged = ROCPROF_JSON.replace("\"end_timestamp\":5000,", "");
    let read = stream(Tool::Rocprof, &damaged, &options()).unwrap();
    assert_eq!(read.dropped["kernels whose times do not read"], 1);
    let cut = &ROCPROF_JSON[..ROCPROF_JSON.find("\"memory_copy\"").unwrap()];
    let read = stream(Tool::Rocprof, cut, &options()).unwrap();
    assert!(read.warnings[0].contains("it may be cut off"), "{:?}", read.warnings);
}

#[test]
fn rocpd_is_a_database_whose_tables_have_suffixes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    databases::rocpd(&path);
    let range = Some(import::Range::Mark("forward".to_owned()));
    let import = import(Tool::Rocprof, &path, &StreamOptions { range, ..options() }).unwrap();
    assert_eq!(launches_and_ns(&import), (2, 10_000), "{:?}", import.notes);
    assert_eq!(import.profile.kernels[0].grid, [100, 1, 1]);
    // One launch each 40 µs, from the calls.
    assert!(import.notes.iter().any(|n| n.contains("from the launch calls")), "{:?}", import.notes);
    assert_eq!(import.profile.models["net"].input_per_item.0, 65_536 / 8);
    // From the begin of the copy, 13 us before the first kernel, to the end of the second.
    assert!(alone_ns(&import).abs_diff(58_000) <= 1_000, "{}", alone_ns(&import));
}

#[test]
fn processes_of_a_rocpd_database_have_numbers_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    databases::rocpd(&path);
    // A second process: tables of another suffix, in which the same numbers are other kernels.
    let db = Connection::open(&path).unwrap();
    let names: Vec<String> = db
        .prepare("SELECT sql FROM sqlite_master WHERE type = 'table'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for sql in names.iter().filter(|s| s.contains("_0a1b")) {
        let table = sql.split_whitespace().nth(2).unwrap();
        let copy = table.replace("_0a1b", "_2c3d");
        db.execute_batch(&sql.replace("_0a1b", "_2c3d")).unwrap();
        db.execute_batch(&format!("INSERT INTO {copy} SELECT * FROM {table}")).unwrap();
        // As rocprofv3 leaves them: views under the plain names, over the first process alone.
        let plain = table.replace("_0a1b", "");
        db.execute_batch(&format!("CREATE VIEW {plain} AS SELECT * FROM {table}")).unwrap();
    }
    db.execute_batch(
        "UPDATE rocpd_info_kernel_symbol_2c3d SET display_name = 'other_' || display_name;
         UPDATE rocpd_kernel_dispatch_2c3d SET start = start + 20000000, end = end + 20002000;
         UPDATE rocpd_region_2c3d SET start = start + 20000000, end = end + 20000000;
         UPDATE rocpd_memory_copy_2c3d SET start = start + 20000000, end = end + 20000000, size = 8192;",
    )
    .unwrap();
    drop(db);
    // The busier one, of which nothing is mixed with the other.
    let range = Some(import::Range::Mark("forward".to_owned()));
    let import = import(Tool::Rocprof, &path, &StreamOptions { range, ..options() }).unwrap();
    assert_eq!(launches_and_ns(&import), (2, 14_000), "{:?}", import.notes);
    assert_eq!(import.profile.kernels[0].name, "other_gemm");
    assert_eq!(import.dropped["of other processes"], 6);
    assert_eq!(import.profile.models["net"].input_per_item.0, 8192 / 8);
    assert!(import.notes.iter().any(|n| n.contains("from the launch calls")), "{:?}", import.notes);
}

fn whole(
    text: &str,
    read: fn(
        &Input<'_>,
        &cotenant_profiles::Device,
        &WholeOptions,
    ) -> Result<Import, import::ImportError>,
) -> Result<Import, String> {
    let options = WholeOptions { model: Some("m".to_owned()), batch: 4, launch: None };
    read(&Input { file: "f", text }, &device(), &options).map_err(|e| e.to_string())
}

#[test]
fn serving_tools_measure_whole_models() {
    let text = "Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,Server Compute Infer,Server Compute Output,Client Recv,p50 latency,Avg latency\n\
        4,400,5,100,9000,20,5200,30,1,9000,9000\n1,180,5,100,20,20,5000,30,1,5300,5300\n";
    let import = whole(text, import::perf_analyzer).unwrap();
    assert_eq!(launches_and_ns(&import), (1, 5_000_000));
    assert!(alone_ns(&import).abs_diff(5_050_000) < 5_000, "{}", alone_ns(&import));
    let ensemble = text.replace(",5000,30", ",0,30");
    let error = whole(&ensemble, import::perf_analyzer).unwrap_err();
    assert!(error.contains("latency: `0 in the row taken` is not a time of the GPU"), "{error}");
    let text = "Model,Batch,Concurrency,Model Config Path,Instance Group,Max Batch Size,Satisfies Constraints,Throughput (infer/sec),p99 Latency (ms)\n\
        res,1,1,res_0,1:GPU,8,Yes,200,6.0\nres,1,2,res_0,1:GPU,8,Yes,210,11.0\nres,8,1,res_1,2:GPU,8,Yes,900,10\nres,8,1,res_0,1:GPU,8,Yes,800,11\n";
    let import = whole(text, import::perf_analyzer).unwrap();
    let batches: Vec<u32> = import.profile.models["res"].batches.keys().copied().collect();
    assert_eq!(batches, [1, 8]);
    // 200 requests/s one at a time: 5 ms each, whatever the slowest percent took.
    assert_eq!(launches_and_ns(&import), (1, 5_000_000));
    let text = text.replace("p99 Latency", "p50 Latency");
    assert_eq!(launches_and_ns(&whole(&text, import::perf_analyzer).unwrap()), (1, 6_000_000));
    let text = text.replace("p50 Latency", "p99 Latency").replace("Concurrency", "Request Rate");
    assert_eq!(launches_and_ns(&whole(&text, import::perf_analyzer).unwrap()), (1, 6_000_000));
    let times = r#"[{"startEnqMs":0,"endEnqMs":0.3,"h2dMs":0.1,"computeMs":9.5,"d2hMs":0.05},
        {"startEnqMs":10,"endEnqMs":10.3,"h2dMs":0.1,"computeMs":2.5,"d2hMs":0.05},{"startEnqMs":20,"endEnqMs":20.3,"h2dMs":0.1,"computeMs":2.4,"d2hMs":0.05}]"#;
    let import = whole(times, import::trtexec).unwrap();
    assert_eq!(launches_and_ns(&import), (1, 2_500_000));
    assert!(alone_ns(&import).abs_diff(2_650_000) < 5_000, "{}", alone_ns(&import));
    let error = whole("[]", import::trtexec).unwrap_err();
    assert_eq!(error, "f:1: file: no rows: expected at least one iteration");
    let error = whole("a,b\n1,2\n", import::perf_analyzer).unwrap_err();
    assert!(error.contains("is not the CSV of perf_analyzer"), "{error}");
}

#[test]
fn trtexec_times_layers() {
    let text = r#"[{"count": 200}
        , {"name": "conv1 + relu", "timeMs": 400.0, "averageMs": 2.0, "medianMs": 1.9, "percentage": 66}
        , {"name": "reshape", "timeMs": 0, "averageMs": 0, "medianMs": 0, "percentage": 0}
        , {"name": "fc_gemm", "timeMs": 200.0, "averageMs": 1.0, "percentage": 33}
        ]"#;
    let import = whole(text, import::trtexec).unwrap();
    assert_eq!(launches_and_ns(&import), (2, 3_000_000));
    let launch = device().costs.launch.0;
    assert_eq!(alone_ns(&import), launch + 3_000_000);
    assert_eq!((import.rows_in, import.dropped["layers that took no time"]), (3, 1));
    assert!(import.notes[0].contains("2 layers, 3.000 ms, the mean of 200"), "{:?}", import.notes);
    let other = text.replace("200}", "0}");
    let error = whole(&other, import::trtexec).unwrap_err();
    assert_eq!(error, "f:1: count: `nothing` is not a number of iterations of at least 1");
    let error = whole(r#"[{"count": 2}]"#, import::trtexec).unwrap_err();
    assert_eq!(error, "f:1: file: no rows: expected at least one layer with a time");
    let error = whole(r#"[{"name": "a", "timeMs": 1}]"#, import::trtexec).unwrap_err();
    assert!(error.ends_with("a profile begins with its `count`"), "{error}");
}

#[test]
fn pandas_writes_tables_of_its_own_kind() {
    let text = ",model,batch,share_pct,latency_ms\n0,m,1.0,10%,20.0\n1,m,1.0,100%,2.0\n";
    let import =
        import::table(&Input { file: "f", text }, &device(), &import::TableOptions::default())
            .unwrap();
    assert_eq!(import.profile.models["m"].batches.keys().copied().collect::<Vec<_>>(), [1]);
    assert_eq!(import.profile.kernels[0].curve.at(132), 2_000_000);
}

#[test]
fn neusights_rows_are_kernels_of_one_gpu() {
    let head = "OPName,Latency,Device,Torch Version,Kernel Name,Warps per SM,Blocks per SM,Grid x,Grid y,Grid z,Block x,Block y,Block z,B,M,N,K\n";
    let text = format!(
        "{head}bmm,0.25,NVIDIA H100 80GB HBM3,p2.1.0,sgemm,52.9,6.6,2,1,192,256,1,1,192,96,196,196\nbmm,0.5,NVIDIA L4,p2.1.0,sgemm,1,1,2,1,192,256,1,1,192,96,196,196\n"
    );
    let input = Input { file: "bmm.csv", text: &text };
    let import = import::neusight(&[input], &device()).unwrap();
    assert_eq!((launches_and_ns(&import), import.dropped["on other GPUs"]), ((1, 250_000), 1));
    let kernel = &import.profile.kernels[0];
    assert_eq!((kernel.grid, kernel.block, kernel.blocks_per_cu), ([2, 1, 192], 256, 8));
    let mi50 = cotenant_profiles::Device::builtin("mi50").unwrap();
    let error = import::neusight(&[input], &mi50).unwrap_err().to_string();
    assert!(error.contains("`NVIDIA H100 80GB HBM3, NVIDIA L4` is not measured on"), "{error}");
}

#[test]
fn orions_other_file_names_and_placeholders() {
    let v100 = cotenant_profiles::Device::builtin("v100-sxm2-16").unwrap();
    let orion = |file: &str, ns: u32| {
        let text = format!("Name,Profile,Memory_footprint,SM_usage,Duration\ngemm,1,0,40,{ns}\n");
        let input = Input { file, text: &text };
        import::orion(&[input], &v100, &import::OrionOptions::default()).map_err(|e| e.to_string())
    };
    for (file, model) in [
        ("resnet50_4_fwd.csv", "resnet50"),
        ("bert_2_fwd_new.csv", "bert"),
        ("mobilenetv2_64_fb1.csv", "mobilenetv2-train"),
        ("transformer_8_fb", "transformer-train"),
    ] {
        let import = orion(file, 2_000).unwrap();
        assert_eq!(import.profile.models.keys().next().unwrap(), model, "{file}");
    }
    let error = orion("resnet50_4_fwd.csv", 1).unwrap_err();
    assert!(
        error.ends_with("Duration: `1 in every row` is not measured: the file is a placeholder"),
        "{error}"
    );
}
