//! The same with disks: an origin whose client publishes again what was not acknowledged, and a receiver with a durable
//! session. Either process is killed, and the power fails, at any moment; a disk keeps what was synced and any part of what
//! came behind that.
//!
//! What must hold with `sync = "always"`: what the client was told is taken reaches the session, at QoS 2 once, in the order of
//! the log. With any setting: a number of the log never means two messages, and nothing stays stuck.

mod disk;
mod origin;
mod receiver;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evermq_mqtt::QoS;

use self::origin::Origin;
use self::receiver::Receiver;
use super::network::Network;
use super::random::Random;
use super::seeds;

/// What can happen in one run.
#[derive(Debug, Clone, Copy)]
struct Plan {
    steps: u32,
    origin_kills: bool,
    receiver_kills: bool,
    power: bool,
    partitions: bool,
    is_lazy: bool,
    log_messages: usize,
}

#[derive(Debug, Default)]
struct Tally {
    acknowledged: u64,
    got: u64,
    recovered: u64,
    forgotten: u64,
    duplicates: u64,
    held: u64,
    lost: u64,
}

struct World {
    now: Instant,
    random: Random,
    plan: Plan,
    network: Network,
    origin: Origin,
    receiver: Receiver,
}

impl World {
    fn new(seed: u64, plan: Plan, start: Instant) -> Self {
        let mut random = Random::new(seed);
        Self {
            now: start,
            network: Network::default(),
            origin: Origin::new(plan.log_messages, plan.is_lazy, random.next(), start),
            receiver: Receiver::new(plan.is_lazy),
            random,
            plan,
        }
    }

    fn step(&mut self, quiet: bool) {
        self.now += Duration::from_millis(1 + self.random.below(20));
        if !quiet {
            self.disturb();
            for _ in 0..self.random.below(4) {
                self.origin.publish(&mut self.random, self.now);
            }
        }
        self.origin.advance(&mut self.network, &mut self.random, self.now);
        for _ in 0..3 {
            self.receiver.advance(&mut self.network, &mut self.random, self.now);
        }
        self.origin.advance(&mut self.network, &mut self.random, self.now);
    }

    fn disturb(&mut self) {
        if self.random.one_in(20) {
            self.network.reset(&mut self.random);
        }
        if self.plan.partitions && self.random.one_in(60) {
            self.network.partition(self.now + Duration::from_millis(self.random.below(4_000)));
        }
        let both = self.plan.origin_kills && self.plan.receiver_kills && self.random.one_in(120);
        if both || self.plan.origin_kills && self.random.one_in(60) {
            let is_power = self.plan.power && self.random.one_in(2);
            self.origin.crash(is_power, &mut self.random, self.now);
            self.network.origin_died(&mut self.random);
        }
        if both || self.plan.receiver_kills && self.random.one_in(60) {
            let is_power = self.plan.power && self.random.one_in(2);
            self.receiver.crash(is_power, &mut self.random);
            self.network.receiver_died();
        }
    }

    fn settle(&mut self) {
        self.network.heal();
        for _ in 0..5_000 {
            self.step(true);
            if self.origin.is_done() && self.receiver.is_done() {
                return;
            }
        }
        panic!("stuck: {}", self.origin.describe());
    }

    fn check(self, tally: &mut Tally) {
        let (published, got) = (&self.origin.client, &self.receiver.client.got);
        let mut times: BTreeMap<u64, u64> = BTreeMap::new();
        for (_, id, _) in got {
            *times.entry(*id).or_default() += 1;
        }
        let lost = self.origin.lost.max(self.receiver.missed);
        if !self.plan.is_lazy {
            let missing: Vec<_> = published.acknowledged.keys().filter(|id| !times.contains_key(id)).collect();
            assert!(missing.len() as u64 <= lost, "{missing:?} were acknowledged and never came; {lost} are lost");
            let exactly: Vec<_> = got.iter().filter(|(.., qos)| *qos == QoS::ExactlyOnce).collect();
            let twice: Vec<_> = exactly.iter().filter(|(_, id, _)| times[id] > 1).collect();
            assert!(twice.is_empty(), "QoS 2 came twice: {twice:?}");
            assert!(exactly.is_sorted_by_key(|(place, ..)| place), "out of order");
        }
        if self.plan.log_messages > 100_000 && !self.plan.is_lazy {
            assert_eq!(lost, 0, "nothing is lost while the log holds it");
        }
        tally.acknowledged += published.acknowledged.len() as u64;
        tally.got += got.len() as u64;
        tally.recovered += self.origin.recovered;
        tally.forgotten += self.receiver.forgotten;
        tally.duplicates += self.receiver.duplicates;
        tally.held += self.origin.held;
        tally.lost += lost;
    }
}

#[expect(clippy::disallowed_methods, reason = "a simulation needs some instant to begin with")]
fn run(seed: u64, plan: Plan, tally: &mut Tally) {
    let start = Instant::now() + Duration::from_secs(1_000_000);
    let mut world = World::new(seed, plan, start);
    for _ in 0..plan.steps {
        world.step(false);
    }
    world.settle();
    world.check(tally);
}

fn run_many(plan: Plan, runs: u64) -> Tally {
    let (tally, runs) = seeds::run_many(plan, runs, run);
    assert!(tally.got > 50 * runs && tally.acknowledged > 50 * runs, "{tally:?}");
    tally
}

/// For `cargo test`.
const RUNS: u64 = 100;

const CALM: Plan = Plan {
    steps: 150,
    origin_kills: false,
    receiver_kills: false,
    power: false,
    partitions: false,
    is_lazy: false,
    log_messages: 1_000_000,
};

const EVERYTHING: Plan =
    Plan { steps: 250, origin_kills: true, receiver_kills: true, power: true, partitions: true, ..CALM };

#[test]
fn connections_break_and_both_have_disks() {
    let tally = run_many(CALM, RUNS);
    assert!(tally.held > 0 && tally.duplicates > 0 && tally.forgotten + tally.lost == 0, "{tally:?}");
}

#[test]
fn the_origin_is_killed() {
    let tally = run_many(Plan { origin_kills: true, ..CALM }, RUNS);
    assert!(tally.recovered > 0 && tally.lost == 0, "{tally:?}");
}

#[test]
fn the_receiver_is_killed() {
    // It is rarely killed between a message and its record, with the message on its way once more.
    let tally = run_many(Plan { receiver_kills: true, ..CALM }, 5 * RUNS);
    assert!(tally.forgotten > 0 && tally.duplicates > 0 && tally.lost == 0, "{tally:?}");
}

#[test]
fn both_are_killed_lose_power_and_are_cut_off() {
    let tally = run_many(EVERYTHING, RUNS);
    assert!(tally.recovered > 0 && tally.forgotten > 0 && tally.lost == 0, "{tally:?}");
}

#[test]
fn the_log_is_short_and_everything_happens() {
    let tally = run_many(Plan { log_messages: 20, ..EVERYTHING }, RUNS);
    assert!(tally.lost > 0 && tally.recovered > 0, "{tally:?}");
}

#[test]
fn nobody_waits_for_the_disk_and_no_number_means_two_messages() {
    let tally = run_many(Plan { is_lazy: true, ..EVERYTHING }, RUNS);
    assert!(tally.recovered > 0, "{tally:?}");
}

#[test]
#[ignore = "ten thousand runs: make soak-mesh"]
fn soak() {
    for plan in [EVERYTHING, Plan { log_messages: 20, ..EVERYTHING }, Plan { is_lazy: true, ..EVERYTHING }] {
        let tally = run_many(plan, 10_000);
        assert!(tally.recovered > 0, "{tally:?}");
    }
}
