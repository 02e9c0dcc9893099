//! Several prepared products as one launch.

use std::cell::RefCell;
use std::rc::Rc;

use super::CudaDevice;
use crate::cuda::blas::{Gemm, Place, Shape, cannot_list};
use crate::cuda::memory::Buffer;
use crate::cuda::ready::{Body, LaunchFacts, Operands, Ready};
use crate::device::{Device, Prepared, Queue};
use crate::error::DeviceError;
use crate::recipe;
use crate::reference;
use crate::work::{Task, Work};

/// The alignment of the driver's allocations, bytes. The library makes no use of a larger one.
const ALIGNED: u64 = 256;

impl CudaDevice {
    /// One launch for several products. Products of one shape stay where they are, and the library is
    /// given lists of their addresses; work that is named twice gets further operands, as every tenant
    /// has its own. Products of several shapes, or a library without lists, give one strided batch with
    /// operands of its own, each as large as the largest: such a measurement shows the launch, not
    /// where its data comes from. The facts of the result say which of the two it is.
    pub(super) fn batch(
        &mut self,
        queue: Queue,
        parts: &[Prepared],
    ) -> Result<Prepared, DeviceError> {
        let (whole, equal) = self.union(parts)?;
        let listed = if equal { self.listed(queue, parts, &whole)? } else { None };
        match listed {
            Some(ready) => Ok(self.keep(ready)),
            None => self.prepare(queue, &whole),
        }
    }

    pub(super) fn keep(&mut self, ready: Ready) -> Prepared {
        self.ready.push(Some(ready));
        Prepared(self.ready.len() as u32 - 1)
    }

    /// One product that stands for several: as many as all of them together, each as large as the
    /// largest, since a batch has one shape. Also returns whether all products have that shape.
    fn union(&self, parts: &[Prepared]) -> Result<(Work, bool), DeviceError> {
        let cannot = |id: &str, why: &str| DeviceError::unsupported(format!("merging {id}"), why);
        let (mut whole, mut equal, mut precision) = (None, true, None);
        let mut all = 0u32;
        for part in parts {
            let work = &self.ready(*part)?.work;
            let Task::Gemm { m, n, k, count } = work.task else {
                return Err(cannot(&work.id, "only matrix products become one batched launch"));
            };
            if *precision.get_or_insert(work.precision) != work.precision {
                return Err(cannot(&work.id, "the others are of another precision"));
            }
            let [a, b, c] = *whole.get_or_insert([m, n, k]);
            equal &= [a, b, c] == [m, n, k];
            whole = Some([a.max(m), b.max(n), c.max(k)]);
            all = all.saturating_add(count);
        }
        let found = whole.zip(precision);
        let ([m, n, k], precision) =
            found.ok_or_else(|| cannot("nothing", "name at least one kernel"))?;
        Ok((Work::new(Task::Gemm { m, n, k, count: all }, precision), equal))
    }

    /// A launch for the products of `parts`, all of one shape, left where they are; `None` if the
    /// library cannot do it.
    fn listed(
        &mut self,
        queue: Queue,
        parts: &[Prepared],
        whole: &Work,
    ) -> Result<Option<Ready>, DeviceError> {
        let Task::Gemm { m, n, k, count } = whole.task else { return Ok(None) };
        let mut sets: Vec<Rc<Operands>> = Vec::new();
        for part in parts {
            let ready = self.ready(*part)?;
            for set in std::iter::once(&ready.operands).chain(&ready.more) {
                let taken = sets.iter().any(|s| Rc::ptr_eq(s, set));
                sets.push(match taken {
                    true => self.operands_with(&set.work, self.inputs(&set.work)?)?,
                    false => Rc::clone(set),
                });
            }
        }
        let size = |a: u32, b: u32| u64::from(a) * u64::from(b) * whole.precision.bytes();
        let lists = addresses(&sets, [size(m, k), size(k, n), size(m, n)]);
        let align =
            |list: &Vec<u64>| list.iter().fold(ALIGNED, |all, a| all.min(a & a.wrapping_neg()));
        let place = Place::Listed(lists.each_ref().map(|list| align(list) as u32));
        let (cus, blas) = (self.lane(queue)?.cus, self.blas()?);
        let shape = Shape { m, n, k, count, bias: false };
        let mut plan = match Gemm::plan(&blas, shape, whole.precision, cus, place) {
            Ok(plan) => Box::new(plan),
            Err(e) if cannot_list(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        plan.give_workspace(Rc::new(Buffer::zeroed(&self.context, plan.workspace_bytes())?));
        let words: Vec<u8> = lists.iter().flatten().flat_map(|a| a.to_le_bytes()).collect();
        let lists = Buffer::filled(&self.context, &words)?;
        let facts = LaunchFacts {
            name: "cublasLtMatmul by lists of addresses".to_owned(),
            grid: None,
            regs: 0,
            smem_bytes: 0,
            blocks_per_cu: 1,
        };
        let operands = sets.remove(0);
        let body = Body::Listed { plan, lists, count: u64::from(count) };
        let (work, more, last) = (whole.clone(), sets, RefCell::default());
        Ok(Some(Ready { queue, work, body, operands, more, facts, last }))
    }

    /// As [`CudaDevice::check`], for the result of [`Device::merge`] on products of one shape. Returns
    /// the largest distance among the parts' results. The operands of each part are overwritten with
    /// numbers of their own, so that a result shows which operands it was computed from.
    ///
    /// # Errors
    /// Those of launching, or the merge does not leave its parts where they are.
    pub fn check_merged(&mut self, merged: Prepared) -> Result<f64, DeviceError> {
        let ready = self.ready(merged)?;
        if !matches!(ready.body, Body::Listed { .. }) {
            let why =
                "the library has no such batch by lists of addresses: it became a strided one";
            return Err(DeviceError::unsupported(format!("merging {}", ready.work.id), why));
        }
        let sets: Vec<Rc<Operands>> =
            std::iter::once(&ready.operands).chain(&ready.more).cloned().collect();
        self.context.synchronize()?;
        let mut expected = Vec::with_capacity(sets.len());
        for (number, set) in sets.iter().enumerate() {
            let (work, precision) = (&set.work, set.work.precision);
            let shapes = recipe::shapes(work);
            let values = reference::operands_of(number, &shapes, precision);
            for ((buffer, operand), values) in set.inputs.iter().zip(&shapes.inputs).zip(&values) {
                buffer.write(&reference::to_bytes(values, operand, precision))?;
            }
            set.output.write(&vec![0; set.output.bytes])?;
            expected.push(reference::compute(work, &values, shapes.output));
        }
        self.launch(merged)?;
        self.wait(&mut Vec::new())?;
        let mut worst = 0.0f64;
        for (set, expected) in sets.iter().zip(&expected) {
            let mut found = reference::from_bytes(&set.output.read()?, set.work.precision);
            found.truncate(expected.len());
            worst = worst.max(reference::distance(&found, expected));
        }
        Ok(worst)
    }
}

/// The addresses of all left, right and result matrices of these products, `sizes` bytes each.
fn addresses(sets: &[Rc<Operands>], sizes: [u64; 3]) -> [Vec<u64>; 3] {
    let mut lists = [const { Vec::new() }; 3];
    for set in sets {
        let count = if let Task::Gemm { count, .. } = set.work.task { count } else { 0 };
        let firsts = set.addresses().into_iter().chain([set.output.address]);
        for ((list, first), size) in lists.iter_mut().zip(firsts).zip(sizes) {
            list.extend((0..u64::from(count)).map(|i| first + i * size));
        }
    }
    lists
}
