//! Products in tiles of a chosen size, by code compiled for that size instead of a library.

use std::cell::RefCell;

use super::CudaDevice;
use crate::cuda::driver::{Module, function_facts};
use crate::cuda::ready::{Body, LaunchFacts, Ready};
use crate::device::{Prepared, Queue};
use crate::error::DeviceError;
use crate::tile::Tile;
use crate::work::Work;

impl CudaDevice {
    /// Makes a product ready in tiles; `ptx` is the template compiled for them. If `like` is given, the
    /// product reads the operands of `like`, which must be of the same work.
    ///
    /// # Errors
    /// The work is not a product, the driver rejects the code, or there is not enough memory.
    pub fn prepare_tile(
        &mut self,
        queue: Queue,
        work: &Work,
        (tile, ptx): (Tile, &str),
        like: Option<Prepared>,
    ) -> Result<Prepared, DeviceError> {
        self.lane(queue)?;
        let recipe = tile.recipe(work)?;
        let function = match self.tiles.get(&tile) {
            Some((_, function)) => *function,
            None => {
                let module = Module::load(&self.context, ptx)?;
                let function = module.function(&recipe.function)?;
                self.tiles.insert(tile, (module, function));
                function
            }
        };
        let facts = function_facts(function, recipe.block)?;
        let facts = LaunchFacts {
            name: format!("gemm {tile}"),
            grid: Some((recipe.blocks, recipe.block)),
            regs: facts.regs,
            smem_bytes: facts.smem_bytes,
            blocks_per_cu: facts.blocks_per_cu,
        };
        let inputs = match like {
            Some(like) => {
                let known = self.ready(like)?;
                if known.work != *work {
                    let why = "the operands to share are of other work";
                    return Err(DeviceError::unsupported(&work.id, why));
                }
                known.operands.inputs.clone()
            }
            None => self.inputs(work)?,
        };
        let operands = self.operands_with(work, inputs)?;
        let body = Body::Ours { function, recipe, scratch: None };
        let (work, more) = (work.clone(), Vec::new());
        let last = RefCell::default();
        Ok(self.keep(Ready { queue, work, body, operands, more, facts, last }))
    }
}
