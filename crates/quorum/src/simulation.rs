//! Whole clusters on a virtual clock.

mod random;
mod world;

use std::time::Duration;

use self::world::{LEASE, VIP, World, ms};
use crate::claimant::{Claimant, Stage};

/// A candidate that wants the VIP all the time has it so soon after the holder fell silent: the lease, a twentieth of it,
/// two ways through the network, late drivers and clocks that run apart.
const TAKEOVER: Duration = ms(200 + 10 + 2 + 3 * 2 + 4 + 4);
/// Whatever has gone before: abstaining voters, leases of the dead, split votes.
const SETTLED: Duration = ms(200 * 6);

fn settled(seed: u64, hosts: usize) -> World {
    let mut world = World::new(seed, hosts, 2.min(hosts), false);
    assert!(world.run_until_held(SETTLED).is_some(), "nobody holds: {:?}", world.history);
    world.run_for(ms(2_000));
    world
}

#[test]
fn a_started_cluster_has_a_holder_within_a_lease_and_keeps_it() {
    for hosts in 1..=5 {
        let mut world = World::new(7, hosts, 1, false);
        let held = world.run_until_held(SETTLED).unwrap();
        assert!(held >= LEASE * 9 / 10 && held <= LEASE + ms(60), "{hosts} hosts: {held:?}");
        world.run_for(ms(20_000));
        assert_eq!(world.history.len(), 1, "{hosts} hosts: {:?}", world.history);
    }
}

#[test]
fn a_silent_holder_is_followed_within_a_lease_and_a_little() {
    for seed in 0..50 {
        for hosts in 3..=5 {
            let mut world = settled(seed, hosts);
            world.stop_host(world.holder().unwrap());
            let took = world.run_until_held(SETTLED).unwrap();
            assert!(took <= TAKEOVER, "seed {seed}, {hosts} hosts: {took:?}");
            assert!(world.overlaps.is_empty());
        }
    }
}

#[test]
fn a_yielded_lease_is_free_at_once() {
    for seed in 0..20 {
        let mut world = settled(seed, 4);
        let leaver = world.holder().unwrap();
        // The other one, as a backup does, wants it only from then on.
        let other = 1 - leaver;
        world.give_away(other, ms(500));
        world.run_for(ms(500) - ms(1));
        world.give_away(leaver, ms(1_000));
        let took = world.run_until_held(SETTLED).unwrap();
        assert_eq!(world.holder(), Some(other));
        assert!(took <= ms(5), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_holder_that_is_cut_off_lets_go_within_a_lease() {
    for seed in 0..50 {
        let mut world = settled(seed, 3);
        let holder = world.holder().unwrap();
        (0..3).filter(|other| *other != holder).for_each(|other| world.cut(holder.min(other), holder.max(other)));
        let begin = world.now;
        world.run_for(SETTLED);
        let gone = world.history.iter().find(|(at, host, held)| *at >= begin && *host == holder && !held).unwrap();
        assert!(gone.0 - begin <= LEASE, "seed {seed}: {:?}", gone.0 - begin);
        assert_eq!(world.holder(), Some(1 - holder));
        assert!(world.overlaps.is_empty());
    }
}

#[test]
fn load_balancers_that_lose_only_each_other_keep_the_one_holder() {
    for seed in 0..20 {
        for hosts in 3..=5 {
            let mut world = settled(seed, hosts);
            let (holder, changes) = (world.holder(), world.history.len());
            world.cut(0, 1);
            world.run_for(ms(20_000));
            assert_eq!((world.holder(), world.history.len()), (holder, changes), "seed {seed}, {hosts} hosts");
            world.stop_host(holder.unwrap());
            let took = world.run_until_held(SETTLED);
            // Of three hosts two are left, of four three, of five four: all of them majorities.
            assert!(took.is_some_and(|took| took <= LEASE * 2), "seed {seed}, {hosts} hosts: {took:?}");
            assert!(world.overlaps.is_empty());
        }
    }
}

#[test]
fn without_a_majority_nobody_holds() {
    for (hosts, left) in [(2, 1), (3, 1), (4, 2), (5, 2)] {
        let mut world = settled(3, hosts);
        (left..hosts).rev().for_each(|host| world.stop_host(host));
        world.run_for(SETTLED);
        assert_eq!(world.holder(), None, "{left} of {hosts}");
        world.start_host(left);
        assert!(world.run_until_held(SETTLED).is_some(), "{} of {hosts}", left + 1);
    }
}

#[test]
fn claims_that_split_the_votes_settle() {
    for seed in 0..200 {
        let hosts = 2 + usize::try_from(seed % 4).unwrap();
        let mut world = World::new(seed, hosts, hosts, false);
        // The hardest case: all of one rank, at one time.
        world.hosts.iter_mut().for_each(|host| host.rank = 100);
        world.delay = 2_000;
        let took = world.run_until_held(SETTLED);
        assert!(took.is_some(), "seed {seed}, {hosts} hosts: {:?}", world.history);
        world.run_for(ms(5_000));
        assert_eq!(world.history.len(), 1, "seed {seed}: the holder stays");
        assert!(world.overlaps.is_empty());
    }
}

#[test]
fn voters_that_restart_one_after_the_other_disturb_nobody() {
    let mut world = settled(11, 5);
    let changes = world.history.len();
    for host in (0..5).filter(|host| Some(*host) != world.holder()).collect::<Vec<_>>() {
        world.stop_host(host);
        world.run_for(ms(50));
        world.start_host(host);
        world.run_for(ms(1_000));
    }
    assert_eq!(world.history.len(), changes);
}

#[test]
fn a_thirty_percent_loss_does_not_move_the_vip() {
    let mut world = settled(5, 5);
    let changes = world.history.len();
    world.loss = 30;
    world.run_for(ms(120_000));
    assert_eq!(world.history.len(), changes, "{:?}", world.history);
}

#[test]
fn a_gateway_stands_in_for_the_other_host_of_two() {
    for seed in 0..50 {
        let mut world = World::new(seed, 2, 2, true);
        world.run_until_held(SETTLED).unwrap();
        world.run_for(ms(2_000));
        let holder = world.holder().unwrap();
        let changes = world.history.len();
        // The holder stays alone.
        world.stop_host(1 - holder);
        world.run_for(ms(2_000));
        assert_eq!(world.history.len(), changes, "seed {seed}");
        world.start_host(1 - holder);
        world.run_for(ms(2_000));
        assert_eq!(world.history.len(), changes, "seed {seed}");
        // The other one takes over.
        world.stop_host(holder);
        let took = world.run_until_held(SETTLED).unwrap();
        assert!(took <= TAKEOVER + LEASE / 2, "seed {seed}: {took:?}");
        // Cut off from everything it gives up.
        world.hosts[1 - holder].reaches_gateway = false;
        world.run_for(LEASE);
        assert_eq!(world.holder(), None, "seed {seed}");
        assert!(world.overlaps.is_empty());
    }
}

#[test]
fn with_a_gateway_two_hold_only_while_no_voter_is_reached_by_both() {
    for seed in 0..50 {
        let mut world = World::new(seed, 2, 2, true);
        world.run_until_held(SETTLED).unwrap();
        world.run_for(ms(1_000));
        world.cut(0, 1);
        world.run_for(ms(2_000));
        assert_eq!(world.hosts.iter().filter(|host| host.holding).count(), 2, "the limit that the documentation names");
        world.heal();
        world.overlaps.clear();
        world.run_for(ms(1_500));
        let over = world.overlaps.last().copied().unwrap_or_default();
        assert!(world.now - over >= ms(1_000), "seed {seed}: two for {:?} more", ms(1_500) - (world.now - over));
        assert!(world.holder().is_some(), "seed {seed}");

        let mut world = World::new(seed, 3, 2, true);
        world.run_until_held(SETTLED).unwrap();
        world.run_for(ms(1_000));
        world.cut(0, 1);
        world.run_for(ms(5_000));
        assert!(world.overlaps.is_empty(), "seed {seed}: the third host tells");
        assert_eq!(world.history.len(), 1);
    }
}

/// Random faults of every kind; after each series, everything heals and somebody has to hold.
#[test]
fn never_two_holders_whatever_happens() {
    let (mut slowest, mut grants) = (Duration::ZERO, 0);
    for seed in 0..150 {
        let hosts = 2 + usize::try_from(seed % 4).unwrap();
        let candidates = if seed % 3 == 0 { hosts } else { 2 };
        let mut world = World::new(seed, hosts, candidates, false);
        world.loss = seed * 7 % 31;
        world.messy = seed % 2 == 0;
        // A LAN, a wide area, and ways that take a good part of a lease.
        world.delay = [300, 5_000, 80_000][usize::try_from(seed / 2 % 3).unwrap()];
        for _ in 0..60 {
            fault(&mut world);
            let pause = world.random.below(400);
            world.run_for(ms(pause));
            assert!(world.overlaps.is_empty(), "seed {seed}: {:?}", world.history);
        }
        grants += world.history.iter().filter(|(_, _, held)| *held).count();
        recover(&mut world);
        world.delay = world.delay.min(5_000);
        let took = world.run_until_held(SETTLED * 4);
        slowest = slowest.max(took.unwrap_or_else(|| panic!("seed {seed}, loss {}: {}", world.loss, stages(&world))));
        // One whose votes were running out when all healed may lose them yet.
        world.run_for(SETTLED);
        let settled = world.history.len();
        if world.loss == 0 && !world.messy {
            world.run_for(ms(3_000));
            assert_eq!(world.history.len(), settled, "seed {seed}: the holder stays");
        }
        assert!(world.overlaps.is_empty(), "seed {seed}");
    }
    assert!(grants > 1_000, "only {grants} changes were tried");
    assert!(slowest <= SETTLED * 2, "somebody holds again only after {slowest:?}");
}

fn fault(world: &mut World) {
    let hosts = world.hosts.len() as u64;
    let [host, other] =
        [world.random.below(hosts), world.random.below(hosts)].map(|host| usize::try_from(host).unwrap());
    match world.random.below(12) {
        0 => world.stop_host(host),
        1 | 2 if world.hosts[host].node.is_none() => world.start_host(host),
        1..=3 => {
            world.stop_host(host);
            world.start_host(host);
        }
        4 => world.pause(host),
        5 | 6 => world.resume(host),
        7 | 8 if host != other => world.cut(host.min(other), host.max(other)),
        7..=9 => world.heal(),
        10 => {
            let pause = world.random.below(300);
            world.give_away(host, ms(pause));
        }
        _ => {
            if let Some(holder) = world.holder() {
                let pause = world.random.below(300);
                world.give_away(holder, ms(pause));
            }
        }
    }
}

fn recover(world: &mut World) {
    world.heal();
    for host in 0..world.hosts.len() {
        world.resume(host);
        if world.hosts[host].node.is_none() {
            world.start_host(host);
        }
    }
}

fn stages(world: &World) -> String {
    let stage = |node: &crate::node::Node| -> Option<Stage> {
        node.claimants.iter().find(|claimant| claimant.resource() == VIP).map(Claimant::stage)
    };
    world.hosts.iter().map(|host| format!("{:?} ", host.node.as_ref().map(stage))).collect()
}
