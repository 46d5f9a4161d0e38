//! A worker's end: notes its clients as they come and go, and hands on what is new.
//!
//! For each client that is a few stores into the worker's own memory, under a lock that no other thread takes; every few
//! milliseconds the worker's thread makes one batch of them for the control thread. Where that is behind, the worker keeps
//! what is new, and beyond a bound forgets it and hands on its whole list later.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::roster::{Batch, Own};

/// How long news is gathered. A client that came within it before its host died is not told that the VIP has moved; it is
/// in its handshake, as a rule, and patient for seconds only.
const GATHER: Duration = Duration::from_millis(5);

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
    /// Told when there is something new where there was nothing.
    woken: Notify,
    news: mpsc::Sender<News>,
}

impl Clients {
    pub(crate) fn new(worker: usize, news: mpsc::Sender<News>) -> Self {
        Self { worker, own: Mutex::default(), anew: AtomicBool::new(false), woken: Notify::new(), news }
    }

    /// A client has come. Gives what [`Clients::leave`] wants to know; none if it is not noted.
    pub(crate) fn join(&self, client: SocketAddr, local: SocketAddr) -> Option<u32> {
        self.change(|own| own.join(client, local))
    }

    /// A client has gone.
    pub(crate) fn leave(&self, number: u32) {
        self.change(|own| own.leave(number));
    }

    /// Has the worker hand on its whole list. From any thread.
    pub(crate) fn tell_all(&self) {
        self.anew.store(true, Ordering::Release);
        self.woken.notify_one();
    }

    /// Hands on what is new, as it comes. On the worker's thread.
    pub(crate) async fn hand_on(&self) -> std::convert::Infallible {
        loop {
            self.woken.notified().await;
            tokio::time::sleep(GATHER).await;
            if self.anew.swap(false, Ordering::AcqRel) {
                self.own().begin_anew();
            }
            match self.news.try_reserve() {
                Ok(place) => {
                    let mut own = self.own();
                    if own.has_news() {
                        place.send(News { worker: self.worker, batch: own.take_news() });
                    }
                }
                Err(TrySendError::Full(())) => self.woken.notify_one(),
                // The lb ends.
                Err(TrySendError::Closed(())) => std::future::pending().await,
            }
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Own) -> T) -> T {
        let mut own = self.own();
        let had_news = own.has_news();
        let result = change(&mut own);
        if !had_news && own.has_news() {
            self.woken.notify_one();
        }
        result
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Change;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_together_is_handed_on_together_and_nothing_is_lost_where_nobody_takes_it() {
        let (sender, mut receiver) = mpsc::channel(1);
        let clients = Clients::new(3, sender);
        let join = |port| clients.join(address(port), address(9000)).unwrap();
        let work = async {
            let first = join(1);
            join(2);
            let News { worker, batch } = receiver.recv().await.unwrap();
            assert_eq!((worker, batch.anew, batch.changes.len()), (3, false, 2));
            // One batch waits in the channel, another one in the worker.
            clients.leave(first);
            tokio::time::sleep(GATHER * 4).await;
            join(3);
            tokio::time::sleep(GATHER * 4).await;
            join(4);
            assert_eq!(receiver.recv().await.unwrap().batch.changes, [Change::Left(first)]);
            assert_eq!(receiver.recv().await.unwrap().batch.changes.len(), 2);
            clients.tell_all();
            let batch = receiver.recv().await.unwrap().batch;
            assert_eq!((batch.anew, batch.changes.len()), (true, 3));
        };
        tokio::select! {
            () = work => {}
            never = clients.hand_on() => match never {},
        }
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
