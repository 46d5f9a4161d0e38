//! The real-time thread: owns the clock, the sockets and the machines of all virtual routers, and does what they say.
//!
//! One thread, one `ppoll`, no task. Everything that could make it wait (logs, clients of the control socket, files, other
//! programs, systemd) is the control thread's; see [`crate::report`] for what it tells that thread, and [`crate::mailbox`]
//! for what that thread tells it. Sockets are opened and memory is freed there as well: between two changes of the
//! configuration this thread allocates nothing.
//!
//! | file | subject |
//! |---|---|
//! | `instance.rs` | one virtual router's sockets and addresses |
//! | `polls.rs` | what `ppoll` waits for |
//! | `inputs.rs` | what comes in: advertisements, the lb's health, letters, signals |
//! | `links.rs` | what happens to interfaces and addresses |
//! | `actions.rs` | what the machines say |
//! | `quorum.rs` | the votes of the other hosts |
//! | `change.rs` | another configuration, sockets opened again |
//!
//! A virtual router lives in a *slot*, its place in every list of this thread, from the configuration that brought it to the
//! one that took it away and the end of its hand-over.

mod actions;
mod change;
mod inputs;
mod instance;
mod links;
mod polls;
mod quorum;

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use evermq_daemon::pulse::Beat;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

pub use self::change::{Change, Letter, Step};
pub use self::instance::Instance;
pub use self::links::TrackedLink;
use self::polls::{Polls, Source};
pub use self::quorum::Quorum;
use crate::address::{AddressError, Addresses};
use crate::fsm::Settings;
use crate::guard::keeper::Line;
use crate::interface::InterfaceError;
use crate::lb_link::LbLink;
use crate::link::{Links, Watch};
use crate::mailbox::Mailbox;
use crate::report::Reporter;
use crate::routers::{Plan, Routers};
use crate::socket::Buffer;
use crate::takeover::Takeover;
use crate::track::Tracker;
use crate::virtual_mac::VirtualMacError;

/// Why the driver cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A socket for protocol 112 or for announcements was refused.
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
    /// Advertisements over IPv6 have no source.
    #[error(
        "interface {interface} has no IPv6 link-local address, the source of advertisements; switch IPv6 on there \
         (net.ipv6.conf.{interface}.disable_ipv6 = 0), or give the hosts `address6`"
    )]
    NoLinkLocal {
        /// The interface.
        interface: String,
    },
    /// There is no interface for the virtual MAC.
    #[error(transparent)]
    VirtualMac(#[from] VirtualMacError),
    /// There is no interface for a virtual router.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
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

/// What the real-time thread is built of, beside the virtual routers.
#[derive(Debug)]
pub struct Parts {
    /// Changes addresses.
    pub addresses: Addresses,
    /// See [`take_signals`].
    pub signals: SignalFd,
    /// To the control thread.
    pub reporter: Reporter,
    /// From the control thread.
    pub mailbox: Mailbox<Letter>,
    /// To the guard; none where it could not be started.
    pub guard: Option<Box<Line>>,
    /// Whose consent the VIP needs; none where it needs none.
    pub quorum: Option<Quorum>,
    /// Tells clients that the VIP has moved here; none where that is switched off.
    pub takeover: Option<Takeover>,
    /// The tracks that are interfaces.
    pub tracked_links: Vec<TrackedLink>,
    /// Judges the local lb and the tracks.
    pub tracker: Tracker,
    /// Counts the thread's turns.
    pub beat: Beat,
    /// A turn at least this often, also where nothing happens.
    pub beat_every: Option<Duration>,
}

/// Everything that the real-time thread works with.
#[derive(Debug)]
pub struct Driver {
    instances: Vec<Option<Box<Instance>>>,
    routers: Routers,
    /// What the machine of each slot was told last, also of one that is empty.
    settings: Vec<Settings>,
    parts: Parts,
    lb: LbLink,
    watch: Watch,
    links: Links,
    polls: Polls,
    packet: Buffer,
    /// The control thread was told to start another guard.
    guard_lost: bool,
    /// Told to stop, and waiting for the successors: the lb's health moves nothing any more.
    stopping: bool,
}

/// Whether to go on.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Another,
    Last,
}

/// The signals that stop or reload the program, blocked for the calling thread and those that it starts, to be read by the
/// driver.
///
/// # Errors
/// The kernel refuses the descriptor.
pub fn take_signals() -> Result<SignalFd, DriverError> {
    let mut taken = SigSet::empty();
    taken.add(Signal::SIGTERM);
    taken.add(Signal::SIGINT);
    taken.add(Signal::SIGHUP);
    // It would end the program as well, but leave the VIP behind.
    taken.add(Signal::SIGQUIT);
    let take = || -> nix::Result<SignalFd> {
        taken.thread_block()?;
        SignalFd::with_flags(&taken, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
    };
    take().map_err(|error| DriverError::Signals(error.into()))
}

impl Driver {
    /// A driver of these virtual routers, in the slots 0 and up. Their addresses must not be on any interface.
    ///
    /// # Errors
    /// The kernel refuses a netlink socket.
    pub fn open(instances: Vec<Instance>, lb_socket: &Path, parts: Parts) -> Result<Self, DriverError> {
        let plan = |instance: &Instance| Plan {
            settings: instance.settings,
            sync_group: instance.router.sync_group.clone(),
            keeps: None,
        };
        let plans: Vec<_> = instances.iter().map(plan).collect();
        let mut driver = Self {
            instances: Vec::with_capacity(instances.len()),
            routers: Routers::new(&plans, clock()),
            settings: plans.iter().map(|plan| plan.settings).collect(),
            parts,
            lb: LbLink::new(lb_socket),
            watch: Watch::open()?,
            links: Links::open()?,
            polls: Polls::default(),
            packet: Buffer::default(),
            guard_lost: false,
            stopping: false,
        };
        for (slot, instance) in instances.into_iter().enumerate() {
            driver.add(slot, Box::new(instance));
        }
        Ok(driver)
    }

    /// Runs until SIGTERM or its like; then hands the VIPs over, and takes each from its interface when the successor has
    /// it. A second signal ends that wait. After a failure the VIPs go at once.
    ///
    /// # Errors
    /// The kernel breaks a socket that nothing works without.
    pub fn run(mut self) -> Result<(), DriverError> {
        let outcome = self.work();
        if outcome.is_err() {
            // What could not be done must not be claimed: only the hand-over is sent.
            while self.routers.poll_action().is_some() {}
        }
        self.stopping = true;
        let now = clock();
        for slot in 0..self.instances.len() {
            self.routers.handle_shutdown(slot, now);
        }
        self.act(clock());
        outcome?;
        while self.routers.any_lingers() && self.turn()? == Turn::Another {}
        // What is still held goes when this driver is dropped.
        Ok(())
    }

    fn work(&mut self) -> Result<(), DriverError> {
        let now = clock();
        self.look(now);
        self.check_links(now);
        self.track(now);
        self.act(now);
        while self.turn()? == Turn::Another {}
        Ok(())
    }

    /// Waits, feeds the machines what there is, and does what they say.
    ///
    /// Inputs come before timeouts: after a pause of this program, what waits in the sockets is what it missed.
    fn turn(&mut self) -> Result<Turn, DriverError> {
        self.wait()?;
        self.parts.beat.count();
        let now = clock();
        if let Some(guard) = &self.parts.guard {
            guard.beat(now, self.lease_end());
        }
        let mut votes = false;
        for index in 0..self.polls.len() {
            match self.polls.ready(index) {
                None => {}
                Some(Source::Signals) if self.read_signals() == Turn::Last => return Ok(Turn::Last),
                Some(Source::Signals) => {}
                Some(Source::Adverts(slot)) => self.read_adverts(slot, now),
                Some(Source::Quorum) => votes = true,
                Some(Source::Claims(slot)) => self.read_claims(slot, now),
                Some(Source::Lb) => self.read_lb(now),
                Some(Source::Watch) => self.read_watch(now)?,
                Some(Source::Mailbox) => self.read_letters(now),
                Some(Source::Guard) => self.lose_guard(),
            }
        }
        // A lease that has run out ends before anything is said by it.
        self.vote(votes, now);
        self.settle(now);
        if !self.stopping {
            if self.parts.tracker.poll_timeout().is_some_and(|due| due <= now) {
                self.parts.tracker.handle_timeout(now);
            }
            self.track(now);
        }
        if self.routers.poll_timeout().is_some_and(|due| due <= now) {
            self.routers.handle_timeout(now);
        }
        self.act(now);
        self.retire();
        Ok(Turn::Another)
    }

    fn wait(&mut self) -> Result<(), DriverError> {
        self.polls.clear();
        self.polls.add(Source::Signals, &self.parts.signals);
        self.polls.add(Source::Watch, &self.watch);
        self.polls.add(Source::Mailbox, &self.parts.mailbox);
        if let Some(lb) = self.lb.fd().filter(|_| !self.stopping) {
            self.polls.add(Source::Lb, &lb);
        }
        if let Some(quorum) = &self.parts.quorum {
            self.polls.add(Source::Quorum, &quorum.member);
        }
        if let Some(guard) = self.parts.guard.as_ref().filter(|_| !self.guard_lost) {
            self.polls.add(Source::Guard, guard.as_ref());
        }
        for (slot, instance) in self.instances.iter().enumerate() {
            if let Some(instance) = instance.as_deref().filter(|instance| instance.is_reachable()) {
                self.polls.add(Source::Adverts(slot), &instance.vrrp);
                self.polls.add(Source::Claims(slot), &instance.conflicts);
            }
        }
        let health = self.parts.tracker.poll_timeout().filter(|_| !self.stopping);
        let settled = self.instances.iter().flatten().filter_map(|instance| instance.settles());
        let votes = self.parts.quorum.as_ref().and_then(|quorum| quorum.member.poll_timeout());
        let due = [self.routers.poll_timeout(), health, votes].into_iter().flatten().chain(settled).min();
        let wait = due.map(|due| due.saturating_duration_since(clock()));
        self.polls.wait(wait.into_iter().chain(self.parts.beat_every).min()).map_err(DriverError::Wait)
    }
}

/// Even a panic does not leave a VIP behind.
impl Drop for Driver {
    fn drop(&mut self) {
        for (slot, instance) in self.instances.iter_mut().enumerate() {
            let Some(instance) = instance.as_deref_mut().filter(|instance| instance.held) else { continue };
            if let Err(error) = instance.take_down(&mut self.parts.addresses) {
                tracing::error!(%error, "the VIP stays behind; remove it with evermq-vip --release");
            } else if let Some(guard) = &mut self.parts.guard {
                guard.released(slot);
            }
        }
    }
}

/// The kernel's answer, as a number.
fn errno(error: &AddressError) -> i32 {
    match error {
        AddressError::Open(source) | AddressError::Refused { source, .. } => source.raw_os_error().unwrap_or_default(),
        AddressError::NotPermitted => nix::libc::EPERM,
        AddressError::NoIpv6 { .. } => nix::libc::EAFNOSUPPORT,
        AddressError::Duplicate { .. } => nix::libc::EADDRINUSE,
    }
}

fn is_among(addresses: &[IpAddr], address: IpAddr) -> bool {
    addresses.contains(&address)
}

#[expect(clippy::disallowed_methods, reason = "the driver reads the clock for the machines")]
fn clock() -> Instant {
    Instant::now()
}
