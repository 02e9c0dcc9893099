//! Convolutions by cuDNN, planned once and launched many times.
#![allow(unsafe_code)] // the library's C interface

use std::rc::Rc;

use cotenant_profiles::lower::Precision;
use cotenant_profiles::zoo::layer::Conv as Shape;
use cudarc::cudnn::{result, sys};

use super::driver::{Context, Stream};
use super::library::require;
use super::memory::Buffer;
use crate::error::DeviceError;

fn failed(call: &'static str) -> impl Fn(result::CudnnError) -> DeviceError {
    move |e| DeviceError::call(call, e.0 as i32, &e.0)
}

/// The library's handle, of one stream.
pub(super) struct Dnn {
    raw: sys::cudnnHandle_t,
    _stream: Rc<Stream>,
}

impl Dnn {
    pub(super) fn new(stream: &Rc<Stream>) -> Result<Rc<Self>, DeviceError> {
        // SAFETY: tries to load the library.
        require(unsafe { sys::is_culib_present() }, "cuDNN")?;
        let raw = result::create_handle().map_err(failed("cudnnCreate"))?;
        let dnn = Self { raw, _stream: Rc::clone(stream) };
        // SAFETY: both are alive, and the stream is held.
        unsafe { result::set_stream(raw, stream.raw.cast()) }.map_err(failed("cudnnSetStream"))?;
        Ok(Rc::new(dnn))
    }
}

impl Drop for Dnn {
    fn drop(&mut self) {
        // SAFETY: made in `new`; its stream is still there.
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
        // SAFETY: made by the one who wraps it.
        let _ = unsafe { result::destroy_filter_descriptor(self.0) };
    }
}

struct Description(sys::cudnnConvolutionDescriptor_t);

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made by the one who wraps it.
        let _ = unsafe { result::destroy_convolution_descriptor(self.0) };
    }
}

/// A convolution whose algorithm is chosen.
pub(super) struct Conv {
    dnn: Rc<Dnn>,
    description: Description,
    x: Tensor,
    w: Filter,
    y: Tensor,
    algorithm: sys::cudnnConvolutionFwdAlgo_t,
    workspace: Buffer,
    workspace_bytes: usize,
}

impl Conv {
    pub(super) fn plan(
        dnn: &Rc<Dnn>,
        context: &Rc<Context>,
        (batch, c): (u32, &Shape),
        precision: Precision,
    ) -> Result<Self, DeviceError> {
        use sys::cudnnDataType_t as T;
        let kind = match precision {
            Precision::Fp32 | Precision::Tf32 => T::CUDNN_DATA_FLOAT,
            Precision::Fp16 => T::CUDNN_DATA_HALF,
            Precision::Bf16 => T::CUDNN_DATA_BFLOAT16,
            Precision::Int8 => return Err(DeviceError::unsupported("conv", "no int8; use fp16")),
        };
        let [oh, ow] = c.output();
        let x = Tensor::new(kind, [batch, c.in_ch, c.input[0], c.input[1]])?;
        let y = Tensor::new(kind, [batch, c.out_ch, oh, ow])?;
        let w = filter(kind, c)?;
        let description = description(c, precision)?;
        let (algorithm, workspace_bytes) = choose(dnn, &x, &w, &description, &y)?;
        let workspace = Buffer::zeroed(context, workspace_bytes)?;
        let dnn = Rc::clone(dnn);
        Ok(Self { dnn, description, x, w, y, algorithm, workspace, workspace_bytes })
    }

    /// The algorithm, as the library counts them.
    pub(super) fn algorithm(&self) -> u32 {
        self.algorithm as u32
    }

    /// Launches in the stream of its handle.
    pub(super) fn launch(&self, inputs: &[u64], output: u64) -> Result<(), DeviceError> {
        let (one, zero) = (1.0f32, 0.0f32);
        // SAFETY: the buffers are of the planned sizes; everything lives until the device has
        // ended what the stream holds.
        unsafe {
            result::convolution_forward(
                self.dnn.raw,
                (&raw const one).cast(),
                self.x.0,
                inputs[0] as *const _,
                self.w.0,
                inputs[1] as *const _,
                self.description.0,
                self.algorithm,
                self.workspace.address as *mut _,
                self.workspace_bytes,
                (&raw const zero).cast(),
                self.y.0,
                output as *mut _,
            )
        }
        .map_err(failed("cudnnConvolutionForward"))
    }
}

/// Most workspace of one convolution.
const WORKSPACE: usize = 1 << 30;

/// The algorithm that the library expects to be the fastest, of those that it can run in the
/// workspace.
fn choose(
    dnn: &Dnn,
    x: &Tensor,
    w: &Filter,
    description: &Description,
    y: &Tensor,
) -> Result<(sys::cudnnConvolutionFwdAlgo_t, usize), DeviceError> {
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
            return Ok((candidate.algo, bytes));
        }
    }
    Err(DeviceError::unsupported("conv", "cuDNN has no algorithm for it within 1 GiB"))
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
    // FP32 must not become TF32 behind the profile's back.
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
