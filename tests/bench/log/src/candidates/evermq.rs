//! `crates/store`, as a broker uses it for its log for the other brokers: a message and a record of its place.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::thread::Thread;

use evermq_mqtt::Publish;
use evermq_store::{
    Handle, Live, OriginLog, Position, Record, SegmentId, Settings, Store, StoredMessage, Sync, WallTime, open,
};

use super::Candidate;
use crate::record;

const NOW: WallTime = WallTime(1);

/// The store, and what is alive in it.
pub struct EverMq {
    store: Arc<Store>,
    held: Arc<Held>,
    released: AtomicU64,
    count: AtomicU64,
}

#[derive(Debug, Default)]
struct Held(Mutex<Log>);

#[derive(Debug, Default)]
struct Log {
    last: u64,
    /// With which record of the pool it is.
    messages: VecDeque<(u64, u64, Handle)>,
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live for Held {
    fn checkpoint(&self, _before: SegmentId, store: &Store) -> bool {
        let log = self.lock();
        store.append(&origin_log(&log));
        for (seq, number, handle) in &log.messages {
            store.refresh(handle, &stored(*number));
            store.append(&forward(*seq, handle));
        }
        true
    }
}

impl EverMq {
    fn put(&self) -> anyhow::Result<Position> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let (handle, _) = self.store.append_message(&stored(number))?;
        // The lock that gives messages of all publishers their order.
        let mut log = self.held.lock();
        log.last += 1;
        let at = self.store.append(&forward(log.last, &handle));
        let seq = log.last;
        log.messages.push_back((seq, number, handle));
        Ok(at)
    }

    fn wait(&self, at: Position) {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let context = Context::from_waker(&waker);
        while self.store.poll_durable(at, &context).is_pending() {
            std::thread::park();
        }
        while self.store.poll_pace(&context).is_pending() {
            std::thread::park();
        }
    }
}

impl Candidate for EverMq {
    const NAME: &'static str = "crates/store";

    fn open(directory: &Path) -> anyhow::Result<(Self, Vec<Publish>)> {
        let settings =
            Settings { path: directory.to_owned(), sync: Sync::Always, segment_size: 16 << 20, max_size: 4 << 30 };
        let (store, recovered) = open(&settings, NOW)?;
        let held = Arc::new(Held::default());
        store.append(&origin_log(&held.lock()));
        store.set_live(Arc::<Held>::clone(&held));
        let messages = recovered.messages.into_iter().map(|message| message.publish).collect();
        Ok((Self { store, held, released: AtomicU64::new(0), count: AtomicU64::new(0) }, messages))
    }

    fn append(&self, _writer: usize) -> anyhow::Result<()> {
        self.wait(self.put()?);
        Ok(())
    }

    fn append_many(&self, count: u64, is_durable: bool) -> anyhow::Result<()> {
        let mut at = Position::default();
        for _ in 0..count {
            at = self.put()?;
        }
        if is_durable {
            self.wait(at);
        } else {
            self.store.pace();
        }
        Ok(())
    }

    fn release(&self, upto: u64) -> anyhow::Result<()> {
        let released = self.released.swap(upto, Ordering::Relaxed);
        let mut log = self.held.lock();
        let gone: Vec<_> = log.messages.drain(..usize::try_from(upto - released)?).collect();
        drop(log);
        drop(gone);
        Ok(())
    }

    fn close(self) -> anyhow::Result<()> {
        self.store.append(&origin_log(&self.held.lock()));
        self.store.close();
        Ok(())
    }
}

fn stored(number: u64) -> StoredMessage<'static> {
    StoredMessage {
        publish: record::publish(number),
        stamp_time: 7,
        stamp_origin: "bench",
        received: NOW,
        retained: false,
        from: None,
    }
}

fn forward(seq: u64, handle: &Handle) -> Record<'static> {
    Record::Forward { seq, message: handle.id(), giver: None, directions: Cow::Borrowed(&[]) }
}

fn origin_log(log: &Log) -> Record<'static> {
    let first = log.messages.front().map_or(log.last + 1, |(seq, ..)| *seq);
    Record::OriginLog(OriginLog { epoch: 1, reserved: u64::MAX, first, kept: log.last })
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
