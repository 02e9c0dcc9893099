//! One request on its way through an engine.

use crate::action::RequestId;

/// A request that an engine may admit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Its number in the system.
    pub id: RequestId,
    /// Tokens of the prompt, at least 1.
    pub prompt: u32,
    /// Tokens to generate, at least 1.
    pub output: u32,
    /// Tokens generated so far; above 0 only for a sequence that has lost its blocks.
    pub generated: u32,
    /// Its conversation; 0: none.
    pub session: u64,
    /// Tokens that were computed before and then lost.
    pub lost: u32,
}

/// The queue from which an engine admits requests.
pub trait Queue {
    /// The first request, if any.
    fn front(&self) -> Option<Arrived>;

    /// Takes the first request off the queue: the engine admits it.
    fn admit(&mut self);
}

/// A sequence that has been admitted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequence {
    pub(super) id: RequestId,
    prompt: u32,
    output: u32,
    pub(super) generated: u32,
    pub(super) session: u64,
    lost: u32,
    /// Tokens whose keys and values are in the cache.
    pub(super) computed: u32,
    /// Blocks that it holds.
    pub(super) blocks: u32,
    /// Whether it is in a step that has not ended.
    pub(super) busy: bool,
}

impl Sequence {
    pub(super) fn new(from: &Arrived, computed: u32, blocks: u32) -> Self {
        let Arrived { id, prompt, output, generated, session, lost } = *from;
        Self { id, prompt, output, generated, session, lost, computed, blocks, busy: false }
    }

    /// Known tokens: the prompt and everything generated so far.
    pub(super) fn known(&self) -> u32 {
        self.prompt + self.generated
    }

    /// Known tokens whose keys and values are still to be computed.
    pub(super) fn missing(&self) -> u32 {
        self.known() - self.computed
    }

    /// Whether it generates: only its latest token is still to be computed.
    pub(super) fn generates(&self) -> bool {
        self.generated > 0 && self.missing() == 1
    }

    /// Splits its next `tokens` tokens: the number of prompt tokens that are computed for the first time,
    /// and of tokens that were computed before.
    pub(super) fn split(&self, tokens: u32) -> (u32, u32) {
        let end = self.computed + tokens;
        let again = self.lost.min(end).saturating_sub(self.computed);
        let first = self.prompt.min(end).saturating_sub(self.computed.max(self.lost));
        (first, again)
    }

    pub(super) fn is_done(&self) -> bool {
        self.generated >= self.output
    }

    /// Its form while it waits to be admitted again.
    pub(super) fn arrived(&self) -> Arrived {
        let Self { id, prompt, output, generated, session, .. } = *self;
        Arrived { id, prompt, output, generated, session, lost: self.lost.max(self.computed) }
    }
}
