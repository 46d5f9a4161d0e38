//! Random faults on a virtual clock: daemons that crash, freeze, stop and start, lbs that die, networks that are cut and lose up
//! to 30 % of the adverts, deliver them in any order, and twice. The bounds are stated in `sim/mod.rs` and asserted after
//! every event; at the end of each history everything is mended, and one host has to be master.
//!
//! By default 10,000 faults of VRRP 3 and 1,000 of VRRP 2. All of it: `make soak-vip`. `EVERMQ_SIM_FAULTS` sets how many faults there are, `EVERMQ_SIM_SEED` the first history.

use crate::sim::{Random, Scene, Sim};
use evermq_config::vip::VrrpVersion;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Histories until there were so many faults. Gives the number of changes of state.
fn soak(faults: u64, scene: impl Fn(&mut Random) -> Scene) {
    let (mut seed, mut happened, mut moves) = (number("EVERMQ_SIM_SEED", 1), 0, 0);
    let faults = number("EVERMQ_SIM_FAULTS", faults);
    while happened < faults {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut random = Random::seeded(seed);
            let scene = scene(&mut random);
            let mut sim = Sim::new(scene, random);
            sim.history();
            (sim.faults, sim.moves)
        }));
        match outcome {
            Ok((faults, moved)) => {
                happened += faults;
                moves += moved;
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map_or("see above", String::as_str);
                panic!("history {seed}: {text} (again with EVERMQ_SIM_SEED={seed} EVERMQ_SIM_FAULTS=1)");
            }
        }
        seed += 1;
    }
    assert!(moves > faults / 10, "nothing ever happened");
}

#[test]
fn whatever_happens_there_is_one_master_within_the_bounds() {
    soak(10_000, Scene::any);
}

#[test]
fn so_it_is_with_vrrp_2() {
    soak(1_000, |random| Scene { grouped: random.chance(30), ..Scene::plain(VrrpVersion::V2, random.chance(50)) });
}

#[test]
#[ignore = "takes minutes: make soak-vip"]
fn whatever_happens_a_million_times() {
    soak(1_000_000, Scene::any);
}

#[test]
#[ignore = "takes minutes: make soak-vip"]
fn so_it_is_with_vrrp_2_a_hundred_thousand_times() {
    soak(100_000, |random| Scene { grouped: random.chance(30), ..Scene::plain(VrrpVersion::V2, random.chance(50)) });
}
