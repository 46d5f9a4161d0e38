//! The power fails at any moment.

use std::sync::Arc;

use super::files::{until, wait};
use super::model::{Model, NOW, picture_of};
use crate::disk::simulated::{Chance, Simulated};
use crate::store::open_on;
use crate::{Settings, Status, Sync};

fn settings(sync: Sync) -> Settings {
    Settings { path: "/simulated".into(), sync, segment_size: 8 << 10, max_size: 16 << 20 }
}

/// Lives and dies several times; what each life finds is what an earlier one knew at some moment not before its last durable
/// record.
fn lives(seed: u64, sync: Sync) -> Totals {
    let settings = settings(sync);
    let mut chance = Chance::new(seed);
    let mut disk = Simulated::default();
    if chance.one_in(3) {
        disk.cannot_allocate();
    }
    let mut totals = Totals::default();
    let mut allowed: Option<Vec<String>> = None;
    for life in 0..6 {
        // The power may fail while the store is being opened, too.
        disk.lose_power_after(
            chance.below(if life == 0 { 400 } else { 900 }) as u64,
            Chance::new(chance.below(1 << 30) as u64),
        );
        let Ok((store, recovered)) = open_on(&settings, Arc::new(disk.clone()), NOW) else {
            disk = disk.after_power_loss(Chance::new(1));
            totals.failed_opens += 1;
            continue;
        };
        assert_eq!(recovered.report.damage, [], "seed {seed}, life {life}: what was torn is no damage");
        assert_eq!((recovered.report.lost_messages, recovered.report.replaced_sessions), (0, 0));
        totals.torn += u64::from(recovered.report.torn.is_some());
        let (model, picture) = picture_of(&store, recovered);
        if let Some(allowed) = allowed.take() {
            assert!(
                allowed.contains(&picture),
                "seed {seed}, life {life}:\n{picture}\nis none of\n{}",
                allowed.join("\n")
            );
            totals.behind += u64::from(allowed[0] != picture);
        }
        run(&model, &mut chance, &store);
        disk = disk.after_power_loss(Chance::new(chance.below(1 << 30) as u64));
        // Whatever the store called durable by now has to be there. Settings that do not wait for the disk promise nothing.
        allowed = Some(match sync {
            Sync::Always => model.since_durable(),
            Sync::Interval(_) | Sync::Never => model.all(),
        });
        totals.checkpoints += store.figures().checkpoints;
        totals.deleted += store.figures().deleted_segments;
        store.close();
    }
    totals
}

#[derive(Debug, Default)]
struct Totals {
    checkpoints: u64,
    deleted: u64,
    torn: u64,
    behind: u64,
    failed_opens: u64,
}

fn run(model: &Model, chance: &mut Chance, store: &crate::Store) {
    let steps = chance.below(1500);
    for _ in 0..steps {
        if store.status() == Status::Failed {
            return;
        }
        model.step(chance);
        if chance.one_in(40) {
            let at = model.end();
            until("it comes, or the disk is gone", || store.is_durable(at) || store.status() == Status::Failed);
        }
    }
}

fn many(seeds: std::ops::Range<u64>, sync: Sync) -> Totals {
    let mut sum = Totals::default();
    for seed in seeds {
        let totals = lives(seed, sync);
        sum.checkpoints += totals.checkpoints;
        sum.deleted += totals.deleted;
        sum.torn += totals.torn;
        sum.behind += totals.behind;
        sum.failed_opens += totals.failed_opens;
    }
    sum
}

#[test]
fn nothing_durable_is_lost_and_what_is_there_is_a_moment_of_the_past() {
    let totals = many(0..24, Sync::Always);
    // Otherwise it would prove little.
    let Totals { checkpoints, deleted, torn, behind, failed_opens } = totals;
    assert!(checkpoints > 5 && deleted > 5 && torn > 0 && behind > 0 && failed_opens > 0, "{totals:?}");
}

#[test]
fn without_waiting_for_the_disk_it_is_a_moment_of_the_past_all_the_same() {
    let totals = many(1000..1010, Sync::Never);
    assert!(totals.checkpoints > 0 && totals.behind > 0, "{totals:?}");
    many(2000..2008, Sync::Interval(std::time::Duration::from_millis(1)));
}

/// Hours of it: `EVERMQ_SEEDS=100000 cargo test --release -p evermq-store -- --ignored power`.
#[test]
#[ignore = "as long as EVERMQ_SEEDS says"]
fn soak() {
    let seeds = std::env::var("EVERMQ_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2000);
    let totals = many(10_000..10_000 + seeds, Sync::Always);
    assert!(totals.deleted > seeds, "{totals:?}");
}

#[test]
fn a_store_that_is_closed_in_good_order_has_everything() {
    let disk = Simulated::default();
    let mut expected = None;
    for seed in 0..20 {
        let mut chance = Chance::new(seed);
        let (store, recovered) = open_on(&settings(Sync::Never), Arc::new(disk.clone()), NOW).unwrap();
        assert_eq!((&recovered.report.damage[..], &recovered.report.torn), (&[][..], &None));
        let (model, picture) = picture_of(&store, recovered);
        if let Some(expected) = expected {
            assert_eq!(picture, expected);
        }
        for _ in 0..300 {
            model.step(&mut chance);
        }
        expected = Some(model.picture());
        wait(&store, model.end());
        store.close();
    }
}
