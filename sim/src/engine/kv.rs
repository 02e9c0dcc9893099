//! The key-value cache: blocks that sequences hold, that sessions left behind, or that are free.

use std::collections::BTreeMap;

/// What a finished sequence left for the next one of its session.
#[derive(Clone, Copy, Debug)]
struct Left {
    blocks: u32,
    /// When it was left, in order.
    stamp: u64,
}

/// A cache of equal blocks.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// Tokens of a block.
    block: u32,
    blocks: u32,
    free: u32,
    /// Held by nobody, but of use to their sessions.
    left: u32,
    sessions: BTreeMap<u64, Left>,
    /// Sessions in the order in which they were used.
    oldest: BTreeMap<u64, u64>,
    stamp: u64,
}

impl KvCache {
    /// An empty cache of `blocks` blocks of `block` tokens.
    #[must_use]
    pub fn new(block: u32, blocks: u32) -> Self {
        Self {
            block: block.max(1),
            blocks,
            free: blocks,
            left: 0,
            sessions: BTreeMap::new(),
            oldest: BTreeMap::new(),
            stamp: 0,
        }
    }

    /// Blocks in all.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Blocks that sequences hold.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.blocks - self.free - self.left
    }

    /// Blocks of so many tokens.
    pub(super) fn blocks_of(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.block)
    }

    /// Blocks that a session left and that the first `tokens` tokens of a prompt fill.
    pub(super) fn hit(&self, session: u64, tokens: u32) -> u32 {
        let left = self.sessions.get(&session).map_or(0, |s| s.blocks);
        left.min(tokens / self.block)
    }

    /// Tokens of so many whole blocks.
    pub(super) fn tokens_of(&self, blocks: u32) -> u32 {
        blocks * self.block
    }

    /// Whether `fresh` blocks can be had beside the `hit` ones that a session left.
    pub(super) fn has_room(&self, fresh: u32, hit: u32) -> bool {
        fresh <= self.free + self.left - hit
    }

    /// A sequence takes over what its session left, up to `hit` blocks of it.
    pub(super) fn take_over(&mut self, session: u64, hit: u32) {
        if hit == 0 {
            return;
        }
        let Some(left) = self.sessions.remove(&session) else { return };
        self.oldest.remove(&left.stamp);
        self.left -= left.blocks;
        // What lies beyond the common prefix is of no use any more.
        self.free += left.blocks - hit;
    }

    /// Takes so many blocks, from those that are left behind once none is free; nothing where there
    /// are too few.
    pub(super) fn take(&mut self, blocks: u32) -> bool {
        if blocks > self.free + self.left {
            return false;
        }
        self.make_free(blocks);
        self.free -= blocks;
        true
    }

    /// At least so many blocks are free, as far as sessions have left some.
    fn make_free(&mut self, blocks: u32) {
        while self.free < blocks {
            let (&stamp, &session) =
                self.oldest.first_key_value().expect("left blocks have owners");
            let left = self.sessions.get_mut(&session).expect("both maps agree");
            // The end of the conversation goes first: its beginning may still serve.
            let wanted = (blocks - self.free).min(left.blocks);
            left.blocks -= wanted;
            self.left -= wanted;
            self.free += wanted;
            if left.blocks == 0 {
                self.sessions.remove(&session);
                self.oldest.remove(&stamp);
            }
        }
    }

    /// There are so many blocks from now on.
    pub(super) fn resize(&mut self, blocks: u32) {
        let used = self.used();
        assert!(used <= blocks, "blocks that sequences hold stay");
        self.make_free(self.blocks.saturating_sub(blocks));
        (self.free, self.blocks) = (blocks - used - self.left, blocks);
    }

    /// A sequence gives its blocks back; the first `keep` of them serve its session.
    pub(super) fn give_back(&mut self, blocks: u32, session: u64, keep: u32) {
        if session == 0 || keep == 0 {
            self.free += blocks;
            return;
        }
        self.stamp += 1;
        let left = Left { blocks: keep, stamp: self.stamp };
        if let Some(before) = self.sessions.insert(session, left) {
            self.oldest.remove(&before.stamp);
            self.left -= before.blocks;
            self.free += before.blocks;
        }
        self.oldest.insert(self.stamp, session);
        self.left += keep;
        self.free += blocks - keep;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sessions_leave_serves_them_until_somebody_needs_it() {
        let mut kv = KvCache::new(16, 10);
        assert!(kv.take(6));
        kv.give_back(6, 7, 5);
        assert_eq!((kv.used(), kv.free, kv.left), (0, 5, 5));
        // The next prompt of the session has 100 tokens: six whole blocks, five are there.
        assert_eq!((kv.hit(7, 99), kv.hit(7, 40), kv.hit(8, 99)), (5, 2, 0));
        assert!(kv.has_room(5, 5) && !kv.has_room(6, 5));
        // A stranger takes the session's last blocks first.
        assert!(kv.take(8));
        assert_eq!((kv.hit(7, 99), kv.used()), (2, 8));
        kv.take_over(7, 2);
        assert_eq!((kv.used(), kv.left), (10, 0));
        assert!(!kv.take(1));
    }

    #[test]
    fn a_smaller_cache_keeps_what_sequences_hold() {
        let mut kv = KvCache::new(16, 10);
        assert!(kv.take(6));
        kv.give_back(4, 7, 4);
        kv.resize(12);
        assert_eq!((kv.used(), kv.left, kv.free), (2, 4, 6));
        kv.resize(5);
        assert_eq!((kv.used(), kv.left, kv.free, kv.hit(7, 99)), (2, 3, 0, 3));
        kv.resize(2);
        assert_eq!((kv.used(), kv.left, kv.free, kv.hit(7, 99)), (2, 0, 0, 0));
    }
}
