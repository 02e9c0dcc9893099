//! The little of cuBLASLt, cuDNN and NVRTC that cotenant calls. Matrices and tensors keep their sizes, so
//! that a product takes a time that depends on them and on the SMs of its stream.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::state::{
    OK, add_library, broken, drop_library, enter, first_launch, has_company, note, read_until,
    with, words,
};
use crate::{CURRENT, api, nasty, push};

/// Sizes by handle: rows, columns, count of a matrix, bytes of an element; four sizes of a tensor or
/// a filter.
static SIZES: Mutex<BTreeMap<usize, [u64; 4]>> = Mutex::new(BTreeMap::new());
/// Layouts whose matrices lie anywhere: launches are given lists of addresses.
static LISTED: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());
static STREAMS: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());
/// Until when launches have their workspaces to themselves.
static WORKSPACES: Mutex<BTreeMap<usize, Instant>> = Mutex::new(BTreeMap::new());
/// The contexts that handles of cuDNN were made in.
static HOMES: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

fn sizes(handle: usize) -> [u64; 4] {
    let map = SIZES.lock().unwrap_or_else(PoisonError::into_inner);
    map.get(&handle).copied().unwrap_or([1; 4])
}
fn set(handle: usize, f: impl FnOnce(&mut [u64; 4])) -> c_int {
    let mut map = SIZES.lock().unwrap_or_else(PoisonError::into_inner);
    f(map.entry(handle).or_insert([1; 4]));
    OK
}
/// Runs the algorithm of that number, the best being 0, in a workspace; `failed` is the library's code
/// for a launch that does not work.
fn run(
    stream: usize,
    algorithm: u64,
    (what, flops): (&str, u64),
    workspace: usize,
    failed: c_int,
) -> c_int {
    let sms = with(stream, |s| s.sms).unwrap_or(0);
    let needs = nasty::number("cluster").filter(|_| algorithm == 0);
    if broken() || needs.is_some_and(|n| u64::from(sms) < n) {
        return failed;
    }
    if nasty::names("beside", what) && has_company(stream) {
        return failed;
    }
    first_launch(&format!("{what} {algorithm} {flops}"), &["cold"]);
    // 400 operations a nanosecond on every SM, roughly an H100 in TF32.
    let from = with(stream, |s| s.end().max(Instant::now()));
    if push(stream, |s| 6_000 + flops / (400 * u64::from(s.sms))) != OK {
        return 7;
    }
    if let (Some(from), Some(until)) = (from, with(stream, |s| s.end())) {
        work_in(workspace, [from, until]);
    }
    OK
}
/// Notes that a launch has a workspace to itself for so long: another one at that time overwrites it.
fn work_in(workspace: usize, [from, until]: [Instant; 2]) {
    if workspace == 0 {
        return;
    }
    let mut used = WORKSPACES.lock().unwrap_or_else(PoisonError::into_inner);
    let before = used.insert(workspace, until);
    if before.is_some_and(|end| end > from) {
        note("wrong: two launches have one workspace at the same time", true);
    }
}
/// Algorithms that a library names, the best first.
const ALGORITHMS: usize = 3;
fn listed(layout: usize) -> bool {
    LISTED.lock().unwrap_or_else(PoisonError::into_inner).contains(&layout)
}
/// Notes that the matrices of a layout are read or written until the stream has ended: those of a
/// list, and the list, must be memory that is alive, and stay so.
fn touch(list: usize, layout: usize, stream: usize) {
    let [rows, cols, count, width] = sizes(layout);
    let until = with(stream, |s| s.end());
    let addresses = words(list, count as usize);
    let alive = addresses.len() as u64 == count
        && read_until(list, 8 * count, until)
        && addresses.iter().all(|a| read_until(*a as usize, rows * cols * width, until));
    let text: Vec<String> = addresses.iter().map(|a| format!("{a:x}")).collect();
    note(&format!("  LIST {}", text.join(" ")), false);
    if !alive {
        note("wrong: a list, or a matrix in it, is not a memory", true);
    }
}

api! {
    fn cublasLtCreate(h: *mut usize) { *h = add_library(); OK }
    fn cublasLtDestroy(h: usize) { drop_library(h) }
    fn cublasLtMatrixLayoutCreate(l: *mut usize, kind: c_int, rows: u64, cols: u64, _ld: i64) {
        *l = add_library();
        // CUDA_R_32F is 0, both halves are others.
        set(*l, |s| *s = [rows, cols, 1, if kind == 0 { 4 } else { 2 }])
    }
    fn cublasLtMatrixLayoutSetAttribute(l: usize, which: c_int, value: *const i32, _n: usize) {
        let value = *value;
        if which == 5 { note(&format!("  BATCH_COUNT {value}"), false); }
        if which == 8 && value == 1 {
            LISTED.lock().unwrap_or_else(PoisonError::into_inner).insert(l);
        }
        if which == 5 { set(l, |s| s[2] = value as u64) } else { OK }
    }
    fn cublasLtMatrixLayoutDestroy(l: usize) {
        LISTED.lock().unwrap_or_else(PoisonError::into_inner).remove(&l);
        drop_library(l)
    }
    fn cublasLtMatmulDescCreate(d: *mut usize, _compute: c_int, _scale: c_int) { *d = add_library(); OK }
    fn cublasLtMatmulDescSetAttribute(_d: usize, which: c_int, value: *const i32, _n: usize) {
        if which == 15 { note(&format!("  SM_COUNT_TARGET {}", *value), false); }
        OK
    }
    fn cublasLtMatmulDescDestroy(d: usize) { drop_library(d) }
    fn cublasLtMatmulPreferenceCreate(p: *mut usize) { *p = add_library(); OK }
    fn cublasLtMatmulPreferenceSetAttribute(_p: usize, which: c_int, value: *const u32, _n: usize) {
        if (5..=8).contains(&which) { note(&format!("  ALIGNED {}", *value), false); }
        OK
    }
    fn cublasLtMatmulPreferenceDestroy(p: usize) { drop_library(p) }
    fn cublasLtMatmulAlgoGetHeuristic(
        _h: usize, _d: usize, _a: usize, _b: usize, _c: usize, _out: usize, _p: usize, want: c_int,
        result: *mut u8, found: *mut c_int,
    ) {
        // cublasLtMatmulHeuristicResult_t: 64 bytes of algorithm, workspace size, state…
        let n = ALGORITHMS.min(usize::try_from(want).unwrap_or(0));
        for i in 0..n {
            let one = result.add(96 * i);
            std::ptr::write_bytes(one, 0, 96);
            *one.cast::<u64>() = i as u64;
            *one.add(64).cast::<usize>() = 1 << 20;
        }
        *found = n as c_int;
        OK
    }
    fn cublasLtMatmul(
        _h: usize, _d: usize, _alpha: *const f32, a: usize, la: usize, b: usize, lb: usize,
        _beta: *const f32, _c: usize, _lc: usize, out: usize, lo: usize, algo: *const c_void,
        work: usize, _bytes: usize, stream: usize,
    ) {
        let (left, o) = (sizes(la), sizes(lo));
        let flops = 2 * left[1] * o[0] * o[1] * o[2];
        let code = run(stream, *algo.cast::<u64>(), ("product", flops), work, 13);
        for (list, layout) in [(a, la), (b, lb), (out, lo)] {
            if listed(layout) { touch(list, layout, stream); }
        }
        code
    }
}

api! {
    fn cudnnCreate(h: *mut usize) {
        *h = add_library();
        HOMES.lock().unwrap_or_else(PoisonError::into_inner).insert(*h, CURRENT.get());
        OK
    }
    fn cudnnDestroy(h: usize) { drop_library(h) }
    fn cudnnSetStream(h: usize, stream: usize) {
        let home = HOMES.lock().unwrap_or_else(PoisonError::into_inner).get(&h).copied();
        let green = with(stream, |s| s.green).unwrap_or(0);
        // CUDNN_STATUS_BAD_PARAM_STREAM_MISMATCH.
        if nasty::nasty("dnn").is_some() && home != Some(if green == 0 { 0x1000 } else { green }) {
            return 2007;
        }
        STREAMS.lock().unwrap_or_else(PoisonError::into_inner).insert(h, stream);
        OK
    }
    fn cudnnCreateTensorDescriptor(t: *mut usize) { *t = add_library(); OK }
    fn cudnnSetTensor4dDescriptor(t: usize, _format: c_int, _kind: c_int, n: c_int, c: c_int, h: c_int, w: c_int) {
        set(t, |s| *s = [n, c, h, w].map(|v| v as u64))
    }
    fn cudnnDestroyTensorDescriptor(t: usize) { drop_library(t) }
    fn cudnnCreateFilterDescriptor(f: *mut usize) { *f = add_library(); OK }
    fn cudnnSetFilter4dDescriptor(f: usize, _kind: c_int, _format: c_int, k: c_int, c: c_int, h: c_int, w: c_int) {
        set(f, |s| *s = [k, c, h, w].map(|v| v as u64))
    }
    fn cudnnDestroyFilterDescriptor(f: usize) { drop_library(f) }
    fn cudnnCreateConvolutionDescriptor(d: *mut usize) { *d = add_library(); OK }
    fn cudnnSetConvolution2dDescriptor(
        _d: usize, _ph: c_int, _pw: c_int, _sh: c_int, _sw: c_int, _dh: c_int, _dw: c_int,
        _mode: c_int, _kind: c_int,
    ) { OK }
    fn cudnnSetConvolutionGroupCount(_d: usize, _groups: c_int) { OK }
    fn cudnnSetConvolutionMathType(_d: usize, _math: c_int) { OK }
    fn cudnnDestroyConvolutionDescriptor(d: usize) { drop_library(d) }
    fn cudnnGetConvolutionForwardAlgorithm_v7(
        _h: usize, _x: usize, _w: usize, _d: usize, _y: usize, want: c_int, found: *mut c_int,
        result: *mut u8,
    ) {
        // cudnnConvolutionFwdAlgoPerf_t: algorithm 1 first, all else zero.
        let n = ALGORITHMS.min(usize::try_from(want).unwrap_or(0));
        for i in 0..n {
            let one = result.add(48 * i);
            std::ptr::write_bytes(one, 0, 48);
            *one.cast::<c_int>() = 1 + i as c_int;
        }
        *found = n as c_int;
        OK
    }
    fn cudnnGetConvolutionForwardWorkspaceSize(
        _h: usize, _x: usize, _w: usize, _d: usize, _y: usize, _algo: c_int, bytes: *mut usize,
    ) { *bytes = 1 << 20; OK }
    fn cudnnConvolutionForward(
        h: usize, _alpha: *const f32, _xd: usize, _x: usize, wd: usize, _w: usize, _d: usize,
        algo: c_int, work: usize, _bytes: usize, _beta: *const f32, yd: usize, _y: usize,
    ) {
        let stream = STREAMS.lock().unwrap_or_else(PoisonError::into_inner).get(&h).copied();
        let (w, y) = (sizes(wd), sizes(yd));
        let flops = 2 * y.iter().product::<u64>() * w[1] * w[2] * w[3];
        run(stream.unwrap_or(0), algo.abs_diff(1).into(), ("convolution", flops), work, 5000)
    }
}

/// What the compiler makes of any source: the tuner's function, without a body.
const PTX: &[u8] = b".version 9.0\n.target sm_80\n.visible .entry gemm(\n)\n{\n}\n\0";

api! {
    fn nvrtcCreateProgram(
        p: *mut usize, _source: *const c_char, _name: *const c_char, _headers: c_int,
        _contents: *const c_void, _names: *const c_void,
    ) { *p = add_library(); OK }
    fn nvrtcCompileProgram(_p: usize, n: c_int, options: *const *const c_char) {
        for i in 0..usize::try_from(n).unwrap_or(0) {
            let option = CStr::from_ptr(*options.add(i)).to_string_lossy();
            note(&format!("  {option}"), false);
        }
        OK
    }
    fn nvrtcGetPTXSize(_p: usize, n: *mut usize) { *n = PTX.len(); OK }
    fn nvrtcGetPTX(_p: usize, text: *mut u8) {
        std::ptr::copy_nonoverlapping(PTX.as_ptr(), text, PTX.len());
        OK
    }
    fn nvrtcGetProgramLogSize(_p: usize, n: *mut usize) { *n = 1; OK }
    fn nvrtcGetProgramLog(_p: usize, text: *mut u8) { *text = 0; OK }
    fn nvrtcDestroyProgram(p: *mut usize) { drop_library(*p) }
}
