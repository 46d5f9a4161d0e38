//! Room for the messages that wait in all sessions together.
//!
//! Publishers of all threads come by here, so a queue does not ask for each message: it takes room ahead, as much again as it
//! has, and gives it back when it needs less than a quarter.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The least that a queue takes at once.
const LEAST: usize = 1024;

/// Bytes for all queues.
#[derive(Debug)]
pub struct Budget {
    max: AtomicUsize,
    taken: AtomicUsize,
}

/// One queue's part of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Share(usize);

impl Budget {
    /// Room for `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max: AtomicUsize::new(max), taken: AtomicUsize::new(0) }
    }

    /// Bytes that there is room for.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// More room, or less: what is taken beyond it stays, and nothing is added until there is room again.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Bytes that queues have taken, some of them ahead.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Sees to it that the queue's share is at least `needed`. Messages of QoS 0 (`is_spare`) do not get the last eighth.
    pub(super) fn cover(&self, share: &mut Share, needed: usize, is_spare: bool) -> bool {
        if needed <= share.0 {
            return true;
        }
        let max = self.max();
        let max = if is_spare { max - max / 8 } else { max };
        [needed.saturating_mul(2).max(LEAST), needed].into_iter().any(|wanted| self.take(share, wanted, max))
    }

    /// The same whether there is room or not: for what was there before.
    pub(super) fn force(&self, share: &mut Share, needed: usize) {
        if needed > share.0 {
            self.taken.fetch_add(needed - share.0, Ordering::Relaxed);
            share.0 = needed;
        }
    }

    /// The queue needs only `needed` now.
    pub(super) fn relax(&self, share: &mut Share, needed: usize) {
        let wanted = if needed == 0 && share.0 <= LEAST { return } else { needed.saturating_mul(2).max(LEAST) };
        if needed < share.0 / 4 && wanted < share.0 {
            self.taken.fetch_sub(share.0 - wanted, Ordering::Relaxed);
            share.0 = wanted;
        }
    }

    /// The queue has nothing more.
    pub(super) fn give_back(&self, share: &mut Share) {
        self.taken.fetch_sub(std::mem::take(&mut share.0), Ordering::Relaxed);
    }

    fn take(&self, share: &mut Share, wanted: usize, max: usize) -> bool {
        let more = wanted - share.0;
        let grow = |taken: usize| taken.checked_add(more).filter(|&grown| grown <= max);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).is_ok();
        if taken {
            share.0 = wanted;
        }
        taken
    }
}
