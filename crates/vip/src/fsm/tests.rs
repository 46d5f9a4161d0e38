//! The transition table, one row for each state and input, and what a row cannot show.

#![expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]

mod delays;
mod linger;
mod permission;
mod random;
mod reload;
mod versions;

use std::net::Ipv4Addr;

use super::*;

const INTERVAL: Duration = Duration::from_millis(20);
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const LOW: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const HIGH: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3));
/// Skew of priority 100: 156/256 of 20 ms.
const SKEW: Duration = Duration::from_nanos(12_187_500);
const DOWN: Duration = Duration::from_nanos(72_187_500);
const SKEW_150: Duration = Duration::from_nanos(8_281_250);
const SKEW_1: Duration = Duration::from_nanos(19_921_875);
const DOWN_1: Duration = Duration::from_nanos(79_921_875);
/// How long an address lingers.
const LINGER: Duration = Duration::from_millis(30);
/// When the input comes, after the state was entered.
const LATER: Duration = Duration::from_millis(5);
const UP: Reason = Reason::Health(Cause::LbUp);

fn settings(preempt: bool) -> Settings {
    Settings {
        address: OWN,
        version: VrrpVersion::V3,
        interval: INTERVAL,
        preempt,
        preempt_delay: Duration::ZERO,
        start_delay: Duration::ZERO,
        garp_repeat_delay: Duration::from_secs(1),
        garp_refresh: Duration::ZERO,
        peers: true,
        permission: false,
    }
}

fn fit(priority: u8) -> Effective {
    Effective { priority: Some(priority), cause: Cause::LbUp }
}

fn sunk() -> Effective {
    Effective { priority: Some(LAST_RESORT), cause: Cause::LbDegraded }
}

fn unfit() -> Effective {
    Effective { priority: None, cause: Cause::LbGone }
}

fn silent() -> Effective {
    Effective { priority: None, cause: Cause::LbSilent }
}

fn advert(source: IpAddr, priority: u8) -> Advert {
    Advert { source, priority, interval: INTERVAL }
}

fn actions(fsm: &mut Fsm) -> Vec<Action> {
    std::iter::from_fn(|| fsm.poll_action()).collect()
}

fn moved(from: State, to: State, reason: Reason) -> Action {
    Action::Moved(Transition { from, to, reason })
}

/// Where a row of the table begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// A machine of priority 100 that has just entered the state.
    In(State),
    /// Initialize, just after a hand-over: the address lingers.
    Left,
    /// Backup of priority 1, just after a hand-over: the address lingers.
    Sunk,
}

const STARTS: [Start; 5] =
    [Start::In(State::Initialize), Start::In(State::Backup), Start::In(State::Master), Start::Left, Start::Sunk];

/// A machine, and when it came to be so.
fn begin(start: Start, preempt: bool) -> (Fsm, Instant) {
    let (effective, state) = match start {
        Start::In(state) => return machine(state, preempt),
        Start::Left => (unfit(), State::Initialize),
        Start::Sunk => (sunk(), State::Backup),
    };
    let (mut fsm, entered) = machine(State::Master, preempt);
    fsm.handle_effective(effective, entered);
    actions(&mut fsm);
    assert!(fsm.state() == state && fsm.lingers());
    (fsm, entered)
}

/// A machine of priority 100 that has just entered `state`, and when.
fn machine(state: State, preempt: bool) -> (Fsm, Instant) {
    let mut now = Instant::now();
    let mut fsm = Fsm::new(settings(preempt), now);
    if state != State::Initialize {
        fsm.handle_effective(fit(100), now);
    }
    if state == State::Master {
        now += DOWN;
        fsm.handle_timeout(now);
    }
    actions(&mut fsm);
    assert_eq!(fsm.state(), state);
    (fsm, now)
}

#[derive(Debug, Clone, Copy)]
enum Input {
    Fit(Effective),
    Advert(Advert),
    AddressLost,
    Conflict,
    Permission(bool),
    GroupLeads,
    GroupLeaves {
        at_once: bool,
    },
    Shutdown,
    /// The machine's own deadline, exactly.
    Timeout,
}

fn inputs() -> Vec<Input> {
    vec![
        Input::Fit(fit(100)),
        Input::Fit(fit(150)),
        Input::Fit(sunk()),
        Input::Fit(unfit()),
        Input::Fit(silent()),
        Input::Advert(advert(LOW, 0)),
        Input::Advert(advert(LOW, LAST_RESORT)),
        Input::Advert(advert(HIGH, 99)),
        Input::Advert(advert(LOW, 100)),
        Input::Advert(advert(HIGH, 100)),
        Input::Advert(advert(LOW, 101)),
        Input::Advert(advert(OWN, 255)),
        Input::AddressLost,
        Input::Conflict,
        Input::Permission(true),
        Input::Permission(false),
        Input::GroupLeads,
        Input::GroupLeaves { at_once: false },
        Input::GroupLeaves { at_once: true },
        Input::Shutdown,
        Input::Timeout,
    ]
}

fn give(fsm: &mut Fsm, input: Input, now: Instant) {
    match input {
        Input::Fit(effective) => fsm.handle_effective(effective, now),
        Input::Advert(advert) => fsm.handle_advert(advert, now),
        Input::AddressLost => fsm.handle_address_lost(now),
        Input::Conflict => fsm.handle_conflict(now),
        Input::Permission(granted) => fsm.handle_permission(granted, now),
        Input::GroupLeads => fsm.handle_group_leads(now),
        Input::GroupLeaves { at_once } => fsm.handle_group_leaves(at_once, now),
        Input::Shutdown => fsm.handle_shutdown(now),
        Input::Timeout => fsm.handle_timeout(fsm.poll_timeout().unwrap_or(now)),
    }
}

/// State after, actions, and the next deadline counted from when the row began.
type Row = (State, Vec<Action>, Option<Duration>);

fn expected(start: Start, preempt: bool, input: Input) -> Row {
    match start {
        Start::In(state) => expected_in(state, preempt, input),
        Start::Left => linger::expected_left(input),
        Start::Sunk => linger::expected_sunk(input),
    }
}

fn expected_in(state: State, preempt: bool, input: Input) -> Row {
    match state {
        State::Initialize => expected_in_initialize(input),
        State::Backup => expected_in_backup(preempt, input),
        State::Master => expected_in_master(input),
    }
}

fn expected_in_initialize(input: Input) -> Row {
    use State::{Backup, Initialize};
    match input {
        Input::Fit(Effective { priority: Some(priority), cause }) => {
            let skew = INTERVAL * (256 - u32::from(priority)) / 256;
            (Backup, vec![moved(Initialize, Backup, Reason::Health(cause))], Some(LATER + INTERVAL * 3 + skew))
        }
        _ => (Initialize, vec![], None),
    }
}

fn expected_in_backup(preempt: bool, input: Input) -> Row {
    use State::{Backup, Initialize, Master};
    let follows = |master| Action::Follows { master };
    let takeover = |reason| {
        let claim = [Action::AddAddress, Action::SendGarp, Action::SendAdvert { priority: 100 }];
        [&claim[..], &[moved(Backup, Master, reason)]].concat()
    };
    match input {
        Input::Fit(Effective { priority: Some(100), .. }) => (Backup, vec![], Some(DOWN)),
        Input::Fit(Effective { priority: Some(150), .. }) => (Backup, vec![], Some(DOWN - SKEW + SKEW_150)),
        Input::Fit(Effective { priority: Some(_), .. }) => (Backup, vec![], Some(DOWN - SKEW + SKEW_1)),
        Input::Fit(Effective { priority: None, cause }) => {
            (Initialize, vec![moved(Backup, Initialize, Reason::Health(cause))], None)
        }
        Input::Advert(Advert { source: OWN, .. })
        | Input::AddressLost
        | Input::Conflict
        | Input::Permission(_)
        | Input::GroupLeaves { .. } => (Backup, vec![], Some(DOWN)),
        Input::GroupLeads => (Master, takeover(Reason::Group), Some(LATER + INTERVAL)),
        Input::Advert(Advert { priority: 0, .. }) => (Backup, vec![], Some(LATER + SKEW)),
        Input::Advert(Advert { priority: LAST_RESORT, source, .. }) => (Backup, vec![follows(source)], Some(DOWN)),
        Input::Advert(Advert { priority: 99, source, .. }) if preempt => (Backup, vec![follows(source)], Some(DOWN)),
        Input::Advert(Advert { source, .. }) => (Backup, vec![follows(source)], Some(LATER + DOWN)),
        Input::Shutdown => (Initialize, vec![moved(Backup, Initialize, Reason::Shutdown)], None),
        Input::Timeout => (Master, takeover(Reason::NoMaster), Some(DOWN + INTERVAL)),
    }
}

fn expected_in_master(input: Input) -> Row {
    use State::{Backup, Initialize, Master};
    match input {
        Input::Fit(Effective { priority: Some(100), .. }) => (Master, vec![], Some(INTERVAL)),
        Input::Fit(Effective { priority: Some(150), .. }) => {
            (Master, vec![Action::SendAdvert { priority: 150 }], Some(LATER + INTERVAL))
        }
        Input::Fit(Effective { priority: Some(_), cause }) => {
            let handover = vec![Action::SendAdvert { priority: 0 }, moved(Master, Backup, Reason::Health(cause))];
            (Backup, handover, Some(LATER + LINGER))
        }
        Input::Fit(Effective { priority: None, cause: Cause::LbSilent }) => {
            let mut handover = vec![Action::SendAdvert { priority: 0 }, Action::RemoveAddress];
            handover.push(moved(Master, Initialize, Reason::Health(Cause::LbSilent)));
            (Initialize, handover, None)
        }
        Input::Fit(Effective { priority: None, .. }) | Input::Shutdown => {
            let reason = match input {
                Input::Fit(effective) => Reason::Health(effective.cause),
                _ => Reason::Shutdown,
            };
            let handover = vec![Action::SendAdvert { priority: 0 }, moved(Master, Initialize, reason)];
            (Initialize, handover, Some(LATER + LINGER))
        }
        Input::Advert(Advert { source: OWN, .. }) => (Master, vec![], Some(INTERVAL)),
        Input::Advert(Advert { priority: 0, .. }) => {
            (Master, vec![Action::SendAdvert { priority: 100 }], Some(LATER + INTERVAL))
        }
        Input::Advert(Advert { priority, source, .. }) if (priority, source) > (100, OWN) => {
            let step_back = vec![
                Action::RemoveAddress,
                moved(Master, Backup, Reason::Outranked { master: source, priority }),
                Action::Follows { master: source },
            ];
            (Backup, step_back, Some(LATER + DOWN))
        }
        Input::Advert(_) => (Master, vec![Action::SendAdvert { priority: 100 }], Some(INTERVAL)),
        Input::AddressLost => (Master, vec![Action::AddAddress, Action::SendGarp], Some(INTERVAL)),
        // Its own announcement was just now; the next one is due anyway.
        Input::Conflict | Input::Permission(_) | Input::GroupLeads => (Master, vec![], Some(INTERVAL)),
        Input::GroupLeaves { at_once: false } => {
            let leave = vec![Action::SendAdvert { priority: 0 }, moved(Master, Backup, Reason::Group)];
            (Backup, leave, Some(LATER + LINGER))
        }
        Input::GroupLeaves { at_once: true } => {
            let leave = [Action::RemoveAddress, Action::SendAdvert { priority: 0 }];
            (Backup, [&leave[..], &[moved(Master, Backup, Reason::Group)]].concat(), Some(LATER + DOWN))
        }
        Input::Timeout => (Master, vec![Action::SendAdvert { priority: 100 }], Some(INTERVAL * 2)),
    }
}

#[test]
fn every_state_and_input_does_what_the_table_says() {
    let mut rows = 0;
    for start in STARTS {
        for preempt in [false, true] {
            for input in inputs() {
                let (mut fsm, entered) = begin(start, preempt);
                let now = entered + LATER;
                give(&mut fsm, input, now);
                let row = (fsm.state(), actions(&mut fsm), fsm.poll_timeout().map(|due| due - entered));
                assert_eq!(row, expected(start, preempt, input), "{start:?}, preempt {preempt}, {input:?}");
                rows += 1;
            }
        }
    }
    assert_eq!(rows, 5 * 2 * 21);
}

#[test]
fn nothing_happens_before_a_deadline() {
    for start in STARTS {
        let (mut fsm, entered) = begin(start, false);
        let state = fsm.state();
        let before = fsm.poll_timeout();
        fsm.handle_timeout(before.map_or(entered, |due| due - Duration::from_nanos(1)));
        assert_eq!((fsm.state(), fsm.poll_timeout(), actions(&mut fsm)), (state, before, vec![]));
    }
}

#[test]
fn skew_tells_neighbouring_priorities_apart() {
    let down = |priority| {
        let mut fsm = Fsm::new(Settings { interval: Duration::from_millis(10), ..settings(false) }, Instant::now());
        fsm.handle_effective(fit(priority), Instant::now());
        fsm.master_down_interval()
    };
    assert_eq!(down(254), Duration::from_nanos(30_078_125));
    assert_eq!(down(253) - down(254), Duration::from_nanos(39_062));
    assert!((2..=254).all(|priority| down(priority) < down(priority - 1)));
}

#[test]
fn a_backup_learns_the_masters_interval_and_forgets_it_as_master() {
    let (mut fsm, entered) = machine(State::Backup, false);
    fsm.handle_advert(Advert { interval: INTERVAL * 50, ..advert(HIGH, 200) }, entered + LATER);
    assert_eq!(fsm.poll_timeout(), Some(entered + LATER + DOWN * 50));
    // Priority 0 leaves a skew of the learned interval.
    let left = entered + LATER * 2;
    fsm.handle_advert(advert(HIGH, 0), left);
    assert_eq!(fsm.poll_timeout(), Some(left + SKEW * 50));
    fsm.handle_timeout(left + SKEW * 50);
    assert_eq!(fsm.master_down_interval(), DOWN);
    assert_eq!(fsm.poll_timeout(), Some(left + SKEW * 50 + INTERVAL));
    let reason = Reason::MasterLeft { master: HIGH };
    assert_eq!(actions(&mut fsm).last(), Some(&moved(State::Backup, State::Master, reason)));
}

#[test]
fn a_silent_and_a_lower_master_are_told_apart_in_the_reason() {
    for (priority, reason) in [
        (200, Reason::MasterSilent { master: HIGH, silent: DOWN }),
        (LAST_RESORT, Reason::Preempted { master: HIGH, priority: LAST_RESORT }),
    ] {
        let (mut fsm, entered) = machine(State::Backup, false);
        fsm.handle_advert(advert(HIGH, priority), entered);
        fsm.handle_timeout(entered + DOWN);
        assert_eq!(actions(&mut fsm).last(), Some(&moved(State::Backup, State::Master, reason)));
    }
}

#[test]
fn a_master_that_was_stopped_listens_for_a_master_down_interval_before_it_speaks() {
    let (mut fsm, entered) = machine(State::Master, false);
    let last_advert = entered;
    let woke = last_advert + DOWN + Duration::from_nanos(1);
    let silent = woke - last_advert;
    fsm.handle_timeout(woke);
    let step_back = vec![Action::RemoveAddress, moved(State::Master, State::Backup, Reason::Paused { silent })];
    assert_eq!(actions(&mut fsm), step_back);
    assert_eq!(fsm.poll_timeout(), Some(woke + DOWN));
    fsm.handle_timeout(woke + DOWN);
    assert_eq!(fsm.state(), State::Master);
}

#[test]
fn a_master_that_was_stopped_obeys_even_a_lower_master_and_hands_nothing_over() {
    let woke = |input: fn(&mut Fsm, Instant)| {
        let (mut fsm, entered) = machine(State::Master, false);
        let now = entered + DOWN * 2;
        input(&mut fsm, now);
        (fsm.state(), fsm.poll_timeout().map(|due| due - now), actions(&mut fsm))
    };
    let step_back = [Action::RemoveAddress, moved(State::Master, State::Backup, Reason::Paused { silent: DOWN * 2 })];
    let (state, due, did) = woke(|fsm, now| fsm.handle_advert(advert(LOW, 50), now));
    assert_eq!((state, due), (State::Backup, Some(DOWN)));
    assert_eq!(did, [&step_back[..], &[Action::Follows { master: LOW }]].concat());
    let (state, due, did) = woke(Fsm::handle_shutdown);
    assert_eq!((state, due), (State::Initialize, None));
    assert_eq!(did, [&step_back[..], &[moved(State::Backup, State::Initialize, Reason::Shutdown)]].concat());
    let (state, _, did) = woke(Fsm::handle_address_lost);
    assert_eq!((state, did), (State::Backup, step_back.to_vec()));
}

#[test]
fn a_master_that_is_late_but_not_too_late_goes_on() {
    let (mut fsm, entered) = machine(State::Master, false);
    let late = entered + DOWN;
    fsm.handle_timeout(late);
    assert_eq!(actions(&mut fsm), [Action::SendAdvert { priority: 100 }]);
    assert_eq!(fsm.poll_timeout(), Some(late + INTERVAL), "no burst for the beats that were missed");
    fsm.handle_timeout(late + INTERVAL + Duration::from_millis(3));
    assert_eq!(fsm.poll_timeout(), Some(late + INTERVAL * 2), "a small delay does not add up");
}

#[test]
fn a_backup_that_was_stopped_listens_once_more() {
    let (mut fsm, entered) = machine(State::Backup, false);
    let woke = entered + DOWN * 2 + Duration::from_nanos(1);
    fsm.handle_timeout(woke);
    assert_eq!((fsm.state(), actions(&mut fsm)), (State::Backup, vec![]));
    assert_eq!(fsm.poll_timeout(), Some(woke + DOWN));
}

#[test]
fn the_second_burst_comes_once_and_not_at_all_without_a_delay() {
    let bursts = |delay: Duration| {
        let mut now = Instant::now();
        let start = now;
        let mut fsm = Fsm::new(Settings { garp_repeat_delay: delay, ..settings(false) }, now);
        fsm.handle_effective(fit(100), now);
        let mut bursts = Vec::new();
        while now < start + Duration::from_secs(5) {
            now = fsm.poll_timeout().expect("a fit machine has a timer");
            fsm.handle_timeout(now);
            let sent = actions(&mut fsm).into_iter().filter(|action| *action == Action::SendGarp).count();
            bursts.extend(std::iter::repeat_n(now - start - DOWN, sent));
        }
        bursts
    };
    assert_eq!(bursts(Duration::from_secs(1)), [Duration::ZERO, Duration::from_secs(1)]);
    assert_eq!(bursts(Duration::ZERO), [Duration::ZERO]);
}

#[test]
fn two_masters_that_meet_make_the_one_that_stays_claim_again_but_not_without_end() {
    let mut now = Instant::now();
    let mut fsm = Fsm::new(Settings { garp_repeat_delay: Duration::ZERO, ..settings(false) }, now);
    fsm.handle_effective(fit(100), now);
    now += DOWN;
    fsm.handle_timeout(now);
    actions(&mut fsm);
    let (mut adverts, mut bursts) = (0, 0);
    // A deaf router of lower rank advertises every millisecond for ten seconds.
    for _ in 0..10_000 {
        now += Duration::from_millis(1);
        fsm.handle_advert(advert(LOW, 50), now);
        fsm.handle_timeout(now);
        for action in actions(&mut fsm) {
            match action {
                Action::SendAdvert { priority: 100 } => adverts += 1,
                Action::SendGarp => bursts += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(adverts, 500 + 500, "one answer for each regular advertisement");
    assert_eq!(bursts, 10);
}

#[test]
fn reasons_read_as_sentences() {
    let reason = Reason::Preempted { master: LOW, priority: 1 };
    assert_eq!(reason.to_string(), "master 10.0.0.1 has only priority 1");
    assert_eq!(UP.to_string(), "the local lb is up");
    let reason = Reason::Paused { silent: Duration::from_millis(310) };
    assert_eq!(reason.to_string(), "this program did not run for 310 ms, another host may be master");
}
