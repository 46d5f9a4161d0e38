//! The stores, each used as its documentation advises for this work.

mod evermq;
mod fjall;
mod group_commit;
mod raft_engine;

use std::path::Path;

use evermq_mqtt::Publish;

pub use evermq::EverMq;
pub use fjall::{Fjall, FjallBatched};
pub use raft_engine::{RaftEngine, RaftEngineBatched};

/// A log of one broker.
pub trait Candidate: Sized + Sync {
    /// What the tables call it.
    const NAME: &'static str;

    /// The log, and the messages in it, in memory as a broker holds them.
    fn open(directory: &Path) -> anyhow::Result<(Self, Vec<Publish>)>;

    /// One record more, of that writer; it is on the disk when this returns.
    fn append(&self, writer: usize) -> anyhow::Result<()>;

    /// So many more, of one writer; on the disk when this returns if that `is_durable`. They are numbered from 1 on.
    fn append_many(&self, count: u64, is_durable: bool) -> anyhow::Result<()>;

    /// What [`Candidate::append_many`] has appended is not needed any more up to that number.
    fn release(&self, upto: u64) -> anyhow::Result<()>;

    /// Ends it in order, with everything on the disk.
    fn close(self) -> anyhow::Result<()>;
}
