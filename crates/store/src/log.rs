//! What the store's threads share: the batch that is open, how far the disk is, whether there is room.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use bytes::BytesMut;
use parking_lot::{Condvar, Mutex};

use crate::batch::Batch;
use crate::durability::Waiters;
use crate::figures::Counters;
use crate::frame::{Framing, Kind};
use crate::message::Ledger;
use crate::position::Position;
use crate::space::Space;
use crate::store::{Settings, Status, Sync, Trouble};

/// More than this waits to be written: publishers should wait ([`Status::Slow`]).
const SLOW: usize = 8 << 20;
/// Less than this: they may go on.
const READY: usize = 2 << 20;
/// A record's buffer larger than this goes back to the system.
const KEEP_SCRATCH: usize = 1 << 20;

/// What the store's threads share.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) settings: Settings,
    pub(crate) identity: [u8; 16],
    pub(crate) framing: Framing,
    pub(crate) open: Mutex<Open>,
    /// For the writer.
    pub(crate) work: Condvar,
    /// What callers may take for durable.
    pub(crate) durable: AtomicU64,
    /// What is on the disk.
    pub(crate) synced: AtomicU64,
    pub(crate) flags: AtomicU8,
    pub(crate) trouble: Mutex<Option<Trouble>>,
    pub(crate) waiters: Waiters,
    pub(crate) ready_waiters: Waiters,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) next_message: AtomicU64,
    pub(crate) next_session: AtomicU64,
    pub(crate) last_stamp: AtomicU64,
    /// Messages in segments before this one are about to be deleted.
    pub(crate) moving: AtomicU64,
    /// A checkpoint is under way: what it has appended must come to the disk before anything is freed.
    pub(crate) is_moving: AtomicBool,
    pub(crate) space: Mutex<Space>,
    pub(crate) counters: Counters,
    pub(crate) damaged_bytes: u64,
}

/// What stands behind the lock that every append takes.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) batch: Batch,
    /// The writer sleeps and has to be woken.
    pub(crate) is_idle: bool,
    /// Everything up to here is to be synced, whatever the settings say.
    pub(crate) sync_to: Position,
    pub(crate) is_closing: bool,
    /// Nothing is taken any more.
    pub(crate) is_over: bool,
}

const IS_SLOW: u8 = 1;
const IS_FULL: u8 = 2;
const IS_FAILED: u8 = 4;

/// After every position: never durable.
pub(crate) const NEVER: Position = Position(u64::MAX);

thread_local! {
    static SCRATCH: RefCell<BytesMut> = RefCell::default();
}

impl Log {
    /// Makes a frame of what `encode` writes, without a lock, and gives it to `then`.
    pub(crate) fn framed<T>(
        &self,
        encode: impl FnOnce(&mut BytesMut) -> Option<Kind>,
        then: impl FnOnce(&[u8], Kind) -> T,
    ) -> Option<T> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            let start = Framing::begin(scratch);
            let kind = encode(scratch)?;
            self.framing.finish(scratch, start, kind);
            let made = then(scratch, kind);
            if scratch.capacity() > KEEP_SCRATCH {
                *scratch = BytesMut::new();
            }
            Some(made)
        })
    }

    /// Whether more waits to be written than should.
    pub(crate) fn is_behind(&self) -> bool {
        self.flags.load(Ordering::SeqCst) & (IS_SLOW | IS_FAILED) == IS_SLOW
    }

    /// Puts a frame into the batch.
    pub(crate) fn push(&self, frame: &[u8]) -> Position {
        let mut open = self.open.lock();
        if open.is_over {
            return NEVER;
        }
        let at = open.batch.push(frame);
        if open.batch.len() > SLOW {
            self.flags.fetch_or(IS_SLOW, Ordering::SeqCst);
        }
        let was_idle = std::mem::take(&mut open.is_idle);
        drop(open);
        if was_idle {
            self.work.notify_one();
        }
        at
    }

    pub(crate) fn durable(&self) -> Position {
        Position(self.durable.load(Ordering::SeqCst))
    }

    pub(crate) fn synced(&self) -> Position {
        Position(self.synced.load(Ordering::SeqCst))
    }

    /// Everything up to `at` is to be on the disk soon, whatever the settings say.
    pub(crate) fn ask_for(&self, at: Position) {
        let mut open = self.open.lock();
        open.sync_to = open.sync_to.max(at);
        open.is_idle = false;
        drop(open);
        self.work.notify_one();
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.ledger.bytes()
    }

    /// Everything up to `at` is on the disk.
    pub(crate) fn now_synced(&self, at: Position) {
        self.synced.store(at.0, Ordering::SeqCst);
        if self.settings.sync == Sync::Always {
            self.durable.store(at.0, Ordering::SeqCst);
        }
    }

    /// The writer has taken what waited: those who wait for that may go on, unless as much has come again.
    pub(crate) fn has_room(&self) -> bool {
        if self.flags.load(Ordering::SeqCst) & IS_SLOW == 0 {
            return false;
        }
        let open = self.open.lock();
        if open.batch.len() < READY {
            self.flags.fetch_and(!IS_SLOW, Ordering::SeqCst);
        }
        drop(open);
        !self.is_behind()
    }

    pub(crate) fn status(&self) -> Status {
        match self.flags.load(Ordering::SeqCst) {
            0 => Status::Ready,
            flags if flags & IS_FAILED != 0 => Status::Failed,
            flags if flags & IS_FULL != 0 => Status::Full,
            _ => Status::Slow,
        }
    }

    /// Whether it was not full before.
    pub(crate) fn set_full(&self, trouble: Trouble) -> bool {
        let mut held = self.trouble.lock();
        let is_new = self.flags.fetch_or(IS_FULL, Ordering::SeqCst) & IS_FULL == 0;
        if is_new {
            *held = Some(trouble);
            self.counters.full.fetch_add(1, Ordering::Relaxed);
        }
        is_new
    }

    /// There is room again.
    pub(crate) fn not_full(&self) {
        let mut trouble = self.trouble.lock();
        if self.flags.fetch_and(!IS_FULL, Ordering::SeqCst) & IS_FAILED == 0 {
            *trouble = None;
        }
    }

    /// Nothing becomes durable from now on.
    pub(crate) fn set_failed(&self, trouble: Trouble) {
        let mut open = self.open.lock();
        open.is_over = true;
        open.batch.clear();
        drop(open);
        *self.trouble.lock() = Some(trouble);
        self.flags.fetch_or(IS_FAILED, Ordering::SeqCst);
        self.durable.store(self.synced.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// Remembers how much there is, for those who must not wait for the disk as the holder of this lock does.
    pub(crate) fn note(&self, space: &Space) {
        self.counters.segments.store(space.len() as u64, Ordering::Relaxed);
        self.counters.bytes.store(space.bytes(), Ordering::Relaxed);
    }

    /// Sleeps while more than a little waits to be written.
    pub(crate) fn pace(&self) {
        while self.status() != Status::Failed {
            let open = self.open.lock();
            if open.batch.len() < READY / 2 || open.is_closing {
                return;
            }
            drop(open);
            crate::writer::doze();
        }
    }
}
