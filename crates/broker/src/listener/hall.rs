//! Where one worker's strangers are until they are in.
//!
//! Two bounds keep a flood of them from those who are in: so many at once ([`Strangers`]), and one step of a TLS handshake for
//! each round of the worker's loop ([`Turnstile`]), in which everybody else who is ready has a turn too. A step costs as much
//! as some ten messages.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::task::AbortHandle;

use super::conditions::{self, Conditions};
use crate::connection::clock;
use crate::counters::Counters;
use crate::places::notice::Notice;
use crate::places::strangers::{Spot, Strangers};

/// How often is looked who has to make room.
const LOOK: Duration = Duration::from_millis(50);

/// One worker's strangers. The worker's own thread is the only one that comes here.
#[derive(Debug)]
pub struct Hall {
    strangers: Mutex<Strangers>,
    tasks: Mutex<HashMap<u64, AbortHandle>>,
    freed: Notify,
    notice: Notice,
    turnstile: Turnstile,
    conditions: conditions::Shared,
}

/// A stranger's place in the hall; left when dropped.
#[derive(Debug)]
pub struct Stranger {
    hall: Arc<Hall>,
    spot: Spot,
}

/// A stranger's work for this broker's processor, one step after the other.
#[derive(Debug)]
struct Turnstile(Semaphore);

/// One step.
#[must_use]
#[derive(Debug)]
pub struct Step<'a>(SemaphorePermit<'a>);

impl Hall {
    /// An empty one, under these conditions.
    #[must_use]
    pub fn new(conditions: conditions::Shared) -> Arc<Self> {
        let Conditions { handshakes, connect_timeout, .. } = **conditions.load();
        Arc::new(Self {
            conditions,
            strangers: Mutex::new(Strangers::new(handshakes, connect_timeout)),
            tasks: Mutex::default(),
            freed: Notify::new(),
            notice: Notice::default(),
            turnstile: Turnstile(Semaphore::new(1)),
        })
    }

    /// Waits for a place.
    pub async fn enter(self: &Arc<Self>, source: IpAddr, counters: &Counters) -> Stranger {
        loop {
            let freed = self.freed.notified();
            let now = clock();
            if let Some(spot) = self.take(source, now) {
                return Stranger { hall: Arc::clone(self), spot };
            }
            if let Some(times) = self.notice.count(now) {
                tracing::warn!(
                    times,
                    "broker.max_handshakes strangers are here: more wait outside, and the silent ones make room; said once a minute at most"
                );
            }
            let victims = self.strangers.lock().victims(now);
            for victim in victims {
                if let Some(task) = self.tasks.lock().remove(&victim.number()) {
                    counters.strangers.fetch_add(1, Ordering::Relaxed);
                    counters.evicted.fetch_add(1, Ordering::Relaxed);
                    task.abort();
                }
            }
            // Whoever leaves says so; who has been silent for long enough does not.
            let _ = tokio::time::timeout(LOOK, freed).await;
        }
    }

    /// A place, if there is one under the conditions of now.
    fn take(&self, source: IpAddr, now: Instant) -> Option<Spot> {
        let Conditions { handshakes, connect_timeout, .. } = **self.conditions.load();
        let mut strangers = self.strangers.lock();
        strangers.set_bounds(handshakes, connect_timeout);
        strangers.enter(source, now)
    }

    /// What is to be ended if the stranger has to go.
    pub fn set_task(&self, spot: Spot, task: AbortHandle) {
        self.tasks.lock().insert(spot.number(), task);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.strangers.lock().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Stranger {
    /// Its place.
    #[must_use]
    pub fn spot(&self) -> Spot {
        self.spot
    }

    /// Does something for it that is for the broker to do: meanwhile it is not silent.
    async fn ours<T>(&self, work: impl Future<Output = T>) -> T {
        self.set_ours(true);
        let done = work.await;
        self.set_ours(false);
        done
    }

    /// The broker begins to do something for it, or is done.
    pub fn set_ours(&self, works: bool) {
        self.hall.strangers.lock().set_waits_for_us(self.spot, works);
    }

    /// A load balancer has said where it comes from.
    pub fn set_source(&self, source: IpAddr) {
        self.hall.strangers.lock().set_source(self.spot, source);
    }

    /// Waits until the broker has time for a step of its handshake.
    pub async fn turn(&self) -> Step<'_> {
        self.ours(self.hall.turnstile.turn()).await
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.hall.strangers.lock().leave(self.spot);
        self.hall.tasks.lock().remove(&self.spot.number());
        self.hall.freed.notify_one();
    }
}

impl Turnstile {
    /// Waits for its turn; first come, first served.
    async fn turn(&self) -> Step<'_> {
        Step(self.0.acquire().await.expect("the semaphore is never closed"))
    }
}

impl Step<'_> {
    /// It is done. The next one's turn comes when everybody else who is ready has had his.
    pub async fn end(self) {
        tokio::task::yield_now().await;
        drop(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    fn hall(handshakes: usize) -> Arc<Hall> {
        let broker = evermq_config::broker::Broker::default();
        Hall::new(Conditions { handshakes, ..Conditions::new(&broker, 1) }.shared())
    }

    #[tokio::test]
    async fn between_two_steps_everybody_else_has_a_turn() {
        let (hall, log) = (hall(10), Arc::new(Mutex::new(String::new())));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (hall, log) = (Arc::clone(&hall), Arc::clone(&log));
            tasks.spawn(async move {
                let stranger = hall.enter(HOST, &Counters::default()).await;
                let step = stranger.turn().await;
                log.lock().push('s');
                step.end().await;
            });
        }
        let client = Arc::clone(&log);
        tasks.spawn(async move {
            for _ in 0..20 {
                client.lock().push('c');
                tokio::task::yield_now().await;
            }
        });
        while tasks.join_next().await.is_some() {}
        let log = log.lock().clone();
        assert_eq!(log.matches('s').count(), 8, "{log}");
        assert!(!log.contains("ss"), "{log}");
        assert!(hall.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_makes_room_for_who_waits() {
        let (hall, counters) = (hall(2), Counters::default());
        for _ in 0..2 {
            let stranger = hall.enter(HOST, &counters).await;
            let spot = stranger.spot();
            let silent = tokio::spawn(async move {
                let _stranger = stranger;
                std::future::pending::<()>().await;
            });
            hall.set_task(spot, silent.abort_handle());
        }
        let began = clock();
        let _late = hall.enter(HOST, &counters).await;
        assert!((1000..1200).contains(&(clock() - began).as_millis()), "{:?}", clock() - began);
        assert_eq!(counters.evicted.load(Ordering::Relaxed), 1);
        assert_eq!(hall.len(), 2);
    }
}
