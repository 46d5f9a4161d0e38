//! A disk that loses what was not synced, whichever part of it that is: the log up to some record.

use super::super::random::Random;

/// Records in their order.
pub(super) struct Disk<T> {
    records: Vec<T>,
    /// What the system has: it outlives the process.
    written: usize,
    /// What the disk has: it outlives a power failure.
    synced: usize,
    /// What is to be synced although nobody waits for the disk otherwise.
    asked: usize,
    /// `sync = "interval"` or `"never"`: nothing waits for the disk.
    is_lazy: bool,
}

impl<T> Disk<T> {
    pub(super) fn new(is_lazy: bool) -> Self {
        Self { records: Vec::new(), written: 0, synced: 0, asked: 0, is_lazy }
    }

    /// Appends a record; where it ends.
    pub(super) fn append(&mut self, record: T) -> u64 {
        self.records.push(record);
        self.records.len() as u64
    }

    pub(super) fn sync(&mut self) {
        self.asked = self.records.len();
    }

    pub(super) fn is_durable(&self, at: u64) -> bool {
        self.is_lazy || self.is_synced(at)
    }

    pub(super) fn is_synced(&self, at: u64) -> bool {
        at <= self.synced as u64
    }

    pub(super) fn advance(&mut self, random: &mut Random) {
        let more = random.below((self.records.len() - self.written) as u64 + 1);
        self.written += usize::try_from(more).unwrap();
        let is_wanted = !self.is_lazy || self.asked > self.synced;
        if random.one_in(if is_wanted { 3 } else { 50 }) {
            self.written = self.written.max(self.asked);
            self.synced = self.written;
        }
    }

    /// Everything comes to the disk.
    pub(super) fn settle(&mut self) {
        self.written = self.records.len();
        self.synced = self.written;
    }

    /// The process ends, or the power fails; what is left.
    pub(super) fn crash(&mut self, is_power: bool, random: &mut Random) -> &[T] {
        let lost = if is_power { random.below((self.written - self.synced) as u64 + 1) } else { 0 };
        self.records.truncate(self.written - usize::try_from(lost).unwrap());
        // The store syncs what it has read before it goes on.
        self.settle();
        &self.records
    }
}
