//! The origin log as many threads see it: a short lock around [`OriginLog`], and who is woken when.
//!
//! The lock is the one point where the messages of all publishers get their order; it is held for the length of a push and a
//! few comparisons. Nothing is encoded, freed or woken under it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::bridge::Pressure;
use crate::cursor::Room;
use crate::log::{Bounds, Entry, OriginLog, Read};
use crate::message::Message;

/// The log, shared.
pub(crate) struct Spool {
    log: Mutex<OriginLog>,
    /// One for each reader: holds one permit, so a wake-up between "nothing there" and waiting is not missed.
    news: Vec<Notify>,
    /// What [`OriginLog::is_high`] says, for those that do not hold the lock.
    high: AtomicBool,
    relieved: Notify,
}

/// Figures of the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpoolState {
    /// The newest entry.
    pub(crate) last: u64,
    /// Entries held.
    pub(crate) messages: usize,
    /// Their bytes.
    pub(crate) bytes: usize,
    /// Whether publishers should wait.
    pub(crate) high: bool,
}

impl Spool {
    /// An empty log with that many readers.
    pub(crate) fn new(bounds: Bounds, readers: usize) -> Self {
        Self {
            log: Mutex::new(OriginLog::new(bounds, readers)),
            news: (0..readers).map(|_| Notify::new()).collect(),
            high: AtomicBool::new(false),
            relieved: Notify::new(),
        }
    }

    /// Appends a message.
    pub(crate) fn append(&self, message: Arc<Message>) -> Pressure {
        let entry = Entry::new(message);
        let mut left = Vec::new();
        let mut wake: u64 = 0;
        let appended = {
            let mut log = self.log.lock();
            let appended = log.append(entry, &mut left);
            if appended.wake {
                log.take_waiting(|reader| wake |= 1 << (reader % 64));
            }
            self.high.store(appended.high, Ordering::Release);
            appended
        };
        while wake != 0 {
            let lowest = wake.trailing_zeros() as usize;
            wake &= wake - 1;
            // With more than 64 readers two share a bit; waking one too many costs it a look at the log.
            self.news.iter().skip(lowest).step_by(64).for_each(Notify::notify_one);
        }
        if appended.high { Pressure::High } else { Pressure::Clear }
    }

    /// Entries for a reader; see [`OriginLog::read`].
    pub(crate) fn read(&self, reader: usize, room: Room) -> Read {
        self.log.lock().read(reader, room)
    }

    /// Waits until a reader that saw [`Read::End`] has something to read; may return early.
    pub(crate) async fn news(&self, reader: usize) {
        self.news[reader].notified().await;
    }

    /// A peer is connected and has everything up to `acknowledged`.
    pub(crate) fn attach(&self, reader: usize, acknowledged: u64) {
        let mut left = Vec::new();
        self.change(|log| log.attach(reader, acknowledged, &mut left));
    }

    /// A peer is away.
    pub(crate) fn detach(&self, reader: usize) {
        self.change(|log| log.detach(reader));
    }

    /// A peer has everything up to `seq`. Gives what it had before.
    pub(crate) fn acknowledge(&self, reader: usize, seq: u64) -> u64 {
        let (mut left, mut before) = (Vec::new(), seq);
        self.change(|log| {
            before = log.acknowledged(reader);
            log.acknowledge(reader, seq, &mut left)
        });
        before
    }

    /// The oldest entry that can be had.
    pub(crate) fn first(&self) -> u64 {
        self.log.lock().first()
    }

    /// Messages that a reader has not acknowledged, whether they are still here or not.
    pub(crate) fn lag(&self, reader: usize) -> u64 {
        let log = self.log.lock();
        log.last() - log.acknowledged(reader)
    }

    /// Figures of the log.
    pub(crate) fn state(&self) -> SpoolState {
        let log = self.log.lock();
        SpoolState { last: log.last(), messages: log.len(), bytes: log.bytes(), high: log.is_high() }
    }

    /// Waits until publishers may go on.
    pub(crate) async fn relieved(&self) {
        loop {
            let mut relieved = std::pin::pin!(self.relieved.notified());
            relieved.as_mut().enable();
            if !self.high.load(Ordering::Acquire) {
                return;
            }
            relieved.await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut OriginLog) -> bool) {
        let relieved = {
            let mut log = self.log.lock();
            let relieved = change(&mut log);
            self.high.store(log.is_high(), Ordering::Release);
            relieved
        };
        if relieved {
            self.relieved.notify_waiters();
        }
    }
}
