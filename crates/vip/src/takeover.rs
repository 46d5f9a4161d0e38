//! Tells the clients of other hosts that the VIP has moved here.
//!
//! One ordinary thread, owned by the daemon: what [`crate::tickle`] does takes seconds with many clients, and asks the lb
//! first. The real-time thread only counts up and wakes it ([`Takeover::announce`]), without waiting for anything.
//!
//! Whom to tell, the local lb knows: each lb keeps the lists of the others ([`clients`]). Those whose connection is to another
//! address than the virtual router's are left alone. A client that has connected in the last few milliseconds of the old host
//! may not be in the list; when the old host lives on, as at a planned handover, it is in the list a second later.

mod clients;
mod notice;
mod raw;

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::counters::TickleCounters;
use crate::privileges::{self, Others};
use crate::tickle::pacer::{Action, Pacer, Round};
use crate::tickle::{Connection, STALE};
use clients::Clients;
use notice::{Notice, is_master};
use raw::RawSockets;

/// Between two attempts to ask the lb.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// After this the lb is not asked any more: clients have begun to find out by themselves.
const GIVE_UP: Duration = Duration::from_secs(3);

/// Why clients cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// `CAP_NET_RAW` is missing.
    #[error(
        "cannot open a raw socket to tell clients that the VIP has moved: {0}; run evermq-vip as root or with CAP_NET_RAW, \
         or set `tickle = false` in [vip]"
    )]
    RawSocket(#[source] io::Error),
    /// The system has no thread or descriptor.
    #[error("cannot start the thread that tells clients that the VIP has moved: {0}")]
    Thread(#[source] io::Error),
}

/// The thread that tells clients, and what it is told itself. Stops when dropped.
#[derive(Debug)]
pub struct Takeover {
    notice: Arc<Notice>,
    thread: Option<JoinHandle<()>>,
}

impl Takeover {
    /// Starts the thread, for virtual routers with these addresses.
    ///
    /// # Errors
    /// A capability is missing: better told at start than at a takeover.
    pub fn start(
        lb_socket: &Path,
        instances: Vec<Vec<IpAddr>>,
        counters: Arc<TickleCounters>,
    ) -> Result<Self, TakeoverError> {
        let wide = instances.iter().flatten().any(IpAddr::is_ipv6);
        let sockets = RawSockets::open(wide).map_err(TakeoverError::RawSocket)?;
        let notice = Arc::new(Notice::new(instances.len()).map_err(TakeoverError::Thread)?);
        let teller = Teller {
            seen: vec![0; instances.len()],
            lb_socket: lb_socket.to_owned(),
            instances,
            notice: notice.clone(),
            sockets,
            pacer: Pacer::default(),
            asking: Vec::new(),
            hosts: String::new(),
            errors: 0,
            last_error: None,
            counters,
        };
        let thread = std::thread::Builder::new().name("takeover".to_owned()).spawn(move || {
            privileges::settle(Others::None);
            teller.run();
        });
        Ok(Self { notice, thread: Some(thread.map_err(TakeoverError::Thread)?) })
    }

    /// This host has become master of a virtual router; its addresses and gratuitous ARP are out. Never waits.
    pub fn announce(&self, instance: usize) {
        self.notice.begin_term(instance);
    }

    /// This host is not its master any more. Never waits.
    pub fn lost(&self, instance: usize) {
        self.notice.end_term(instance);
    }

    /// Ends the thread; waits for at most the time that the lb may take to answer.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.notice.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that tells clients that the VIP has moved has panicked");
        }
    }
}

impl Drop for Takeover {
    fn drop(&mut self) {
        self.end();
    }
}

/// The thread's own.
struct Teller {
    lb_socket: PathBuf,
    instances: Vec<Vec<IpAddr>>,
    notice: Arc<Notice>,
    /// The terms that have been acted upon.
    seen: Vec<u32>,
    sockets: RawSockets,
    pacer: Pacer,
    asking: Vec<Asking>,
    /// The hosts whose clients are told, for people.
    hosts: String,
    /// Segments of this round that were not sent, and why.
    errors: u64,
    last_error: Option<io::Error>,
    counters: Arc<TickleCounters>,
}

/// A virtual router for which the lb has yet to be asked.
#[derive(Debug, Clone, Copy)]
struct Asking {
    instance: usize,
    since: Instant,
    next: Instant,
}

impl Teller {
    fn run(mut self) {
        loop {
            self.wait();
            if self.notice.is_stopped() {
                return;
            }
            self.read_notice();
            self.ask();
            self.pacer.handle_timeout(clock());
            self.act();
        }
    }

    fn wait(&self) {
        let asking = self.asking.iter().map(|asking| asking.next).min();
        let deadline = [asking, self.pacer.poll_timeout()].into_iter().flatten().min();
        let timeout = deadline.map(|deadline| TimeSpec::from(deadline.saturating_duration_since(clock())));
        let mut fds = [PollFd::new(self.notice.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut fds, timeout, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            // Cannot be, with one good descriptor; if it is, it must not be a busy loop.
            Err(error) => {
                tracing::error!(%error, "cannot wait for takeovers");
                std::thread::park_timeout(ASK_AGAIN);
            }
        }
        self.notice.clear();
    }

    fn read_notice(&mut self) {
        let now = clock();
        for instance in 0..self.instances.len() {
            let term = self.notice.term(instance);
            if std::mem::replace(&mut self.seen[instance], term) != term {
                self.pacer.handle_lost(instance);
                self.asking.retain(|asking| asking.instance != instance);
                if is_master(term) {
                    self.asking.push(Asking { instance, since: now, next: now });
                }
            }
        }
    }

    /// Asks the lb, once for all virtual routers whose time has come.
    fn ask(&mut self) {
        let now = clock();
        let (due, later): (Vec<_>, Vec<_>) = self.asking.drain(..).partition(|asking| asking.next <= now);
        self.asking = later;
        if due.is_empty() {
            return;
        }
        match clients::ask(&self.lb_socket) {
            Ok(clients) => {
                self.hosts = clients.hosts();
                for asking in due {
                    let connections = self.connections(&clients, asking.instance);
                    self.pacer.handle_clients(asking.instance, connections, clients.rate, clock());
                }
            }
            Err(error) if due.iter().all(|asking| now - asking.since >= GIVE_UP) => {
                tracing::warn!(
                    %error,
                    "the lb does not say whose clients are to be told that the VIP has moved: they find out by themselves"
                );
            }
            Err(error) => {
                tracing::debug!(%error, "asking the lb for clients again");
                self.asking.extend(due.into_iter().map(|asking| Asking { next: clock() + ASK_AGAIN, ..asking }));
            }
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.pacer.poll_action() {
            match action {
                Action::Send { connection, .. } => self.tell(&connection),
                Action::Refresh { instance } => {
                    let fresh = clients::ask(&self.lb_socket);
                    let fresh = fresh.map(|clients| self.connections(&clients, instance)).unwrap_or_default();
                    self.pacer.handle_refreshed(instance, fresh, clock());
                }
                Action::Told { round, clients, since, .. } => self.report(round, clients, since),
            }
            // This host may have lost the VIP in the middle of a burst.
            self.read_notice();
        }
    }

    fn tell(&mut self, connection: &Connection) {
        for stale in STALE {
            match self.sockets.send(connection, stale) {
                Ok(()) => self.counters.tickles_sent.count(),
                Err(error) => {
                    tracing::trace!(%error, client = %connection.client, "not told");
                    self.counters.tickle_errors.count();
                    self.errors += 1;
                    self.last_error = Some(error);
                }
            }
        }
    }

    fn report(&mut self, round: Round, clients: usize, since: Instant) {
        let (not_sent, took_ms) = (std::mem::take(&mut self.errors), (clock() - since).as_millis());
        let (of, error) = (&self.hosts, self.last_error.take());
        if round == Round::First {
            self.counters.clients_told.add(clients as u64);
        }
        match (round, error) {
            (Round::First, Some(error)) => tracing::warn!(
                clients,
                of,
                took_ms,
                not_sent,
                %error,
                "told clients that the VIP has moved, but not all of them (a packet filter of this host? no route to them?)"
            ),
            (Round::First, None) if clients > 0 => {
                tracing::info!(clients, of, took_ms, not_sent, "told clients that the VIP has moved");
            }
            (Round::First | Round::Second, _) => {
                tracing::debug!(?round, clients, of, not_sent, "told clients that the VIP has moved");
            }
        }
    }

    fn connections(&self, clients: &Clients, instance: usize) -> Vec<Connection> {
        let addresses = &self.instances[instance];
        clients.connections.iter().filter(|connection| addresses.contains(&connection.vip.ip())).copied().collect()
    }
}

#[expect(clippy::disallowed_methods, reason = "this thread reads the clock for the pacer")]
fn clock() -> Instant {
    Instant::now()
}
