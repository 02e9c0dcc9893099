//! CUPTI's kernel record and the walk over a buffer of records.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt::Write;

/// The kind of a kernel's record.
pub const CONCURRENT_KERNEL: u32 = 10;

/// CUPTI's iterator: buffer, valid bytes, record (null to begin with).
pub type Next = unsafe extern "C" fn(*mut u8, usize, *mut *mut u32) -> c_int;

/// The first 160 bytes of a kernel's record, equal in `CUpti_ActivityKernel9` (CUDA 12), `10` (13.0)
/// and later ones, which only append.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(missing_docs)] // the fields are CUPTI's, documented there
pub struct KernelRecord {
    pub kind: u32,
    pub cache_config: u8,
    pub shared_memory_config: u8,
    pub registers_per_thread: u16,
    pub partitioned_cache_requested: u32,
    pub partitioned_cache_executed: u32,
    pub start: u64,
    pub end: u64,
    pub completed: u64,
    pub device_id: u32,
    pub context_id: u32,
    pub stream_id: u32,
    pub grid: [i32; 3],
    pub block: [i32; 3],
    pub static_smem: i32,
    pub dynamic_smem: i32,
    pub local_per_thread: u32,
    pub local_total: u32,
    pub correlation_id: u32,
    pub grid_id: i64,
    pub name: *const c_char,
    pub reserved0: *mut c_void,
    pub queued: u64,
    pub submitted: u64,
    pub launch_type: u8,
    pub carveout_requested: u8,
    pub carveout: u8,
    pub padding: u8,
    pub smem_executed: u32,
    pub graph_node_id: u64,
    pub shmem_limit_config: u32,
    pub graph_id: u32,
}

/// One kernel that ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its mangled name.
    pub name: String,
    /// Start and end, ns.
    pub time_ns: [u64; 2],
    /// Device, context and stream.
    pub place: [u32; 3],
    /// Blocks.
    pub grid: [i32; 3],
    /// Threads of a block.
    pub block: [i32; 3],
    /// Registers of a thread.
    pub regs: u16,
    /// Shared memory of a block, bytes, static and dynamic.
    pub smem: [i32; 2],
    /// Links it to its launch.
    pub correlation: u32,
}

/// The kernels of a buffer; records of other kinds are passed over.
///
/// # Safety
/// `buffer` holds `valid` bytes of records that `next` can walk, and names that are alive.
#[must_use]
pub unsafe fn kernels(next: Next, buffer: *mut u8, valid: usize) -> Vec<Kernel> {
    let mut out = Vec::new();
    let mut record: *mut u32 = std::ptr::null_mut();
    // SAFETY: as the caller promises; a record is as long as its kind says.
    unsafe {
        while next(buffer, valid, &raw mut record) == 0 && !record.is_null() {
            if record.read_unaligned() != CONCURRENT_KERNEL {
                continue;
            }
            let k = record.cast::<KernelRecord>().read_unaligned();
            let name = match k.name {
                name if name.is_null() => String::new(),
                name => CStr::from_ptr(name).to_string_lossy().into_owned(),
            };
            out.push(Kernel {
                name,
                time_ns: [k.start, k.end],
                place: [k.device_id, k.context_id, k.stream_id],
                grid: k.grid,
                block: k.block,
                regs: k.registers_per_thread,
                smem: [k.static_smem, k.dynamic_smem],
                correlation: k.correlation_id,
            });
        }
    }
    out
}

/// A kernel as one line of JSON.
#[must_use]
pub fn to_json(k: &Kernel) -> String {
    let mut line = String::from("{\"name\":\"");
    for c in k.name.chars() {
        match c {
            '"' | '\\' => line.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    let ([start, end], [device, context, stream]) = (k.time_ns, k.place);
    let _ = write!(
        line,
        "\",\"start_ns\":{start},\"end_ns\":{end},\"device\":{device},\"context\":{context},\
         \"stream\":{stream},\"grid\":{:?},\"block\":{:?},\"regs\":{},\"smem_bytes\":{},\
         \"correlation\":{}}}",
        k.grid,
        k.block,
        k.regs,
        i64::from(k.smem[0]) + i64::from(k.smem[1]),
        k.correlation
    );
    line
}
