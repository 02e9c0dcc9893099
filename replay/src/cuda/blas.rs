//! Matrix products by cuBLASLt: planned once, launched many times.
#![allow(unsafe_code)] // the library's C interface

use std::rc::Rc;

use cotenant_profiles::lower::Precision;
use cudarc::cublaslt::{result, sys};

use super::driver::{Context, Stream};
use super::library::require;
use super::memory::Buffer;
use crate::error::DeviceError;

fn failed(call: &'static str) -> impl Fn(result::CublasError) -> DeviceError {
    move |e| DeviceError::call(call, e.0 as i32, &e.0)
}

/// The library's handle.
pub(super) struct Blas {
    raw: sys::cublasLtHandle_t,
    _context: Rc<Context>,
}

impl Blas {
    pub(super) fn new(context: &Rc<Context>) -> Result<Rc<Self>, DeviceError> {
        // SAFETY: tries to load the library.
        require(unsafe { sys::is_culib_present() }, "cuBLASLt")?;
        let raw = result::create_handle().map_err(failed("cublasLtCreate"))?;
        Ok(Rc::new(Self { raw, _context: Rc::clone(context) }))
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: made in `new`.
        let _ = unsafe { result::destroy_handle(self.raw) };
    }
}

/// The sizes of a product, row-major.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) m: u32,
    pub(super) n: u32,
    pub(super) k: u32,
    pub(super) count: u32,
    /// A third operand is added to every row.
    pub(super) bias: bool,
}

/// The location of a batch's matrices.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// One behind the other; a launch is given the addresses of the first matrices.
    Strided,
    /// Anywhere; a launch is given the addresses of lists, on the device, of their addresses. The
    /// addresses of left, right and result matrices are multiples of these numbers of bytes.
    Listed([u32; 3]),
}

/// Whether a plan of [`Place::Listed`] failed because the library does not know such batches (before
/// CUDA 12.9) or has no algorithm for this one.
pub(super) fn cannot_list(error: &DeviceError) -> bool {
    use sys::cublasStatus_t as S;
    let asked = ["cublasLtMatrixLayoutSetAttribute", "cublasLtMatmulAlgoGetHeuristic"];
    let no = [S::CUBLAS_STATUS_INVALID_VALUE as i32, S::CUBLAS_STATUS_NOT_SUPPORTED as i32];
    matches!(error, DeviceError::Call { call, code, .. } if asked.contains(call) && no.contains(code))
}

struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    /// A column-major matrix, `count` of them.
    fn new(
        kind: sys::cudaDataType,
        [rows, cols]: [u32; 2],
        count: u32,
        place: Place,
    ) -> Result<Self, DeviceError> {
        use sys::cublasLtBatchMode_t::CUBLASLT_BATCH_MODE_POINTER_ARRAY;
        use sys::cublasLtMatrixLayoutAttribute_t as A;
        let (rows, cols) = (u64::from(rows), u64::from(cols));
        let raw = result::create_matrix_layout(kind, rows, cols, rows as i64);
        let layout = Self(raw.map_err(failed("cublasLtMatrixLayoutCreate"))?);
        let (count, stride) = (count as i32, (rows * cols) as i64);
        // SAFETY: the attributes are of four and eight bytes.
        unsafe {
            let (attribute, value) = (A::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &raw const count);
            result::set_matrix_layout_attribute(layout.0, attribute, value.cast(), 4)
                .map_err(failed("cublasLtMatrixLayoutSetAttribute"))?;
            match place {
                Place::Strided => {
                    let (attribute, value) =
                        (A::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &raw const stride);
                    result::set_matrix_layout_attribute(layout.0, attribute, value.cast(), 8)
                }
                Place::Listed(_) => {
                    let mode = CUBLASLT_BATCH_MODE_POINTER_ARRAY as u32;
                    let (attribute, value) =
                        (A::CUBLASLT_MATRIX_LAYOUT_BATCH_MODE, &raw const mode);
                    result::set_matrix_layout_attribute(layout.0, attribute, value.cast(), 4)
                }
            }
            .map_err(failed("cublasLtMatrixLayoutSetAttribute"))?;
        }
        Ok(layout)
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made in `new`.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

struct Description(sys::cublasLtMatmulDesc_t);

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made by the code that wraps it.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

struct Preference(sys::cublasLtMatmulPreference_t);

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made by the code that wraps it.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

/// A product with the algorithms that may run it.
pub(super) struct Gemm {
    blas: Rc<Blas>,
    description: Description,
    left: Layout,
    right: Layout,
    out: Layout,
    /// Best first.
    algorithms: Vec<sys::cublasLtMatmulHeuristicResult_t>,
    chosen: usize,
    /// Shared only with other plans in the same queue: two streams that share a workspace overwrite
    /// each other's data.
    workspace: Option<Rc<Buffer>>,
    bias: bool,
}

/// Largest workspace of one product, as cuBLAS recommends for Hopper.
const WORKSPACE: usize = 32 << 20;

impl Gemm {
    /// Plans for a partition of `cus` SMs; the library sizes its grid accordingly.
    pub(super) fn plan(
        blas: &Rc<Blas>,
        shape: Shape,
        precision: Precision,
        cus: u32,
        place: Place,
    ) -> Result<Self, DeviceError> {
        use sys::cublasComputeType_t as C;
        use sys::cublasLtMatmulDescAttributes_t::{
            CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET,
        };
        use sys::cublasLtMatmulPreferenceAttributes_t as P;
        let (kind, compute) = match precision {
            Precision::Fp32 => (sys::cudaDataType::CUDA_R_32F, C::CUBLAS_COMPUTE_32F),
            Precision::Tf32 => (sys::cudaDataType::CUDA_R_32F, C::CUBLAS_COMPUTE_32F_FAST_TF32),
            Precision::Fp16 => (sys::cudaDataType::CUDA_R_16F, C::CUBLAS_COMPUTE_32F),
            Precision::Bf16 => (sys::cudaDataType::CUDA_R_16BF, C::CUBLAS_COMPUTE_32F),
            Precision::Fp8 | Precision::Int8 | Precision::Int4 => {
                let why = format!("no {precision}; use fp16");
                return Err(DeviceError::unsupported("gemm", &why));
            }
        };
        let Shape { m, n, k, count, bias } = shape;
        let raw = result::create_matmul_desc(compute, sys::cudaDataType::CUDA_R_32F);
        let description = Description(raw.map_err(failed("cublasLtMatmulDescCreate"))?);
        let target = cus as i32;
        // SAFETY: the attribute is of four bytes.
        unsafe {
            let (attribute, value) = (CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, &raw const target);
            result::set_matmul_desc_attribute(description.0, attribute, value.cast(), 4)
                .map_err(failed("cublasLtMatmulDescSetAttribute"))?;
        }
        if bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            // SAFETY: the attribute is of four bytes.
            unsafe {
                let (attribute, value) = (CUBLASLT_MATMUL_DESC_EPILOGUE, &raw const epilogue);
                result::set_matmul_desc_attribute(description.0, attribute, value.cast(), 4)
                    .map_err(failed("cublasLtMatmulDescSetAttribute"))?;
            }
        }
        // Row-major C = A B is column-major Cᵀ = Bᵀ Aᵀ, so the operands change places.
        let left = Layout::new(kind, [n, k], count, place)?;
        let right = Layout::new(kind, [k, m], count, place)?;
        let out = Layout::new(kind, [n, m], count, place)?;
        let raw = result::create_matmul_pref().map_err(failed("cublasLtMatmulPreferenceCreate"))?;
        let preference = Preference(raw);
        let most = WORKSPACE;
        // For matrices at equal distances the library sees the alignment for itself.
        let aligned = match place {
            Place::Strided => Vec::new(),
            Place::Listed([left, right, out]) => vec![
                (P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, right),
                (P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, left),
                (P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out),
                (P::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out),
            ],
        };
        // SAFETY: the attributes are of eight and four bytes; all descriptors are alive.
        let algorithms = unsafe {
            let (attribute, value) = (P::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &raw const most);
            result::set_matmul_pref_attribute(preference.0, attribute, value.cast(), 8)
                .map_err(failed("cublasLtMatmulPreferenceSetAttribute"))?;
            for (attribute, bytes) in &aligned {
                let value = std::ptr::from_ref(bytes);
                result::set_matmul_pref_attribute(preference.0, *attribute, value.cast(), 4)
                    .map_err(failed("cublasLtMatmulPreferenceSetAttribute"))?;
            }
            let operands = [&left, &right, &out].map(|l| l.0);
            heuristics(blas.raw, description.0, operands, preference.0)?
        };
        let workspace = None;
        let blas = Rc::clone(blas);
        Ok(Self { blas, description, left, right, out, algorithms, chosen: 0, workspace, bias })
    }

    /// Size of the chosen algorithm's workspace.
    pub(super) fn workspace_bytes(&self) -> usize {
        self.algorithms[self.chosen].workspaceSize
    }

    /// Sets the workspace, of at least [`Self::workspace_bytes`], before the first launch.
    pub(super) fn give_workspace(&mut self, workspace: Rc<Buffer>) {
        self.workspace = Some(workspace);
    }

    /// Takes the next algorithm; false if there is none.
    pub(super) fn next(&mut self, context: &Rc<Context>) -> Result<bool, DeviceError> {
        let Some(next) = self.algorithms.get(self.chosen + 1) else { return Ok(false) };
        if self.workspace.as_ref().is_none_or(|w| w.bytes < next.workspaceSize) {
            self.workspace = Some(Rc::new(Buffer::zeroed(context, next.workspaceSize)?));
        }
        self.chosen += 1;
        Ok(true)
    }

    /// Whether the chosen algorithm is the one that the library expects to be fastest.
    pub(super) fn is_first(&self) -> bool {
        self.chosen == 0
    }

    /// Launches with the addresses of the operands, or of the lists of their addresses.
    pub(super) fn launch(
        &self,
        stream: &Stream,
        inputs: &[u64],
        output: u64,
    ) -> Result<(), DeviceError> {
        let (one, zero) = (1.0f32, 0.0f32);
        let (a, b) = (inputs[1] as *const _, inputs[0] as *const _);
        let algorithm = &self.algorithms[self.chosen];
        if self.bias {
            use sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER as POINTER;
            let value = (&raw const inputs[2]).cast();
            // SAFETY: the attribute is eight bytes: the address of as many numbers as there are
            // columns.
            unsafe { result::set_matmul_desc_attribute(self.description.0, POINTER, value, 8) }
                .map_err(failed("cublasLtMatmulDescSetAttribute"))?;
        }
        // SAFETY: the buffers have the planned sizes, and everything lives until the device has
        // finished the work in the stream.
        unsafe {
            result::matmul(
                self.blas.raw,
                self.description.0,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                a,
                self.left.0,
                b,
                self.right.0,
                output as *const _,
                self.out.0,
                output as *mut _,
                self.out.0,
                &raw const algorithm.algo,
                self.workspace.as_ref().map_or(0, |w| w.address) as *mut _,
                algorithm.workspaceSize,
                stream.raw.cast(),
            )
        }
        .map_err(failed("cublasLtMatmul"))
    }
}

/// The algorithms that the library expects to be fastest, fastest first; at least one.
///
/// # Safety
/// All handles are alive.
unsafe fn heuristics(
    blas: sys::cublasLtHandle_t,
    description: sys::cublasLtMatmulDesc_t,
    [left, right, out]: [sys::cublasLtMatrixLayout_t; 3],
    preference: sys::cublasLtMatmulPreference_t,
) -> Result<Vec<sys::cublasLtMatmulHeuristicResult_t>, DeviceError> {
    const ASKED: usize = 8;
    let failed = failed("cublasLtMatmulAlgoGetHeuristic");
    let mut found = 0;
    // SAFETY: plain data, for which zero is valid; at most `ASKED` answers are written.
    let mut ranked: [sys::cublasLtMatmulHeuristicResult_t; ASKED] = unsafe { std::mem::zeroed() };
    // SAFETY: the caller vouches for the handles.
    let code = unsafe {
        sys::cublasLtMatmulAlgoGetHeuristic(
            blas,
            description,
            left,
            right,
            out,
            out,
            preference,
            ASKED as i32,
            ranked.as_mut_ptr(),
            &raw mut found,
        )
    };
    code.result().map_err(&failed)?;
    let found = usize::try_from(found).unwrap_or(0).min(ASKED);
    let runs: Vec<_> =
        ranked[..found].iter().filter(|r| r.state.result().is_ok()).copied().collect();
    if runs.is_empty() {
        return Err(failed(result::CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)));
    }
    Ok(runs)
}
