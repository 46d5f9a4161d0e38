//! The store as the broker uses it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use evermq_mqtt::codec::EncodeError;
use parking_lot::Mutex;

use crate::checkpoint::{Live, Mover};
use crate::figures::Figures;
use crate::frame::Kind;
use crate::log::{Log, NEVER};
use crate::message::Handle;
use crate::position::{Position, SegmentId};
use crate::record::{self, MessageId, Record, SessionId, Source, StoredMessage, WallTime};

mod opening;

pub(crate) use opening::held_by;
pub use opening::open;
#[cfg(any(test, feature = "simulated-disk"))]
pub(crate) use opening::open_on;

/// How the store is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The directory.
    pub path: PathBuf,
    /// When what is written is on the disk.
    pub sync: Sync,
    /// Bytes of one file.
    pub segment_size: u64,
    /// Bytes of all files; beyond it is as if the disk were full.
    pub max_size: u64,
}

/// When what is written is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Before it counts as durable.
    Always,
    /// At the latest after this time.
    Interval(Duration),
    /// When the system does it.
    Never,
}

/// Whether new messages may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Yes.
    Ready,
    /// The disk is slower than they come: those who publish should wait for [`Store::poll_pace`].
    Slow,
    /// There is no room. What is appended stays in memory and is not durable until there is; messages should be refused.
    Full,
    /// The disk has failed or the store is closed: nothing becomes durable any more.
    Failed,
}

/// Why the store is [`Status::Full`] or [`Status::Failed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Since when.
    pub since: WallTime,
    /// What happened, and what to do.
    pub text: String,
}

/// The log of one directory. Any number of threads may use it.
#[derive(Debug)]
pub struct Store {
    pub(crate) log: Arc<Log>,
    mover: Mutex<Option<Arc<Mover>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held as long as the directory is in use.
    lock: Mutex<Option<std::fs::File>>,
}

impl Store {
    /// Appends `record`. No I/O; the order of calls is the order on the disk.
    pub fn append(&self, record: &Record<'_>) -> Position {
        let log = &*self.log;
        log.framed(
            |out| Some(record::encode(record, out)),
            |frame, kind| {
                if kind == Kind::Snapshot {
                    log.counters.snapshot_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
                }
                log.push(frame)
            },
        )
        .unwrap_or(NEVER)
    }

    /// Appends a message, once for all who wait for it.
    ///
    /// It is taken however much waits to be written, so that nothing which has come is forgotten: who makes messages is to ask
    /// [`Store::poll_pace`] before the next ones.
    ///
    /// # Errors
    /// It cannot be an MQTT packet. Nothing is appended.
    pub fn append_message(&self, message: &StoredMessage<'_>) -> Result<(Handle, Position), EncodeError> {
        let log = &*self.log;
        let id = MessageId(log.next_message.fetch_add(1, Ordering::Relaxed));
        log.last_stamp.fetch_max(message.stamp_time, Ordering::Relaxed);
        let (at, bytes) = self.put_message(id, message, message.retained, message.from)?;
        Ok((Handle::new(id, at.segment(), bytes, message.retained, &log.ledger), at))
    }

    /// Appends `message`, which is that of `handle`, once more, without where it came from: for [`Live::checkpoint`] where the handle's segment is one of
    /// those that are to go. [`Store::refresh`] does it only then.
    pub fn append_again(&self, handle: &Handle, message: &StoredMessage<'_>) -> Position {
        let Ok((at, _)) = self.put_message(handle.id(), message, handle.is_retained(), None) else {
            // It is the message that was written before, so it can be written.
            debug_assert!(false, "a message that was stored can be stored");
            return NEVER;
        };
        handle.moved(at.segment());
        at
    }

    /// To be called before a message gets another holder, under the lock under which a checkpoint looks at that holder: if the
    /// message lies in a segment that is about to go, it is appended again.
    pub fn refresh(&self, handle: &Handle, message: &StoredMessage<'_>) -> Position {
        if handle.segment().0 < self.log.moving.load(Ordering::Acquire) {
            self.append_again(handle, message)
        } else {
            Position::default()
        }
    }

    /// Whether what ends at `at` will be there after a power failure; as soon as it is appended if the settings do not ask to
    /// wait for the disk.
    #[must_use]
    pub fn is_durable(&self, at: Position) -> bool {
        self.log.durable() >= at
    }

    /// Waits until [`Store::is_durable`]. One wait for each task: a second one of the same task wakes it for both.
    pub fn poll_durable(&self, at: Position, cx: &Context<'_>) -> Poll<()> {
        if self.is_durable(at) {
            return Poll::Ready(());
        }
        self.log.waiters.wait(at, cx);
        if self.is_durable(at) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Asks for what ends at `at` to be on the disk soon, whatever the settings say.
    pub fn sync(&self, at: Position) {
        self.log.ask_for(at);
    }

    /// Whether what ends at `at` is on the disk, whatever the settings say.
    #[must_use]
    pub fn is_synced(&self, at: Position) -> bool {
        self.log.synced() >= at
    }

    /// Whether new messages may come.
    #[must_use]
    pub fn status(&self) -> Status {
        self.log.status()
    }

    /// Waits until the disk keeps up, whether there is room or not: until so little waits to be written that more may come.
    pub fn poll_pace(&self, cx: &Context<'_>) -> Poll<()> {
        let keeps_up = || !self.log.is_behind();
        if keeps_up() {
            return Poll::Ready(());
        }
        self.log.ready_waiters.wait(Position::default(), cx);
        if keeps_up() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Why the store is full or has failed.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.log.trouble.lock().clone()
    }

    /// A number for a new session.
    #[must_use]
    pub fn new_session(&self) -> SessionId {
        SessionId(self.log.next_session.fetch_add(1, Ordering::Relaxed))
    }

    /// The segment that records come to now.
    #[must_use]
    pub fn segment(&self) -> SegmentId {
        self.log.open.lock().batch.segment()
    }

    /// What the store has done.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let log = &*self.log;
        Figures {
            live_message_bytes: log.ledger.bytes(),
            live_messages: log.ledger.messages(),
            waiting_bytes: log.open.lock().batch.len() as u64,
            waiters: log.waiters.len() as u64,
            damaged_bytes: log.damaged_bytes,
            ..log.counters.figures()
        }
    }

    /// Says who knows what is alive. It should hold what holds this store weakly.
    pub fn set_live(&self, live: Arc<dyn Live>) {
        if let Some(mover) = &*self.mover.lock() {
            mover.set_live(live);
        }
    }

    /// For [`Live::checkpoint`], between two slices of its work: sleeps while more than a little waits to be written.
    pub fn pace(&self) {
        self.log.pace();
    }

    /// Writes and syncs what was appended, and ends the store's threads. What is appended afterwards is lost. Blocks.
    pub fn close(&self) {
        if let Some(mover) = self.mover.lock().take() {
            mover.close();
        }
        self.log.open.lock().is_closing = true;
        self.log.work.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // The last holder may be the checkpoint itself.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("store: a thread of it has panicked");
            }
        }
        if let Some(lock) = self.lock.lock().take() {
            opening::unlock(lock);
        }
    }

    fn put_message(
        &self,
        id: MessageId,
        message: &StoredMessage<'_>,
        retained: bool,
        from: Option<Source>,
    ) -> Result<(Position, u64), EncodeError> {
        let log = &*self.log;
        let mut failed = None;
        let put = log.framed(
            |out| match record::encode_message(id, message, retained, from, out) {
                Ok(()) => Some(Kind::Message),
                Err(error) => {
                    failed = Some(error);
                    None
                }
            },
            |frame, _| (log.push(frame), frame.len() as u64),
        );
        put.ok_or_else(|| failed.expect("nothing was put because it could not be encoded"))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}
