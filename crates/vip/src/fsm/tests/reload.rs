//! Other settings in the middle of it.

use super::*;

const SLOW: Duration = Duration::from_secs(1);

#[test]
fn a_master_stays_master_and_tells_its_interval_at_once() {
    for (before, after) in [(INTERVAL, SLOW), (SLOW, INTERVAL)] {
        let start = Instant::now();
        let with = |interval| Settings { interval, garp_repeat_delay: Duration::ZERO, ..settings(true) };
        let mut fsm = Fsm::new(with(before), start);
        fsm.handle_effective(fit(100), start);
        let now = start + fsm.master_down_interval();
        fsm.handle_timeout(now);
        actions(&mut fsm);
        // Late in the old interval: by the shorter one it would have been silent for too long.
        let later = now + before * 9 / 10;
        fsm.handle_settings(with(after), later);
        assert_eq!(actions(&mut fsm), [Action::SendAdvert { priority: 100 }]);
        assert_eq!((fsm.state(), fsm.poll_timeout()), (State::Master, Some(later + after)));
    }
}

#[test]
fn a_master_that_was_stopped_finds_out_before_anything_else() {
    let (mut fsm, entered) = machine(State::Master, false);
    fsm.handle_settings(Settings { interval: SLOW, ..settings(false) }, entered + DOWN * 2);
    assert_eq!(fsm.state(), State::Backup);
}

#[test]
fn a_backup_waits_as_if_it_had_always_been_so() {
    let (mut fsm, entered) = machine(State::Backup, false);
    fsm.handle_settings(Settings { interval: INTERVAL * 2, ..settings(false) }, entered + LATER);
    assert_eq!((fsm.poll_timeout(), actions(&mut fsm)), (Some(entered + DOWN * 2), vec![]));
    // What was learned from a master is the master's business.
    fsm.handle_advert(advert(HIGH, 200), entered + LATER);
    fsm.handle_settings(settings(false), entered + LATER);
    assert_eq!(fsm.poll_timeout(), Some(entered + LATER + DOWN));
}

#[test]
fn preemption_can_be_switched_while_a_lower_master_is_heard() {
    let (mut fsm, entered) = machine(State::Backup, false);
    fsm.handle_advert(advert(LOW, 50), entered + LATER);
    fsm.handle_settings(settings(true), entered + LATER);
    fsm.handle_advert(advert(LOW, 50), entered + LATER * 2);
    assert_eq!(fsm.poll_timeout(), Some(entered + LATER + DOWN), "not put off any more");
}

#[test]
fn announcements_are_switched_on_and_off() {
    let (mut fsm, entered) = machine(State::Master, false);
    let refreshing = Settings { garp_refresh: INTERVAL / 2, ..settings(false) };
    fsm.handle_settings(refreshing, entered);
    assert_eq!(fsm.poll_timeout(), Some(entered + INTERVAL / 2));
    fsm.handle_timeout(entered + INTERVAL / 2);
    assert_eq!(actions(&mut fsm), [Action::SendGarp]);
    fsm.handle_settings(settings(false), entered + INTERVAL / 2);
    assert_eq!(fsm.poll_timeout(), Some(entered + INTERVAL));
}

#[test]
fn the_same_settings_change_nothing() {
    for start in STARTS {
        let (mut fsm, entered) = begin(start, true);
        let before = (fsm.state(), fsm.poll_timeout());
        fsm.handle_settings(settings(true), entered + LATER);
        assert_eq!((fsm.state(), fsm.poll_timeout(), actions(&mut fsm)), (before.0, before.1, vec![]));
    }
}
