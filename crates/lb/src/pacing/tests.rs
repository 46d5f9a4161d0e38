use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const MILLISECOND: u64 = 1_000_000;

fn taken_at(rate: &Rate, now: u64) -> usize {
    std::iter::repeat_with(|| rate.take(now)).take(10_000).take_while(|&taken| taken).count()
}

#[test]
fn a_burst_and_then_one_by_one() {
    let rate = Rate::new(Some(1000), BURST);
    let start = 7 * SECOND;
    assert_eq!(taken_at(&rate, start), 50);
    assert_eq!(rate.ready_at(start), start + MILLISECOND);
    assert_eq!(taken_at(&rate, start + MILLISECOND - 1), 0);
    assert_eq!(taken_at(&rate, start + MILLISECOND), 1);
    assert_eq!(taken_at(&rate, start + 11 * MILLISECOND), 10);
    // Who sleeps for an hour may take no more than a burst.
    assert_eq!(taken_at(&rate, start + 3600 * SECOND), 50);
}

#[test]
fn a_low_rate_has_a_burst_of_one() {
    for per_second in [1, 2, 10, 20] {
        let rate = Rate::new(Some(per_second), BURST);
        let interval = SECOND / u64::from(per_second);
        assert_eq!(taken_at(&rate, 0), 1, "{per_second}");
        // Ten milliseconds too late or too early make no difference, in the long run.
        let early = interval - 10 * MILLISECOND;
        assert_eq!(rate.ready_at(0), early, "{per_second}");
        assert_eq!(taken_at(&rate, early - 1), 0, "{per_second}");
        assert_eq!(taken_at(&rate, early), 1, "{per_second}");
        assert_eq!(rate.ready_at(early), early + interval, "{per_second}");
    }
}

#[test]
fn no_bound_is_none() {
    let rate = Rate::new(None, BURST);
    assert_eq!(taken_at(&rate, 5), 10_000);
    assert_eq!(rate.ready_at(5), 5);
}

#[test]
fn what_is_given_back_can_be_taken_again() {
    let rate = Rate::new(Some(20), BURST);
    assert!(rate.take(SECOND));
    assert!(!rate.take(SECOND));
    rate.give_back();
    assert!(rate.take(SECOND));
    assert!(!rate.take(SECOND));
}

#[test]
fn a_rate_can_be_changed_while_it_is_used() {
    let rate = Rate::new(Some(1), BURST);
    assert_eq!(taken_at(&rate, 0), 1);
    rate.set(Some(1000), BURST);
    // What was taken at the old rate is still owed.
    assert_eq!(rate.ready_at(0), SECOND - 49 * MILLISECOND);
    assert_eq!(taken_at(&rate, SECOND), 50);
    rate.set(None, BURST);
    assert_eq!(taken_at(&rate, SECOND), 10_000);
}

#[test]
fn threads_together_do_not_take_more_than_one_alone() {
    let rate = Arc::new(Rate::new(Some(100_000), BURST));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let rate = Arc::clone(&rate);
            std::thread::spawn(move || taken_at(&rate, SECOND))
        })
        .collect();
    let taken: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(taken, 5000);
}

#[test]
fn places_are_counted_and_come_back() {
    let places = Places::new(2);
    assert!(places.take() && places.take() && !places.take());
    assert!(places.is_full());
    places.give_back();
    assert!(places.take());
    places.set_limit(3);
    assert!(places.take() && !places.take());
    places.set_limit(1);
    places.give_back();
    assert!(!places.take());
    assert_eq!(places.taken(), 2);
    places.take_anyway();
    assert_eq!(places.taken(), 3);
}

#[test]
fn an_epoch_counts_both_ways() {
    #[expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]
    let start = Instant::now();
    let epoch = Epoch::new(start);
    assert_eq!(epoch.nanos(start + Duration::from_micros(3)), 3000);
    assert_eq!(epoch.nanos(start), 0);
    assert_eq!(epoch.instant(3000), start + Duration::from_micros(3));
}

proptest! {
    /// With a burst in front of it, the steady rate keeps every second within the rate.
    #[test]
    fn no_second_has_more_than_the_rate(per_second in 2_u32..5000, gaps in proptest::collection::vec(0_u64..5 * MILLISECOND, 1..2000)) {
        let rate = Rate::new(Some(steady(per_second)), BURST);
        let mut now = SECOND;
        let mut taken = Vec::new();
        for gap in gaps {
            now += gap;
            taken.extend(std::iter::repeat_n(now, taken_at(&rate, now)));
        }
        for (first, &from) in taken.iter().enumerate() {
            let count = taken[first..].partition_point(|&at| at - from < SECOND);
            prop_assert!(count <= per_second as usize, "{count} from {from}");
        }
    }

    /// In any window there are no more than the rate allows in it, and a burst.
    #[test]
    fn never_above_the_rate_in_any_window(per_second in 1_u32..5000, gaps in proptest::collection::vec(0_u64..20 * MILLISECOND, 1..400)) {
        let rate = Rate::new(Some(per_second), BURST);
        let mut debt = Debt::default();
        let mut now = SECOND;
        let mut taken = Vec::new();
        for gap in gaps {
            now += gap;
            let took = rate.take(now);
            prop_assert_eq!(debt.take(per_second, BURST, now), took);
            if took {
                taken.push(now);
            } else {
                prop_assert!(rate.ready_at(now) > now);
            }
        }
        let interval = SECOND / u64::from(per_second);
        let ahead = tolerance(interval, BURST);
        prop_assert!(ahead < nanos(BURST).max(interval));
        for (first, &from) in taken.iter().enumerate() {
            for (last, &to) in taken.iter().enumerate().skip(first) {
                let count = (last - first + 1) as u64;
                prop_assert!(count <= 1 + (to - from + ahead) / interval, "{count} from {from} to {to}");
            }
        }
    }

    /// Who waits until it is time succeeds, and not a nanosecond earlier.
    #[test]
    fn ready_at_is_exact(per_second in 1_u32..100_000, takes in 1_usize..300) {
        let rate = Rate::new(Some(per_second), BURST);
        let mut now = 0;
        for _ in 0..takes {
            let ready = rate.ready_at(now);
            if ready > now {
                prop_assert!(!rate.take(ready - 1));
            }
            now = ready;
            prop_assert!(rate.take(now));
        }
    }
}
