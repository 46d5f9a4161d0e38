//! Turns by weight: start-time fair queueing, with a backend's turns in the place of a flow's packets.
//!
//! Each backend's next turn stands at a point of a virtual time; a heavier one's turns stand closer together. The earliest is
//! next. One that was away goes on from the present, not from where it left off, so it gets no more than its share. Two
//! workers in the same instant may give the same backend a turn; it then has to wait for longer.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Load;

/// Between two turns of a backend whose weight is 1 of [`super::UNIT`].
const STRIDE: u64 = 1 << 32;
/// The backend has had no turn yet.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Turns {
    /// The virtual time: where the latest turn stood.
    clock: AtomicU64,
    /// Where each backend's last turn stood: the next one depends on the weight that it has by then.
    last: Box<[AtomicU64]>,
}

impl Turns {
    pub(super) fn new(backends: usize) -> Self {
        Self { clock: AtomicU64::new(0), last: (0..backends).map(|_| AtomicU64::new(NEVER)).collect() }
    }

    /// The open one whose turn it is.
    pub(super) fn next(&self, loads: &[Load]) -> Option<usize> {
        super::open(loads).map(|(index, load)| (self.start(loads, index, load), index)).min().map(|(_, index)| index)
    }

    /// It has had its turn.
    pub(super) fn settle(&self, loads: &[Load], index: usize) {
        let load = &loads[index];
        let start = self.start(loads, index, load);
        self.clock.fetch_max(start, Ordering::Relaxed);
        self.last[index].store(start, Ordering::Relaxed);
    }

    fn start(&self, loads: &[Load], index: usize, load: &Load) -> u64 {
        let clock = self.clock.load(Ordering::Relaxed);
        match self.last[index].load(Ordering::Relaxed) {
            // Apart from each other, so that those of one weight do not come in a row.
            NEVER => (stride(load) / loads.len().max(1) as u64 * index as u64).max(clock),
            last => last.saturating_add(stride(load)).max(clock),
        }
    }
}

fn stride(load: &Load) -> u64 {
    STRIDE / load.weight().max(1)
}
