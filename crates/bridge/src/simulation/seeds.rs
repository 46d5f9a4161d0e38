//! Runs from many seeds, each of which can be had again.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// One run from each seed up to `runs` or `BRIDGE_SIMULATION_RUNS`: what they add up to, and how many there were. With
/// `BRIDGE_SIMULATION_SEED` there is only that one, and it fails in any case, so that its tally is seen.
pub(super) fn run_many<P: Copy + Debug, T: Default + Debug>(
    plan: P,
    runs: u64,
    run: impl Fn(u64, P, &mut T),
) -> (T, u64) {
    let mut tally = T::default();
    let mut one = |seed| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed, plan, &mut tally))) {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            panic!("BRIDGE_SIMULATION_SEED={seed} with {plan:?}: {}", text.unwrap_or("panic"));
        }
    };
    if let Ok(seed) = std::env::var("BRIDGE_SIMULATION_SEED") {
        one(seed.parse().unwrap());
        panic!("seed {seed} holds; {tally:?}");
    }
    let runs = std::env::var("BRIDGE_SIMULATION_RUNS").map_or(runs, |runs| runs.parse().unwrap());
    for seed in 1..=runs {
        one(seed);
    }
    (tally, runs)
}
