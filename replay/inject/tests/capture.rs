//! The record's layout against generated bindings, the walk on synthetic buffers, and the library
//! as a driver loads it.
#![allow(unsafe_code, clippy::unwrap_used)] // raw records; helpers of tests

use std::ffi::c_int;
use std::mem::{offset_of, size_of};
use std::process::Command;

use cotenant_inject::{CONCURRENT_KERNEL, Kernel, KernelRecord, kernels, to_json};
use cudarc::cupti::sys::{
    CUpti_ActivityKernel9 as K9, CUpti_ActivityKernel10 as K10, CUpti_ActivityKind as Kind,
    CUpti_ActivityMemset4 as Memset,
};

#[test]
fn the_record_lies_as_in_the_headers_of_both_versions() {
    macro_rules! same {
        ($($ours:ident = $theirs:ident),* $(,)?) => {$(
            let at = offset_of!(KernelRecord, $ours);
            assert_eq!(at, offset_of!(K9, $theirs), stringify!($ours));
            assert_eq!(at, offset_of!(K10, $theirs), stringify!($ours));
        )*};
    }
    same!(
        kind = kind,
        registers_per_thread = registersPerThread,
        start = start,
        end = end,
        completed = completed,
        device_id = deviceId,
        context_id = contextId,
        stream_id = streamId,
        grid = gridX,
        block = blockX,
        static_smem = staticSharedMemory,
        dynamic_smem = dynamicSharedMemory,
        correlation_id = correlationId,
        grid_id = gridId,
        name = name,
        queued = queued,
        submitted = submitted,
        smem_executed = sharedMemoryExecuted,
        graph_node_id = graphNodeId,
        graph_id = graphId,
    );
    assert_eq!(Kind::CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL as u32, CONCURRENT_KERNEL);
    assert!(size_of::<KernelRecord>() <= size_of::<K9>());
}

/// CUPTI's walk as documented: records lie one behind the other, each as long as its kind.
unsafe fn step(buffer: *mut u8, valid: usize, record: *mut *mut u32, kernel: usize) -> c_int {
    unsafe {
        let at = if (*record).is_null() {
            buffer
        } else {
            let kind = (*record).read_unaligned();
            let size = if kind == CONCURRENT_KERNEL { kernel } else { size_of::<Memset>() };
            (*record).cast::<u8>().add(size)
        };
        if at as usize >= buffer as usize + valid {
            return 12; // CUPTI_ERROR_MAX_LIMIT_REACHED
        }
        *record = at.cast();
        0
    }
}
unsafe extern "C" fn next9(b: *mut u8, n: usize, r: *mut *mut u32) -> c_int {
    unsafe { step(b, n, r, size_of::<K9>()) }
}
unsafe extern "C" fn next10(b: *mut u8, n: usize, r: *mut *mut u32) -> c_int {
    unsafe { step(b, n, r, size_of::<K10>()) }
}

macro_rules! walk {
    ($test:ident, $record:ty, $next:expr) => {
        #[test]
        fn $test() {
            let name = c"sgemm<\"q\">";
            let mut buffer = vec![0u64; 1024];
            let begin = buffer.as_mut_ptr().cast::<u8>();
            let mut at = begin;
            let mut k: $record = unsafe { std::mem::zeroed() };
            k.kind = Kind::CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL;
            (k.name, k.start, k.end, k.streamId, k.contextId) = (name.as_ptr(), 100, 350, 13, 2);
            (k.gridX, k.gridY, k.gridZ, k.blockX) = (7, 2, 1, 128);
            (k.registersPerThread, k.staticSharedMemory, k.dynamicSharedMemory) = (48, 1024, 512);
            let mut other: Memset = unsafe { std::mem::zeroed() };
            other.kind = Kind::CUPTI_ACTIVITY_KIND_MEMSET;
            unsafe {
                at.cast::<$record>().write_unaligned(k);
                at = at.add(size_of::<$record>());
                at.cast::<Memset>().write_unaligned(other);
                at = at.add(size_of::<Memset>());
                (k.start, k.name) = (400, std::ptr::null());
                at.cast::<$record>().write_unaligned(k);
                at = at.add(size_of::<$record>());
            }
            let found = unsafe { kernels($next, begin, at as usize - begin as usize) };
            let first = Kernel {
                name: "sgemm<\"q\">".to_owned(),
                time_ns: [100, 350],
                place: [0, 2, 13],
                grid: [7, 2, 1],
                block: [128, 0, 0],
                regs: 48,
                smem: [1024, 512],
                correlation: 0,
            };
            assert_eq!(found.len(), 2, "{found:?}");
            assert_eq!(found[0], first);
            assert_eq!((found[1].name.as_str(), found[1].time_ns[0]), ("", 400));
            let line: serde_json::Value = serde_json::from_str(&to_json(&first)).unwrap();
            assert_eq!(line["name"], "sgemm<\"q\">");
            assert_eq!(line["smem_bytes"], 1536);
        }
    };
}
walk!(records_of_cuda_12_are_walked, K9, next9);
walk!(records_of_cuda_13_are_walked, K10, next10);

/// A process that loads the library and calls it as the driver does in `cuInit`. With CUPTI (named in
/// `COTENANT_CUPTI_LIB`) but without a GPU it says "off" just so.
#[test]
fn a_program_goes_on_undisturbed_without_cupti() {
    if std::env::var_os("COTENANT_CHILD").is_some() {
        let path = std::env::var("CUDA_INJECTION64_PATH").unwrap();
        let library = unsafe { libloading::Library::new(path) }.unwrap();
        let start: libloading::Symbol<'_, unsafe extern "C" fn() -> c_int> =
            unsafe { library.get(b"InitializeInjection\0") }.unwrap();
        assert_eq!(unsafe { start() }, 1, "the driver is told that all is well");
        std::mem::forget(library);
        println!("the program goes on");
        return;
    }
    let me = std::env::current_exe().unwrap();
    let object = me.parent().unwrap().join("libcotenant_inject.so");
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(&me)
        .args(["a_program_goes_on_undisturbed_without_cupti", "--exact", "--nocapture"])
        .env("COTENANT_CHILD", "1")
        .env("CUDA_INJECTION64_PATH", object)
        .env("COTENANT_TRACE_OUT", folder.path().join("trace.%p.jsonl"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("the program goes on"));
    assert!(said.contains("[cotenant] capture o"), "it says whether it records: {said}");
}
