#![expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]

use proptest::prelude::*;

use super::*;

const LINGER: Duration = Duration::from_millis(30);
const BOUND: Duration = Duration::from_millis(75);
const DUTY: Duty = Duty { linger: LINGER, bound: BOUND, peers: true };

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn actions(guard: &mut Guard) -> Vec<Action> {
    std::iter::from_fn(|| guard.poll_action()).collect()
}

/// A guard of two virtual routers; `held` of them are held since `start`.
fn guard(start: Instant, held: usize, duty: Duty) -> Guard {
    let mut guard = Guard::new(start);
    for slot in 0..2 {
        guard.handle_duty(slot, duty);
    }
    for slot in 0..held {
        guard.handle_held(slot, start);
    }
    guard
}

fn killed(slot: usize) -> Action {
    Action::Remove { slot, why: Why::Killed }
}

#[test]
fn nothing_held_is_nothing_to_do() {
    let start = Instant::now();
    let mut idle = guard(start, 0, DUTY);
    assert_eq!(idle.poll_timeout(), None);
    idle.handle_timeout(start + ms(10_000));
    assert_eq!(actions(&mut idle), []);
    idle.handle_gone(start + ms(10_000));
    assert_eq!(actions(&mut idle), [Action::End]);
}

#[test]
fn what_the_daemon_took_away_itself_is_not_guarded() {
    let start = Instant::now();
    let mut guard = guard(start, 2, DUTY);
    guard.handle_released(0);
    guard.handle_released(1);
    assert_eq!(guard.poll_timeout(), None);
    guard.handle_gone(start + ms(1));
    assert_eq!(actions(&mut guard), [Action::End]);
}

#[test]
fn a_killed_daemon_is_spoken_for_and_its_address_stays_until_the_successor_is_heard() {
    let start = Instant::now();
    let mut guard = guard(start, 1, DUTY);
    guard.handle_gone(start + ms(5));
    assert_eq!(actions(&mut guard), [Action::Farewell(0)]);
    assert!(guard.lingers(0) && !guard.lingers(1));
    guard.handle_successor(1);
    assert_eq!(actions(&mut guard), []);
    guard.handle_successor(0);
    assert_eq!(actions(&mut guard), [killed(0), Action::End]);
    assert_eq!(guard.poll_timeout(), None);
}

#[test]
fn a_successor_that_is_not_heard_is_waited_for_no_longer_than_the_linger_time() {
    let start = Instant::now();
    let mut guard = guard(start, 2, DUTY);
    guard.handle_gone(start + ms(5));
    assert_eq!(actions(&mut guard), [Action::Farewell(0), Action::Farewell(1)]);
    guard.handle_successor(1);
    assert_eq!(actions(&mut guard), [killed(1)]);
    assert_eq!(guard.poll_timeout(), Some(start + ms(35)));
    guard.handle_timeout(start + ms(34));
    assert_eq!(actions(&mut guard), []);
    guard.handle_timeout(start + ms(35));
    assert_eq!(actions(&mut guard), [killed(0), Action::End]);
}

#[test]
fn without_peers_the_address_goes_at_once() {
    let start = Instant::now();
    let mut guard = guard(start, 1, Duty { peers: false, ..DUTY });
    guard.handle_gone(start);
    assert_eq!(actions(&mut guard), [Action::Farewell(0), killed(0), Action::End]);
}

#[test]
fn a_daemon_that_takes_turns_is_left_alone_and_a_frozen_one_loses_the_address_once() {
    let start = Instant::now();
    let mut guard = guard(start, 1, DUTY);
    for turn in 1..100 {
        guard.handle_beat(start + ms(turn * 20), None);
        guard.handle_timeout(start + ms(turn * 20 + 19));
    }
    assert_eq!(actions(&mut guard), []);
    let last = start + ms(99 * 20);
    assert_eq!(guard.poll_timeout(), Some(last + BOUND));
    guard.handle_timeout(last + BOUND);
    assert_eq!(actions(&mut guard), [Action::Remove { slot: 0, why: Why::Frozen { silent: BOUND } }]);
    guard.handle_timeout(last + BOUND * 2);
    assert_eq!((actions(&mut guard), guard.poll_timeout()), (vec![], None));
    // It wakes, finds itself late and steps back; later it is master again.
    guard.handle_released(0);
    guard.handle_beat(last + ms(500), None);
    guard.handle_held(0, last + ms(600));
    assert_eq!(guard.poll_timeout(), Some(last + ms(600) + BOUND));
}

#[test]
fn a_daemon_killed_while_frozen_is_not_spoken_for() {
    let start = Instant::now();
    let mut guard = guard(start, 1, DUTY);
    guard.handle_timeout(start + BOUND);
    actions(&mut guard);
    guard.handle_gone(start + BOUND * 2);
    assert_eq!(actions(&mut guard), [Action::End]);
}

#[test]
fn an_address_that_has_just_been_put_up_has_the_whole_bound() {
    let start = Instant::now();
    let mut guard = guard(start, 0, DUTY);
    guard.handle_held(1, start + ms(1000));
    guard.handle_timeout(start + ms(1000));
    assert_eq!(actions(&mut guard), []);
    assert_eq!(guard.poll_timeout(), Some(start + ms(1000) + BOUND));
}

#[test]
fn a_lease_that_ends_is_a_bound_as_well() {
    let start = Instant::now();
    let mut guard = guard(start, 1, DUTY);
    guard.handle_beat(start, Some(start + ms(40)));
    assert_eq!(guard.poll_timeout(), Some(start + ms(42)));
    // It was renewed.
    guard.handle_beat(start + ms(40), Some(start + ms(100)));
    guard.handle_timeout(start + ms(42));
    assert_eq!(actions(&mut guard), []);
    guard.handle_timeout(start + ms(102));
    assert_eq!(actions(&mut guard), [Action::Remove { slot: 0, why: Why::Frozen { silent: ms(62) } }]);
}

#[test]
fn the_address_of_a_killed_daemon_does_not_outlive_its_lease() {
    let start = Instant::now();
    let mut guard = guard(start, 1, DUTY);
    guard.handle_beat(start, Some(start + ms(20)));
    guard.handle_gone(start + ms(5));
    assert_eq!((actions(&mut guard), guard.poll_timeout()), (vec![Action::Farewell(0)], Some(start + ms(20))));
    guard.handle_timeout(start + ms(20));
    assert_eq!(actions(&mut guard), [killed(0), Action::End]);
}

#[test]
fn a_duty_told_anew_keeps_what_is_held() {
    let start = Instant::now();
    let mut guard = guard(start, 1, DUTY);
    guard.handle_duty(0, Duty { bound: ms(500), ..DUTY });
    assert_eq!(guard.poll_timeout(), Some(start + ms(500)));
}

proptest! {
    /// Whatever comes in whatever order: only what is held is removed, once, and a daemon that is gone leaves nothing behind.
    #[test]
    fn what_is_removed_was_held(inputs in prop::collection::vec((0_u8..6, 0_usize..3, 0_u64..60), 0..80)) {
        let start = Instant::now();
        let mut guard = guard(start, 0, DUTY);
        guard.handle_duty(2, DUTY);
        let (mut now, mut held, mut gone) = (start, [false; 3], false);
        for (kind, slot, millis) in inputs {
            now += ms(millis);
            match kind {
                // A daemon that is gone tells nothing.
                0 if !gone => { guard.handle_held(slot, now); held[slot] = true; }
                1 if !gone => { guard.handle_released(slot); held[slot] = false; }
                2 if !gone => guard.handle_beat(now, None),
                3 => guard.handle_timeout(now),
                4 => guard.handle_successor(slot),
                5 if millis == 0 => { guard.handle_gone(now); gone = true; }
                _ => {}
            }
            while let Some(action) = guard.poll_action() {
                match action {
                    Action::Remove { slot, .. } => prop_assert!(std::mem::take(&mut held[slot])),
                    Action::Farewell(slot) => prop_assert!(held[slot] && gone),
                    Action::End => prop_assert!(gone && held == [false; 3]),
                }
            }
        }
        guard.handle_gone(now);
        if let Some(due) = guard.poll_timeout() {
            prop_assert!(due <= now + LINGER);
            guard.handle_timeout(due);
        }
        prop_assert_eq!(guard.poll_timeout(), None);
    }
}
