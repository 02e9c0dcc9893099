//! Elastic caches: their memory follows what sequences hold, and the engines of a pool share the pool's
//! memory.
//!
//! Before a step is planned, the engine is lent all the memory that it could get at this instant. After
//! planning, the memory that it holds is mapped and the rest is returned. Memory is counted in whole pages,
//! as if free blocks always formed whole pages: fragmentation is not modelled.

use cotenant_profiles::{Bytes, Nanos};

use super::{Host, World};
use crate::engine::Rules;
use crate::layout::WorkerSpec;

/// An engine's memory, in pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapped {
    pool: u32,
    page: u64,
    block: u64,
    floor: u64,
    most: u64,
    mapped: u64,
    map: Nanos,
}

impl Mapped {
    fn pages(&self, blocks: u32) -> u64 {
        (u64::from(blocks) * self.block).div_ceil(self.page)
    }

    fn blocks(&self, pages: u64) -> u32 {
        u32::try_from(pages * self.page / self.block).unwrap_or(u32::MAX)
    }
}

impl<W: World> Host<'_, W> {
    /// The cache of a worker's engine: its initial number of blocks, the most blocks that it may ever have,
    /// and its memory if it is elastic.
    pub(super) fn cache_of(&self, spec: &WorkerSpec, rules: &Rules) -> (u32, u32, Option<Mapped>) {
        let total = self.pools[spec.pool as usize].memory;
        let (kv, block) = (self.setup.kv_memory(spec, total), rules.block_bytes().0);
        let all = u32::try_from(kv.0 / block).unwrap_or(u32::MAX);
        let Some(elastic) = rules.elastic else { return (all, all, None) };
        let page = elastic.page.0.max(1);
        let floor = elastic.floor_within(kv).0 / page;
        let most = kv.0 / page;
        let (pool, map) = (spec.pool, elastic.map);
        let mapped = Mapped { pool, page, block, floor, most, mapped: floor, map };
        (mapped.blocks(floor), mapped.blocks(most), Some(mapped))
    }

    /// Free memory of a pool.
    fn unmapped(&self, pool: u32) -> u64 {
        self.pools[pool as usize].memory.0 - self.memory[pool as usize].0
    }

    /// The most blocks that an engine could have if no other engine held any beyond its floor.
    pub(super) fn most_blocks(&self, engine: u32) -> u32 {
        let Some(own) = self.mapped[engine as usize] else {
            return self.engines[engine as usize].kv().blocks();
        };
        let others = self.mapped.iter().flatten().filter(|m| m.pool == own.pool);
        let beyond: u64 = others.map(|m| (m.mapped - m.floor) * m.page).sum();
        let free = (self.unmapped(own.pool) + beyond) / own.page;
        own.blocks(own.most.min(own.floor + free))
    }

    /// Lends an engine, which is about to plan a step, all memory that is free.
    pub(super) fn lend(&mut self, engine: u32) {
        let Some(own) = self.mapped[engine as usize] else { return };
        let free = self.unmapped(own.pool) / own.page;
        self.engines[engine as usize].resize(own.blocks(own.most.min(own.mapped + free)));
    }

    /// Maps the blocks that an engine's sequences hold, or its floor if that is more, and unmaps the rest.
    /// Returns the host time that this takes.
    pub(super) fn map(&mut self, engine: u32) -> Nanos {
        let Some(own) = &mut self.mapped[engine as usize] else { return Nanos::ZERO };
        let cache = &mut self.engines[engine as usize];
        let before = own.mapped;
        own.mapped = own.pages(cache.kv().used()).max(own.floor);
        cache.resize(own.blocks(own.mapped));
        let taken = &mut self.memory[own.pool as usize];
        *taken = Bytes(taken.0 - before * own.page + own.mapped * own.page);
        assert!(*taken <= self.pools[own.pool as usize].memory, "memory is mapped once");
        self.released |= own.mapped < before;
        Nanos(own.map.0 * own.mapped.saturating_sub(before))
    }

    /// Lets engines that wait for memory try again whenever some has been released.
    #[cold]
    pub(super) fn offer(&mut self) {
        while std::mem::take(&mut self.released) {
            for tenant in 0..self.setup.tenants.len() as u32 {
                let generates = self.setup.tenants[tenant as usize].generates.as_ref();
                if generates.is_some_and(|g| g.rules.elastic.is_some()) {
                    self.form_steps(tenant);
                }
            }
        }
    }
}
