//! Convolutions by cuDNN, planned once and launched many times.
#![allow(unsafe_code)] // the library's C interface

use std::cell::Cell;
use std::rc::Rc;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::zoo::layer::Conv as Shape;
use cudarc::cudnn::{result, sys};

use super::driver::{Context, Green, Stream};
use super::library::require;
use super::memory::Buffer;
use crate::error::DeviceError;

fn failed(call: &'static str) -> impl Fn(result::CudnnError) -> DeviceError {
    move |e| DeviceError::call(call, e.0 as i32, &e.0)
}

/// The library's handle, for the streams of one partition or of the whole device.
pub(super) struct Dnn {
    raw: sys::cudnnHandle_t,
    /// The stream that it launches into.
    stream: Cell<sys::cudaStream_t>,
    /// The partition whose context it was made in, if the library requires that.
    _home: Option<Rc<Green>>,
}

impl Dnn {
    /// A handle for `stream` and others of its partition. The library may refuse a stream whose context
    /// is not the handle's, and streams of partitions are said to have contexts of their own. So this
    /// tries the stream, and if the library refuses it, makes the handle in the partition's context.
    pub(super) fn new(stream: &Stream) -> Result<Rc<Self>, DeviceError> {
        // SAFETY: tries to load the library.
        require(unsafe { sys::is_culib_present() }, "cuDNN")?;
        let dnn = Self::made(None)?;
        let Err(why) = dnn.turn_to(stream) else { return Ok(Rc::new(dnn)) };
        let Some(green) = stream.green() else { return Err(why) };
        let dnn = green.inside(|| Self::made(Some(Rc::clone(green))))??;
        dnn.turn_to(stream)?;
        Ok(Rc::new(dnn))
    }

    fn made(home: Option<Rc<Green>>) -> Result<Self, DeviceError> {
        let raw = result::create_handle().map_err(failed("cudnnCreate"))?;
        Ok(Self { raw, stream: Cell::new(std::ptr::null_mut()), _home: home })
    }

    /// Makes later launches go into `stream`, which lives as long as there is work in it.
    fn turn_to(&self, stream: &Stream) -> Result<(), DeviceError> {
        let raw = stream.raw.cast();
        if self.stream.get() != raw {
            // SAFETY: both are alive; a stream that has gone is never launched into.
            unsafe { result::set_stream(self.raw, raw) }.map_err(failed("cudnnSetStream"))?;
            self.stream.set(raw);
        }
        Ok(())
    }
}

impl Drop for Dnn {
    fn drop(&mut self) {
        // SAFETY: made in `made`, and no longer used.
        let _ = unsafe { result::destroy_handle(self.raw) };
    }
}

struct Tensor(sys::cudnnTensorDescriptor_t);

impl Tensor {
    fn new(kind: sys::cudnnDataType_t, size: [u32; 4]) -> Result<Self, DeviceError> {
        let raw = result::create_tensor_descriptor();
        let tensor = Self(raw.map_err(failed("cudnnCreateTensorDescriptor"))?);
        let nchw = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;
        // SAFETY: the descriptor is alive.
        unsafe { result::set_tensor4d_descriptor(tensor.0, nchw, kind, size.map(|n| n as i32)) }
            .map_err(failed("cudnnSetTensor4dDescriptor"))?;
        Ok(tensor)
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        // SAFETY: made in `new`.
        let _ = unsafe { result::destroy_tensor_descriptor(self.0) };
    }
}

struct Filter(sys::cudnnFilterDescriptor_t);

impl Drop for Filter {
    fn drop(&mut self) {
        // SAFETY: made by the code that wraps it.
        let _ = unsafe { result::destroy_filter_descriptor(self.0) };
    }
}

struct Description(sys::cudnnConvolutionDescriptor_t);

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made by the code that wraps it.
        let _ = unsafe { result::destroy_convolution_descriptor(self.0) };
    }
}

/// A convolution with the algorithms that may run it.
pub(super) struct Conv {
    description: Description,
    x: Tensor,
    w: Filter,
    y: Tensor,
    /// Best first, with the bytes of their workspaces.
    algorithms: Vec<(sys::cudnnConvolutionFwdAlgo_t, usize)>,
    chosen: usize,
    /// Belongs to this plan alone: two streams that share a workspace overwrite each other's data.
    workspace: Buffer,
}

impl Conv {
    pub(super) fn plan(
        dnn: &Dnn,
        context: &Rc<Context>,
        (batch, c): (u32, &Shape),
        precision: Precision,
    ) -> Result<Self, DeviceError> {
        use sys::cudnnDataType_t as T;
        let kind = match precision {
            Precision::Fp32 | Precision::Tf32 => T::CUDNN_DATA_FLOAT,
            Precision::Fp16 => T::CUDNN_DATA_HALF,
            Precision::Bf16 => T::CUDNN_DATA_BFLOAT16,
            Precision::Fp8 | Precision::Int8 | Precision::Int4 => {
                let why = format!("no {precision}; use fp16");
                return Err(DeviceError::unsupported("conv", &why));
            }
        };
        let [oh, ow] = c.output();
        let x = Tensor::new(kind, [batch, c.in_ch, c.input[0], c.input[1]])?;
        let y = Tensor::new(kind, [batch, c.out_ch, oh, ow])?;
        let w = filter(kind, c)?;
        let description = description(c, precision)?;
        let algorithms = algorithms(dnn, &x, &w, &description, &y)?;
        let workspace = Buffer::zeroed(context, algorithms[0].1)?;
        Ok(Self { description, x, w, y, algorithms, chosen: 0, workspace })
    }

    /// The library's number of the algorithm.
    pub(super) fn algorithm(&self) -> u32 {
        self.algorithms[self.chosen].0 as u32
    }

    /// Takes the next algorithm; false if there is none.
    pub(super) fn next(&mut self, context: &Rc<Context>) -> Result<bool, DeviceError> {
        let Some((_, bytes)) = self.algorithms.get(self.chosen + 1) else { return Ok(false) };
        if *bytes > self.workspace.bytes {
            self.workspace = Buffer::zeroed(context, *bytes)?;
        }
        self.chosen += 1;
        Ok(true)
    }

    pub(super) fn launch(
        &self,
        dnn: &Dnn,
        stream: &Stream,
        inputs: &[u64],
        output: u64,
    ) -> Result<(), DeviceError> {
        dnn.turn_to(stream)?;
        let (one, zero) = (1.0f32, 0.0f32);
        let (algorithm, workspace_bytes) = self.algorithms[self.chosen];
        // SAFETY: the buffers are of the planned sizes; everything lives until the device has
        // ended what the stream holds.
        unsafe {
            result::convolution_forward(
                dnn.raw,
                (&raw const one).cast(),
                self.x.0,
                inputs[0] as *const _,
                self.w.0,
                inputs[1] as *const _,
                self.description.0,
                algorithm,
                self.workspace.address as *mut _,
                workspace_bytes,
                (&raw const zero).cast(),
                self.y.0,
                output as *mut _,
            )
        }
        .map_err(failed("cudnnConvolutionForward"))
    }
}

/// Largest workspace of one convolution.
const WORKSPACE: usize = 1 << 30;

/// The algorithms that the library can run in the workspace, with the bytes they need, fastest first by
/// the library's estimate. There is at least one.
fn algorithms(
    dnn: &Dnn,
    x: &Tensor,
    w: &Filter,
    description: &Description,
    y: &Tensor,
) -> Result<Vec<(sys::cudnnConvolutionFwdAlgo_t, usize)>, DeviceError> {
    const ASKED: usize = 8;
    let none = sys::cudnnConvolutionFwdAlgoPerf_t {
        algo: sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
        status: sys::cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED,
        time: -1.0,
        memory: 0,
        determinism: sys::cudnnDeterminism_t::CUDNN_NON_DETERMINISTIC,
        mathType: sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
        reserved: [0; 3],
    };
    let (mut found, mut ranked) = (0, [none; ASKED]);
    // SAFETY: all descriptors are alive; at most `ASKED` answers are written.
    unsafe {
        result::get_convolution_forward_algorithm(
            dnn.raw,
            x.0,
            w.0,
            description.0,
            y.0,
            ASKED as i32,
            &raw mut found,
            ranked.as_mut_ptr(),
        )
    }
    .map_err(failed("cudnnGetConvolutionForwardAlgorithm_v7"))?;
    let found = usize::try_from(found).unwrap_or(0).min(ASKED);
    let runs = |p: &&sys::cudnnConvolutionFwdAlgoPerf_t| {
        p.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
    };
    let mut algorithms = Vec::new();
    for candidate in ranked[..found].iter().filter(runs) {
        // SAFETY: all descriptors are alive.
        let bytes = unsafe {
            result::get_convolution_forward_workspace_size(
                dnn.raw,
                x.0,
                w.0,
                description.0,
                y.0,
                candidate.algo,
            )
        };
        if let Ok(bytes) = bytes
            && bytes <= WORKSPACE
        {
            algorithms.push((candidate.algo, bytes));
        }
    }
    let none = || DeviceError::unsupported("conv", "cuDNN has no algorithm for it within 1 GiB");
    if algorithms.is_empty() { Err(none()) } else { Ok(algorithms) }
}

fn filter(kind: sys::cudnnDataType_t, c: &Shape) -> Result<Filter, DeviceError> {
    let raw = result::create_filter_descriptor();
    let filter = Filter(raw.map_err(failed("cudnnCreateFilterDescriptor"))?);
    let nchw = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;
    let size = [c.out_ch, c.in_ch / c.groups, c.kernel[0], c.kernel[1]].map(|n| n as i32);
    // SAFETY: the descriptor is alive.
    unsafe { result::set_filter4d_descriptor(filter.0, kind, nchw, size) }
        .map_err(failed("cudnnSetFilter4dDescriptor"))?;
    Ok(filter)
}

fn description(c: &Shape, precision: Precision) -> Result<Description, DeviceError> {
    use sys::cudnnMathType_t as M;
    let raw = result::create_convolution_descriptor();
    let description = Description(raw.map_err(failed("cudnnCreateConvolutionDescriptor"))?);
    let [pad, stride] = [c.pad, c.stride].map(|p| p.map(|n| n as i32));
    let dilation = c.dilation as i32;
    let cross = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
    // FP32 must not silently become TF32, which the profile would not show.
    let math = match precision {
        Precision::Fp32 => M::CUDNN_FMA_MATH,
        _ => M::CUDNN_TENSOR_OP_MATH,
    };
    // SAFETY: the descriptor is alive.
    unsafe {
        result::set_convolution2d_descriptor(
            description.0,
            pad[0],
            pad[1],
            stride[0],
            stride[1],
            dilation,
            dilation,
            cross,
            sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
        )
        .map_err(failed("cudnnSetConvolution2dDescriptor"))?;
        result::set_convolution_group_count(description.0, c.groups as i32)
            .map_err(failed("cudnnSetConvolutionGroupCount"))?;
        result::set_convolution_math_type(description.0, math)
            .map_err(failed("cudnnSetConvolutionMathType"))?;
    }
    Ok(description)
}
