//! Delays of start, preemption and announcements; and someone else's claims.

use super::*;

const DELAY: Duration = Duration::from_millis(500);

/// A backup that hears `priority` every interval until it is master, and when that was.
fn beaten_by(fsm: &mut Fsm, priority: u8, start: Instant) -> Option<Duration> {
    for beat in 0..200 {
        let now = start + INTERVAL * beat;
        while let Some(due) = fsm.poll_timeout().filter(|due| *due <= now) {
            fsm.handle_timeout(due);
            if fsm.state() == State::Master {
                return Some(due - start);
            }
        }
        fsm.handle_advert(advert(LOW, priority), now);
    }
    None
}

fn backup(preempt: bool) -> (Fsm, Instant) {
    let now = Instant::now();
    let mut fsm = Fsm::new(Settings { preempt_delay: DELAY, ..settings(preempt) }, now);
    fsm.handle_effective(fit(100), now);
    (fsm, now)
}

#[test]
fn a_better_backup_waits_for_its_delay_and_to_the_moment() {
    let (mut fsm, start) = backup(true);
    assert_eq!(beaten_by(&mut fsm, 50, start), Some(DELAY));
    let reason = Reason::Preempted { master: LOW, priority: 50 };
    assert_eq!(actions(&mut fsm).last(), Some(&moved(State::Backup, State::Master, reason)));
}

#[test]
fn without_preemption_there_is_nothing_to_delay_and_last_resort_is_never_waited_for() {
    assert_eq!(beaten_by(&mut backup(false).0, 50, Instant::now()), None);
    for preempt in [false, true] {
        let (mut fsm, start) = backup(preempt);
        assert_eq!(beaten_by(&mut fsm, LAST_RESORT, start), Some(DOWN));
    }
}

#[test]
fn the_delay_begins_when_the_backup_becomes_the_better_one() {
    let (mut fsm, start) = backup(true);
    fsm.handle_effective(fit(40), start);
    for beat in 0..100 {
        fsm.handle_advert(advert(LOW, 50), start + INTERVAL * beat);
    }
    let able = start + INTERVAL * 100;
    fsm.handle_effective(fit(100), able);
    assert_eq!(beaten_by(&mut fsm, 50, able), Some(DELAY));
}

#[test]
fn a_better_master_in_between_begins_the_delay_anew() {
    let (mut fsm, start) = backup(true);
    for beat in 0..20 {
        fsm.handle_advert(advert(LOW, if beat == 10 { 150 } else { 50 }), start + INTERVAL * beat);
    }
    let again = start + INTERVAL * 11;
    assert_eq!(beaten_by(&mut fsm, 50, start + INTERVAL * 20), Some(again + DELAY - (start + INTERVAL * 20)));
}

#[test]
fn a_lower_master_that_falls_silent_during_the_delay_is_missed_as_any_other() {
    let (mut fsm, start) = backup(true);
    fsm.handle_advert(advert(LOW, 50), start + LATER);
    assert_eq!(fsm.poll_timeout(), Some(start + LATER + DOWN));
    fsm.handle_timeout(start + LATER + DOWN);
    let reason = Reason::MasterSilent { master: LOW, silent: DOWN };
    assert_eq!(actions(&mut fsm).last(), Some(&moved(State::Backup, State::Master, reason)));
    let (mut fsm, start) = backup(true);
    fsm.handle_advert(advert(LOW, 50), start);
    fsm.handle_advert(advert(LOW, 0), start);
    assert_eq!(fsm.poll_timeout(), Some(start + SKEW), "and one that leaves has no use for a delay");
}

#[test]
fn a_backup_whose_rank_falls_obeys_the_master_it_heard_last() {
    let (mut fsm, start) = machine(State::Backup, true);
    let heard = start + INTERVAL * 3;
    fsm.handle_advert(advert(LOW, 50), heard);
    fsm.handle_effective(fit(40), heard + LATER);
    assert_eq!(fsm.poll_timeout(), Some(heard + INTERVAL * 3 + INTERVAL * 216 / 256));
}

#[test]
fn nothing_begins_before_the_start_delay_is_over() {
    for priority in [100, OWNER] {
        let start = Instant::now();
        let mut fsm = Fsm::new(Settings { start_delay: DELAY, ..settings(false) }, start);
        fsm.handle_effective(fit(priority), start + LATER);
        assert_eq!((fsm.state(), fsm.poll_timeout()), (State::Initialize, Some(start + DELAY)));
        fsm.handle_effective(unfit(), start + LATER);
        fsm.handle_effective(fit(priority), start + LATER);
        fsm.handle_timeout(start + DELAY);
        assert_eq!(fsm.state(), if priority == OWNER { State::Master } else { State::Backup });
        fsm.handle_effective(unfit(), start + DELAY);
        fsm.handle_effective(fit(priority), start + DELAY);
        assert_ne!(fsm.state(), State::Initialize, "once only");
    }
}

#[test]
fn an_unfit_host_does_not_start_and_a_stopped_one_has_no_timer() {
    let start = Instant::now();
    let mut fsm = Fsm::new(Settings { start_delay: DELAY, ..settings(false) }, start);
    fsm.handle_effective(fit(100), start);
    fsm.handle_effective(unfit(), start);
    fsm.handle_timeout(start + DELAY);
    assert_eq!((fsm.state(), fsm.poll_timeout(), actions(&mut fsm)), (State::Initialize, None, vec![]));
    let mut fsm = Fsm::new(Settings { start_delay: DELAY, ..settings(false) }, start);
    fsm.handle_effective(fit(100), start);
    fsm.handle_shutdown(start);
    assert_eq!((fsm.state(), fsm.poll_timeout(), actions(&mut fsm)), (State::Initialize, None, vec![]));
}

/// When a master announces its addresses, from its takeover on, for four seconds.
fn announcements(settings: Settings, mut each: impl FnMut(&mut Fsm, Instant)) -> Vec<Duration> {
    let start = Instant::now();
    let mut fsm = Fsm::new(settings, start);
    fsm.handle_effective(fit(100), start);
    let (takeover, mut now) = (start + DOWN, start);
    let mut bursts = Vec::new();
    while now < takeover + Duration::from_secs(4) {
        now = fsm.poll_timeout().expect("a fit machine has a timer");
        fsm.handle_timeout(now);
        each(&mut fsm, now);
        let sent = actions(&mut fsm).into_iter().filter(|action| *action == Action::SendGarp).count();
        bursts.extend(std::iter::repeat_n(now - takeover, sent));
    }
    bursts
}

#[test]
fn a_master_announces_its_addresses_again_and_again_where_it_is_told_to() {
    let [second, two] = [1, 2].map(Duration::from_secs);
    let refreshing = Settings { garp_refresh: two, ..settings(false) };
    assert_eq!(announcements(refreshing, |_, _| ()), [Duration::ZERO, second, two, two * 2]);
    let alone = Settings { garp_repeat_delay: Duration::ZERO, ..refreshing };
    assert_eq!(announcements(alone, |_, _| ()), [Duration::ZERO, two, two * 2]);
    let together = Settings { garp_repeat_delay: two, ..refreshing };
    assert_eq!(announcements(together, |_, _| ()), [Duration::ZERO, two, two * 2], "two at one time are one");
}

#[test]
fn a_claimed_address_is_defended_once_a_second() {
    let quiet = Settings { garp_repeat_delay: Duration::ZERO, ..settings(false) };
    let bursts = announcements(quiet, |fsm, now| {
        for _ in 0..10 {
            fsm.handle_conflict(now);
        }
        assert_eq!(fsm.state(), State::Master, "a claim has no rank");
    });
    assert_eq!(bursts.len(), 5, "{bursts:?}");
    assert!(bursts.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(1)), "{bursts:?}");
    let mut claimed = false;
    let bursts = announcements(quiet, |fsm, now| {
        if fsm.state() == State::Master && fsm.poll_timeout() == Some(now + INTERVAL) && !claimed {
            claimed = true;
            fsm.handle_conflict(now);
        }
    });
    assert_eq!(bursts, [0, 1].map(Duration::from_secs), "one claim, one answer");
}
