//! fjall: an LSM tree with a journal. A record is a value under a key that goes up.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use evermq_mqtt::Publish;

use super::Candidate;
use super::group_commit::GroupCommit;
use crate::record;

/// Each writer commits and syncs by itself.
pub struct Fjall {
    log: Arc<Log>,
}

struct Log {
    database: Database,
    records: Keyspace,
    next: AtomicU64,
    released: AtomicU64,
}

impl Log {
    fn open(directory: &Path) -> anyhow::Result<(Self, Vec<Publish>)> {
        let database = Database::builder(directory).open()?;
        let records = database.keyspace("log", KeyspaceCreateOptions::default)?;
        let messages = records.iter().map(|item| record::read(&item.value()?)).collect::<anyhow::Result<_>>()?;
        Ok((Self { database, records, next: AtomicU64::new(1), released: AtomicU64::new(0) }, messages))
    }

    fn write(&self, count: u64, is_durable: bool) -> anyhow::Result<()> {
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        let mut batch = self.database.batch().durability(is_durable.then_some(PersistMode::SyncData));
        for number in first..first + count {
            batch.insert(&self.records, number.to_be_bytes(), record::sample(number));
        }
        batch.commit()?;
        Ok(())
    }

    fn release(&self, upto: u64) -> anyhow::Result<()> {
        let first = self.released.swap(upto, Ordering::Relaxed) + 1;
        let mut batch = self.database.batch();
        for number in first..=upto {
            batch.remove(&self.records, number.to_be_bytes());
        }
        batch.commit()?;
        Ok(())
    }
}

impl Candidate for Fjall {
    const NAME: &'static str = "fjall 3.1, a sync for each";

    fn open(directory: &Path) -> anyhow::Result<(Self, Vec<Publish>)> {
        let (log, messages) = Log::open(directory)?;
        Ok((Self { log: Arc::new(log) }, messages))
    }

    fn append(&self, _writer: usize) -> anyhow::Result<()> {
        self.log.write(1, true)
    }

    fn append_many(&self, count: u64, is_durable: bool) -> anyhow::Result<()> {
        self.log.write(count, is_durable)
    }

    fn release(&self, upto: u64) -> anyhow::Result<()> {
        self.log.release(upto)
    }

    fn close(self) -> anyhow::Result<()> {
        Ok(self.log.database.persist(PersistMode::SyncAll)?)
    }
}

/// A thread of ours commits for all.
pub struct FjallBatched {
    commits: GroupCommit,
    inner: Fjall,
}

impl Candidate for FjallBatched {
    const NAME: &'static str = "fjall 3.1, group commit of ours";

    fn open(directory: &Path) -> anyhow::Result<(Self, Vec<Publish>)> {
        let (inner, messages) = Fjall::open(directory)?;
        let log = Arc::clone(&inner.log);
        Ok((Self { commits: GroupCommit::new(move |count| log.write(count, true)), inner }, messages))
    }

    fn append(&self, _writer: usize) -> anyhow::Result<()> {
        self.commits.append()
    }

    fn append_many(&self, count: u64, is_durable: bool) -> anyhow::Result<()> {
        self.inner.append_many(count, is_durable)
    }

    fn release(&self, upto: u64) -> anyhow::Result<()> {
        self.inner.release(upto)
    }

    fn close(self) -> anyhow::Result<()> {
        drop(self.commits);
        self.inner.close()
    }
}
