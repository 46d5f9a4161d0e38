//! What a broker has acknowledged, kept through a crash or a power failure: a log of records in segment files.
//!
//! The broker's memory is the index: records are read when the store is opened, and never again. [`Store::append`] puts a
//! record into a batch in memory; one thread writes what has come and asks the disk to keep it, for all who wait at once.
//! What is dead goes away with the oldest segments, after the broker has appended again what is not, see [`Live`].
//!
//! | module | subject | pure |
//! |---|---|---|
//! | `record`, `wire` | what the log says, as bytes | yes |
//! | `frame`, `segment`, `scan` | how records stand in a file; damage and torn ends | yes |
//! | `position`, `batch` | where a record comes | yes |
//! | `replay` | records to sessions and messages | yes |
//! | `durability` | who waits until its records are on the disk | yes |
//! | `checkpoint` | when which segments may go | plan |
//! | `store`, `message` | the interface | |
//! | `log` | what the threads share | |
//! | `writer` | the thread that writes | |
//! | `space` | room, the reserve, a full disk | |
//! | `recovery` | opening | |
//! | `inspect` | looking at the files, also while a broker writes them | |
//! | `disk` | the file system | |
//!
//! Threads: `store-writer` and `store-moves` (checkpoints), owned by [`Store`], which ends them when it is closed or dropped.

mod batch;
mod checkpoint;
mod disk;
mod durability;
mod error;
mod figures;
mod frame;
pub mod inspect;
mod log;

mod message;
mod position;
mod record;
mod recovery;
mod replay;
mod scan;
mod segment;
mod space;
mod store;
mod survey;
mod wire;
mod writer;

pub use checkpoint::Live;
pub use error::StoreError;
pub use evermq_mqtt::codec::EncodeError;
pub use figures::{COMMIT_BOUNDS, COMMIT_BUCKETS, Figures};
pub use frame::Kind;
pub use message::Handle;
pub use position::{Position, SegmentId};
pub use record::{
    Entry, MessageId, MessageRecord, OriginLog, Record, SessionId, SessionSnapshot, SessionState, Source,
    StoredMessage, StoredWill, Waiting, WallTime, decode_publish, encode_publish,
};
pub use recovery::{
    Damage, Loss, Recovered, RecoveredMesh, RecoveredMessage, RecoveredSession, RecoveredWaiting, RecoveredWill, Report,
};
pub use replay::Applied;
pub use store::{Settings, Status, Store, Sync, Trouble, open};
pub use wire::DecodeError;

/// A disk that loses what was not synced, in pieces and in any order, runs full and breaks.
#[cfg(any(test, feature = "simulated-disk"))]
pub mod simulated {
    pub use crate::disk::simulated::{Chance, Simulated};
}

#[cfg(test)]
mod tests;
