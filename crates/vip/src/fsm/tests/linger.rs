//! The address between two masters.

use super::*;

pub(super) fn expected_left(input: Input) -> Row {
    use State::{Backup, Initialize};
    let removed = (Initialize, vec![Action::RemoveAddress], None);
    let unmoved = (Initialize, vec![], Some(LINGER));
    match input {
        Input::Fit(Effective { priority: Some(_), cause }) => {
            (Backup, vec![moved(Initialize, Backup, Reason::Health(cause))], Some(LINGER))
        }
        Input::Fit(Effective { priority: None, cause: Cause::LbSilent }) => removed,
        Input::Fit(Effective { priority: None, .. })
        | Input::Shutdown
        | Input::Permission(_)
        | Input::GroupLeads
        | Input::GroupLeaves { .. } => unmoved,
        Input::Advert(Advert { source: OWN, .. } | Advert { priority: 0, .. }) => unmoved,
        Input::Advert(_) | Input::AddressLost | Input::Conflict | Input::Timeout => removed,
    }
}

pub(super) fn expected_sunk(input: Input) -> Row {
    use State::{Backup, Initialize};
    let unmoved = (Backup, vec![], Some(LINGER));
    match input {
        Input::Fit(Effective { priority: Some(_), .. }) => unmoved,
        Input::Fit(Effective { priority: None, cause: Cause::LbSilent }) => {
            let gone = moved(Backup, Initialize, Reason::Health(Cause::LbSilent));
            (Initialize, vec![Action::RemoveAddress, gone], None)
        }
        Input::Fit(Effective { priority: None, cause }) => {
            (Initialize, vec![moved(Backup, Initialize, Reason::Health(cause))], Some(LINGER))
        }
        Input::Shutdown => (Initialize, vec![moved(Backup, Initialize, Reason::Shutdown)], Some(LINGER)),
        Input::Advert(Advert { source: OWN, .. }) => unmoved,
        // Another one leaves: this host may be its successor before its own address would have gone.
        Input::Advert(Advert { priority: 0, .. }) => (Backup, vec![], Some(LATER + SKEW_1)),
        Input::Advert(Advert { source, .. }) => {
            (Backup, vec![Action::RemoveAddress, Action::Follows { master: source }], Some(LATER + DOWN_1))
        }
        Input::Permission(_) | Input::GroupLeaves { .. } => unmoved,
        Input::GroupLeads => {
            let again = vec![
                Action::SendGarp,
                Action::SendAdvert { priority: LAST_RESORT },
                moved(Backup, State::Master, Reason::Group),
            ];
            (State::Master, again, Some(LATER + INTERVAL))
        }
        Input::AddressLost | Input::Conflict | Input::Timeout => (Backup, vec![Action::RemoveAddress], Some(DOWN_1)),
    }
}

#[test]
fn the_slowest_successor_is_faster_than_the_address_goes() {
    for interval in [10, 20, 100, 1000, 40_950].map(Duration::from_millis) {
        let mut now = Instant::now();
        let settings = Settings { interval, ..settings(false) };
        let mut leaver = Fsm::new(settings, now);
        leaver.handle_effective(fit(254), now);
        now += leaver.master_down_interval();
        leaver.handle_timeout(now);
        let mut successor = Fsm::new(Settings { address: LOW, ..settings }, now);
        successor.handle_effective(sunk(), now);
        successor.handle_advert(Advert { source: OWN, priority: 254, interval }, now);
        leaver.handle_shutdown(now);
        successor.handle_advert(Advert { source: OWN, priority: 0, interval }, now);
        let (takes, goes) = (successor.poll_timeout().unwrap(), leaver.poll_timeout().unwrap());
        assert!(goes - takes >= Duration::from_millis(10), "{interval:?}");
        successor.handle_timeout(takes);
        assert_eq!(successor.state(), State::Master);
    }
}

#[test]
fn without_a_peer_the_address_goes_at_once() {
    for input in [|fsm: &mut Fsm, now| fsm.handle_effective(unfit(), now), Fsm::handle_shutdown] {
        let mut now = Instant::now();
        let mut fsm = Fsm::new(Settings { peers: false, ..settings(false) }, now);
        fsm.handle_effective(fit(100), now);
        now += DOWN;
        fsm.handle_timeout(now);
        actions(&mut fsm);
        input(&mut fsm, now);
        assert_eq!(actions(&mut fsm)[..2], [Action::SendAdvert { priority: 0 }, Action::RemoveAddress]);
        assert_eq!((fsm.lingers(), fsm.poll_timeout()), (false, None));
    }
}

#[test]
fn a_host_that_is_master_again_before_the_address_went_keeps_it() {
    let (mut fsm, entered) = begin(Start::Sunk, false);
    fsm.handle_advert(advert(HIGH, 0), entered + LATER);
    fsm.handle_timeout(entered + LATER + SKEW_1);
    let again = vec![
        Action::SendGarp,
        Action::SendAdvert { priority: LAST_RESORT },
        moved(State::Backup, State::Master, Reason::MasterLeft { master: HIGH }),
    ];
    assert_eq!((fsm.state(), fsm.lingers(), actions(&mut fsm)), (State::Master, false, again));
    fsm.handle_advert(advert(HIGH, 200), entered + LINGER);
    assert_eq!(actions(&mut fsm)[0], Action::RemoveAddress);
}

#[test]
fn a_host_that_slept_through_its_linger_time_removes_the_address_before_all_else() {
    let (mut fsm, entered) = begin(Start::Sunk, false);
    fsm.handle_timeout(entered + DOWN_1);
    let did = actions(&mut fsm);
    assert_eq!(did[..2], [Action::RemoveAddress, Action::AddAddress]);
    assert_eq!((fsm.state(), fsm.lingers()), (State::Master, false));
}

#[test]
fn the_burst_is_repeated_when_the_host_that_left_has_surely_let_the_address_go() {
    let bursts = |left: bool, delay: Duration| {
        let mut now = Instant::now();
        let mut fsm = Fsm::new(Settings { garp_repeat_delay: delay, ..settings(false) }, now);
        fsm.handle_effective(fit(100), now);
        fsm.handle_advert(advert(HIGH, 200), now);
        if left {
            fsm.handle_advert(advert(HIGH, 0), now);
        }
        let (mut takeover, mut bursts) = (None, Vec::new());
        let end = now + Duration::from_secs(5);
        while now < end {
            now = fsm.poll_timeout().expect("a fit machine has a timer");
            fsm.handle_timeout(now);
            let since = now - *takeover.get_or_insert(now);
            let did = actions(&mut fsm);
            bursts.extend(did.into_iter().filter(|action| *action == Action::SendGarp).map(|_| since));
        }
        bursts
    };
    let second = Duration::from_secs(1);
    assert_eq!(bursts(true, second), [Duration::ZERO, LINGER, second]);
    assert_eq!(bursts(true, Duration::ZERO), [Duration::ZERO, LINGER]);
    assert_eq!(bursts(false, second), [Duration::ZERO, second]);
}
