//! The key-value cache: blocks that are held by sequences, left behind by sessions, or free.

use std::collections::BTreeMap;

/// Blocks that a finished sequence left for the next one of its session.
#[derive(Clone, Copy, Debug)]
struct Left {
    blocks: u32,
    /// Order in which it was left.
    stamp: u64,
}

/// A cache of equally sized blocks.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// Tokens per block.
    block: u32,
    blocks: u32,
    free: u32,
    /// Blocks held by no sequence, but still useful to their sessions.
    left: u32,
    sessions: BTreeMap<u64, Left>,
    /// Sessions by stamp, least recently used first.
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

    /// The total number of blocks.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// The number of blocks that sequences hold.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.blocks - self.free - self.left
    }

    /// The number of blocks that hold this many tokens.
    pub(super) fn blocks_of(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.block)
    }

    /// The number of blocks left by a session that lie within the first `tokens` tokens of a prompt.
    pub(super) fn hit(&self, session: u64, tokens: u32) -> u32 {
        let left = self.sessions.get(&session).map_or(0, |s| s.blocks);
        left.min(tokens / self.block)
    }

    /// The number of tokens in this many whole blocks.
    pub(super) fn tokens_of(&self, blocks: u32) -> u32 {
        blocks * self.block
    }

    /// Whether `fresh` blocks are available in addition to the `hit` ones that the session left.
    pub(super) fn has_room(&self, fresh: u32, hit: u32) -> bool {
        fresh <= self.free + self.left - hit
    }

    /// Lets a sequence take over the blocks that its session left, up to `hit` of them.
    pub(super) fn take_over(&mut self, session: u64, hit: u32) {
        if hit == 0 {
            return;
        }
        let Some(left) = self.sessions.remove(&session) else { return };
        self.oldest.remove(&left.stamp);
        self.left -= left.blocks;
        // Blocks beyond the common prefix are of no further use.
        self.free += left.blocks - hit;
    }

    /// Takes this many blocks, first free ones and then those left behind by sessions. Takes none if there
    /// are too few. Returns whether it took them.
    pub(super) fn take(&mut self, blocks: u32) -> bool {
        if blocks > self.free + self.left {
            return false;
        }
        self.make_free(blocks);
        self.free -= blocks;
        true
    }

    /// Evicts blocks left by sessions until at least this many blocks are free.
    fn make_free(&mut self, blocks: u32) {
        while self.free < blocks {
            let (&stamp, &session) =
                self.oldest.first_key_value().expect("left blocks have owners");
            let left = self.sessions.get_mut(&session).expect("both maps agree");
            // Evict the end of the conversation first: its beginning may still be useful.
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

    /// Changes the number of blocks.
    pub(super) fn resize(&mut self, blocks: u32) {
        let used = self.used();
        assert!(used <= blocks, "blocks that sequences hold stay");
        self.make_free(self.blocks.saturating_sub(blocks));
        (self.free, self.blocks) = (blocks - used - self.left, blocks);
    }

    /// Releases the blocks of a sequence. The first `keep` of them are kept for its session.
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
        // The next prompt of the session has 100 tokens: six whole blocks, of which five are present.
        assert_eq!((kv.hit(7, 99), kv.hit(7, 40), kv.hit(8, 99)), (5, 2, 0));
        assert!(kv.has_room(5, 5) && !kv.has_room(6, 5));
        // A sequence of another session takes this session's last blocks first.
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
