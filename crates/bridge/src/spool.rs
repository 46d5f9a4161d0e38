//! The origin log as many threads see it: a short lock around [`OriginLog`], who is woken when, and what the store has of it.
//!
//! The lock is the one point where the messages of all publishers get their order; it is held for the length of a push, a
//! few comparisons, and of putting a record of some 20 bytes into the store's memory. Nothing is encoded, freed or woken under it.

mod kept;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use evermq_store::{Handle, Position, SegmentId, SessionId, Store};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use self::kept::Kept;
use crate::bridge::Pressure;
use crate::cursor::Room;
use crate::directions::Directions;
use crate::hold::Hold;
use crate::log::{Appended, Bounds, Entry, OriginLog, Read, Saved};
use crate::message::{Keeper, Message};

/// Entries that are looked at under one lock when the store moves what is alive.
const SLICE: usize = 256;
/// How often a reader looks whether numbers that were set aside are on the disk: it happens once for tens of thousands.
const RESERVE_POLL: Duration = Duration::from_millis(5);

/// The log, shared.
pub(crate) struct Spool {
    inner: Mutex<Inner>,
    /// One for each reader: holds one permit, so a wake-up between "nothing there" and waiting is not missed.
    news: RwLock<Vec<Arc<Notify>>>,
    /// What [`OriginLog::is_high`] says, for those that do not hold the lock.
    high: AtomicBool,
    relieved: Notify,
}

struct Inner {
    log: OriginLog,
    /// What the store has of it, if there is one.
    kept: Option<Kept>,
}

/// An entry that a reader may not have yet.
pub(crate) struct Held {
    seq: u64,
    entry: Arc<Entry>,
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
    /// When the oldest was published.
    pub(crate) oldest: Option<Instant>,
    /// Whether publishers should wait.
    pub(crate) high: bool,
}

impl Spool {
    /// An empty log with that many readers.
    pub(crate) fn new(bounds: Bounds, readers: usize) -> Self {
        Self {
            inner: Mutex::new(Inner { log: OriginLog::new(bounds, readers), kept: None }),
            news: RwLock::new((0..readers).map(|_| Arc::default()).collect()),
            high: AtomicBool::new(false),
            relieved: Notify::new(),
        }
    }

    /// The log goes on where the store says that it was, and is kept there from now on.
    pub(crate) fn recover(
        &self,
        keeper: Arc<dyn Keeper>,
        peers: Vec<String>,
        epoch: u64,
        bounds: Bounds,
        saved: Saved,
    ) {
        let mut left = Vec::new();
        let mut inner = self.inner.lock();
        inner.log = OriginLog::recovered(bounds, saved, &mut left);
        inner.kept = Some(Kept::begin(keeper, peers, epoch, &inner.log));
    }

    /// A peer of that name has come: the log is kept for it from here on. Gives its reader.
    pub(crate) fn add_reader(&self, peer: &str) -> usize {
        let mut inner = self.inner.lock();
        let Inner { log, kept } = &mut *inner;
        let reader = log.add_reader();
        self.news.write().push(Arc::default());
        if let Some(kept) = kept {
            kept.add_peer(peer, log);
        }
        reader
    }

    /// That reader's peer has left. Gives how many messages it has not acknowledged.
    pub(crate) fn remove_reader(&self, reader: usize) -> u64 {
        let (mut left, mut lag) = (Vec::new(), 0);
        self.change(|log| {
            lag = log.lag(reader).0;
            log.remove_reader(reader, &mut left)
        });
        if let Some(kept) = &mut self.inner.lock().kept {
            kept.remove_peer(reader);
        }
        lag
    }

    /// Appends a message, which the session `giver` had until now, if any; how far the store has to be before its publisher may be
    /// told that it was taken.
    pub(crate) fn append(
        &self,
        message: Arc<Message>,
        stored: Option<Handle>,
        hold: Option<Arc<Hold>>,
        directions: Option<Directions>,
        giver: Option<SessionId>,
    ) -> (Pressure, Position) {
        let own_hold = (stored.is_some() && hold.is_none() && message.publish.qos == evermq_mqtt::QoS::ExactlyOnce)
            .then(Hold::new);
        let hold = hold.filter(|_| stored.is_some()).or_else(|| own_hold.clone());
        let entry = Entry::new(message, stored, hold, directions);
        let (mut left, mut wake, mut at) = (Vec::new(), 0_u64, Position::default());
        let appended = {
            let mut inner = self.inner.lock();
            let Inner { log, kept } = &mut *inner;
            let appended = log.append(Arc::clone(&entry), &mut left);
            if let Some(kept) = kept {
                at = kept.append(appended.seq, &entry, giver, log);
            }
            if let Some(hold) = &own_hold {
                hold.release(at);
            }
            if appended.wake {
                log.take_waiting(|reader| wake |= 1 << (reader % 64));
            }
            self.high.store(appended.high, Ordering::Release);
            appended
        };
        self.wake(wake);
        let Appended { high, .. } = appended;
        (if high { Pressure::High } else { Pressure::Clear }, at)
    }

    /// What stands in the log for a reader; see [`OriginLog::read`].
    pub(crate) fn read(&self, reader: usize, room: Room) -> Read {
        let mut inner = self.inner.lock();
        let Inner { log, kept } = &mut *inner;
        match kept {
            None => log.read(reader, room, |_, _| true),
            Some(kept) => {
                let limit = kept.reserved();
                log.read(reader, room, |seq, entry| seq <= limit && is_free(entry, kept.store()))
            }
        }
    }

    /// Waits until a reader that saw [`Read::End`] has something to read; may return early.
    pub(crate) async fn news(&self, reader: usize) {
        let news = Arc::clone(&self.news.read()[reader]);
        news.notified().await;
    }

    /// Waits until an entry that was [`Read::Held`] may be read. Cancel-safe.
    pub(crate) async fn freed(&self, held: &Held) {
        let Some(keeper) = self.keeper() else { return };
        if let Some(hold) = held.entry.hold() {
            let until = hold.released().await;
            std::future::poll_fn(|cx| keeper.store().poll_durable(until, cx)).await;
        }
        while self.inner.lock().kept.as_mut().is_some_and(|kept| held.seq > kept.reserved()) {
            tokio::time::sleep(RESERVE_POLL).await;
        }
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

    /// Drops what is too old, and writes down how far the peers are.
    pub(crate) fn tidy(&self, now: Instant) {
        let mut left = Vec::new();
        let mut inner = self.inner.lock();
        let Inner { log, kept } = &mut *inner;
        log.expire(now, &mut left);
        if let Some(kept) = kept {
            kept.note(log);
        }
    }

    /// Nothing more is sent: the numbers that were set aside and not used are not needed.
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock();
        let Inner { log, kept } = &mut *inner;
        if let Some(kept) = kept {
            kept.close(log);
        }
    }

    /// The log was lost, or an old copy of it was brought back: it is another one from now on.
    pub(crate) fn begin_epoch(&self, epoch: u64) {
        let mut inner = self.inner.lock();
        let Inner { log, kept } = &mut *inner;
        if let Some(kept) = kept {
            kept.begin_epoch(epoch, log);
        }
    }

    /// Writes down again what the store has in segments before `before`.
    pub(crate) fn checkpoint(&self, before: SegmentId) {
        let Some(keeper) = self.keeper() else { return };
        let mut from = 0;
        loop {
            let slice = {
                let mut inner = self.inner.lock();
                let Inner { log, kept } = &mut *inner;
                let Some(kept) = kept else { return };
                if from == 0 {
                    kept.mark(log);
                }
                let slice = log.entries(from, SLICE);
                kept.forward_again(&slice, before);
                slice
            };
            let Some((last, _)) = slice.last() else { break };
            from = last + 1;
            for (_, entry) in &slice {
                if let Some(handle) = entry.stored() {
                    keeper.refresh(entry.message(), handle);
                }
            }
            keeper.store().pace();
        }
        if let Some(kept) = &mut self.inner.lock().kept {
            kept.moved(before);
        }
    }

    /// The store, if there is one.
    pub(crate) fn keeper(&self) -> Option<Arc<dyn Keeper>> {
        self.inner.lock().kept.as_ref().map(|kept| Arc::clone(kept.keeper()))
    }

    /// The oldest entry that can be had.
    pub(crate) fn first(&self) -> u64 {
        self.inner.lock().log.first()
    }

    /// What a reader has acknowledged, and what it may have at most.
    pub(crate) fn standing(&self, reader: usize) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.log.acknowledged(reader), inner.log.last())
    }

    /// See [`OriginLog::lag`].
    pub(crate) fn lag(&self, reader: usize) -> (u64, u64, Option<Instant>) {
        self.inner.lock().log.lag(reader)
    }

    /// Figures of the log.
    pub(crate) fn state(&self) -> SpoolState {
        let inner = self.inner.lock();
        let log = &inner.log;
        SpoolState {
            last: log.last(),
            messages: log.len(),
            bytes: log.bytes(),
            oldest: log.oldest(),
            high: log.is_high(),
        }
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

    fn wake(&self, mut readers: u64) {
        while readers != 0 {
            let lowest = readers.trailing_zeros() as usize;
            readers &= readers - 1;
            // With more than 64 readers two share a bit; waking one too many costs it a look at the log.
            self.news.read().iter().skip(lowest).step_by(64).for_each(|news| news.notify_one());
        }
    }

    fn change(&self, change: impl FnOnce(&mut OriginLog) -> bool) {
        let relieved = {
            let mut inner = self.inner.lock();
            let relieved = change(&mut inner.log);
            self.high.store(inner.log.is_high(), Ordering::Release);
            relieved
        };
        if relieved {
            self.relieved.notify_waiters();
        }
    }
}

impl Held {
    /// What [`Read::Held`] gave.
    pub(crate) fn new(seq: u64, entry: Arc<Entry>) -> Self {
        Self { seq, entry }
    }
}

/// Whether peers may have an entry as far as its publisher is concerned.
fn is_free(entry: &Entry, store: &Store) -> bool {
    entry.hold().is_none_or(|hold| hold.until().is_some_and(|until| store.is_durable(until)))
}
