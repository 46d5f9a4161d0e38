//! A message of QoS 2 that nobody may have yet.
//!
//! Until it is on the disk that the message was taken, its publisher has been told nothing and sends it again after a crash of
//! this broker, and then it is another message. Whoever had this one would have both. For QoS 0 and 1 that is allowed, so
//! they wait for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use evermq_store::Position;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// No position is this one: it is after all of them.
const UNKNOWN: u64 = u64::MAX;

/// What keeps a message from those who may have it only once.
#[derive(Debug)]
pub struct Hold {
    /// How far the store has to be.
    until: AtomicU64,
    released: Notify,
    /// Those who could send the message on.
    waiting: Mutex<Vec<Waker>>,
}

impl Hold {
    /// Nobody may have the message: what the store has to have first is not written yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { until: AtomicU64::new(UNKNOWN), released: Notify::new(), waiting: Mutex::default() })
    }

    /// It may go when the store is at `at`. What is said first counts.
    pub fn release(&self, at: Position) {
        let _ = self.until.compare_exchange(UNKNOWN, at.0, Ordering::AcqRel, Ordering::Relaxed);
        self.released.notify_waiters();
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Has `waker` woken when the message may go; not if it may go already.
    pub fn wakes(&self, waker: &Waker) -> bool {
        let mut waiting = self.waiting.lock();
        // Under the lock: who releases it says so before it wakes.
        if self.is_released() {
            return false;
        }
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        true
    }

    /// Whether all that the store has to have is written, if perhaps not on the disk yet.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.until().is_some()
    }

    /// How far the store has to be, once that is known.
    #[must_use]
    pub fn until(&self) -> Option<Position> {
        let until = self.until.load(Ordering::Acquire);
        (until != UNKNOWN).then_some(Position(until))
    }

    /// Waits until it is known.
    pub(crate) async fn released(&self) -> Position {
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            released.as_mut().enable();
            if let Some(until) = self.until() {
                return until;
            }
            released.await;
        }
    }
}
