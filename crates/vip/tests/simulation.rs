//! Two to five hosts on one virtual clock and a network that delays, reorders, repeats and loses: who holds the VIP, and for
//! how long nobody or more than one does.
//!
//! The stated bounds, with `I` the advertisement interval and `D` the longest delay of the network:
//!
//! - **two masters** that can reach each other exist for at most `I + D` for each advertisement between them that is lost,
//!   and `I + D` more: the better one advertises every `I`, and the first advert that arrives ends it;
//! - **no master**: whenever a host is fit for longer than `4 I + D`, there was a master within its reach in that time:
//!   the master-down interval is at most `3 I + I`, and nothing but a master's advert extends it. No loss changes this;
//! - **a second address**: a host that has handed over keeps its address until the first advert of a successor arrives, which
//!   is `D` after the takeover if that advert is not lost, and never longer than `I` and a margin of 10 ms;
//! - **no address**: without loss, reordering, crashes and freezes a hand-over leaves no moment in which nobody has the address;
//! - **only a master of last resort**: the same for hosts and masters whose brokers are there.
//!
//! `EVERMQ_SIM_HISTORIES` sets how many histories run, `EVERMQ_SIM_SEED` where they start.

#![expect(clippy::disallowed_methods, reason = "the virtual clock counts from some instant")]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use evermq_daemon::health::{HEALTH_BEAT, Health};
use evermq_vip::fsm::{self, Action, Advert, Fsm, State};
use evermq_vip::track::{self, LAST_RESORT, LONGEST_HOLD, Tracker, hold_down};

const INTERVAL: Duration = Duration::from_millis(20);
const LONGEST_DELAY: Duration = Duration::from_millis(2);
const NO_MASTER: Duration = Duration::from_millis(20 * 4 + 2);
const LONGEST_LINGER: Duration = Duration::from_millis(20 + 10);
const LB_TIMEOUT: Duration = Duration::from_millis(300);
const FAULTS: Duration = Duration::from_secs(5);

/// SplitMix64: enough for histories, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// The program on one host. None of it outlives a crash.
struct Daemon {
    fsm: Fsm,
    tracker: Tracker,
    /// Connected to the lb.
    linked: bool,
    /// Told to stop: only the state machine still runs, until its address is gone.
    stopping: bool,
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

struct Host {
    address: Ipv4Addr,
    priority: u8,
    /// None: crashed.
    daemon: Option<Daemon>,
    frozen: bool,
    /// What came while the daemon was frozen.
    backlog: Vec<Advert>,
    /// None: the lb is dead.
    lb: Option<Health>,
    /// Which side of a cut network.
    side: u64,
    /// The VIP is on the interface.
    holds: bool,
    /// It is, though the host has handed over.
    lingers: Option<Linger>,
    /// Since when it may be master: at all, and with its configured priority.
    fit_since: [Option<Instant>; 2],
}

/// An address that waits for a successor.
#[derive(Debug, Clone, Copy)]
struct Linger {
    since: Instant,
    /// When the first advert of a master arrives, once one is on its way.
    told: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Deliver { to: usize, from: usize, priority: u8 },
    Beat(usize),
    Fault,
}

struct Sim {
    now: Instant,
    random: Random,
    preempt: bool,
    loss: u64,
    hosts: Vec<Host>,
    queue: BinaryHeap<Reverse<(Instant, u64, What)>>,
    queued: u64,
    /// When a master was last in reach of each host: any, and one with its configured priority.
    led: Vec<[Instant; 2]>,
    /// For each pair of masters in reach of each other: since when, and adverts lost between them.
    rivals: Vec<Option<(Instant, u32)>>,
    moves: u64,
    /// Times that an address waited for a successor and one was on its way to be heard.
    overlaps: u64,
    /// The network keeps order, and somebody has the address at any time.
    covered: bool,
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let count = 2 + random.below(4) as usize;
        let preempt = random.chance(50);
        let equal = random.chance(20);
        let now = Instant::now();
        let hosts = (0..count)
            .map(|index| Host {
                address: Ipv4Addr::new(10, 0, 0, index as u8 + 1),
                priority: if equal { 150 } else { 200 - 10 * index as u8 },
                daemon: None,
                frozen: false,
                backlog: Vec::new(),
                lb: Some(Health::Up),
                side: 0,
                holds: false,
                lingers: None,
                fit_since: [None; 2],
            })
            .collect();
        let mut sim = Self {
            now,
            random,
            preempt,
            loss: 0,
            hosts,
            queue: BinaryHeap::new(),
            queued: 0,
            led: vec![[now; 2]; count],
            rivals: vec![None; count * count],
            moves: 0,
            overlaps: 0,
            covered: false,
        };
        for host in 0..count {
            sim.start(host);
            let first = Duration::from_micros(sim.random.below(100_000));
            sim.push(now + first, What::Beat(host));
        }
        sim
    }

    fn push(&mut self, at: Instant, what: What) {
        self.queued += 1;
        self.queue.push(Reverse((at, self.queued, what)));
    }

    fn start(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        // A restarted daemon removes what a killed one left, before anything else.
        host.holds = false;
        host.lingers = None;
        host.frozen = false;
        host.backlog.clear();
        let fsm = Fsm::new(fsm::Settings {
            address: host.address,
            interval: INTERVAL,
            preempt: self.preempt,
            garp_repeat_delay: Duration::ZERO,
            peers: true,
        });
        let settings =
            track::Settings { priority: host.priority, lb_timeout: LB_TIMEOUT, hold_down: hold_down(INTERVAL) };
        host.daemon = Some(Daemon { fsm, tracker: Tracker::new(settings, self.now), linked: false, stopping: false });
        self.drain(index);
    }

    fn running(&mut self, index: usize) -> Option<&mut Daemon> {
        let host = &mut self.hosts[index];
        host.daemon.as_mut().filter(|_| !host.frozen)
    }

    fn is_master(&self, index: usize) -> bool {
        let host = &self.hosts[index];
        !host.frozen && host.daemon.as_ref().is_some_and(|daemon| daemon.fsm.state() == State::Master)
    }

    fn rank(&self, index: usize) -> (Option<u8>, Ipv4Addr) {
        let host = &self.hosts[index];
        (host.daemon.as_ref().and_then(|daemon| daemon.tracker.effective().priority), host.address)
    }

    fn reach(&self, a: usize, b: usize) -> bool {
        self.hosts[a].side == self.hosts[b].side
    }

    /// Does what the machines of one host say, as the driver does.
    fn drain(&mut self, index: usize) {
        let now = self.now;
        let lb = self.hosts[index].lb;
        let rank = self.rank(index);
        let Some(daemon) = self.running(index) else { return };
        while let Some(action) = daemon.tracker.poll_action() {
            match (action, lb) {
                (track::Action::Connect, Some(health)) => {
                    daemon.linked = true;
                    daemon.tracker.handle_connected(now);
                    daemon.tracker.handle_health(health, now);
                }
                (track::Action::Connect, None) => daemon.tracker.handle_lost(now),
                (track::Action::Effective(effective), _) => daemon.fsm.handle_effective(effective, now),
            }
        }
        let fit = [1, 2].map(|least| !daemon.stopping && daemon.tracker.effective().priority >= Some(least));
        let mut adverts = Vec::new();
        let mut holds = Vec::new();
        let mut moves = 0;
        while let Some(action) = daemon.fsm.poll_action() {
            match action {
                Action::AddAddress => holds.push(true),
                Action::RemoveAddress => holds.push(false),
                Action::SendAdvert { priority } => adverts.push(priority),
                Action::Moved(_) => moves += 1,
                Action::SendGarp | Action::Follows { .. } => {}
            }
        }
        let lingers = daemon.fsm.lingers();
        self.moves += moves;
        let host = &mut self.hosts[index];
        for hold in holds {
            assert_ne!(host.holds, hold, "{}: the address was added or removed twice", host.address);
            host.holds = hold;
        }
        host.lingers = if lingers { host.lingers.or(Some(Linger { since: now, told: None })) } else { None };
        for (since, fit) in host.fit_since.iter_mut().zip(fit) {
            *since = if fit { since.or(Some(now)) } else { None };
        }
        if rank != self.rank(index) {
            self.forget_rivals(index);
        }
        for priority in adverts {
            self.send(index, priority);
        }
    }

    fn send(&mut self, from: usize, priority: u8) {
        for to in (0..self.hosts.len()).filter(|to| *to != from) {
            if !self.reach(from, to) {
                continue;
            }
            if self.random.chance(self.loss) {
                for pair in [from * self.hosts.len() + to, to * self.hosts.len() + from] {
                    if let Some((_, lost)) = &mut self.rivals[pair] {
                        *lost += 1;
                    }
                }
                continue;
            }
            let copies = if self.random.chance(1) { 2 } else { 1 };
            for _ in 0..copies {
                let random = Duration::from_nanos(self.random.below(LONGEST_DELAY.as_nanos() as u64));
                // An advert that comes after the priority 0 it was sent before makes the successor wait for the silence.
                let delay = if self.covered { LONGEST_DELAY } else { random };
                let arrives = self.now + delay;
                if priority > 0
                    && let Some(Linger { told, .. }) = &mut self.hosts[to].lingers
                {
                    self.overlaps += u64::from(told.is_none());
                    *told = Some(told.map_or(arrives, |told| told.min(arrives)));
                }
                self.push(arrives, What::Deliver { to, from, priority });
            }
        }
    }

    fn forget_rivals(&mut self, index: usize) {
        let count = self.hosts.len();
        for other in 0..count {
            self.rivals[index * count + other] = None;
            self.rivals[other * count + index] = None;
        }
    }

    /// Runs until `end`.
    fn run(&mut self, end: Instant) {
        loop {
            let timer = (0..self.hosts.len())
                .filter_map(|index| {
                    let daemon = self.running(index)?;
                    let health = daemon.tracker.poll_timeout().filter(|_| !daemon.stopping);
                    let due = [daemon.fsm.poll_timeout(), health].into_iter().flatten().min()?;
                    Some((due, index))
                })
                .min();
            let queued = self.queue.peek().map(|Reverse((at, ..))| *at);
            let Some(at) = [timer.map(|(due, _)| due), queued].into_iter().flatten().min().filter(|at| *at <= end)
            else {
                break;
            };
            self.now = self.now.max(at);
            // Whoever was master until this moment counts until this moment.
            self.check();
            if queued.is_some_and(|queued| queued <= at) {
                let Reverse((.., what)) = self.queue.pop().unwrap();
                self.happen(what);
            } else if let Some((_, index)) = timer {
                self.wake(index);
            }
            self.check();
        }
        self.now = end;
        self.check();
    }

    fn wake(&mut self, index: usize) {
        let now = self.now;
        let Some(daemon) = self.running(index) else { return };
        if !daemon.stopping {
            daemon.tracker.handle_timeout(now);
        }
        self.drain(index);
        if let Some(daemon) = self.running(index) {
            daemon.fsm.handle_timeout(now);
        }
        self.drain(index);
        self.end_if_done(index);
    }

    /// SIGTERM: hands over, and ends when the address is gone.
    fn stop(&mut self, index: usize) {
        let now = self.now;
        if let Some(daemon) = self.running(index) {
            daemon.stopping = true;
            daemon.fsm.handle_shutdown(now);
            self.drain(index);
            self.end_if_done(index);
        }
    }

    fn end_if_done(&mut self, index: usize) {
        if self.running(index).is_some_and(|daemon| daemon.stopping && !daemon.fsm.lingers()) {
            assert!(!self.hosts[index].holds, "a graceful stop leaves the address");
            self.crash(index);
        }
    }

    fn happen(&mut self, what: What) {
        let now = self.now;
        match what {
            What::Deliver { to, from, priority } => {
                // In flight while the network was cut: gone.
                if !self.reach(from, to) {
                    return;
                }
                let advert = Advert { source: self.hosts[from].address, priority, interval: INTERVAL };
                if self.hosts[to].frozen {
                    self.hosts[to].backlog.push(advert);
                } else if let Some(daemon) = self.running(to) {
                    daemon.fsm.handle_advert(advert, now);
                    self.drain(to);
                    self.end_if_done(to);
                }
            }
            What::Beat(index) => {
                if let Some(health) = self.hosts[index].lb
                    && let Some(daemon) = self.running(index).filter(|daemon| daemon.linked && !daemon.stopping)
                {
                    daemon.tracker.handle_health(health, now);
                    self.drain(index);
                }
                self.push(now + HEALTH_BEAT, What::Beat(index));
            }
            What::Fault => {
                self.fault();
                let next = Duration::from_micros(1000 + self.random.below(200_000));
                self.push(now + next, What::Fault);
            }
        }
    }

    fn fault(&mut self) {
        let index = self.random.below(self.hosts.len() as u64) as usize;
        match self.random.below(12) {
            0 => self.crash(index),
            1 | 2 if self.hosts[index].daemon.is_none() => self.start(index),
            3 => self.stop(index),
            4 => self.freeze(index),
            5 | 6 => self.thaw(index),
            7 => self.set_lb(index, None),
            8 => self.set_lb(index, Some(Health::Degraded)),
            9 | 1 | 2 => self.set_lb(index, Some(Health::Up)),
            10 => {
                for index in 0..self.hosts.len() {
                    self.hosts[index].side = self.random.below(2);
                }
                self.forget_reach();
            }
            _ => {
                self.heal();
                self.loss = if self.random.chance(50) { 0 } else { self.random.below(31) };
            }
        }
    }

    fn crash(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        host.daemon = None;
        host.lingers = None;
        host.frozen = false;
        host.backlog.clear();
        host.fit_since = [None; 2];
        self.forget_rivals(index);
    }

    fn freeze(&mut self, index: usize) {
        self.hosts[index].frozen = true;
        self.hosts[index].fit_since = [None; 2];
        self.forget_rivals(index);
    }

    /// What waits in the sockets is read before anything is sent.
    fn thaw(&mut self, index: usize) {
        let now = self.now;
        let host = &mut self.hosts[index];
        if !std::mem::take(&mut host.frozen) {
            return;
        }
        let (lb, backlog) = (host.lb, std::mem::take(&mut host.backlog));
        let Some(daemon) = &mut host.daemon else { return };
        for advert in backlog {
            daemon.fsm.handle_advert(advert, now);
        }
        daemon.hear(lb, now);
        self.drain(index);
        // What was due meanwhile comes in the same turn.
        self.wake(index);
    }

    fn set_lb(&mut self, index: usize, lb: Option<Health>) {
        let now = self.now;
        self.hosts[index].lb = lb;
        if let Some(daemon) = self.running(index) {
            daemon.hear(lb, now);
            self.drain(index);
        }
    }

    fn heal(&mut self) {
        for host in &mut self.hosts {
            host.side = 0;
        }
        self.forget_reach();
    }

    /// Who reaches whom has changed: the bounds count from now.
    fn forget_reach(&mut self) {
        self.rivals.fill(None);
        // Adverts that were on their way may be lost.
        for Linger { told, .. } in self.hosts.iter_mut().filter_map(|host| host.lingers.as_mut()) {
            *told = None;
        }
        self.led.fill([self.now; 2]);
    }

    fn check(&mut self) {
        self.check_addresses();
        let count = self.hosts.len();
        let masters: Vec<usize> = (0..count).filter(|index| self.is_master(*index)).collect();
        for index in 0..count {
            for (kind, least) in [(0, 1), (1, 2)] {
                let leads = |master: &usize| self.reach(*master, index) && self.rank(*master).0 >= Some(least);
                if masters.iter().any(leads) {
                    self.led[index][kind] = self.now;
                } else if let Some(fit) = self.hosts[index].fit_since[kind] {
                    let without = self.now - fit.max(self.led[index][kind]);
                    let address = self.hosts[index].address;
                    assert!(
                        without <= NO_MASTER,
                        "{address} had no master of priority {least} or more for {without:?}"
                    );
                }
            }
        }
        for a in 0..count {
            for b in a + 1..count {
                let pair = a * count + b;
                if !(masters.contains(&a) && masters.contains(&b) && self.reach(a, b)) {
                    self.rivals[pair] = None;
                    continue;
                }
                let (since, lost) = *self.rivals[pair].get_or_insert((self.now, 0));
                let both = self.now - since;
                let bound = (INTERVAL + LONGEST_DELAY) * (lost + 1);
                let (a, b) = (self.hosts[a].address, self.hosts[b].address);
                assert!(both <= bound, "{a} and {b} were both master for {both:?} with {lost} adverts lost");
            }
        }
    }

    /// Frozen and crashed hosts may have the address for ever; the others have it as master, or for a moment more.
    fn check_addresses(&self) {
        for (index, host) in self.hosts.iter().enumerate().filter(|(_, host)| host.daemon.is_some() && !host.frozen) {
            let address = host.address;
            assert_eq!(host.holds, self.is_master(index) || host.lingers.is_some(), "{address} holds, or does not");
            if let Some(Linger { since, told }) = host.lingers {
                let lingers = self.now - since;
                assert!(lingers <= LONGEST_LINGER, "{address} has kept the address for {lingers:?}");
                assert!(
                    told.is_none_or(|told| self.now <= told),
                    "{address} keeps the address beside a master it heard"
                );
            }
        }
        assert!(!self.covered || self.hosts.iter().any(|host| host.holds), "nobody has the address");
    }

    /// Faults for a while; then everything is mended, and the hosts have to settle.
    fn history(&mut self) {
        let first = self.now + Duration::from_millis(self.random.below(300));
        self.push(first, What::Fault);
        self.run(self.now + FAULTS);

        self.queue.retain(|Reverse((.., what))| *what != What::Fault);
        self.loss = 0;
        self.heal();
        for index in 0..self.hosts.len() {
            self.thaw(index);
            self.set_lb(index, Some(Health::Up));
            if self.hosts[index].daemon.as_ref().is_none_or(|daemon| daemon.stopping) {
                self.start(index);
            }
        }
        self.run(self.now + LONGEST_HOLD + Duration::from_secs(1));
        let before = self.moves;
        self.run(self.now + Duration::from_secs(1));
        assert_eq!(self.moves, before, "the hosts have not settled");
        let masters: Vec<usize> = (0..self.hosts.len()).filter(|index| self.is_master(*index)).collect();
        let holders: Vec<usize> = (0..self.hosts.len()).filter(|index| self.hosts[*index].holds).collect();
        assert_eq!(masters.len(), 1, "one master in the end");
        assert_eq!(masters, holders, "the master alone has the address");
        let best = self.hosts.iter().map(|host| host.priority).max().unwrap();
        if self.preempt {
            assert_eq!(self.hosts[masters[0]].priority, best, "with preemption the best host is master in the end");
        }
        assert!(self.hosts[masters[0]].priority > LAST_RESORT);
    }
}

#[test]
fn whatever_happens_there_is_one_master_within_the_bounds() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |value| value.parse().unwrap());
    let first = number("EVERMQ_SIM_SEED", 1);
    let mut moves = 0;
    for seed in first..first + number("EVERMQ_SIM_HISTORIES", 3000) {
        let outcome = std::panic::catch_unwind(|| {
            let mut sim = Sim::new(seed);
            sim.history();
            sim.moves
        });
        match outcome {
            Ok(moved) => moves += moved,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map_or("see above", String::as_str);
                panic!("history {seed}: {text} (again with EVERMQ_SIM_SEED={seed} EVERMQ_SIM_HISTORIES=1)");
            }
        }
    }
    assert!(moves > 0, "nothing ever happened");
}

#[test]
fn a_hand_over_leaves_no_moment_without_an_address() {
    for seed in 1..=300 {
        let mut sim = Sim::new(seed);
        sim.run(sim.now + Duration::from_secs(1));
        sim.covered = true;
        for hand_over in [0, 1, 2] {
            let master = (0..sim.hosts.len()).find(|index| sim.is_master(*index)).unwrap();
            match hand_over {
                0 => sim.set_lb(master, None),
                1 => sim.set_lb(master, Some(Health::Degraded)),
                _ => sim.stop(master),
            }
            assert!(sim.hosts[master].holds, "history {seed}: the address is kept for the successor");
            let overlaps = sim.overlaps;
            sim.run(sim.now + LONGEST_LINGER);
            assert!(
                !sim.hosts[master].holds && sim.overlaps == overlaps + 1,
                "history {seed}: the successor was heard"
            );
            if sim.hosts[master].daemon.is_none() {
                sim.start(master);
            }
            sim.set_lb(master, Some(Health::Up));
            sim.run(sim.now + LONGEST_HOLD);
        }
    }
}

#[test]
fn an_hour_of_calm_has_no_move_but_the_first() {
    let mut sim = Sim::new(7);
    sim.run(sim.now + Duration::from_secs(1));
    let (moves, master) = (sim.moves, (0..sim.hosts.len()).find(|index| sim.is_master(*index)));
    assert!(master.is_some());
    sim.run(sim.now + Duration::from_secs(3600));
    assert_eq!(sim.moves, moves);
    assert_eq!((0..sim.hosts.len()).find(|index| sim.is_master(*index)), master);
}
