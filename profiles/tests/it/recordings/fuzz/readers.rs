//! The readers that are tried, each with the input that its mutations begin with.

use std::sync::Arc;

use cotenant_profiles::import::{
    self, Import, Input, Operators, OrionOptions, Recording, ReefOptions, Tool, WholeOptions,
};
use cotenant_profiles::lower::Precision;
use cotenant_profiles::zoo;
use cotenant_profiles::zoo::decoder::decoder;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use rusqlite::Connection;

use super::super::{databases, device, options, read};
use super::turns::Reader;

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
pub(crate) const SUM_CSV: &str = "Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name\n\
    60.0,6000,20,300.0,300.0,1,2,0.1,a\n40.0,4000,10,400.0,400.0,1,2,0.1,b\n";
const ROCPROF_CSV: &str = "\"Kind\",\"Agent_Id\",\"Queue_Id\",\"Kernel_Name\",\"Correlation_Id\",\"Start_Timestamp\",\"End_Timestamp\",\"Group_Segment_Size\",\"Workgroup_Size_X\",\"Workgroup_Size_Y\",\"Workgroup_Size_Z\",\"Grid_Size_X\",\"Grid_Size_Y\",\"Grid_Size_Z\"\n\
    \"KERNEL_DISPATCH\",\"Agent 4\",1,\"a\",1,100,150,0,64,1,1,640,1,1\n\"KERNEL_DISPATCH\",\"Agent 4\",1,\"a\",1,200,250,0,64,1,1,640,1,1\n\"KERNEL_DISPATCH\",\"Agent 4\",1,\"a\",1,300,350,0,64,1,1,640,1,1\n";
pub(crate) const ROCPROF_JSON: &str = r#"{"rocprofiler-sdk-tool":[{"metadata":{"pid":7},
"agents":[{"id":{"handle":11},"node_id":0,"product_name":"CPU","cu_count":0},{"id":{"handle":22},"node_id":1,"product_name":"AMD Instinct MI210","cu_count":104}],
"strings":{"callback_records":[],"buffer_records":[{"kind":"NONE","operations":[]},{"kind":"HIP_RUNTIME_API","operations":["hipLaunchKernel","hipGetDevice"]}],"marker_api":[{"key":31,"value":"forward"},{"key":32,"value":"forward"}]},
"kernel_symbols":[{"kernel_id":5,"formatted_kernel_name":"gemm","kernel_name":"gemm.kd","arch_vgpr_count":64}],
"buffer_records":{"kernel_dispatch":[
{"correlation_id":{"internal":1},"start_timestamp":1000,"end_timestamp":5000,"dispatch_info":{"agent_id":{"handle":22},"queue_id":{"handle":1},"kernel_id":5,"group_segment_size":1024,"workgroup_size":{"x":256,"y":1,"z":1},"grid_size":{"x":25600,"y":2,"z":1}}},
{"correlation_id":{"internal":2},"start_timestamp":11000,"end_timestamp":15000,"dispatch_info":{"agent_id":{"handle":22},"queue_id":{"handle":1},"kernel_id":5,"workgroup_size":{"x":256,"y":1,"z":1},"grid_size":{"x":25600,"y":2,"z":1}}},
{"correlation_id":{"internal":3},"start_timestamp":21000,"end_timestamp":25000,"dispatch_info":{"agent_id":{"handle":22},"queue_id":{"handle":1},"kernel_id":5,"workgroup_size":{"x":256,"y":1,"z":1},"grid_size":{"x":25600,"y":2,"z":1}}}],
"hip_api":[{"kind":1,"operation":0,"correlation_id":{"internal":1},"start_timestamp":100,"end_timestamp":300},{"kind":1,"operation":1,"correlation_id":{"internal":2},"start_timestamp":1,"end_timestamp":2}],
"marker_api":[{"kind":9,"operation":2,"correlation_id":{"internal":31},"start_timestamp":50,"end_timestamp":9000},{"kind":9,"operation":2,"correlation_id":{"internal":32},"start_timestamp":10500,"end_timestamp":29000}],
"memory_copy":[{"correlation_id":{"internal":9},"start_timestamp":1,"end_timestamp":90,"src_agent_id":{"handle":11},"dst_agent_id":{"handle":22},"bytes":4096}]}}]}"#;
const TABLE: &str = "model,batch,share_pct,latency_ms\nm,1,50,2.5\nm,1,100,1.5\n";
const ORION: &str =
    "Name,Profile,Memory_footprint,SM_usage,Duration\ngemm<1, 2>,1,0,40,2500\nrelu,0,0,80,1000\n";
const PERF: &str = "Concurrency,Inferences/Second,Client Send,Server Queue,Server Compute Input,Server Compute Infer,Server Compute Output\n1,100,5,10,20,5000,30\n2,150,5,4000,20,5100,30\n";
const TIMES: &str = r#"[{"startEnqMs":0.0,"endEnqMs":0.3,"h2dMs":0.1,"computeMs":2.5,"d2hMs":0.05},{"startEnqMs":3.0,"endEnqMs":3.3,"h2dMs":0.1,"computeMs":2.6,"d2hMs":0.05}]"#;
const TRT_LAYERS: &str = r#"[{"count":200},{"name":"conv","timeMs":400.5,"averageMs":2,"percentage":66},{"name":"n","timeMs":0},{"name":"fc","timeMs":1e2}]"#;
const ANALYZER: &str = "Model,Batch,Concurrency,Model Config Path,Instance Group,Throughput (infer/sec),p99 Latency (ms)\n\
    res,1,1,res_0,1:GPU,200,6.0\nres,1,2,res_0,1:GPU,210,11.0\nres,8,1,res_1,2:GPU,900,10\nres,8,1,res_0,1/GPU,800,11\n";
const PANDAS: &str = ",model,batch,share_pct,latency_ms,host_ms\n0,m,1.0,10%,20.0,0.5\n1,m,1.0,100%,2.0,0.5\n2,m,8.0,50 %,3.5,1\n";
const GEMM: &str = "framework,version,device,op_name,kernel_source,gemm_dtype,m,n,k,latency\n\
    V,1,H100,gemm,a,bfloat16,128,768,768,0.01\nV,1,H100,gemm,b,bfloat16,1,4096,9216,0.008\nV,1,H100,gemm,b,fp8,128,768,768,0.004\n";
const ATTENTION: &str = "framework,batch_size,isl,num_heads,num_key_value_heads,head_dim,window_size,attn_dtype,kv_cache_dtype,step,latency\n\
    V,1,128,12,12,64,0,bfloat16,bfloat16,0,0.01\nV,8,1,32,8,128,0,bfloat16,bfloat16,1023,0.02\nV,8,1,32,8,128,64,bfloat16,fp8,1,0.02\n";
const DENSE: &str =
    "layer,tokens,time_us\nqkv_proj,1,20.5\nqkv_proj,64,25\nrotary,1,1\nact_fn,8,3\n";
const PER_SEQUENCE: &str = "layer,sequences,time_us\nlm_head,1,90.5\nlm_head,8,95\nsampler,8,30\n";
const LAYER_ATTENTION: &str = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,8,1023,20\n128,512,0,0,40.5\n64,0,2,9,12\n";
const NEUSIGHT: &str = "OPName,Latency,Device,Kernel Name,Grid x,Grid y,Grid z,Block x,Block y,Block z\nbmm,0.25,NVIDIA H100 80GB HBM3,sgemm,2,1,192,256,1,1\n";

/// The kind of an answer that is not an error: how much was used, and what was dropped for what.
fn answer(import: &Import) -> String {
    format!("{} {:?}", import.rows_used.min(9), import.dropped.keys().collect::<Vec<_>>())
}

fn model_of(read: &Recording) -> Result<String, String> {
    let _ = read.gpu(None);
    let options = import::StreamOptions { gpu: read.used().first().map(|u| u.index), ..options() };
    let import = read.model(&device(), &options).map_err(|e| e.to_string())?;
    Ok(answer(&import))
}

pub(crate) fn stream(tool: Tool, bytes: &[u8]) -> Result<String, String> {
    model_of(&Recording::stream(tool, "f", bytes).map_err(|e| e.to_string())?)
}

fn whole() -> WholeOptions {
    WholeOptions { model: Some("m".to_owned()), batch: 1, launch: None }
}

fn text(
    bytes: &[u8],
    read: impl FnOnce(&Input<'_>) -> Result<Import, import::ImportError>,
) -> Result<String, String> {
    let text = String::from_utf8_lossy(bytes);
    let import = read(&Input { file: "m_1_fwd.csv", text: &text }).map_err(|e| e.to_string())?;
    Ok(answer(&import))
}

fn layers(bytes: &[u8]) -> Result<String, String> {
    let text = String::from_utf8_lossy(bytes);
    let input = Input { file: "dense.csv", text: &text };
    let layers = import::llmservingsim(&[input], &device(), "llama-3.1-8b", &[]);
    let layers = layers.map_err(|e| e.to_string())?;
    Ok(format!("{} {}", layers.rows_used.min(9), layers.dropped.len()))
}

/// What is read by its path goes through a file: `TMPDIR=/dev/shm` keeps it off the disk.
fn by_path(
    bytes: &[u8],
    read: impl FnOnce(&std::path::Path) -> Result<String, String>,
) -> Result<String, String> {
    thread_local! {
        static FOLDER: tempfile::TempDir = tempfile::tempdir().unwrap();
    }
    FOLDER.with(|folder| {
        let path = folder.path().join("f");
        std::fs::write(&path, bytes).unwrap();
        read(&path)
    })
}

fn database(tool: Tool, bytes: &[u8]) -> Result<String, String> {
    by_path(bytes, |path| model_of(&read(tool, path)?))
}

fn operators(bytes: &[u8]) -> Result<String, String> {
    let mut all = Operators::default();
    by_path(bytes, |path| {
        all.read(path, Precision::Bf16).map_err(|e| e.to_string()).map(|()| String::new())
    })?;
    let sizes = [all.products.len(), all.attention.len(), all.calls.len()];
    // Making models takes a hundred times as long as reading.
    let sum = bytes.iter().fold(0u32, |s, b| s.wrapping_mul(31).wrapping_add(u32::from(*b)));
    if sum % 4096 > 0 {
        return Ok(format!("{} {sizes:?}", all.rows.min(9)));
    }
    let spec = zoo::find("alexnet").unwrap();
    let import = import::aiconfigurator("f", &all, &device(), &spec, 1, Precision::Bf16);
    let llama = decoder("llama-3.1-8b").unwrap();
    let layers = import::aiconfigurator_layers("f", &all, &device(), &llama, Precision::Bf16);
    Ok(format!("{} {sizes:?} {} {}", all.rows.min(9), import.is_ok(), layers.is_ok()))
}

/// A database in the smallest pages, so that mutations reach all of it.
fn small_pages(make: impl FnOnce(&std::path::Path)) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    make(&path);
    let db = Connection::open(&path).unwrap();
    db.execute_batch("PRAGMA page_size = 512; VACUUM;").unwrap();
    drop(db);
    std::fs::read(&path).unwrap()
}

/// Two rows of products, as AIConfigurator keeps them.
fn parquet() -> Vec<u8> {
    let schema = "message t { required binary gemm_dtype (UTF8); required int64 m; required int64 n; \
                  required int64 k; required double latency; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::default());
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
    let mut rows = file.next_row_group().unwrap();
    for column in 0..5 {
        let mut writer = rows.next_column().unwrap().unwrap();
        match column {
            0 => {
                let words = ["bfloat16", "bfloat16"].map(ByteArray::from);
                writer.typed::<ByteArrayType>().write_batch(&words, None, None).unwrap();
            }
            4 => {
                writer.typed::<DoubleType>().write_batch(&[0.01, 0.02], None, None).unwrap();
            }
            _ => {
                writer.typed::<Int64Type>().write_batch(&[128, 256], None, None).unwrap();
            }
        }
        writer.close().unwrap();
    }
    rows.close().unwrap();
    file.close().unwrap();
    bytes
}

pub(crate) fn readers() -> Vec<(&'static str, Vec<u8>, Reader)> {
    let reef = "model,order,kernel,grid_x,grid_y,grid_z,block_x,block_y,block_z,blocks,threads_per_block,solo_us,lat_occ1_us,lat_by_occupancy_us\nm,0,fused_nn_dense_add_kernel0,90,1,1,64,1,1,90,64,24,10,10|12|18\n";
    let table: Reader =
        |b| text(b, |i| import::table(i, &device(), &import::TableOptions::default()));
    let perf: Reader = |b| text(b, |i| import::perf_analyzer(i, &device(), &whole()));
    vec![
        ("torch", TORCH.into(), |b| stream(Tool::Torch, b)),
        ("nsys cuda_gpu_trace", TRACE_CSV.into(), |b| stream(Tool::Nsys, b)),
        ("nsys cuda_gpu_kern_sum", SUM_CSV.into(), |b| stream(Tool::Nsys, b)),
        ("rocprof csv", ROCPROF_CSV.into(), |b| stream(Tool::Rocprof, b)),
        ("rocprof json", ROCPROF_JSON.into(), |b| stream(Tool::Rocprof, b)),
        ("nsys sqlite", small_pages(databases::nsys), |b| database(Tool::Nsys, b)),
        ("table", TABLE.into(), table),
        ("orion", ORION.into(), |b| {
            text(b, |i| import::orion(&[*i], &device(), &OrionOptions::default()))
        }),
        ("reef", reef.into(), |b| text(b, |i| import::reef(i, &device(), &ReefOptions::default()))),
        ("perf_analyzer", PERF.into(), perf),
        ("trtexec", TIMES.into(), |b| text(b, |i| import::trtexec(i, &device(), &whole()))),
        ("neusight", NEUSIGHT.into(), |b| text(b, |i| import::neusight(&[*i], &device()))),
        ("trtexec layers", TRT_LAYERS.into(), |b| {
            text(b, |i| import::trtexec(i, &device(), &whole()))
        }),
        ("rocpd", small_pages(databases::rocpd), |b| database(Tool::Rocprof, b)),
        ("model analyzer", ANALYZER.into(), perf),
        ("pandas", PANDAS.into(), table),
        ("aiconfigurator gemm", GEMM.into(), operators),
        ("aiconfigurator attention", ATTENTION.into(), operators),
        ("aiconfigurator parquet", parquet(), operators),
        ("llmservingsim dense", DENSE.into(), layers),
        ("llmservingsim per_sequence", PER_SEQUENCE.into(), layers),
        ("llmservingsim attention", LAYER_ATTENTION.into(), layers),
    ]
}
