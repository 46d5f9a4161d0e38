//! One origin and one receiver on a virtual clock: both machines, the log and the real frames, with connections that break at
//! any byte, bytes that arrive late, partitions, and restarts of either side.
//!
//! What must hold: one start of the receiver gets each message at most once and in the origin's order; each message arrives, or
//! had expired, or is counted as missing; retained messages agree at the end; nothing stays stuck.
//!
//! `BRIDGE_SIMULATION_SEED=n` replays one run, `BRIDGE_SIMULATION_RUNS=n` sets how many there are.

mod durable;
mod end;
mod network;
mod origin;
mod random;
mod receiver;
mod seeds;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use self::network::Network;
use self::origin::Origin;
use self::random::Random;
use self::receiver::Receiver;

/// What can happen in one run.
#[derive(Debug, Clone, Copy)]
struct Plan {
    steps: u32,
    resets: bool,
    partitions: bool,
    origin_restarts: bool,
    receiver_restarts: bool,
    log_messages: usize,
    /// Largest body that the receiver takes.
    max_body: u32,
    expiry: bool,
}

struct World {
    now: Instant,
    random: Random,
    plan: Plan,
    network: Network,
    origin: Origin,
    receiver: Receiver,
    /// Messages of origins that have ended, whose log went with them.
    buried: Vec<origin::Published>,
    past_receivers: Vec<receiver::Record>,
}

impl World {
    fn new(seed: u64, plan: Plan, start: Instant) -> Self {
        let mut random = Random::new(seed);
        let origin = Origin::new(1, plan.log_messages, random.next(), start);
        Self {
            now: start,
            network: Network::default(),
            receiver: Receiver::new(1, plan.max_body),
            origin,
            random,
            plan,
            buried: Vec::new(),
            past_receivers: Vec::new(),
        }
    }

    fn step(&mut self, quiet: bool) {
        self.now += Duration::from_millis(1 + self.random.below(20));
        if !quiet {
            self.disturb();
            for _ in 0..self.random.below(6) {
                self.origin.publish(&mut self.random, self.plan.expiry, self.now);
            }
        }
        self.origin.advance(&mut self.network, &mut self.random, self.now);
        for _ in 0..3 {
            self.receiver.advance(&mut self.network, &mut self.random, self.now);
        }
        self.origin.advance(&mut self.network, &mut self.random, self.now);
    }

    fn disturb(&mut self) {
        if self.plan.resets && self.random.one_in(15) {
            self.network.reset(&mut self.random);
        }
        if self.plan.partitions && self.random.one_in(60) {
            self.network.partition(self.now + Duration::from_millis(self.random.below(6_000)));
        }
        if self.plan.origin_restarts && self.random.one_in(80) {
            let next = Origin::new(self.origin.epoch() + 1, self.plan.log_messages, self.random.next(), self.now);
            let ended = std::mem::replace(&mut self.origin, next);
            self.buried.push(ended.published());
            self.network.origin_died(&mut self.random);
        }
        if self.plan.receiver_restarts && self.random.one_in(80) {
            let next = Receiver::new(self.receiver.instance() + 1, self.plan.max_body);
            let ended = std::mem::replace(&mut self.receiver, next);
            self.past_receivers.push(ended.record());
            self.network.receiver_died();
        }
    }

    fn settle(&mut self) {
        self.network.heal();
        for _ in 0..5_000 {
            self.step(true);
            if self.origin.has_sent_everything() {
                return;
            }
        }
        panic!("stuck: {}", self.origin.describe());
    }

    fn count(&self, tally: &mut Tally) {
        tally.delivered += self.receiver.delivered();
        tally.duplicates += self.receiver.duplicates();
        tally.replaced += self.receiver.replaced();
        tally.resent += self.origin.resent();
        tally.snapshots += self.origin.snapshots();
        tally.lost += self.origin.lost();
    }

    fn check(self) {
        let published = self.origin.published();
        let lost = self.origin.lost();
        let last_instance_alone = self.past_receivers.is_empty();
        assert!(!self.origin.is_under_pressure(), "pressure stays high although nothing is left to send");
        self.receiver.check_retained(self.origin.retained());
        let mut records = self.past_receivers;
        records.push(self.receiver.record());
        for record in &records {
            record.check_order();
        }
        // The log of an origin that has ended went with it; of the last one each message must be accounted for.
        let mut accounted: BTreeSet<u64> = published.may_expire.clone();
        for record in &records {
            accounted.extend(record.delivered(published.epoch));
            accounted.extend(record.missed(published.epoch));
        }
        let all: BTreeSet<u64> = (1..=published.last).collect();
        assert_eq!(accounted.intersection(&all).count() as u64, published.last, "messages are unaccounted for");
        if last_instance_alone {
            let missed = records[0].missed(published.epoch);
            assert_eq!(missed.len() as u64, lost, "both sides must count the same gap");
        }
        if self.plan.log_messages > 100_000 && self.plan.max_body > 1_000 {
            assert_eq!(lost, 0, "nothing is lost while the log holds it");
        }
        let possible: BTreeSet<u64> = self.buried.iter().map(|past| past.epoch).chain([published.epoch]).collect();
        assert!(records.iter().flat_map(receiver::Record::epochs).all(|epoch| possible.contains(&epoch)));
    }
}

/// What happened in all runs of a plan: a test that provokes nothing proves nothing.
#[derive(Debug, Default)]
struct Tally {
    delivered: u64,
    duplicates: u64,
    resent: u64,
    lost: u64,
    snapshots: u64,
    replaced: u64,
}

#[expect(clippy::disallowed_methods, reason = "a simulation needs some instant to begin with")]
fn run(seed: u64, plan: Plan, tally: &mut Tally) {
    let start = Instant::now() + Duration::from_secs(1_000_000);
    let mut world = World::new(seed, plan, start);
    for _ in 0..plan.steps {
        world.step(false);
    }
    world.settle();
    world.count(tally);
    world.check();
}

fn run_many(plan: Plan) -> Tally {
    let (tally, runs) = seeds::run_many(plan, 400, run);
    assert!(tally.delivered > 50 * runs, "{tally:?}");
    tally
}

const CALM: Plan = Plan {
    steps: 250,
    resets: false,
    partitions: false,
    origin_restarts: false,
    receiver_restarts: false,
    log_messages: 1_000_000,
    max_body: 1_000_000,
    expiry: false,
};

#[test]
fn nothing_happens_to_the_connection() {
    let tally = run_many(Plan { steps: 100, ..CALM });
    assert!(tally.duplicates + tally.resent + tally.lost + tally.replaced == 0, "{tally:?}");
}

#[test]
fn connections_break_at_any_byte() {
    let tally = run_many(Plan { resets: true, expiry: true, ..CALM });
    assert!(tally.resent > 0 && tally.lost == 0, "{tally:?}");
}

#[test]
fn the_receiver_restarts() {
    let tally = run_many(Plan { resets: true, receiver_restarts: true, ..CALM });
    assert!(tally.resent > 0 && tally.snapshots > 0 && tally.lost == 0, "{tally:?}");
}

#[test]
fn the_origin_restarts() {
    let tally = run_many(Plan { resets: true, origin_restarts: true, ..CALM });
    assert!(tally.replaced > 0 && tally.lost == 0, "{tally:?}");
}

#[test]
fn both_restart_and_are_cut_off() {
    let tally =
        run_many(Plan { resets: true, partitions: true, origin_restarts: true, receiver_restarts: true, ..CALM });
    assert!(tally.replaced > 0 && tally.resent > 0 && tally.lost == 0, "{tally:?}");
}

#[test]
fn a_partition_outlasts_the_log() {
    let tally = run_many(Plan { partitions: true, log_messages: 60, ..CALM });
    assert!(tally.lost > 0 && tally.snapshots > 0, "{tally:?}");
}

#[test]
fn the_log_is_short_and_connections_break() {
    let tally = run_many(Plan { resets: true, partitions: true, log_messages: 12, expiry: true, ..CALM });
    assert!(tally.lost > 0 && tally.resent > 0, "{tally:?}");
}

#[test]
fn everything_at_once() {
    let tally = run_many(Plan {
        steps: 400,
        resets: true,
        partitions: true,
        origin_restarts: true,
        receiver_restarts: true,
        log_messages: 150,
        max_body: 120,
        expiry: true,
    });
    assert!(tally.lost > 0 && tally.resent > 0 && tally.replaced > 0 && tally.snapshots > 0, "{tally:?}");
}

#[test]
fn some_messages_are_too_large() {
    let tally = run_many(Plan { resets: true, max_body: 120, ..CALM });
    assert!(tally.lost > 0, "{tally:?}");
}
