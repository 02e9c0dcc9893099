//! CSV of profilers: units, versions, and tables that hold no kernels.

use cotenant_profiles::import::{Recording, StreamOptions, Tool};

use super::others::stream;
use super::{launches_and_ns, options};

#[test]
fn nvprof_prints_units_in_a_row_of_their_own() {
    let mut text = String::from(
        "==12== Profiling result:\n\"Start\",\"Duration\",\"Grid X\",\"Grid Y\",\"Grid Z\",\"Block X\",\"Block Y\",\"Block Z\",\"Registers Per Thread\",\"Static SMem\",\"Dynamic SMem\",\"Size\",\"Throughput\",\"SrcMemType\",\"DstMemType\",\"Device\",\"Context\",\"Stream\",\"Name\"\n\
         ms,us,,,,,,,,KB,B,KB,GB/s,,,,,,\n",
    );
    for i in 0..4 {
        let at = 100.0 + f64::from(i);
        text += &format!(
            "{at},8.5,,,,,,,,,,64.0,8.0,\"Pageable\",\"Device\",\"Tesla V100-SXM2-16GB (0)\",\"1\",\"7\",\"[CUDA memcpy HtoD]\"\n\
             {},5.120,8,1,1,128,1,1,32,1.5,256,,,,,\"Tesla V100-SXM2-16GB (0)\",\"1\",\"7\",\"gemm(float*) [{}]\"\n\
             {},6.048,8,2,1,128,1,1,32,0,0,,,,,\"Tesla V100-SXM2-16GB (0)\",\"1\",\"7\",\"relu(float*) [{}]\"\n",
            at + 0.1,
            117 + 2 * i,
            at + 0.2,
            118 + 2 * i,
        );
    }
    let import = stream(Tool::Nsys, &text, &StreamOptions { batch: 1, ..options() }).unwrap();
    assert_eq!(launches_and_ns(&import), (2, 5_120 + 6_048), "{:?}", import.notes);
    let gemm = &import.profile.kernels[0];
    assert_eq!((gemm.name.as_str(), gemm.grid, gemm.smem_bytes), ("gemm(float*)", [8, 1, 1], 1756));
    assert_eq!(import.profile.models["net"].input_per_item.0, 64_000);
    // Without its units no number means anything: parts of nanoseconds are refused.
    let bare = text.replace("ms,us,,,,,,,,KB,B,KB,GB/s,,,,,,\n", "");
    let error = stream(Tool::Nsys, &bare, &options()).unwrap_err();
    assert!(error.contains("a time in the unit of its column"), "{error}");
}

#[test]
fn tables_of_calls_are_no_kernels() {
    for head in [
        "Start (ns),Duration (ns),Name,Result,CorrID,Pid,Tid,T-Pri,Thread Name\n",
        "Start (ns),End (ns),Duration (ns),DurChild (ns),Name,PID,TID,Lvl\n",
        "\"Start\",\"Duration\",\"Name\",\"Correlation_ID\"\n",
    ] {
        let text = format!("{head}{}", "100,50,cudaLaunchKernel,0,1,1,1,1\n".repeat(6));
        let error = stream(Tool::Nsys, &text, &options()).unwrap_err();
        assert!(error.contains("`a table of times without grids` is not an SQLite"), "{error}");
    }
    let counters = "\"Dispatch_Id\",\"Agent_Id\",\"Kernel_Name\",\"Start_Timestamp\",\"End_Timestamp\",\"Counter_Name\",\"Counter_Value\"\n1,1,\"a\",100,150,\"SQ_WAVES\",4\n1,1,\"a\",100,150,\"SQ_BUSY\",9\n";
    let error = stream(Tool::Rocprof, counters, &options()).unwrap_err();
    assert!(error.contains("is not kernel_trace.csv: counting slows kernels down"), "{error}");
    let report = Recording::stream(Tool::Nsys, "r.nsys-rep", &b"\x01\x02\x03\x04 report"[..]);
    let error = report.unwrap_err().to_string();
    assert!(error.contains("`a report as it was recorded` is not an SQLite export"), "{error}");
}

#[test]
fn rocprof_before_version_three_is_read() {
    let one = "Index,KernelName,gpu-id,queue-id,queue-index,pid,tid,grd,wgr,lds,scr,arch_vgpr,accum_vgpr,sgpr,wave_size,sig,obj,DispatchNs,BeginNs,EndNs,CompleteNs\n\n";
    let two = "Dispatch_ID,GPU_ID,Queue_ID,PID,TID,Grid_Size,Workgroup_Size,LDS_Per_Workgroup,Scratch_Per_Workitem,Arch_VGPR,Accum_VGPR,SGPR,Wave_Size,Kernel_Name,Start_Timestamp,End_Timestamp,Correlation_ID\n";
    let (mut first, mut second) = (one.to_owned(), two.to_owned());
    for i in 0..4i64 {
        for (gpu, ns) in [(1, 7_000), (2, 9_000)] {
            let at = 4_556_288_436_792_544 + i * 100_000;
            first += &format!(
                "{i},\"gemm(float*) [clone .kd]\",{gpu},0,{i},9,9,25600,256,1024,0,32,0,16,64,0x0,0x1,{at},{at},{},{}\n",
                at + ns,
                at + ns + 9
            );
            second += &format!(
                "{i},{gpu},1,9,9,25600,256,1024,0,32,0,16,64,\"gemm(float*) [clone .kd]\",{at},{},{i}\n",
                at + ns
            );
        }
    }
    for text in [first, second] {
        let error = stream(Tool::Rocprof, &text, &options()).unwrap_err();
        assert!(error.contains("choose with --gpu-index: GPU 1: 4 kernels"), "{error}");
        let chosen = StreamOptions { gpu: Some(2), ..options() };
        let import = stream(Tool::Rocprof, &text, &chosen).unwrap();
        assert_eq!(launches_and_ns(&import), (1, 9_000));
        let gemm = &import.profile.kernels[0];
        assert_eq!(
            (gemm.grid, gemm.block, gemm.regs, gemm.smem_bytes),
            ([100, 1, 1], 256, 32, 1024)
        );
    }
}

#[test]
fn queues_of_one_stream_number_run_side_by_side() {
    // Without streams their number is 0; two queues overlap, and neither is cut.
    let head = "\"Kind\",\"Agent_Id\",\"Queue_Id\",\"Stream_Id\",\"Kernel_Name\",\"Correlation_Id\",\"Start_Timestamp\",\"End_Timestamp\"\n";
    let mut text = head.to_owned();
    for i in 0..4 {
        let at = 1_000_000 + i * 100_000;
        text += &format!("\"KERNEL_DISPATCH\",\"GPU 0\",1,0,\"a\",1,{at},{}\n", at + 30_000);
        text +=
            &format!("\"KERNEL_DISPATCH\",\"GPU 0\",2,0,\"b\",1,{},{}\n", at + 5_000, at + 15_000);
    }
    let import = stream(Tool::Rocprof, &text, &options()).unwrap();
    assert_eq!(launches_and_ns(&import), (2, 40_000), "{:?}", import.notes);
}
