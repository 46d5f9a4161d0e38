//! One host on the network: its part in the quorum, the UDP socket, the gateway, and the clock.
//!
//! For a thread with a poll loop of its own. Nothing here waits, logs or, but for a resource's first claim and changed
//! settings, allocates.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use evermq_config::QuorumConfig;
use evermq_daemon::secret::SecretError;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::counts::Counts;
use crate::gateway::Gateway;
use crate::key::Key;
use crate::link::{Buffer, Link};
use crate::membership::{MembershipError, Settings};
use crate::message::{LENGTH, Resource};
use crate::node::{Action, Node};
use crate::state::State;

/// Datagrams read in one turn: a flood must not keep a thread from its other work.
const AT_ONCE: usize = 64;

/// Why a host cannot take part.
#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    /// There is no usable key.
    #[error(transparent)]
    Key(#[from] SecretError),
    /// The hosts cannot vote.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The heartbeat's address cannot be bound.
    #[error(
        "cannot bind UDP {address} for the heartbeat: {source}; it is this host's address in the cluster file with \
         vip.heartbeat_port: is the address on this machine, and the port free?"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No socket for ICMP.
    #[error(
        "cannot ask the gateway {gateway} by ICMP: {source}; give the program CAP_NET_RAW, or its group a place in the \
         sysctl net.ipv4.ping_group_range, or remove vip.quorum_gateway"
    )]
    Gateway {
        /// The gateway.
        gateway: std::net::Ipv4Addr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No descriptor or thread is left.
    #[error("cannot set up the heartbeat: {0}")]
    System(#[source] io::Error),
}

/// A host that votes and may claim.
#[derive(Debug)]
pub struct Member {
    node: Node,
    link: Link,
    gateway: Option<Gateway>,
    /// Readable when either socket is.
    sockets: Epoll,
    counts: Counts,
}

impl Settings {
    /// The settings that a host's configuration says, with the key from its file. For an ordinary thread.
    ///
    /// # Errors
    /// The key cannot be used, or the hosts cannot vote.
    pub fn load(config: &QuorumConfig) -> Result<Self, QuorumError> {
        let key = Key::read(&config.key_file)?;
        let hosts = config.voters.iter().map(|voter| (voter.name.clone(), voter.address));
        Ok(Self::new(&config.cluster, &config.host, hosts, config.lease, config.gateway, key)?)
    }
}

impl Member {
    /// Binds this host's heartbeat address, and opens a socket to the gateway where there is one.
    ///
    /// The member does not vote for one lease: it may have granted anything before it was started.
    ///
    /// # Errors
    /// The address cannot be bound, or the gateway not be asked.
    pub fn open(settings: Settings) -> Result<Self, QuorumError> {
        let address = settings.host().address;
        let link = Link::open(address).map_err(|source| QuorumError::Bind { address, source })?;
        Self::with_link(settings, link)
    }

    /// As [`Member::open`], on a socket that is bound already.
    ///
    /// # Errors
    /// The gateway cannot be asked.
    pub fn adopt(settings: Settings, socket: UdpSocket) -> Result<Self, QuorumError> {
        Self::with_link(settings, Link::adopt(socket).map_err(QuorumError::System)?)
    }

    fn with_link(settings: Settings, link: Link) -> Result<Self, QuorumError> {
        let (now, epoch) = (clock(), epoch());
        let gateway = settings
            .gateway
            .map(|address| {
                let failed = |source| QuorumError::Gateway { gateway: address, source };
                Gateway::open(address, epoch, now).map_err(failed)
            })
            .transpose()?;
        let system = |error: nix::Error| QuorumError::System(error.into());
        let sockets = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(system)?;
        sockets.add(&link, EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(system)?;
        if let Some(gateway) = &gateway {
            sockets.add(gateway, EpollEvent::new(EpollFlags::EPOLLIN, 1)).map_err(system)?;
        }
        Ok(Self { node: Node::new(settings, epoch, now), link, gateway, sockets, counts: Counts::default() })
    }

    /// Makes room for a resource, so that claiming it allocates nothing.
    pub fn register(&mut self, resource: Resource) {
        self.node.register(resource);
    }

    /// The cluster file has changed. What is held stays held if enough of those who granted it are still hosts. The own
    /// address and the gateway are those of the start: where they change, a new member is needed.
    ///
    /// # Errors
    /// Gives the settings back if the host's name, its heartbeat address or the gateway is another.
    pub fn handle_settings(&mut self, settings: Settings, now: Instant) -> Result<(), Box<Settings>> {
        let (ours, theirs) = (self.node.settings.host(), settings.host());
        let same = ours.id == theirs.id && ours.address == theirs.address;
        if !same || self.node.settings.gateway != settings.gateway {
            return Err(Box::new(settings));
        }
        self.node.handle_settings(settings, now);
        self.flush();
        Ok(())
    }

    /// This host wants a resource, or wants it no more; then its address is gone already, or about to go to a successor, as
    /// the votes are free at once. What is wanted already stays as it is. `rank` is the effective VRRP priority: the higher
    /// comes first where several want.
    ///
    /// The answer comes by [`Member::poll_action`], perhaps at once. A claim that is lost has ended: want it again.
    pub fn want(&mut self, resource: Resource, wanted: bool, rank: u8, now: Instant) {
        self.node.handle_want(resource, wanted, rank, now);
        self.flush();
    }

    /// Whether a resource is this host's at `now`. For a thread that may have been stopped: ask before sending what only
    /// a holder may send.
    #[must_use]
    pub fn holds(&self, resource: Resource, now: Instant) -> bool {
        self.node.holds(resource, now)
    }

    /// Until when a resource is this host's, at least; none where it is not. For a guard of a thread that may be stopped.
    #[must_use]
    pub fn lease_end(&self, resource: Resource) -> Option<Instant> {
        self.node.lease_end(resource)
    }

    /// Reads what waits and answers it. Call it when [`Member::fd`] is readable, before [`Member::handle_timeout`].
    ///
    /// It reads the clock after each datagram: a vote counted from before the request had been sent would be free too soon.
    pub fn handle_readable(&mut self) {
        let mut buffer: Buffer = [0; LENGTH + 1];
        for _ in 0..AT_ONCE {
            match self.link.receive(&mut buffer) {
                Ok(Some(datagram)) => {
                    // Dropped ones are counted.
                    let _ = self.node.handle_datagram(datagram, clock());
                    self.flush();
                }
                Ok(None) => break,
                Err(_) => self.counts.receive_errors += 1,
            }
        }
        if let Some(sent) = self.gateway.as_ref().and_then(Gateway::receive) {
            self.counts.gateway_received += 1;
            self.node.handle_gateway(sent, clock());
            self.flush();
        }
    }

    /// A deadline of [`Member::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.node.handle_timeout(now);
        self.flush();
    }

    /// When [`Member::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.node.poll_timeout()
    }

    /// What has been granted or lost. Ask after each call of the other methods, until there is no more.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.node.poll_action()
    }

    /// Readable when there is something for [`Member::handle_readable`].
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.sockets.0.as_fd()
    }

    /// Shows this member in `state`, which allocates only the first time and when there are more hosts or claims.
    pub fn update_state(&self, state: &mut State, now: Instant) {
        state.update(&self.node, now);
        state.counts.send_errors = self.counts.send_errors;
        state.counts.receive_errors = self.counts.receive_errors;
        state.counts.gateway_sent = self.counts.gateway_sent;
        state.counts.gateway_received = self.counts.gateway_received;
    }

    fn flush(&mut self) {
        while let Some(transmit) = self.node.poll_transmit() {
            if self.link.send(&transmit.bytes, transmit.to).is_err() {
                self.counts.send_errors += 1;
            }
        }
        if self.node.poll_gateway()
            && let Some(gateway) = &mut self.gateway
        {
            self.counts.gateway_sent += 1;
            if gateway.ask(clock()).is_err() {
                self.counts.send_errors += 1;
            }
        }
    }
}

impl AsFd for Member {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

/// The monotonic clock, by which votes count.
#[expect(clippy::disallowed_methods, reason = "a member on a socket reads the clock for its machine")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}

/// The wall clock in microseconds: a number above those of earlier runs.
#[expect(clippy::disallowed_methods, reason = "only to number the runs of the program; no time is measured by it")]
fn epoch() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(1)
}
