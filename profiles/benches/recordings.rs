//! What reading a large recording costs: time, and the most memory that is allocated at once.
//!
//! `cargo bench -p cotenant-profiles --bench recordings [-- ROWS]`; ROWS is a part of a row's name, and
//! with `--test` the files are a hundredth as long. Text is written while it is read; databases are written to the
//! folder for temporary files before.

#![allow(clippy::print_stdout)] // what it measures

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write as _;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use cotenant_profiles::Device;
use cotenant_profiles::import::{Recording, StreamOptions, Tool};

/// Counts what is allocated on its way to the system's allocator.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn more(bytes: usize) {
    let now = NOW.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: every call is handed to the system's allocator as it came.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        more(layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // The system moves pages, not bytes, where there are many.
        more(size);
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        MOST.fetch_max(NOW.load(Ordering::Relaxed), Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A text that is made piece by piece.
struct Made<F> {
    next: F,
    piece: String,
    at: usize,
    number: usize,
    bytes: usize,
}

/// `next` writes a piece by its number; the text ends with the first that stays empty.
fn made<F: FnMut(usize, &mut String)>(next: F) -> Made<F> {
    Made { next, piece: String::new(), at: 0, number: 0, bytes: 0 }
}

impl<F: FnMut(usize, &mut String)> Read for Made<F> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.piece.len() {
            self.piece.clear();
            self.at = 0;
            while self.piece.len() < 32 << 10 {
                let before = self.piece.len();
                (self.next)(self.number, &mut self.piece);
                self.number += 1;
                if self.piece.len() == before {
                    break;
                }
            }
        }
        let n = into.len().min(self.piece.len() - self.at);
        into[..n].copy_from_slice(&self.piece.as_bytes()[self.at..self.at + n]);
        self.at += n;
        self.bytes += n;
        Ok(n)
    }
}

/// One of `each` events is a launch or its kernel, a step lasts 100,000 of them; the others are operators.
fn torch(events: usize, each: usize) -> impl FnMut(usize, &mut String) {
    move |i, text| {
        let at = i as f64 * 1.5;
        let _ = match i {
            0 => write!(text, "{{\"schemaVersion\":1,\"traceEvents\":[{{}}"),
            i if i > events + 1 => Ok(()),
            i if i == events + 1 => write!(text, "]}}"),
            i if i % 100_000 == 1 => write!(
                text,
                r#",{{"ph":"X","cat":"user_annotation","name":"ProfilerStep#{}","pid":1,"tid":1,"ts":{at},"dur":149998}}"#,
                i / 100_000
            ),
            i if i % each == 0 && (i / each).is_multiple_of(2) => write!(
                text,
                r#",{{"ph":"X","cat":"cuda_runtime","name":"cudaLaunchKernel","pid":1,"tid":1,"ts":{at},"dur":1.0,"args":{{"External id":{i},"cbid":211,"correlation":{}}}}}"#,
                i / each / 2 + 1
            ),
            i if i % each == 0 => write!(
                text,
                r#",{{"ph":"X","cat":"kernel","name":"void gemm_{}<float>(float*)","pid":0,"tid":7,"ts":{at},"dur":1.0,"args":{{"External id":{i},"device":0,"context":1,"stream":7,"correlation":{},"registers per thread":32,"shared memory":0,"blocks per SM":1.5,"grid":[200,1,1],"block":[128,1,1]}}}}"#,
                i % 50,
                i / each / 2 + 1
            ),
            i => write!(
                text,
                r#",{{"ph":"X","cat":"cpu_op","name":"aten::add","pid":1,"tid":1,"ts":{at},"dur":1.0,"args":{{"External id":{i},"Ev Idx":{i}}}}}"#
            ),
        };
    }
}

/// As many dispatches, and behind them as many calls that launch, each beside two that do not.
fn rocprof(kernels: usize) -> impl FnMut(usize, &mut String) {
    // Rounds of 100 dispatches with a pause between them.
    let at = |k: usize| 1_000_000 + k * 10_000 + k / 100 * 500_000;
    move |i, text| {
        let _ = match i {
            0 => write!(
                text,
                r#"{{"rocprofiler-sdk-tool":[{{"metadata":{{"pid":7}},"agents":[{{"id":{{"handle":22}},"node_id":1,"product_name":"AMD Instinct MI210","cu_count":104}}],"strings":{{"buffer_records":[{{"operations":[]}},{{"operations":["hipLaunchKernel","hipGetDevice"]}}]}},"kernel_symbols":[],"buffer_records":{{"kernel_dispatch":[{{}}"#
            ),
            i if i <= kernels => {
                let k = i - 1;
                write!(
                    text,
                    r#",{{"size":152,"kind":11,"operation":1,"thread_id":99,"correlation_id":{{"internal":{i},"external":0}},"start_timestamp":{},"end_timestamp":{},"dispatch_info":{{"size":80,"agent_id":{{"handle":22}},"queue_id":{{"handle":1}},"kernel_id":{},"dispatch_id":{k},"private_segment_size":0,"group_segment_size":1024,"workgroup_size":{{"x":256,"y":1,"z":1}},"grid_size":{{"x":25600,"y":2,"z":1}}}},"stream_id":{{"handle":0}}}}"#,
                    at(k),
                    at(k) + 8_000,
                    k % 100
                )
            }
            i if i == kernels + 1 => write!(text, r#"],"hip_api":[{{}}"#),
            i if i <= kernels + 1 + 3 * kernels => {
                let (k, other) = ((i - kernels - 2) / 3, (i - kernels - 2) % 3);
                let link = if other == 0 { k + 1 } else { kernels * (other + 1) + k };
                write!(
                    text,
                    r#",{{"size":72,"kind":1,"operation":{},"thread_id":99,"correlation_id":{{"internal":{link},"external":0}},"start_timestamp":{},"end_timestamp":{}}}"#,
                    other.min(1),
                    at(k) - 6_000,
                    at(k) - 3_000
                )
            }
            i if i == 4 * kernels + 2 => write!(text, "]}}}}]}}"),
            _ => Ok(()),
        };
    }
}

/// A database of as many kernels, with their launch calls, as Nsight Systems exports it.
fn nsys(kernels: i64) -> tempfile::NamedTempFile {
    database(&format!(
        "CREATE TABLE StringIds (id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL);
         CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL,
            contextId INTEGER, streamId INTEGER, correlationId INTEGER, globalPid INTEGER, demangledName INTEGER NOT NULL,
            shortName INTEGER NOT NULL, gridX INTEGER, gridY INTEGER, gridZ INTEGER, blockX INTEGER, blockY INTEGER, blockZ INTEGER);
         CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start INTEGER NOT NULL, end INTEGER NOT NULL, globalTid INTEGER,
            correlationId INTEGER, nameId INTEGER);
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
            INSERT INTO StringIds SELECT i, 'void gemm_' || i || '<float>(float*)' FROM n;
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last})
            INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL SELECT 1000000 + i * 10000 + i / 100 * 500000,
               1008000 + i * 10000 + i / 100 * 500000, 0, 1, 7, i + 1, {pid}, i % 100, i % 100, 200, 1, 1, 128, 1, 1 FROM n;
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last})
            INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME SELECT 994000 + i * 10000 + i / 100 * 500000,
               997000 + i * 10000 + i / 100 * 500000, {pid} + 9, i + 1, 0 FROM n;",
        last = kernels - 1,
        pid = 4242i64 << 24,
    ))
}

/// As many dispatches, each with its call and the events of both, as rocprofv3 keeps them.
fn rocpd(kernels: i64) -> tempfile::NamedTempFile {
    database(&format!(
        "CREATE TABLE rocpd_string_0a (id INTEGER NOT NULL PRIMARY KEY, string TEXT);
         CREATE TABLE rocpd_info_agent_0a (id INTEGER NOT NULL PRIMARY KEY, type TEXT, absolute_index INTEGER, name TEXT);
         CREATE TABLE rocpd_info_kernel_symbol_0a (id INTEGER NOT NULL PRIMARY KEY, display_name TEXT);
         CREATE TABLE rocpd_event_0a (id INTEGER NOT NULL PRIMARY KEY, category_id INTEGER, stack_id INTEGER);
         CREATE TABLE rocpd_region_0a (id INTEGER NOT NULL PRIMARY KEY, pid INTEGER, start BIGINT, end BIGINT, name_id INTEGER,
            event_id INTEGER);
         CREATE TABLE rocpd_kernel_dispatch_0a (id INTEGER NOT NULL PRIMARY KEY, pid INTEGER, agent_id INTEGER, kernel_id INTEGER,
            queue_id INTEGER, stream_id INTEGER, start BIGINT, end BIGINT, group_segment_size INTEGER, workgroup_size_x INTEGER,
            workgroup_size_y INTEGER, workgroup_size_z INTEGER, grid_size_x INTEGER, grid_size_y INTEGER, grid_size_z INTEGER,
            event_id INTEGER);
         INSERT INTO rocpd_string_0a VALUES (1, 'HIP_RUNTIME_API'), (2, 'hipLaunchKernel');
         INSERT INTO rocpd_info_agent_0a VALUES (2, 'GPU', 1, 'gfx90a');
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
            INSERT INTO rocpd_info_kernel_symbol_0a SELECT i, 'gemm_' || i FROM n;
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {events})
            INSERT INTO rocpd_event_0a SELECT i + 1, 1, i / 2 + 1 FROM n;
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last})
            INSERT INTO rocpd_region_0a SELECT i, 1, 994000 + i * 10000 + i / 100 * 500000,
               997000 + i * 10000 + i / 100 * 500000, 2, 2 * i + 1 FROM n;
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last})
            INSERT INTO rocpd_kernel_dispatch_0a SELECT i, 1, 2, i % 100, 1, 0, 1000000 + i * 10000 + i / 100 * 500000,
               1008000 + i * 10000 + i / 100 * 500000, 0, 256, 1, 1, 25600, 1, 1, 2 * i + 2 FROM n;",
        last = kernels - 1,
        events = 2 * kernels - 1,
    ))
}

fn database(sql: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a place for a file");
    let db = rusqlite::Connection::open(file.path()).expect("an empty database");
    db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;").expect("options");
    db.execute_batch(sql).expect("sound tables");
    file
}

fn row(name: &str, tool: Tool, next: impl FnMut(usize, &mut String)) {
    let mut text = made(next);
    measured(name, || {
        let read = Recording::stream(tool, "made", &mut text).expect("a sound file");
        (read, text.bytes)
    });
}

/// A file on the disk. What SQLite itself allocates is not counted: its cache of 8 MiB.
fn file(name: &str, tool: Tool, file: &tempfile::NamedTempFile) {
    let bytes = file.as_file().metadata().map_or(0, |m| m.len());
    measured(name, || {
        let read = Recording::read(tool, file.path(), &mut |_| {}).expect("a sound file");
        (read, usize::try_from(bytes).unwrap_or(0))
    });
}

fn measured(name: &str, read: impl FnOnce() -> (Recording, usize)) {
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let begun = Instant::now();
    let (read, bytes) = read();
    let took = begun.elapsed();
    let kernels = read.used().iter().map(|u| u.kernels).sum::<usize>();
    let device = Device::builtin("h100-sxm").expect("a built-in device");
    let options = StreamOptions { model: "m".to_owned(), batch: 1, ..StreamOptions::default() };
    let import = read.model(&device, &options).expect("passes");
    let all = begun.elapsed();
    let peak = (MOST.load(Ordering::Relaxed) - before) as f64 / f64::from(1 << 20);
    // A kernel with its call as it is read (72 bytes), and as a launch of the timeline (72 more).
    let themselves = (kernels * 144) as f64 / f64::from(1 << 20);
    println!(
        "{name}: {:.0} MB, {kernels} kernels: {:.1} s to read ({:.0} MB/s), {:.1} s in all; at most {peak:.0} \
         MiB, {themselves:.0} of them kernels; {}",
        bytes as f64 / 1e6,
        took.as_secs_f64(),
        bytes as f64 / 1e6 / took.as_secs_f64(),
        all.as_secs_f64(),
        import.notes.first().map_or("", String::as_str),
    );
    assert!(peak <= themselves + 64.0, "{name}: {peak:.0} MiB");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let part = if arguments.iter().any(|a| a == "--test") { 100 } else { 1 };
    let wanted = arguments.iter().find(|a| !a.starts_with('-')).map_or("", String::as_str);
    let chosen = |name: &str| name.contains(wanted);
    if chosen("torch, 1 % launches") {
        row("torch, 1 % launches", Tool::Torch, torch(10_000_000 / part, 100));
    }
    if chosen("torch, 25 % launches") {
        row("torch, 25 % launches", Tool::Torch, torch(6_000_000 / part, 4));
    }
    if chosen("rocprof") {
        row("rocprof", Tool::Rocprof, rocprof(2_500_000 / part));
    }
    let kernels = 3_000_000 / part as i64;
    if chosen("nsys") {
        file("nsys", Tool::Nsys, &nsys(kernels));
    }
    if chosen("rocpd") {
        file("rocpd", Tool::Rocprof, &rocpd(kernels));
    }
}
