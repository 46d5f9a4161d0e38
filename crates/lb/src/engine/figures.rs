//! What is counted while connections live, for one listener or one backend.
//!
//! Each worker counts in a cache line of its own; whoever shows the figures adds up.

use std::sync::atomic::{AtomicU64, Ordering};

/// Workers beyond so many share.
const SHARDS: usize = 16;

/// Figures of all workers.
#[derive(Debug)]
pub(crate) struct Figures {
    shards: Box<[Shard]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard {
    accepted: AtomicU64,
    ended: AtomicU64,
    to_backend: AtomicU64,
    to_client: AtomicU64,
}

/// Figures at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sum {
    /// Clients that came.
    pub(crate) accepted: u64,
    /// Those of them that have gone.
    pub(crate) ended: u64,
    /// Bytes from clients.
    pub(crate) to_backend: u64,
    /// Bytes to clients.
    pub(crate) to_client: u64,
}

impl Default for Figures {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

impl Figures {
    /// A client has come to `worker`.
    pub(crate) fn count_accepted(&self, worker: usize) {
        self.shards[worker % SHARDS].accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// One of them has gone.
    pub(crate) fn count_ended(&self, worker: usize) {
        self.shards[worker % SHARDS].ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes went both ways.
    pub(crate) fn count_bytes(&self, worker: usize, to_backend: u64, to_client: u64) {
        let shard = &self.shards[worker % SHARDS];
        if to_backend > 0 {
            shard.to_backend.fetch_add(to_backend, Ordering::Relaxed);
        }
        if to_client > 0 {
            shard.to_client.fetch_add(to_client, Ordering::Relaxed);
        }
    }

    /// All together.
    pub(crate) fn sum(&self) -> Sum {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.shards.iter().fold(Sum::default(), |sum, shard| Sum {
            accepted: sum.accepted + load(&shard.accepted),
            ended: sum.ended + load(&shard.ended),
            to_backend: sum.to_backend + load(&shard.to_backend),
            to_client: sum.to_client + load(&shard.to_client),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_add_up_also_where_they_share() {
        let figures = Figures::default();
        for worker in [0, 1, SHARDS, 5 * SHARDS + 1] {
            figures.count_accepted(worker);
            figures.count_bytes(worker, 10, 1);
        }
        figures.count_ended(3);
        assert_eq!(figures.sum(), Sum { accepted: 4, ended: 1, to_backend: 40, to_client: 4 });
    }
}
