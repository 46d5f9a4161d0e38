//! A worker's end: notes its clients as they come and go, and hands on what is new.
//!
//! For each client that is a few stores into the worker's own memory, under a lock that no other thread takes; every few
//! milliseconds the worker's thread makes one batch of them for the control thread. Where that is behind, the worker keeps
//! what is new, and beyond a bound forgets it and hands on its whole list later.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{self, error::TrySendError};

use crate::roster::{Batch, Own};

/// What a worker hands on.
#[derive(Debug)]
pub(crate) struct News {
    /// Which worker.
    pub(crate) worker: usize,
    /// What is new.
    pub(crate) batch: Batch,
}

/// The clients of one worker.
#[derive(Debug)]
pub(crate) struct Clients {
    worker: usize,
    own: Mutex<Own>,
    /// Somebody knows nothing yet.
    anew: AtomicBool,
    /// There is something to hand on.
    fresh: AtomicBool,
    news: mpsc::Sender<News>,
}

impl Clients {
    pub(crate) fn new(worker: usize, news: mpsc::Sender<News>) -> Self {
        Self { worker, own: Mutex::default(), anew: AtomicBool::new(false), fresh: AtomicBool::new(false), news }
    }

    /// A client has come. Gives what [`Clients::leave`] wants to know; none if it is not noted.
    pub(crate) fn join(&self, client: SocketAddr, local: SocketAddr) -> Option<u32> {
        self.change(|own| own.join(client, local))
    }

    /// A client has gone.
    pub(crate) fn leave(&self, number: u32) {
        self.change(|own| own.leave(number));
    }

    /// Has the worker hand on its whole list. From any thread; the worker must be woken.
    pub(crate) fn tell_all(&self) {
        self.anew.store(true, Ordering::Release);
        self.fresh.store(true, Ordering::Release);
    }

    /// Whether there is something to hand on.
    pub(crate) fn has_news(&self) -> bool {
        self.fresh.load(Ordering::Acquire)
    }

    /// Hands on what is new; where the control thread is behind, it stays for later. On the worker's thread, some
    /// milliseconds after there was something new, so that much is handed on together. A client that came within that time
    /// before its host died is not told that the VIP has moved; it is in its handshake, as a rule, and patient for seconds
    /// only.
    pub(crate) fn hand_on(&self) {
        match self.news.try_reserve() {
            Ok(place) => {
                self.fresh.store(false, Ordering::Release);
                let mut own = self.own();
                if self.anew.swap(false, Ordering::AcqRel) {
                    own.begin_anew();
                }
                if own.has_news() {
                    place.send(News { worker: self.worker, batch: own.take_news() });
                }
            }
            Err(TrySendError::Full(())) => {}
            // The lb ends.
            Err(TrySendError::Closed(())) => self.fresh.store(false, Ordering::Release),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Own) -> T) -> T {
        let result = change(&mut self.own());
        if !self.has_news() {
            self.fresh.store(true, Ordering::Release);
        }
        result
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::roster::Change;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn what_comes_together_is_handed_on_together_and_nothing_is_lost_where_nobody_takes_it() {
        let (sender, mut receiver) = mpsc::channel(1);
        let clients = Clients::new(3, sender);
        let join = |port| clients.join(address(port), address(9000)).unwrap();
        assert!(!clients.has_news());
        let first = join(1);
        join(2);
        assert!(clients.has_news());
        clients.hand_on();
        assert!(!clients.has_news());
        // One batch waits in the channel, another one in the worker.
        clients.leave(first);
        clients.hand_on();
        assert!(clients.has_news());
        let News { worker, batch } = receiver.try_recv().unwrap();
        assert_eq!((worker, batch.anew, batch.changes.len()), (3, false, 2));
        clients.hand_on();
        join(3);
        clients.hand_on();
        join(4);
        assert_eq!(receiver.try_recv().unwrap().batch.changes, [Change::Left(first)]);
        clients.hand_on();
        assert_eq!(receiver.try_recv().unwrap().batch.changes.len(), 2);
        clients.tell_all();
        assert!(clients.has_news());
        clients.hand_on();
        let batch = receiver.try_recv().unwrap().batch;
        assert_eq!((batch.anew, batch.changes.len()), (true, 3));
        assert!(receiver.try_recv().is_err());
    }

    /// A few stores: the bound is some fifty times what it takes, for a machine that is busy.
    #[test]
    fn a_client_costs_next_to_nothing() {
        let (sender, _receiver) = mpsc::channel(1);
        let clients = Clients::new(0, sender);
        #[expect(clippy::disallowed_methods, reason = "this is a measurement")]
        let start = std::time::Instant::now();
        let count = 20_000_u16;
        let numbers: Vec<_> = (0..count).map(|port| clients.join(address(port), address(9000)).unwrap()).collect();
        numbers.into_iter().for_each(|number| clients.leave(number));
        let each = start.elapsed() / u32::from(count);
        assert!(each < Duration::from_micros(20), "{each:?} for one that comes and goes");
    }
}
