//! The real-time thread: owns the clock, the sockets and the two machines, and does what they say.
//!
//! One thread, one `ppoll`, no task. Everything that could make it wait (logs, clients of the control socket, systemd) is
//! the control thread's; see [`crate::report`].

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use crate::single::Single;
use evermq_config::vip::Adverts;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;

use crate::address::{AddressError, Addresses, Watch};
use crate::counters::Counters;
use crate::fsm::{self, Action, Fsm, State};
use crate::garp::Garp;
use crate::interface::Interface;
use crate::lb_link::{LbLink, Read};
use crate::packet::{self, DecodeError, Identity};
use crate::report::{Reporter, Trouble, What};
use crate::socket::{Buffer, Destinations, VrrpSocket};
use crate::track::{self, Tracker, hold_down};

/// Advertisements read before the other inputs get their turn: a flood must not silence our own.
const PACKETS_AT_ONCE: usize = 64;

/// Why the driver cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A socket for protocol 112 or for ARP was refused.
    #[error(
        "cannot open a raw socket on {interface}: {source}; run evermq-vip as root or with CAP_NET_RAW \
         (systemd: AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW; containers: --cap-add NET_ADMIN --cap-add NET_RAW)"
    )]
    RawSocket {
        /// The interface.
        interface: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The VIP cannot be moved.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Signals cannot be read.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] io::Error),
    /// Waiting failed.
    #[error("cannot wait for input: {0}")]
    Wait(#[source] io::Error),
}

/// Everything that the real-time thread works with.
#[derive(Debug)]
pub struct Driver {
    config: Single,
    interface: Interface,
    identity: Identity,
    fsm: Fsm,
    tracker: Tracker,
    vrrp: VrrpSocket,
    garp: Option<Garp>,
    addresses: Addresses,
    watch: Watch,
    lb: LbLink,
    signals: SignalFd,
    reporter: Reporter,
    counters: Arc<Counters>,
    packet: Buffer,
    /// Whether this program has put the VIP on the interface.
    holds: bool,
    /// Told to stop, and waiting for the successor: the lb's health moves nothing any more.
    stopping: bool,
}

/// Which inputs wait.
#[derive(Debug, Clone, Copy)]
struct Ready {
    vrrp: bool,
    address: bool,
    signal: bool,
    lb: bool,
}

/// Whether to go on.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Another,
    Last,
}

/// The signals that stop the program, blocked for the calling thread and those that it starts, to be read by the driver.
///
/// # Errors
/// The kernel refuses the descriptor.
pub fn take_signals() -> Result<SignalFd, DriverError> {
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTERM);
    stop.add(Signal::SIGINT);
    // These would end the program as well, but leave the VIP behind.
    stop.add(Signal::SIGHUP);
    stop.add(Signal::SIGQUIT);
    let take = || -> nix::Result<SignalFd> {
        stop.thread_block()?;
        SignalFd::with_flags(&stop, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
    };
    take().map_err(|error| DriverError::Signals(error.into()))
}

impl Driver {
    /// Opens every socket. The VIP must not be on any interface.
    ///
    /// # Errors
    /// A capability is missing.
    pub fn open(
        config: Single,
        interface: Interface,
        addresses: Addresses,
        signals: SignalFd,
        reporter: Reporter,
        counters: Arc<Counters>,
    ) -> Result<Self, DriverError> {
        let vip = &config.vip;
        let refused = |source| DriverError::RawSocket { interface: interface.name.clone(), source };
        let destinations = match vip.adverts {
            Adverts::Multicast => Destinations::Group,
            Adverts::Unicast => Destinations::Peers(config.peers.clone()),
        };
        let vrrp = VrrpSocket::open(&interface, config.address, destinations).map_err(refused)?;
        let garp = interface
            .mac
            .map(|mac| Garp::open(interface.index, mac, config.vip_address))
            .transpose()
            .map_err(refused)?;
        let identity = Identity { vrid: config.vrid, address: config.vip_address, interval: vip.advert_interval };
        let fsm = Fsm::new(fsm::Settings {
            address: config.address,
            interval: vip.advert_interval,
            preempt: vip.preempt,
            garp_repeat_delay: vip.garp_repeat_delay,
            // In the group there may be routers that the cluster file does not know.
            peers: vip.adverts == Adverts::Multicast || !config.peers.is_empty(),
        });
        let tracker = Tracker::new(
            track::Settings {
                priority: config.priority,
                lb_timeout: vip.lb_timeout,
                hold_down: hold_down(vip.advert_interval),
            },
            clock(),
        );
        Ok(Self {
            watch: Watch::open(config.vip_address)?,
            lb: LbLink::new(&config.lb_socket),
            config,
            interface,
            identity,
            fsm,
            tracker,
            vrrp,
            garp,
            addresses,
            signals,
            reporter,
            counters,
            packet: Buffer::default(),
            holds: false,
            stopping: false,
        })
    }

    /// Runs until SIGTERM or its like; then hands the VIP over, and takes it from the interface when the successor has it. A
    /// second signal ends that wait. After a failure the VIP goes at once.
    ///
    /// # Errors
    /// The VIP cannot be added, as when its interface is gone.
    pub fn run(mut self) -> Result<(), DriverError> {
        let outcome = self.work();
        if outcome.is_err() {
            // What could not be done must not be claimed: only the hand-over is sent.
            while self.fsm.poll_action().is_some() {}
        }
        self.stopping = true;
        self.fsm.handle_shutdown(clock());
        outcome.and(self.act(clock()))?;
        while self.fsm.lingers() && self.turn()? == Turn::Another {}
        // What is still held goes when this driver is dropped.
        Ok(())
    }

    fn work(&mut self) -> Result<(), DriverError> {
        self.act(clock())?;
        while self.turn()? == Turn::Another {}
        Ok(())
    }

    /// Waits, feeds the machines what there is, and does what they say.
    ///
    /// Inputs come before timeouts: after a pause of this program, what waits in the sockets is what it missed.
    fn turn(&mut self) -> Result<Turn, DriverError> {
        let ready = self.wait()?;
        let now = clock();
        if ready.signal && matches!(self.signals.read_signal(), Ok(Some(_))) {
            return Ok(Turn::Last);
        }
        if ready.vrrp {
            self.read_adverts(now);
        }
        if ready.lb {
            self.read_lb(now);
        }
        if ready.address {
            self.read_addresses(now)?;
        }
        if !self.stopping {
            if self.tracker.poll_timeout().is_some_and(|due| due <= now) {
                self.tracker.handle_timeout(now);
            }
            self.track(now);
        }
        if self.fsm.poll_timeout().is_some_and(|due| due <= now) {
            self.fsm.handle_timeout(now);
        }
        self.act(now)?;
        Ok(Turn::Another)
    }

    fn wait(&self) -> Result<Ready, DriverError> {
        let health = self.tracker.poll_timeout().filter(|_| !self.stopping);
        let deadline = [self.fsm.poll_timeout(), health].into_iter().flatten().min();
        let timeout = deadline.map(|deadline| TimeSpec::from(deadline.saturating_duration_since(clock())));
        let lb = self.lb.fd().filter(|_| !self.stopping);
        let mut fds = [
            PollFd::new(self.vrrp.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.watch.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            // Without an lb the slot stands for nothing.
            lb.map_or(PollFd::new(self.signals.as_fd(), PollFlags::empty()), |lb| PollFd::new(lb, PollFlags::POLLIN)),
        ];
        match ppoll(&mut fds, timeout, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(DriverError::Wait(error.into())),
        }
        // Errors and hang-ups count as input: reading tells what they are.
        let [vrrp, address, signal, lb_slot] = fds.map(|fd| fd.any().unwrap_or(false));
        Ok(Ready { vrrp, address, signal, lb: lb.is_some() && lb_slot })
    }

    fn read_adverts(&mut self, now: Instant) {
        for _ in 0..PACKETS_AT_ONCE {
            let packet = match self.vrrp.receive(&mut self.packet) {
                Ok(Some(packet)) => packet,
                Ok(None) => return,
                Err(error) => {
                    self.reporter.trouble(Trouble::Socket(error.raw_os_error().unwrap_or_default()), now);
                    return;
                }
            };
            match packet::decode(packet, &self.identity) {
                Ok(advert) => {
                    tracing::trace!(?advert, "received");
                    self.counters.advertisement_rcvd.count();
                    if advert.priority == 0 {
                        self.counters.priority_zero_pkts_rcvd.count();
                    }
                    if advert.interval != self.identity.interval {
                        self.counters.interval_errors.count();
                        let trouble = Trouble::Interval { source: advert.source, interval: advert.interval };
                        self.reporter.trouble(trouble, now);
                    }
                    self.fsm.handle_advert(advert, now);
                }
                Err(error) => {
                    tracing::trace!(%error, "discarded");
                    self.counters.discarded(error).count();
                    // Other virtual routers of this network are no trouble.
                    if !matches!(error, DecodeError::Vrid(_)) {
                        let source = packet::source(packet);
                        self.reporter.trouble(Trouble::Discarded { source, error }, now);
                    }
                }
            }
        }
    }

    fn read_lb(&mut self, now: Instant) {
        match self.lb.read() {
            Read::Health(health) => self.tracker.handle_health(health, now),
            Read::Lost => self.tracker.handle_lost(now),
            Read::Nothing => {}
        }
    }

    fn read_addresses(&mut self, now: Instant) -> Result<(), DriverError> {
        let removed = self.watch.removed().map_err(DriverError::Wait)?;
        // The notice may be of our own removal in an earlier state: what counts is what is there now.
        if removed && self.holds && !self.addresses.holders(self.config.vip_address)?.contains(&self.interface.index) {
            self.fsm.handle_address_lost(now);
            self.act(now)?;
            if self.holds {
                self.counters.address_restored.count();
                self.reporter.report(What::AddressRestored);
            }
        }
        Ok(())
    }

    /// Does what the tracker says.
    fn track(&mut self, now: Instant) {
        while let Some(action) = self.tracker.poll_action() {
            match action {
                track::Action::Connect => match self.lb.connect() {
                    Ok(()) => self.tracker.handle_connected(now),
                    Err(error) => {
                        tracing::trace!(%error, "lb not reached");
                        self.tracker.handle_lost(now);
                    }
                },
                track::Action::Effective(effective) => {
                    self.reporter.report(What::Effective(effective));
                    self.fsm.handle_effective(effective, now);
                }
            }
        }
    }

    /// Does what the state machine says.
    fn act(&mut self, now: Instant) -> Result<(), DriverError> {
        while let Some(action) = self.fsm.poll_action() {
            match action {
                Action::AddAddress => {
                    self.addresses.add(self.config.vip_address, self.config.prefix_length, self.interface.index)?;
                    self.holds = true;
                }
                Action::RemoveAddress => {
                    self.addresses.remove(self.config.vip_address, self.interface.index)?;
                    self.holds = false;
                }
                Action::SendGarp => self.send_garp(now),
                Action::SendAdvert { priority } => self.send_advert(priority, now),
                Action::Moved(transition) => {
                    if transition.to == State::Master {
                        self.counters.master_transitions.count();
                    }
                    self.reporter.report(What::Moved(transition));
                }
                Action::Follows { master } => self.reporter.report(What::Follows(master)),
            }
        }
        Ok(())
    }

    fn send_advert(&mut self, priority: u8, now: Instant) {
        match self.vrrp.send(&self.identity, priority) {
            Ok(()) => {
                tracing::trace!(priority, "sent");
                self.counters.advertisement_sent.count();
                if priority == 0 {
                    self.counters.priority_zero_pkts_sent.count();
                }
            }
            Err(error) => {
                self.counters.send_errors.count();
                self.reporter.trouble(Trouble::AdvertNotSent(error.raw_os_error().unwrap_or_default()), now);
            }
        }
    }

    fn send_garp(&mut self, now: Instant) {
        let Some(garp) = &self.garp else { return };
        let (sent, error) = garp.burst(self.config.vip.garp_count);
        self.counters.garp_sent.add(sent);
        if let Some(error) = error {
            self.counters.send_errors.count();
            self.reporter.trouble(Trouble::GarpNotSent(error.raw_os_error().unwrap_or_default()), now);
        }
    }
}

/// Even a panic does not leave the VIP behind.
impl Drop for Driver {
    fn drop(&mut self) {
        if self.holds
            && let Err(error) = self.addresses.remove(self.config.vip_address, self.interface.index)
        {
            tracing::error!(%error, "the VIP stays behind; remove it with evermq-vip --release");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the driver reads the clock for the machines")]
fn clock() -> Instant {
    Instant::now()
}
