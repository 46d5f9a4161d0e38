//! raft-engine: logs of many raft groups in one, with group commit. A record is an entry with an index, which goes up by one in each group.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use evermq_mqtt::Publish;
use protobuf::descriptor::UninterpretedOption;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use super::Candidate;
use super::group_commit::GroupCommit;
use crate::record;

/// The group of [`Candidate::append_many`].
const ONE: u64 = 1_000;
const WRITERS: usize = 128;

#[derive(Clone)]
struct Entries;

impl MessageExt for Entries {
    // A message with a number and bytes, which the crate of protocol buffers has already.
    type Entry = UninterpretedOption;

    fn index(entry: &Self::Entry) -> u64 {
        entry.get_positive_int_value()
    }
}

/// Each writer is a raft group, so that they are committed together.
pub struct RaftEngine {
    engine: Arc<Engine>,
    next: Vec<AtomicU64>,
    many: AtomicU64,
}

impl Candidate for RaftEngine {
    const NAME: &'static str = "raft-engine 0.4.2, a log for each writer";

    fn open(directory: &Path) -> anyhow::Result<(Self, Vec<Publish>)> {
        let config = Config {
            dir: directory.to_str().context("a directory with a name in UTF-8")?.to_owned(),
            // As the segments of crates/store.
            target_file_size: ReadableSize::mb(16),
            purge_threshold: ReadableSize::mb(64),
            ..Config::default()
        };
        let engine = Engine::open(config)?;
        let mut messages = Vec::new();
        if let (Some(first), Some(last)) = (engine.first_index(ONE), engine.last_index(ONE)) {
            let mut entries = Vec::new();
            for begin in (first..=last).step_by(10_000) {
                engine.fetch_entries_to::<Entries>(ONE, begin, (begin + 10_000).min(last + 1), None, &mut entries)?;
                for entry in entries.drain(..) {
                    messages.push(record::read(entry.get_string_value())?);
                }
            }
        }
        let next = (0..WRITERS).map(|_| AtomicU64::new(1)).collect();
        Ok((Self { engine: Arc::new(engine), next, many: AtomicU64::new(1) }, messages))
    }

    fn append(&self, writer: usize) -> anyhow::Result<()> {
        let index = self.next[writer].fetch_add(1, Ordering::Relaxed);
        write(&self.engine, writer as u64 + 1, index..index + 1, true)
    }

    fn append_many(&self, count: u64, is_durable: bool) -> anyhow::Result<()> {
        let index = self.many.fetch_add(count, Ordering::Relaxed);
        write(&self.engine, ONE, index..index + count, is_durable)
    }

    fn release(&self, upto: u64) -> anyhow::Result<()> {
        self.engine.compact_to(ONE, upto + 1);
        self.engine.purge_expired_files()?;
        Ok(())
    }

    fn close(self) -> anyhow::Result<()> {
        Ok(())
    }
}

fn write(engine: &Engine, group: u64, indexes: std::ops::Range<u64>, sync: bool) -> anyhow::Result<()> {
    let entry = |index| {
        let mut entry = UninterpretedOption::new();
        entry.set_positive_int_value(index);
        entry.set_string_value(record::sample(index).to_vec());
        entry
    };
    let entries: Vec<_> = indexes.map(entry).collect();
    let mut batch = LogBatch::default();
    batch.add_entries::<Entries>(group, &entries)?;
    engine.write(&mut batch, sync)?;
    Ok(())
}

/// All writers have one order, as a broker's log for the others has: a thread of ours commits for all.
pub struct RaftEngineBatched {
    commits: GroupCommit,
    inner: RaftEngine,
}

impl Candidate for RaftEngineBatched {
    const NAME: &'static str = "raft-engine 0.4.2, one log, group commit of ours";

    fn open(directory: &Path) -> anyhow::Result<(Self, Vec<Publish>)> {
        let (inner, messages) = RaftEngine::open(directory)?;
        let (engine, mut next) = (Arc::clone(&inner.engine), 1);
        let commits = GroupCommit::new(move |count| {
            next += count;
            write(&engine, 1, next - count..next, true)
        });
        Ok((Self { commits, inner }, messages))
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
