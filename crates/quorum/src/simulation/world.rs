//! Hosts with clocks that run apart, and a network that loses, delays, reorders, repeats and cuts.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use evermq_config::{ClusterName, HostName};

use super::random::Random;
use crate::key::Key;
use crate::membership::Settings;
use crate::message::{Bytes, Resource};
use crate::node::{Action, Node};

pub(super) const LEASE: Duration = Duration::from_millis(200);
pub(super) const VIP: Resource = Resource::new(false, 51);
/// A driver wakes up at most so late, and its address is gone at most so much later.
const LATEST_WAKE: u64 = 2_000;

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A cluster in virtual time.
pub(super) struct World {
    pub(super) now: Duration,
    start: Instant,
    pub(super) hosts: Vec<SimHost>,
    network: BinaryHeap<Reverse<Flight>>,
    flights: u64,
    pub(super) random: Random,
    /// Of 100 datagrams, how many are lost.
    pub(super) loss: u64,
    /// The longest way through the network, in microseconds.
    pub(super) delay: u64,
    /// Datagrams arrive out of order and twice.
    pub(super) messy: bool,
    /// Pairs that do not hear each other.
    cut: Vec<(usize, usize)>,
    pub(super) gateway: bool,
    epoch: u64,
    /// Times at which a second holder was seen, and all changes.
    pub(super) overlaps: Vec<Duration>,
    pub(super) history: Vec<(Duration, usize, bool)>,
}

pub(super) struct SimHost {
    /// None while it is down.
    pub(super) node: Option<Node>,
    /// Parts per million by which its clock is fast.
    drift: i64,
    pub(super) rank: u8,
    /// Whether it always wants the VIP.
    pub(super) candidate: bool,
    /// Wants it again at this time, after it was lost or given away.
    wants_at: Duration,
    pub(super) paused: bool,
    /// Its driver sleeps until then.
    wakes_at: Option<Duration>,
    /// What arrived while it was paused.
    inbox: Vec<Bytes>,
    /// Its driver was told that the VIP is its own.
    pub(super) holding: bool,
    pub(super) reaches_gateway: bool,
    gateway_pings: Vec<Duration>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    arrives: Duration,
    order: u64,
    from: usize,
    to: usize,
    bytes: Bytes,
}

impl World {
    /// `hosts` hosts of which the first `candidates` want the VIP; the first has the highest rank.
    #[expect(clippy::disallowed_methods, reason = "a simulation needs some instant to count from")]
    pub(super) fn new(seed: u64, hosts: usize, candidates: usize, gateway: bool) -> Self {
        let mut random = Random::new(seed);
        let hosts = (0..hosts).map(|index| SimHost {
            node: None,
            drift: i64::try_from(random.below(10_000)).unwrap() - 5_000,
            rank: 150 - u8::try_from(index).unwrap() * 10,
            candidate: index < candidates,
            wants_at: Duration::ZERO,
            paused: false,
            wakes_at: None,
            inbox: Vec::new(),
            holding: false,
            reaches_gateway: true,
            gateway_pings: Vec::new(),
        });
        let mut world = Self {
            now: Duration::ZERO,
            // Far from the clock's beginning, so that fast and slow clocks have room.
            start: Instant::now() + Duration::from_secs(1000),
            hosts: hosts.collect(),
            network: BinaryHeap::new(),
            flights: 0,
            random,
            loss: 0,
            delay: 300,
            messy: false,
            cut: Vec::new(),
            gateway,
            epoch: 1_000_000,
            overlaps: Vec::new(),
            history: Vec::new(),
        };
        (0..world.hosts.len()).for_each(|host| world.start_host(host));
        world
    }

    pub(super) fn settings(&self, own: usize) -> Settings {
        let name = |index: usize| HostName::new(&format!("h{index}")).unwrap();
        let hosts = (0..self.hosts.len()).map(|index| (name(index), ([10, 0, 0, 1], 1000 + index as u16).into()));
        let gateway = self.gateway.then_some([10, 0, 0, 254].into());
        let key = Key::new(&[5; 32]).unwrap();
        Settings::new(&ClusterName::new("sim").unwrap(), &name(own), hosts, LEASE, gateway, key).unwrap()
    }

    pub(super) fn start_host(&mut self, host: usize) {
        // Now and then the wall clock went back before a start.
        self.epoch = if self.random.below(4) == 0 { self.epoch - 7 } else { self.epoch + 1_000 };
        let node = Node::new(self.settings(host), self.epoch, self.local(host));
        self.hosts[host].node = Some(node);
        self.hosts[host].wants_at = self.now;
        self.after(host);
    }

    /// Killed; its address is gone too.
    pub(super) fn stop_host(&mut self, host: usize) {
        self.set_holding(host, false);
        let sim = &mut self.hosts[host];
        (sim.node, sim.paused, sim.wakes_at) = (None, false, None);
        sim.inbox.clear();
    }

    pub(super) fn pause(&mut self, host: usize) {
        self.hosts[host].paused = self.hosts[host].node.is_some();
    }

    /// As a driver does: inputs, then timeouts, then what follows.
    pub(super) fn resume(&mut self, host: usize) {
        if !self.hosts[host].paused {
            return;
        }
        for bytes in std::mem::take(&mut self.hosts[host].inbox) {
            self.deliver(host, &bytes);
        }
        self.wake(host);
        // All of that was one turn, before whose end its driver does nothing.
        self.hosts[host].paused = false;
        self.look();
    }

    pub(super) fn cut(&mut self, one: usize, other: usize) {
        self.cut.push((one, other));
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.hosts.iter_mut().for_each(|host| host.reaches_gateway = true);
    }

    /// The driver gives the VIP away, as for a planned handover, and wants it again after `pause`.
    pub(super) fn give_away(&mut self, host: usize, pause: Duration) {
        let (now, wants_at) = (self.local(host), self.now + pause);
        if self.hosts[host].paused {
            return;
        }
        if let Some(node) = &mut self.hosts[host].node {
            node.handle_want(VIP, false, 0, now);
            self.hosts[host].wants_at = wants_at;
            self.set_holding(host, false);
            self.after(host);
        }
    }

    pub(super) fn holder(&self) -> Option<usize> {
        self.hosts.iter().position(|host| host.holding && !host.paused)
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Until someone holds the VIP; how long that took.
    pub(super) fn run_until_held(&mut self, patience: Duration) -> Option<Duration> {
        let (begin, end) = (self.now, self.now + patience);
        while self.holder().is_none() {
            if !self.step(end) {
                return None;
            }
        }
        Some(self.now - begin)
    }

    /// The next event, if there is one before `end`.
    fn step(&mut self, end: Duration) -> bool {
        let arrival = self.network.peek().map(|Reverse(flight)| flight.arrives);
        let wake = (0..self.hosts.len()).filter_map(|host| Some((self.due(host)?, host))).min();
        match (arrival, wake) {
            (Some(at), wake) if at <= end && wake.is_none_or(|(due, _)| at <= due) => {
                self.now = self.now.max(at);
                if let Some(Reverse(flight)) = self.network.pop() {
                    self.arrive(&flight);
                }
                true
            }
            (_, Some((due, host))) if due <= end => {
                self.now = self.now.max(due);
                self.wake(host);
                true
            }
            (_, _) => false,
        }
    }

    /// When `host`'s driver does something by itself.
    fn due(&self, host: usize) -> Option<Duration> {
        let sim = &self.hosts[host];
        sim.node.as_ref().filter(|_| !sim.paused)?;
        let wants = (sim.candidate && !sim.holding && sim.wants_at > self.now).then_some(sim.wants_at);
        [sim.wakes_at, wants].into_iter().flatten().min()
    }

    fn wake(&mut self, host: usize) {
        let now = self.local(host);
        self.hosts[host].wakes_at = None;
        if let Some(node) = &mut self.hosts[host].node {
            if node.poll_timeout().is_some_and(|due| due <= now) {
                node.handle_timeout(now);
            }
            self.after(host);
        }
    }

    fn arrive(&mut self, flight: &Flight) {
        let (one, other) = (flight.from.min(flight.to), flight.from.max(flight.to));
        if self.cut.contains(&(one, other)) {
            return;
        }
        if self.hosts[flight.to].paused {
            self.hosts[flight.to].inbox.push(flight.bytes);
        } else {
            self.deliver(flight.to, &flight.bytes);
        }
    }

    fn deliver(&mut self, host: usize, bytes: &Bytes) {
        let now = self.local(host);
        if let Some(node) = &mut self.hosts[host].node {
            let _ = node.handle_datagram(bytes, now);
            self.after(host);
        }
    }

    /// What a driver does after each input.
    fn after(&mut self, host: usize) {
        let local = self.local(host);
        let wants = self.hosts[host].candidate && self.hosts[host].wants_at <= self.now;
        let rank = self.hosts[host].rank;
        let Some(mut node) = self.hosts[host].node.take() else { return };
        let mut actions = Vec::new();
        actions.extend(std::iter::from_fn(|| node.poll_action()));
        if actions.iter().any(|action: &Action| !action.granted) {
            self.hosts[host].wants_at = self.now + ms(30);
        } else if wants {
            node.handle_want(VIP, true, rank, local);
            actions.extend(std::iter::from_fn(|| node.poll_action()));
        }
        while let Some(transmit) = node.poll_transmit() {
            self.send(host, usize::from(transmit.to.port() - 1000), transmit.bytes);
        }
        if node.poll_gateway() && self.hosts[host].reaches_gateway {
            node.handle_gateway(local, local);
            actions.extend(std::iter::from_fn(|| node.poll_action()));
            self.hosts[host].gateway_pings.push(self.now);
        }
        let due = node.poll_timeout();
        self.hosts[host].node = Some(node);
        for action in actions {
            self.set_holding(host, action.granted);
        }
        let late = Duration::from_micros(self.random.below(LATEST_WAKE));
        self.hosts[host].wakes_at = due.map(|due| self.global(host, due).max(self.now) + late);
        self.look();
    }

    fn set_holding(&mut self, host: usize, holding: bool) {
        if std::mem::replace(&mut self.hosts[host].holding, holding) != holding {
            self.history.push((self.now, host, holding));
        }
    }

    /// Counts holders: a running one until its driver was told, a stopped one until its guard sees the lease's end.
    fn look(&mut self) {
        let holds = |(index, host): (usize, &SimHost)| {
            let leased = || host.node.as_ref().is_some_and(|node| node.holds(VIP, self.local(index)));
            host.holding && (!host.paused || leased())
        };
        if self.hosts.iter().enumerate().filter(|host| holds(*host)).count() > 1 {
            self.overlaps.push(self.now);
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: Bytes) {
        let copies = if self.messy && self.random.below(10) == 0 { 2 } else { 1 };
        for _ in 0..copies {
            if self.random.below(100) < self.loss {
                continue;
            }
            let mut micros = 50 + self.random.below(self.delay.max(1));
            if self.messy && self.random.below(20) == 0 {
                // Now and then far behind, even beyond leases and restarts.
                micros += self.random.below(900_000);
            }
            self.flights += 1;
            let arrives = self.now + Duration::from_micros(micros);
            self.network.push(Reverse(Flight { arrives, order: self.flights, from, to, bytes }));
        }
    }

    /// What `host`'s clock shows.
    fn local(&self, host: usize) -> Instant {
        let micros = i64::try_from(self.now.as_micros()).unwrap();
        let apart = micros * self.hosts[host].drift / 1_000_000;
        self.start + Duration::from_micros((micros + apart).unsigned_abs())
    }

    /// When `host`'s clock shows that, or just after.
    fn global(&self, host: usize, local: Instant) -> Duration {
        let micros = i64::try_from(local.saturating_duration_since(self.start).as_micros()).unwrap();
        Duration::from_micros((micros * 1_000_000 / (1_000_000 + self.hosts[host].drift)).unsigned_abs() + 2)
    }
}
