//! Two to five hosts on one virtual clock and a network that delays, reorders, repeats and loses: who holds the addresses,
//! and for how long nobody or more than one does.
//!
//! The bounds that `check.rs` asserts after every event, with `I` the longest advertisement interval of the hosts, `S` the
//! longest skew (`I`, in VRRP 2 a second) and `D` the longest delay of the network:
//!
//! - **two masters** of one virtual router that can reach each other exist for at most `I + D` for each advertisement between
//!   them that is lost, and `I + D` more: the better one advertises every `I`, and the first advert that arrives ends it;
//! - **no master**: whenever a host is fit for longer than `3 I + S + D`, there was a master within its reach in that time:
//!   nothing but a master's advert extends the master-down interval. No loss changes this. A sync group that has just lost
//!   two races may wait for `20 I` more;
//! - **a second address**: a host that has handed over keeps its address until the first advert of a successor arrives, which
//!   is `D` after the takeover if that advert is not lost, and never longer than `S` and a margin of 10 ms;
//! - **half a group**: never;
//! - **two masters with a quorum**: never, however long the lost adverts and the cuts (see `quorum.rs`);
//! - **no address**: without loss, reordering, crashes and freezes a hand-over leaves no moment in which nobody has the address;
//! - **only a master of last resort**: the same as for no master, for hosts and masters whose brokers are there.

mod check;
mod faults;
mod network;
mod quorum;
mod scene;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use evermq_daemon::health::{HEALTH_BEAT, Health};
use evermq_vip::fsm::{Action, Advert, Settings, State};
use evermq_vip::routers::{Plan, Routers};
use evermq_vip::track::{self, LONGEST_HOLD, Tracker, Tracks, hold_down};

use self::check::{Linger, Rivals};
use self::network::What;
use self::quorum::Asks;
pub(crate) use self::scene::{Random, Scene};

/// Any configured priority: whether a host is fit does not depend on it.
const OWN: u8 = 100;
const LB_TIMEOUT: Duration = Duration::from_millis(300);

/// The program on one host. None of it outlives a crash.
struct Daemon {
    routers: Routers,
    tracker: Tracker,
    /// Connected to the lb.
    linked: bool,
    /// Told to stop: only the state machines still run, until their addresses are gone.
    stopping: bool,
    /// When the start delay is over.
    starts: Instant,
}

impl Daemon {
    /// What a connected lb says, or its death. One that is not connected is found by the tracker's own attempts.
    fn hear(&mut self, lb: Option<Health>, now: Instant) {
        match lb {
            Some(_) | None if self.stopping => {}
            Some(health) if self.linked => self.tracker.handle_health(health, now),
            None if self.linked => {
                self.linked = false;
                self.tracker.handle_lost(now);
            }
            Some(_) | None => {}
        }
    }
}

/// One virtual router on one host.
struct Seat {
    address: IpAddr,
    priority: u8,
    /// Its address is on the interface.
    holds: bool,
    /// It is, though the host has handed over.
    lingers: Option<Linger>,
    asks: Asks,
    /// When a master was last in its reach: any, and one with its configured priority.
    led: [Instant; 2],
}

struct Host {
    interval: Duration,
    /// None: crashed.
    daemon: Option<Daemon>,
    frozen: bool,
    /// What came while the daemon was frozen.
    backlog: Vec<(usize, Advert)>,
    /// None: the lb is dead.
    lb: Option<Health>,
    /// Which side of a cut network.
    side: u64,
    seats: Vec<Seat>,
    /// Has the permission.
    permitted: bool,
    /// Since when it may be master: at all, and with its configured priority.
    fit_since: [Option<Instant>; 2],
}

pub(crate) struct Sim {
    pub(crate) now: Instant,
    pub(crate) scene: Scene,
    random: Random,
    pub(crate) loss: u64,
    hosts: Vec<Host>,
    queue: BinaryHeap<Reverse<(Instant, u64, What)>>,
    queued: u64,
    /// For each pair of masters in reach of each other.
    rivals: Vec<Option<Rivals>>,
    pub(crate) moves: u64,
    pub(crate) faults: u64,
    /// Times that an address waited for a successor and one was on its way to be heard.
    pub(crate) overlaps: u64,
    /// The network takes the same time for every advert, and so keeps their order.
    pub(crate) ordered: bool,
    /// Somebody has the address at any time.
    pub(crate) covered: bool,
}

impl Sim {
    /// Two to five hosts that have just been started.
    pub(crate) fn new(scene: Scene, mut random: Random) -> Self {
        let count = 2 + random.below(4) as usize;
        #[expect(clippy::disallowed_methods, reason = "the virtual clock counts from some instant")]
        let now = Instant::now();
        let hosts = (0..count).map(|index| Host::new(&scene, index, count, now)).collect();
        let mut sim = Self {
            now,
            random,
            loss: 0,
            hosts,
            queue: BinaryHeap::new(),
            queued: 0,
            rivals: vec![None; count * count * scene.routers()],
            scene,
            moves: 0,
            faults: 0,
            overlaps: 0,
            ordered: false,
            covered: false,
        };
        for host in 0..count {
            sim.start(host);
            let first = Duration::from_micros(sim.random.below(100_000));
            sim.push(now + first, What::Beat(host));
        }
        sim
    }

    /// The same, from the seed of everything that is random.
    pub(crate) fn seeded(scene: Scene, seed: u64) -> Self {
        Self::new(scene, Random::seeded(seed))
    }

    pub(crate) fn start(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        // A restarted daemon removes what a killed one left, before anything else.
        for seat in &mut host.seats {
            seat.holds = false;
            seat.lingers = None;
            seat.asks = Asks::Nothing;
        }
        host.frozen = false;
        host.backlog.clear();
        let plan = |seat: &Seat| Plan {
            settings: Settings {
                address: seat.address,
                version: self.scene.version,
                interval: host.interval,
                preempt: self.scene.preempt,
                preempt_delay: self.scene.preempt_delay,
                start_delay: self.scene.start_delay,
                garp_repeat_delay: Duration::ZERO,
                garp_refresh: Duration::ZERO,
                peers: true,
                permission: self.scene.permission,
            },
            sync_group: self.scene.grouped.then(|| "g".to_owned()),
            keeps: None,
        };
        let plans: Vec<_> = host.seats.iter().map(plan).collect();
        let settings = track::Settings { lb_timeout: LB_TIMEOUT, hold_down: hold_down(host.interval) };
        host.daemon = Some(Daemon {
            routers: Routers::new(&plans, self.now),
            tracker: Tracker::new(settings, Tracks::new(&[]), self.now),
            linked: false,
            stopping: false,
            starts: self.now + self.scene.start_delay,
        });
        self.drain(index);
    }

    fn running(&mut self, index: usize) -> Option<&mut Daemon> {
        let host = &mut self.hosts[index];
        host.daemon.as_mut().filter(|_| !host.frozen)
    }

    pub(crate) fn is_running(&self, index: usize) -> bool {
        self.hosts[index].daemon.is_some()
    }

    fn is_master(&self, index: usize, router: usize) -> bool {
        let host = &self.hosts[index];
        !host.frozen && host.daemon.as_ref().is_some_and(|daemon| daemon.routers.state(router) == State::Master)
    }

    /// The hosts whose every virtual router is master.
    pub(crate) fn masters(&self) -> Vec<usize> {
        let all = |index: &usize| (0..self.scene.routers()).all(|router| self.is_master(*index, router));
        (0..self.hosts.len()).filter(all).collect()
    }

    pub(crate) fn holds(&self, index: usize) -> bool {
        self.hosts[index].seats.iter().any(|seat| seat.holds)
    }

    fn reach(&self, a: usize, b: usize) -> bool {
        self.hosts[a].side == self.hosts[b].side
    }

    /// Does what the machines of one host say, as the driver does.
    fn drain(&mut self, index: usize) {
        let now = self.now;
        let before = self.ranks(index);
        self.track(index);
        let Some(daemon) = self.running(index) else { return };
        let fit =
            [1, 2].map(|least| !daemon.stopping && daemon.tracker.standing().effective(OWN).priority >= Some(least));
        let starts = daemon.starts;
        let mut did = Vec::new();
        while let Some(action) = daemon.routers.poll_action() {
            did.push(action);
        }
        let host = &mut self.hosts[index];
        for (router, action) in &did {
            let seat = &mut host.seats[*router];
            match action {
                Action::AddAddress | Action::RemoveAddress => {
                    let hold = *action == Action::AddAddress;
                    assert_ne!(seat.holds, hold, "{}: the address was added or removed twice", seat.address);
                    seat.holds = hold;
                }
                Action::Moved(_) => self.moves += 1,
                Action::SendAdvert { .. } | Action::SendGarp | Action::Follows { .. } => {}
                Action::SeekPermission => seat.asks = Asks::Asking,
                Action::YieldPermission => seat.asks = Asks::Nothing,
            }
        }
        for (since, fit) in host.fit_since.iter_mut().zip(fit) {
            *since = if fit { since.or(Some(now.max(starts))) } else { None };
        }
        for router in 0..self.scene.routers() {
            let lingers = self.running(index).is_some_and(|daemon| daemon.routers.lingers(router));
            let seat = &mut self.hosts[index].seats[router];
            seat.lingers = if lingers { seat.lingers.or(Some(Linger { since: now, told: None })) } else { None };
        }
        if before != self.ranks(index) {
            self.forget_rivals(index);
        }
        for (router, action) in did {
            if let Action::SendAdvert { priority } = action {
                self.send(index, router, priority);
            }
        }
    }

    /// Does what the tracker of one host says.
    fn track(&mut self, index: usize) {
        let now = self.now;
        let (lb, crossed) = (self.hosts[index].lb, self.scene.crossed);
        let priorities: Vec<_> = self.hosts[index].seats.iter().map(|seat| seat.priority).collect();
        let Some(daemon) = self.running(index) else { return };
        while let Some(action) = daemon.tracker.poll_action() {
            match (action, lb) {
                (track::Action::Connect, Some(health)) => {
                    daemon.linked = true;
                    daemon.tracker.handle_connected(now);
                    daemon.tracker.handle_health(health, now);
                }
                (track::Action::Connect, None) => daemon.tracker.handle_lost(now),
                (track::Action::Part(_), _) => {}
                (track::Action::Standing(standing), _) => {
                    for (router, own) in priorities.iter().enumerate() {
                        let base = if crossed { *own } else { priorities[0] };
                        daemon.routers.handle_effective(router, standing.effective(base), now);
                    }
                }
            }
        }
    }

    /// SIGTERM: hands over, and ends when the addresses are gone.
    pub(crate) fn stop(&mut self, index: usize) {
        let now = self.now;
        if let Some(daemon) = self.running(index) {
            daemon.stopping = true;
            for router in 0..daemon.routers.len() {
                daemon.routers.handle_shutdown(router, now);
            }
            self.drain(index);
            self.end_if_done(index);
        }
    }

    fn end_if_done(&mut self, index: usize) {
        if self.running(index).is_some_and(|daemon| daemon.stopping && !daemon.routers.any_lingers()) {
            assert!(!self.holds(index), "a graceful stop leaves the address");
            self.crash(index);
        }
    }

    fn wake(&mut self, index: usize) {
        let now = self.now;
        let Some(daemon) = self.running(index) else { return };
        if !daemon.stopping {
            daemon.tracker.handle_timeout(now);
        }
        self.drain(index);
        if let Some(daemon) = self.running(index) {
            daemon.routers.handle_timeout(now);
        }
        self.drain(index);
        self.end_if_done(index);
    }
}

impl Host {
    fn new(scene: &Scene, index: usize, count: usize, now: Instant) -> Self {
        let seat = |router: usize| {
            let place = if router == 1 && scene.crossed { count - 1 - index } else { index } as u8;
            Seat {
                address: Ipv4Addr::new(10, 0, router as u8, place + 1).into(),
                priority: if scene.equal { 150 } else { 200 - 10 * place },
                holds: false,
                lingers: None,
                asks: Asks::Nothing,
                led: [now; 2],
            }
        };
        Self {
            interval: scene.intervals[index % scene.intervals.len()],
            daemon: None,
            frozen: false,
            backlog: Vec::new(),
            lb: Some(Health::Up),
            side: 0,
            seats: (0..scene.routers()).map(seat).collect(),
            permitted: false,
            fit_since: [None; 2],
        }
    }
}
