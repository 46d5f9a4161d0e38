//! Hosts on a virtual clock in which nothing is random but the network: hand-overs, hours of calm, and groups that race.

use std::time::Duration;

use crate::sim::{Scene, Sim};
use evermq_config::vip::VrrpVersion;
use evermq_daemon::health::Health;
use evermq_vip::track::LONGEST_HOLD;

#[test]
fn a_hand_over_leaves_no_moment_without_an_address() {
    for seed in 1..=300 {
        let mut sim = Sim::seeded(Scene::plain(VrrpVersion::V3, seed % 2 == 0), seed);
        let longest_linger = sim.scene.longest_linger();
        sim.run(sim.now + Duration::from_secs(1));
        // An advert that comes after the priority 0 it was sent before makes the successor wait for the silence.
        sim.ordered = true;
        sim.covered = true;
        for hand_over in [0, 1, 2] {
            let master = sim.masters()[0];
            match hand_over {
                0 => sim.set_lb(master, None),
                1 => sim.set_lb(master, Some(Health::Degraded)),
                _ => sim.stop(master),
            }
            assert!(sim.holds(master), "history {seed}: the address is kept for the successor");
            let overlaps = sim.overlaps;
            sim.run(sim.now + longest_linger);
            assert!(!sim.holds(master) && sim.overlaps == overlaps + 1, "history {seed}: the successor was heard");
            if !sim.is_running(master) {
                sim.start(master);
            }
            sim.set_lb(master, Some(Health::Up));
            sim.run(sim.now + LONGEST_HOLD);
        }
    }
}

/// An hour after the first election, without a move.
fn calm(scene: Scene) {
    let mut sim = Sim::seeded(scene.clone(), 7);
    sim.run(sim.now + scene.interval() * 50 + scene.start_delay + scene.preempt_delay + LONGEST_HOLD);
    let (moves, masters) = (sim.moves, sim.masters());
    assert_eq!(masters.len(), 1, "{scene:?}");
    sim.run(sim.now + Duration::from_secs(3600));
    assert_eq!((sim.moves, sim.masters()), (moves, masters), "{scene:?}");
}

#[test]
fn an_hour_of_calm_has_no_move_but_the_first() {
    for version in [VrrpVersion::V2, VrrpVersion::V3] {
        for preempt in [false, true] {
            for equal in [false, true] {
                let plain = Scene::plain(version, preempt);
                let interval = plain.interval().max(Duration::from_millis(100));
                calm(Scene { equal, intervals: vec![interval], ..plain });
            }
        }
    }
}

#[test]
fn an_hour_of_calm_with_short_different_and_delayed_adverts() {
    let plain = Scene::plain(VrrpVersion::V3, true);
    calm(plain.clone());
    let intervals = [100, 300, 50].map(Duration::from_millis).to_vec();
    for preempt in [false, true] {
        calm(Scene { intervals: intervals.clone(), preempt, ..plain.clone() });
    }
    let second = Duration::from_secs(1);
    calm(Scene { intervals, preempt_delay: second * 3, start_delay: second, ..plain });
}

#[test]
fn an_hour_of_calm_for_groups_however_their_members_are_ranked() {
    for crossed in [false, true] {
        for equal in [false, true] {
            for preempt in [false, true] {
                let intervals = vec![Duration::from_millis(200)];
                let plain = Scene::plain(VrrpVersion::V3, preempt);
                calm(Scene { grouped: true, crossed, equal, intervals, ..plain });
            }
        }
    }
}

/// All hosts become fit at one instant, and the network gives nobody an advantage: each group is outranked on one network
/// whenever it tries.
#[test]
fn groups_that_are_ranked_the_other_way_round_on_each_network_settle() {
    for seed in 1..=100 {
        for equal in [false, true] {
            let plain = Scene::plain(VrrpVersion::V3, true);
            let mut sim = Sim::seeded(Scene { grouped: true, crossed: true, equal, ..plain }, seed);
            sim.ordered = true;
            sim.run(sim.now + sim.scene.interval() * 200);
            let moves = sim.moves;
            sim.run(sim.now + sim.scene.interval() * 500);
            assert_eq!((sim.moves, sim.masters().len()), (moves, 1), "history {seed}, equal {equal}");
        }
    }
}
