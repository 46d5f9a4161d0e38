//! What all threads know of the backends: atomics only, so that nobody waits for anybody.
//!
//! The control thread writes a backend's standing; workers read it for each new connection. The one thing that a worker
//! writes there itself is `Suspect` after a refused connect, so that the next client does not wait for the control thread.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evermq_config::HostName;
use evermq_config::cluster::Balance;
use evermq_config::roles::Peer;
use tokio::sync::Notify;

use crate::backend::{Refusal, Standing};
use crate::balance::{Balancer, Load};

/// All backends, in the file's order.
#[derive(Debug)]
pub struct Pool {
    members: Box<[Member]>,
    balancer: Balancer,
    /// Told when a standing has changed.
    changed: Notify,
}

/// One backend.
#[derive(Debug)]
pub struct Member {
    name: HostName,
    address: SocketAddr,
    /// Counts how often the backend went down. A connection made under an older generation is to be closed. Apart from
    /// what each new connection writes, because every relayed byte reads it.
    generation: Apart<AtomicU64>,
    standing: AtomicU8,
    connections: AtomicUsize,
    total: AtomicU64,
    refusals: AtomicU64,
    last_refusal: AtomicU8,
    refused: Notify,
    report: Mutex<Report>,
}

/// Keeps what is read all the time out of the cache lines of what is written all the time.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

/// What only the control thread knows of a backend, for the control socket.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Since when the standing is what it is.
    pub since: Option<Instant>,
    /// The last failure, which may be over.
    pub last_error: Option<String>,
    /// From PINGREQ to PINGRESP.
    pub round_trip: Option<Duration>,
}

impl Pool {
    /// Backends of which nothing is known.
    #[must_use]
    pub fn new(backends: &[Peer], balance: Balance) -> Self {
        Self {
            members: backends.iter().map(Member::new).collect(),
            balancer: Balancer::new(balance),
            changed: Notify::new(),
        }
    }

    /// The backends, in the file's order.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether the session to any backend stands.
    #[must_use]
    pub fn any_up(&self) -> bool {
        self.members.iter().any(|member| member.standing().has_session())
    }

    /// Waits until a standing has changed since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Chooses a backend that has not been `tried` and counts the connection there until the lease ends.
    #[must_use]
    pub fn choose(self: &Arc<Self>, tried: &[usize]) -> Option<Lease> {
        loop {
            let loads: Vec<Load> = self.members.iter().enumerate().map(|(i, m)| m.load(tried.contains(&i))).collect();
            let index = self.balancer.choose(&loads)?;
            let member = &self.members[index];
            let generation = member.generation();
            // It may have gone down since it was chosen; then the generation is already the next one, under which this
            // connection would be left alone.
            if member.standing() != Standing::Down {
                member.connections.fetch_add(1, Ordering::Relaxed);
                return Some(Lease { pool: Arc::clone(self), index, generation });
            }
        }
    }

    /// Makes a new standing known. With `Down`, all connections made until now are to be closed.
    pub fn set_standing(&self, index: usize, standing: Standing) {
        let member = &self.members[index];
        member.standing.store(standing as u8, Ordering::Release);
        if standing == Standing::Down {
            member.generation.0.fetch_add(1, Ordering::AcqRel);
        }
        self.changed.notify_one();
    }
}

impl Member {
    fn new(peer: &Peer) -> Self {
        Self {
            name: peer.name.clone(),
            address: peer.address,
            generation: Apart(AtomicU64::new(0)),
            standing: AtomicU8::new(Standing::Unproven as u8),
            connections: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            last_refusal: AtomicU8::new(0),
            refused: Notify::new(),
            report: Mutex::default(),
        }
    }

    fn load(&self, tried: bool) -> Load {
        Load { standing: self.standing(), connections: self.connections(), tried }
    }

    /// Its host's name.
    #[must_use]
    pub const fn name(&self) -> &HostName {
        &self.name
    }

    /// Where clients are passed on to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it is good for.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing::from_u8(self.standing.load(Ordering::Acquire)).expect("only standings are stored")
    }

    /// How often it has gone down.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.0.load(Ordering::Acquire)
    }

    /// Connections now, those being made included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections made since the start.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Clients that it did not let in since the start.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// A client was not let in: the next one goes elsewhere at once, and the control thread decides.
    pub fn refuse(&self, refusal: Refusal) {
        // Nothing to do where it was no longer up: the control thread knows more already.
        let _ = self.standing.compare_exchange(
            Standing::Up as u8,
            Standing::Suspect as u8,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        self.last_refusal.store(refusal as u8, Ordering::Release);
        self.refusals.fetch_add(1, Ordering::Relaxed);
        self.refused.notify_one();
    }

    /// Waits until a client has not been let in since the last call.
    pub async fn refused(&self) -> Refusal {
        self.refused.notified().await;
        Refusal::from_u8(self.last_refusal.load(Ordering::Acquire))
    }

    /// What the control thread knows.
    pub fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's place at a backend; gives it back when dropped.
#[derive(Debug)]
pub struct Lease {
    pool: Arc<Pool>,
    index: usize,
    generation: u64,
}

impl Lease {
    /// The backend's index.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// The backend.
    #[must_use]
    pub fn member(&self) -> &Member {
        &self.pool.members[self.index]
    }

    /// Whether the backend went down since it was chosen.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.member().generation() != self.generation
    }

    /// The connection has been made.
    pub fn begin(&self) {
        self.member().total.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.member().connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(backends: usize) -> Arc<Pool> {
        let peers: Vec<_> = (0..backends)
            .map(|index| Peer {
                name: HostName::new(&format!("broker{index}")).unwrap(),
                address: SocketAddr::from(([127, 0, 0, 1], 8883)),
            })
            .collect();
        Arc::new(Pool::new(&peers, Balance::LeastConn))
    }

    #[test]
    fn a_lease_is_counted_while_it_lives() {
        let pool = pool(2);
        let first = pool.choose(&[]).unwrap();
        let second = pool.choose(&[]).unwrap();
        assert_ne!(first.index(), second.index());
        assert_eq!(pool.members().iter().map(Member::connections).collect::<Vec<_>>(), [1, 1]);
        drop((first, second));
        assert_eq!(pool.members().iter().map(Member::connections).collect::<Vec<_>>(), [0, 0]);
    }

    #[test]
    fn what_was_tried_is_not_chosen_again() {
        let pool = pool(2);
        let first = pool.choose(&[]).unwrap().index();
        let second = pool.choose(&[first]).unwrap().index();
        assert_ne!(first, second);
        assert!(pool.choose(&[first, second]).is_none());
    }

    #[test]
    fn going_down_makes_leases_stale_and_later_ones_are_not() {
        let pool = pool(1);
        pool.set_standing(0, Standing::Up);
        let before = pool.choose(&[]).unwrap();
        assert!(!before.is_stale());
        pool.set_standing(0, Standing::Down);
        assert!(before.is_stale());
        assert!(pool.choose(&[]).is_none());
        pool.set_standing(0, Standing::Up);
        assert!(before.is_stale());
        assert!(!pool.choose(&[]).unwrap().is_stale());
    }

    #[test]
    fn a_refusal_is_felt_by_the_next_client_at_once() {
        let pool = pool(2);
        pool.set_standing(0, Standing::Up);
        pool.set_standing(1, Standing::Up);
        pool.members()[0].refuse(Refusal::Refused);
        assert_eq!(pool.members()[0].standing(), Standing::Suspect);
        assert_eq!(pool.members()[0].refusals(), 1);
        for _ in 0..4 {
            assert_eq!(pool.choose(&[]).unwrap().index(), 1);
        }
    }

    #[test]
    fn a_refusal_of_one_that_is_not_up_changes_nothing_by_itself() {
        let pool = pool(1);
        for standing in [Standing::Unproven, Standing::Suspect, Standing::Rejecting, Standing::Down] {
            pool.set_standing(0, standing);
            pool.members()[0].refuse(Refusal::TimedOut);
            assert_eq!(pool.members()[0].standing(), standing);
        }
    }
}
