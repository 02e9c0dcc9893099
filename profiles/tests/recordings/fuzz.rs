//! Mutated inputs for every reader: an answer or an error, never a panic, in bounded time.
//!
//! A plain loop: inputs that give a new kind of answer are kept and mutated further. The normal tests
//! make a few hundred turns per reader; `COTENANT_FUZZ=10000000` makes as many as it says over all
//! readers. The seed is printed and can be given in `COTENANT_FUZZ_SEED`; `COTENANT_FUZZ_READER` is a part
//! of the names of the readers that are tried, all of them where it is not set.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cotenant_profiles::import::{
    self, Input, OrionOptions, Recording, ReefOptions, Tool, WholeOptions,
};

use super::{device, fixture, options};

const TORCH: &str = r#"{"schemaVersion":1,"deviceProperties":[{"id":0,"name":"NVIDIA H100","numSms":132,"totalGlobalMem":85000000000}],
"traceEvents":[{"ph":"X","cat":"user_annotation","name":"ProfilerStep#1","pid":1,"tid":1,"ts":0.0,"dur":99},
{"ph":"X","cat":"cuda_runtime","name":"cudaLaunchKernel","pid":1,"tid":1,"ts":1,"dur":4,"args":{"correlation":1}},
{"ph":"X","cat":"kernel","name":"a","pid":0,"tid":7,"ts":9.5,"dur":5,"args":{"device":0,"context":1,"stream":7,"correlation":1,"registers per thread":32,"shared memory":0,"grid":[8,1,1],"block":[128,1,1],"graph node id":3}},
{"ph":"B","cat":"kernel","name":"b\u0041\n","pid":0,"tid":7,"ts":"20"},{"ph":"E","cat":"kernel","pid":0,"tid":7,"ts":26},
{"ph":"X","cat":"gpu_memcpy","name":"Memcpy HtoD (Pageable -> Device)","pid":0,"tid":7,"ts":6,"dur":2,"args":{"bytes":8,"memory bandwidth (GB/s)":inf}},
{"ph":"X","cat":"gpu_user_annotation","name":"ProfilerStep#1","pid":0,"tid":7,"ts":9,"dur":30}]}"#;
const TRACE_CSV: &str = "Processing...\nStart (ns),Duration (ns),CorrId,GrdX,GrdY,GrdZ,BlkX,BlkY,BlkZ,Reg/Trd,StcSMem (MB),DymSMem (MB),Bytes (MB),Throughput (MB/s),SrcMemKd,DstMemKd,Device,Ctx,GreenCtx,Strm,Name\n\
    100,50,1,8,1,1,64,1,1,32,0.0,0.001,,,,,NVIDIA H100 (0),1,,7,a\n200,60,2,8,1,1,64,1,1,32,0,0,,,,,NVIDIA H100 (0),1,,7,\"b<1,2>\"\n\
    300,20,3,,,,,,,,,,1.5,100,Pageable,Device,NVIDIA H100 (0),1,,7,[CUDA memcpy HtoD]\n\
    400,50,1,8,1,1,64,1,1,32,0,0,,,,,NVIDIA H100 (0),1,,7,a\n500,60,2,8,1,1,64,1,1,32,0,0,,,,,NVIDIA H100 (0),1,,7,\"b<1,2>\"\n\
    700,50,1,8,1,1,64,1,1,32,0,0,,,,,NVIDIA H100 (0),1,,7,a\n800,60,2,8,1,1,64,1,1,32,0,0,,,,,NVIDIA H100 (0),1,,7,\"b<1,2>\"\n";
const SUM_CSV: &str = "Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name\n\
    60.0,6000,20,300.0,300.0,1,2,0.1,a\n40.0,4000,10,400.0,400.0,1,2,0.1,b\n";
const ROCPROF_CSV: &str = "\"Kind\",\"Agent_Id\",\"Queue_Id\",\"Kernel_Name\",\"Correlation_Id\",\"Start_Timestamp\",\"End_Timestamp\",\"Group_Segment_Size\",\"Workgroup_Size_X\",\"Workgroup_Size_Y\",\"Workgroup_Size_Z\",\"Grid_Size_X\",\"Grid_Size_Y\",\"Grid_Size_Z\"\n\
    \"KERNEL_DISPATCH\",\"Agent 4\",1,\"a\",1,100,150,0,64,1,1,640,1,1\n\"KERNEL_DISPATCH\",\"Agent 4\",1,\"a\",1,200,250,0,64,1,1,640,1,1\n\"KERNEL_DISPATCH\",\"Agent 4\",1,\"a\",1,300,350,0,64,1,1,640,1,1\n";
pub(super) const ROCPROF_JSON: &str = r#"{"rocprofiler-sdk-tool":[{"metadata":{"pid":7},
"agents":[{"id":{"handle":11},"node_id":0,"product_name":"CPU","cu_count":0},{"id":{"handle":22},"node_id":1,"product_name":"AMD Instinct MI210","cu_count":104}],
"kernel_symbols":[{"kernel_id":5,"formatted_kernel_name":"gemm","kernel_name":"gemm.kd","arch_vgpr_count":64}],
"buffer_records":{"kernel_dispatch":[
{"correlation_id":{"internal":1},"start_timestamp":1000,"end_timestamp":5000,"dispatch_info":{"agent_id":{"handle":22},"queue_id":{"handle":1},"kernel_id":5,"group_segment_size":1024,"workgroup_size":{"x":256,"y":1,"z":1},"grid_size":{"x":25600,"y":2,"z":1}}},
{"correlation_id":{"internal":2},"start_timestamp":11000,"end_timestamp":15000,"dispatch_info":{"agent_id":{"handle":22},"queue_id":{"handle":1},"kernel_id":5,"workgroup_size":{"x":256,"y":1,"z":1},"grid_size":{"x":25600,"y":2,"z":1}}},
{"correlation_id":{"internal":3},"start_timestamp":21000,"end_timestamp":25000,"dispatch_info":{"agent_id":{"handle":22},"queue_id":{"handle":1},"kernel_id":5,"workgroup_size":{"x":256,"y":1,"z":1},"grid_size":{"x":25600,"y":2,"z":1}}}],
"hip_api":[{"correlation_id":{"internal":1},"start_timestamp":100,"end_timestamp":300}],
"memory_copy":[{"correlation_id":{"internal":9},"start_timestamp":1,"end_timestamp":90,"src_agent_id":{"handle":11},"dst_agent_id":{"handle":22},"bytes":4096}]}}]}"#;
const TABLE: &str = "model,batch,share_pct,latency_ms\nm,1,50,2.5\nm,1,100,1.5\n";
const ORION: &str =
    "Name,Profile,Memory_footprint,SM_usage,Duration\ngemm<1, 2>,1,0,40,2500\nrelu,0,0,80,1000\n";
const PERF: &str = "Concurrency,Inferences/Second,Client Send,Server Queue,Server Compute Input,Server Compute Infer,Server Compute Output\n1,100,5,10,20,5000,30\n2,150,5,4000,20,5100,30\n";
const TIMES: &str = r#"[{"startEnqMs":0.0,"endEnqMs":0.3,"h2dMs":0.1,"computeMs":2.5,"d2hMs":0.05},{"startEnqMs":3.0,"endEnqMs":3.3,"h2dMs":0.1,"computeMs":2.6,"d2hMs":0.05}]"#;
const NEUSIGHT: &str = "OPName,Latency,Device,Kernel Name,Grid x,Grid y,Grid z,Block x,Block y,Block z\nbmm,0.25,NVIDIA H100 80GB HBM3,sgemm,2,1,192,256,1,1\n";

/// What the loop draws from.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

const TOKENS: [&[u8]; 24] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"0",
    b"-1",
    b"1e308",
    b"18446744073709551615",
    b"9223372036854775807",
    b"inf",
    b"NaN",
    b"null",
    b"\n",
    b"\xff",
    b"\xc3",
    b"\0",
    b"%",
    b".0",
    b"\"ph\":\"X\"",
    b"4294967295",
];

fn mutate(seed: &[u8], other: &[u8], r: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=r.below(4) {
        let (n, at) = (bytes.len(), r.below(bytes.len() + 1));
        let length = r.below(40).min(n - at);
        match r.below(7) {
            0 if at < n => bytes[at] = r.next() as u8,
            1 => drop(bytes.drain(at..at + length)),
            2 => drop(bytes.splice(at..at, TOKENS[r.below(TOKENS.len())].iter().copied())),
            3 => {
                let part = bytes[at..at + length].to_vec();
                let to = r.below(n + 1);
                drop(bytes.splice(to..to, part));
            }
            4 => {
                let from = r.below(other.len() + 1);
                let part = other[from..(from + 60).min(other.len())].to_vec();
                drop(bytes.splice(at..at + length, part));
            }
            5 => {
                // A digit becomes another, so that numbers stay numbers.
                if let Some(i) = bytes[at..].iter().position(u8::is_ascii_digit) {
                    bytes[at + i] = b'0' + (r.next() % 10) as u8;
                }
            }
            _ => bytes.truncate(at.max(n / 2)),
        }
    }
    bytes.truncate(8 << 10);
    bytes
}

/// The kind of an answer: an error without its numbers and texts, or how much was used.
fn kind(answer: Result<import::Import, String>) -> String {
    match answer {
        Ok(i) => format!("{} {:?}", i.rows_used.min(9), i.dropped.keys().collect::<Vec<_>>()),
        Err(e) => {
            let words = e.split('`').step_by(2).collect::<String>();
            words.chars().filter(|c| !c.is_ascii_digit()).take(120).collect()
        }
    }
}

type Reader = fn(&[u8]) -> Result<import::Import, String>;

fn stream(tool: Tool, bytes: &[u8]) -> Result<import::Import, String> {
    let read = Recording::stream(tool, "f", bytes).map_err(|e| e.to_string())?;
    let _ = read.gpu(None);
    let options = import::StreamOptions { gpu: read.used().first().map(|u| u.index), ..options() };
    read.model(&device(), &options).map_err(|e| e.to_string())
}

fn whole() -> WholeOptions {
    WholeOptions { model: Some("m".to_owned()), batch: 1, launch: None }
}

fn text<T>(
    bytes: &[u8],
    read: impl FnOnce(&Input<'_>) -> Result<T, import::ImportError>,
) -> Result<T, String> {
    let text = String::from_utf8_lossy(bytes);
    read(&Input { file: "m_1_fwd.csv", text: &text }).map_err(|e| e.to_string())
}

fn sqlite(bytes: &[u8]) -> Result<import::Import, String> {
    thread_local! {
        static FOLDER: tempfile::TempDir = tempfile::tempdir().unwrap();
    }
    FOLDER.with(|folder| {
        let path = folder.path().join("f.sqlite");
        std::fs::write(&path, bytes).unwrap();
        super::import(Tool::Nsys, &path, &options())
    })
}

fn readers() -> Vec<(&'static str, Vec<u8>, Reader)> {
    let reef = "model,order,kernel,grid_x,grid_y,grid_z,block_x,block_y,block_z,blocks,threads_per_block,solo_us,lat_occ1_us,lat_by_occupancy_us\nm,0,fused_nn_dense_add_kernel0,90,1,1,64,1,1,90,64,24,10,10|12|18\n";
    vec![
        ("torch", TORCH.into(), |b| stream(Tool::Torch, b)),
        ("nsys cuda_gpu_trace", TRACE_CSV.into(), |b| stream(Tool::Nsys, b)),
        ("nsys cuda_gpu_kern_sum", SUM_CSV.into(), |b| stream(Tool::Nsys, b)),
        ("rocprof csv", ROCPROF_CSV.into(), |b| stream(Tool::Rocprof, b)),
        ("rocprof json", ROCPROF_JSON.into(), |b| stream(Tool::Rocprof, b)),
        ("nsys sqlite", std::fs::read(fixture("nsys.sqlite")).unwrap(), sqlite),
        ("table", TABLE.into(), |b| {
            text(b, |i| import::table(i, &device(), &import::TableOptions::default()))
        }),
        ("orion", ORION.into(), |b| {
            text(b, |i| import::orion(&[*i], &device(), &OrionOptions::default()))
        }),
        ("reef", reef.into(), |b| text(b, |i| import::reef(i, &device(), &ReefOptions::default()))),
        ("perf_analyzer", PERF.into(), |b| {
            text(b, |i| import::perf_analyzer(i, &device(), &whole()))
        }),
        ("trtexec", TIMES.into(), |b| text(b, |i| import::trtexec(i, &device(), &whole()))),
        ("neusight", NEUSIGHT.into(), |b| text(b, |i| import::neusight(&[*i], &device()))),
    ]
}

/// Found by mutations: the sum of instances and half of the passes was too large for a number, and many
/// rows of many launches each took memory without an end.
#[test]
fn instances_beyond_reason_are_an_answer() {
    let rows = |instances: &str, n: usize| {
        let head = SUM_CSV.lines().next().unwrap();
        let columns = head.split(',').count();
        let at = head.split(',').position(|c| c.contains("Instances")).unwrap();
        let one = (0..columns).map(|c| if c == at { instances } else { "7000" });
        let row = one.collect::<Vec<_>>().join(",");
        format!("{head}\n{}", format!("{row}\n").repeat(n))
    };
    let once = import::StreamOptions { passes: Some(1), ..options() };
    for text in [rows("18446744073709551615", 1), rows("100000", 1000)] {
        let read = Recording::stream(Tool::Nsys, "f", text.as_bytes()).unwrap();
        let why = read.model(&device(), &once).unwrap_err().to_string();
        assert!(why.contains("give --passes N"), "{why}");
    }
    assert!(stream(Tool::Nsys, rows("18446744073709551615", 1).as_bytes()).is_ok());
}

#[test]
fn mutated_inputs_are_answers_not_panics() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let readers = readers();
    let turns = number("COTENANT_FUZZ").map_or(200, |n| n / readers.len() as u64).max(1);
    let seed = number("COTENANT_FUZZ_SEED").unwrap_or(1);
    eprintln!("seed {seed}, {turns} turns per reader");
    let only = std::env::var("COTENANT_FUZZ_READER").unwrap_or_default();
    let chosen = readers.into_iter().enumerate().filter(|(_, (name, ..))| name.contains(&only));
    for (which, (name, first, read)) in chosen {
        let mut r = Random((seed ^ (which as u64 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (mut corpus, mut kinds) = (vec![first], BTreeSet::new());
        // Bytes of a database lie in pages: a mutation must not always cut it.
        let database = corpus[0].starts_with(b"SQLite");
        let begun = Instant::now();
        for turn in 0..turns {
            let (a, b) = (r.below(corpus.len()), r.below(corpus.len()));
            let bytes = if database {
                let mut bytes = corpus[a].clone();
                for _ in 0..=r.below(6) {
                    let at = r.below(bytes.len());
                    bytes[at] = r.next() as u8;
                }
                bytes
            } else {
                mutate(&corpus[a], &corpus[b], &mut r)
            };
            let one = Instant::now();
            let answer = kind(read(&bytes));
            let took = one.elapsed();
            assert!(took < Duration::from_secs(20), "{name}, seed {seed}, turn {turn}: {took:?}");
            if kinds.insert(answer) && corpus.len() < 512 {
                corpus.push(bytes);
            }
        }
        eprintln!("{name}: {turns} turns, {} kinds of answers, {:?}", kinds.len(), begun.elapsed());
    }
}
