//! What the store has done, for metrics and `evermq status`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the commit times' buckets in microseconds; one more bucket has what took longer.
pub const COMMIT_BOUNDS: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];

/// Buckets, the one without a bound included.
pub const COMMIT_BUCKETS: usize = COMMIT_BOUNDS.len() + 1;

/// The store at one moment. Counts are since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Files of the log.
    pub segments: u64,
    /// Bytes that they take, the reserve not included.
    pub bytes: u64,
    /// Bytes of messages that a session waits for or a topic retains.
    pub live_message_bytes: u64,
    /// Messages of that kind.
    pub live_messages: u64,
    /// Records appended.
    pub records: u64,
    /// Bytes appended.
    pub appended_bytes: u64,
    /// Batches written.
    pub commits: u64,
    /// Largest batch in bytes.
    pub largest_commit: u64,
    /// Times that the disk was asked to keep what was written.
    pub syncs: u64,
    /// How many commits took how long, see [`COMMIT_BOUNDS`].
    pub commit_times: [u64; COMMIT_BUCKETS],
    /// How long they took together, in microseconds.
    pub commit_micros: u64,
    /// Bytes that wait to be written.
    pub waiting_bytes: u64,
    /// Tasks that wait for a commit.
    pub waiters: u64,
    /// Checkpoints done.
    pub checkpoints: u64,
    /// Segments deleted.
    pub deleted_segments: u64,
    /// Times that there was no room.
    pub full: u64,
    /// Bytes found damaged when the store was opened.
    pub damaged_bytes: u64,
}

/// Counts in the making.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Files that there are.
    pub(crate) segments: AtomicU64,
    /// Their bytes.
    pub(crate) bytes: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) appended_bytes: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) largest_commit: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) commit_times: [AtomicU64; COMMIT_BUCKETS],
    pub(crate) commit_micros: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) deleted_segments: AtomicU64,
    pub(crate) full: AtomicU64,
    /// Bytes of snapshots, which a checkpoint is measured by.
    pub(crate) snapshot_bytes: AtomicU64,
}

impl Counters {
    /// Counts a batch that was written.
    pub(crate) fn committed(&self, records: u64, bytes: u64, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.appended_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.largest_commit.fetch_max(bytes, Ordering::Relaxed);
        let bucket = COMMIT_BOUNDS.partition_point(|bound| *bound < micros);
        self.commit_times[bucket].fetch_add(1, Ordering::Relaxed);
        self.commit_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// What was counted until now.
    pub(crate) fn figures(&self) -> Figures {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Figures {
            segments: get(&self.segments),
            bytes: get(&self.bytes),
            records: get(&self.records),
            appended_bytes: get(&self.appended_bytes),
            commits: get(&self.commits),
            largest_commit: get(&self.largest_commit),
            syncs: get(&self.syncs),
            commit_times: std::array::from_fn(|index| get(&self.commit_times[index])),
            commit_micros: get(&self.commit_micros),
            checkpoints: get(&self.checkpoints),
            deleted_segments: get(&self.deleted_segments),
            full: get(&self.full),
            ..Figures::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_counted_in_the_bucket_of_its_time() {
        let counters = Counters::default();
        counters.committed(3, 100, Duration::from_micros(250));
        counters.committed(1, 50, Duration::from_secs(2));
        let figures = counters.figures();
        assert_eq!(
            (figures.records, figures.appended_bytes, figures.commits, figures.largest_commit),
            (4, 150, 2, 100)
        );
        assert_eq!((figures.commit_times[1], figures.commit_times[COMMIT_BUCKETS - 1]), (1, 1));
        assert_eq!(figures.commit_times.iter().sum::<u64>(), 2);
    }
}
