//! What a group does, case by case; and random inputs, after each of which all of a group or none of it is master.

#![expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use evermq_config::vip::VrrpVersion;
use proptest::prelude::*;

use super::*;
use crate::fsm::{Reason, Transition};
use crate::track::{Cause, LAST_RESORT};

const INTERVAL: Duration = Duration::from_millis(20);
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3));
/// Of priority 100.
const SKEW: Duration = Duration::from_nanos(12_187_500);
const DOWN: Duration = Duration::from_nanos(72_187_500);
const UP: Effective = Effective { priority: Some(100), cause: Cause::LbUp };
const GONE: Effective = Effective { priority: None, cause: Cause::LbGone };
const SUNK: Effective = Effective { priority: Some(LAST_RESORT), cause: Cause::LbDegraded };

fn settings() -> Settings {
    Settings {
        address: OWN,
        version: VrrpVersion::V3,
        interval: INTERVAL,
        preempt: true,
        preempt_delay: Duration::ZERO,
        start_delay: Duration::ZERO,
        garp_repeat_delay: Duration::ZERO,
        garp_refresh: Duration::ZERO,
        peers: true,
        permission: false,
    }
}

fn plan(group: Option<&str>) -> Plan {
    Plan { settings: settings(), sync_group: group.map(str::to_owned), keeps: None }
}

fn advert(priority: u8) -> Advert {
    Advert { source: PEER, priority, interval: INTERVAL }
}

fn actions(routers: &mut Routers) -> Vec<(usize, Action)> {
    std::iter::from_fn(|| routers.poll_action()).collect()
}

fn moved(from: State, to: State, reason: Reason) -> Action {
    Action::Moved(Transition { from, to, reason })
}

fn states(routers: &Routers) -> Vec<State> {
    (0..routers.len()).map(|index| routers.state(index)).collect()
}

/// Two routers of one group that are fit since the instant.
fn backups() -> (Routers, Instant) {
    let now = Instant::now();
    let mut routers = Routers::new(&[plan(Some("g")), plan(Some("g"))], now);
    for index in 0..2 {
        routers.handle_effective(index, UP, now);
    }
    actions(&mut routers);
    assert_eq!(states(&routers), [State::Backup; 2]);
    (routers, now)
}

fn masters() -> (Routers, Instant) {
    let (mut routers, start) = backups();
    let now = start + DOWN;
    routers.handle_timeout(now);
    actions(&mut routers);
    assert_eq!(states(&routers), [State::Master; 2]);
    (routers, now)
}

#[test]
fn without_groups_each_goes_its_own_way() {
    let now = Instant::now();
    let mut routers = Routers::new(&[plan(None), plan(None)], now);
    routers.handle_effective(1, UP, now);
    assert_eq!(actions(&mut routers), [(1, moved(State::Initialize, State::Backup, Reason::Health(Cause::LbUp)))]);
    assert_eq!(routers.poll_timeout(), Some(now + DOWN));
    routers.handle_timeout(now + DOWN);
    assert_eq!(states(&routers), [State::Initialize, State::Master]);
    routers.handle_effective(0, UP, now + DOWN);
    actions(&mut routers);
    routers.handle_advert(1, advert(200), now + DOWN);
    assert_eq!(states(&routers), [State::Backup, State::Backup]);
    assert!(actions(&mut routers).iter().all(|(index, _)| *index == 1));
}

#[test]
fn a_group_starts_when_every_member_was_judged() {
    let now = Instant::now();
    let mut routers = Routers::new(&[plan(Some("g")), plan(Some("g")), plan(Some("other"))], now);
    routers.handle_effective(0, UP, now);
    assert_eq!((states(&routers), actions(&mut routers)), (vec![State::Initialize; 3], vec![]));
    routers.handle_effective(1, UP, now);
    assert_eq!(states(&routers), [State::Backup, State::Backup, State::Initialize]);
}

#[test]
fn the_first_timer_makes_all_master_unless_one_hears_a_better_master() {
    let (mut routers, start) = backups();
    // The second member hears a master that left: it would wait longer than the first one.
    routers.handle_advert(1, Advert { interval: INTERVAL * 9, ..advert(200) }, start + DOWN / 2);
    routers.handle_timeout(start + DOWN);
    assert_eq!(states(&routers), [State::Backup; 2], "the second one obeys");
    routers.handle_advert(1, advert(0), start + DOWN);
    assert_eq!(states(&routers), [State::Master; 2], "its master left, and the first one waits no longer");
    let did = actions(&mut routers);
    let of = |index| did.iter().filter(|(by, _)| *by == index).map(|(_, action)| *action).collect::<Vec<_>>();
    assert_eq!(of(0).last(), Some(&moved(State::Backup, State::Master, Reason::NoMaster)));
    assert_eq!(of(1).last(), Some(&moved(State::Backup, State::Master, Reason::MasterLeft { master: PEER })));
}

#[test]
fn who_follows_its_group_says_so() {
    let (mut routers, start) = backups();
    routers.handle_effective(1, Effective { priority: Some(50), ..UP }, start);
    routers.handle_timeout(start + DOWN);
    let did = actions(&mut routers);
    assert_eq!(did.last(), Some(&(1, moved(State::Backup, State::Master, Reason::Group))));
    assert_eq!(did.iter().filter(|(_, action)| *action == Action::AddAddress).count(), 2);
}

#[test]
fn a_member_whose_master_is_better_keeps_the_group_back_for_as_long_as_it_hears_it() {
    let (mut routers, start) = backups();
    for beat in 1..=100 {
        let now = start + INTERVAL * beat;
        routers.handle_advert(0, advert(50), now);
        routers.handle_advert(1, advert(150), now);
        routers.handle_timeout(now);
        assert_eq!(states(&routers), [State::Backup; 2]);
    }
    let heard = start + INTERVAL * 100;
    assert_eq!(routers.poll_timeout(), Some(heard + DOWN));
    routers.handle_timeout(heard + DOWN);
    assert_eq!(states(&routers), [State::Master; 2]);
}

#[test]
fn one_that_is_outranked_takes_the_others_along_and_they_hand_over() {
    let (mut routers, now) = masters();
    routers.handle_advert(0, advert(150), now);
    assert_eq!(states(&routers), [State::Backup; 2]);
    let outranked = Reason::Outranked { master: PEER, priority: 150 };
    let expected = [
        (0, Action::RemoveAddress),
        (0, moved(State::Master, State::Backup, outranked)),
        (0, Action::Follows { master: PEER }),
        (1, Action::SendAdvert { priority: 0 }),
        (1, moved(State::Master, State::Backup, Reason::Group)),
    ];
    assert_eq!(actions(&mut routers), expected);
    assert!(routers.lingers(1) && !routers.lingers(0) && routers.any_lingers());
}

#[test]
fn one_that_is_unfit_or_of_last_resort_makes_all_of_them_so() {
    for (worse, state) in [(GONE, State::Initialize), (SUNK, State::Backup)] {
        let (mut routers, now) = masters();
        routers.handle_effective(1, worse, now);
        let handover = |index| {
            [
                (index, Action::SendAdvert { priority: 0 }),
                (index, moved(State::Master, state, Reason::Health(worse.cause))),
            ]
        };
        assert_eq!(actions(&mut routers), [handover(0), handover(1)].concat());
        routers.handle_effective(1, UP, now);
        assert_eq!(states(&routers), [State::Backup; 2]);
        routers.handle_timeout(now + INTERVAL * 2);
        actions(&mut routers);
        routers.handle_timeout(now + DOWN);
        assert_eq!(states(&routers), [State::Master; 2], "{worse:?}");
    }
}

#[test]
fn a_group_asks_for_every_permission_before_one_is_master_and_drops_all_at_once() {
    let now = Instant::now();
    let careful = Plan { settings: Settings { permission: true, ..settings() }, ..plan(Some("g")) };
    let mut routers = Routers::new(&[careful.clone(), careful], now);
    for index in 0..2 {
        routers.handle_effective(index, UP, now);
    }
    actions(&mut routers);
    let now = now + DOWN;
    routers.handle_timeout(now);
    assert_eq!(actions(&mut routers), [(0, Action::SeekPermission)]);
    routers.handle_permission(0, true, now);
    assert_eq!((states(&routers), actions(&mut routers)), (vec![State::Backup; 2], vec![(1, Action::SeekPermission)]));
    // Lost before the other one came.
    routers.handle_permission(0, false, now);
    assert_eq!(actions(&mut routers), [(0, Action::SeekPermission)]);
    routers.handle_permission(1, true, now);
    routers.handle_permission(0, true, now);
    assert_eq!(states(&routers), [State::Master; 2]);
    actions(&mut routers);
    routers.handle_permission(0, false, now);
    let leave = |index, reason| {
        [Action::RemoveAddress, Action::SendAdvert { priority: 0 }, Action::YieldPermission, reason]
            .map(|action| (index, action))
    };
    let lost = moved(State::Master, State::Backup, Reason::PermissionLost);
    let along = moved(State::Master, State::Backup, Reason::Group);
    assert_eq!(actions(&mut routers), [leave(0, lost), leave(1, along)].concat());
}

#[test]
fn a_group_that_is_kept_back_asks_for_nothing() {
    let now = Instant::now();
    let careful = Plan { settings: Settings { permission: true, ..settings() }, ..plan(Some("g")) };
    let mut routers = Routers::new(&[careful.clone(), careful], now);
    for index in 0..2 {
        routers.handle_effective(index, UP, now);
    }
    routers.handle_timeout(now + DOWN);
    actions(&mut routers);
    routers.handle_advert(1, advert(150), now + DOWN);
    let expected = [(0, Action::YieldPermission), (1, Action::Follows { master: PEER })];
    assert_eq!(actions(&mut routers), expected);
    routers.handle_permission(0, true, now + DOWN);
    assert_eq!((states(&routers), actions(&mut routers)), (vec![State::Backup; 2], vec![]));
}

#[test]
fn a_shut_down_member_goes_alone_and_hears_of_health_no_more() {
    let (mut routers, now) = masters();
    routers.handle_shutdown(0, now);
    assert_eq!(states(&routers), [State::Initialize, State::Master]);
    routers.handle_effective(0, UP, now);
    assert_eq!(states(&routers), [State::Initialize, State::Master]);
    actions(&mut routers);
    routers.handle_shutdown(1, now);
    let left =
        [(1, Action::SendAdvert { priority: 0 }), (1, moved(State::Master, State::Initialize, Reason::Shutdown))];
    assert_eq!(actions(&mut routers), left);
    let gone = routers.poll_timeout().expect("the address goes");
    routers.handle_timeout(gone);
    assert!(!routers.any_lingers());
}

#[test]
fn other_plans_keep_the_masters_and_what_joins_them_follows() {
    let (mut routers, now) = masters();
    let kept = |index| Plan { keeps: Some(index), ..plan(Some("g")) };
    routers.handle_plans(&[plan(Some("g")), kept(1), kept(0)], now);
    assert_eq!(
        (states(&routers), actions(&mut routers)),
        (vec![State::Initialize, State::Master, State::Master], vec![])
    );
    routers.handle_effective(0, UP, now);
    assert_eq!(states(&routers), [State::Master; 3]);
    assert!(actions(&mut routers).iter().all(|(index, _)| *index == 0));
    // Out of the group, and then shut down and left out.
    routers.handle_plans(&[Plan { keeps: Some(1), ..plan(None) }, kept(2), kept(0)], now);
    routers.handle_advert(0, advert(200), now);
    assert_eq!(states(&routers), [State::Backup, State::Master, State::Master]);
    routers.handle_shutdown(0, now);
    actions(&mut routers);
    routers.handle_plans(&[kept(1), kept(2)], now);
    assert_eq!((states(&routers), actions(&mut routers)), (vec![State::Master; 2], vec![]));
}

#[test]
fn one_that_joins_and_is_unfit_ends_the_others_mastership() {
    let (mut routers, now) = masters();
    let kept = |index| Plan { keeps: Some(index), ..plan(Some("g")) };
    routers.handle_plans(&[kept(0), kept(1), plan(Some("g"))], now);
    routers.handle_effective(2, GONE, now);
    assert_eq!(states(&routers), [State::Initialize; 3]);
}

#[test]
fn routers_that_are_put_together_agree() {
    let now = Instant::now();
    let mut routers = Routers::new(&[plan(None), plan(None)], now);
    for index in 0..2 {
        routers.handle_effective(index, UP, now);
    }
    routers.handle_advert(1, advert(150), now + DOWN / 2);
    routers.handle_timeout(now + DOWN);
    assert_eq!(states(&routers), [State::Master, State::Backup]);
    let kept = |index| Plan { keeps: Some(index), ..plan(Some("g")) };
    routers.handle_plans(&[kept(0), kept(1)], now + DOWN);
    assert_eq!(states(&routers), [State::Backup; 2]);
}

#[test]
fn a_group_that_loses_race_after_race_waits_longer_and_longer_but_not_without_end() {
    let (mut routers, mut now) = masters();
    let mut waits = Vec::new();
    for _ in 0..8 {
        routers.handle_advert(0, advert(150), now);
        routers.handle_advert(0, advert(0), now);
        let left = now;
        while states(&routers) != [State::Master; 2] {
            let due = routers.poll_timeout().expect("a group that waits has a timer");
            assert!(due > now || now == left, "a timer that does not move on");
            now = now.max(due);
            routers.handle_timeout(now);
        }
        waits.push(now - left);
    }
    assert_eq!(waits[0], SKEW);
    assert!(waits[1..].windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
    assert!(waits[1] >= INTERVAL * 4 && waits[7] <= INTERVAL * 20, "{waits:?}");
    assert_eq!(waits[6], waits[7]);
    // Calm for a while: the next one is as quick as the first.
    let calm = now + Duration::from_secs(3);
    while now < calm {
        now = routers.poll_timeout().expect("a master has a timer");
        routers.handle_timeout(now);
    }
    routers.handle_advert(0, advert(150), now);
    routers.handle_advert(0, advert(0), now);
    routers.handle_timeout(now + SKEW);
    assert_eq!(states(&routers), [State::Master; 2]);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Effective(usize, Effective),
    Advert(usize, Advert),
    Permission(usize, bool),
    Lost(usize),
    Conflict(usize),
    Wait(Duration),
    Sleep(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    let effective = prop_oneof![
        Just(GONE),
        Just(SUNK),
        Just(UP),
        (2_u8..=255).prop_map(|priority| Effective { priority: Some(priority), cause: Cause::LbUp }),
    ];
    let priority = prop_oneof![Just(0), Just(1), Just(100), any::<u8>()];
    let heard = (priority, prop_oneof![Just(PEER), Just(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)))])
        .prop_map(|(priority, source)| Advert { source, ..advert(priority) });
    prop_oneof![
        2 => (0..4_usize, effective).prop_map(|(index, effective)| Step::Effective(index, effective)),
        3 => (0..4_usize, heard).prop_map(|(index, advert)| Step::Advert(index, advert)),
        3 => (0..4_usize, any::<bool>()).prop_map(|(index, granted)| Step::Permission(index, granted)),
        1 => (0..4_usize).prop_map(Step::Lost),
        1 => (0..4_usize).prop_map(Step::Conflict),
        5 => (0_u64..100_000).prop_map(|micros| Step::Wait(Duration::from_micros(micros))),
        1 => (0_u64..300).prop_map(|millis| Step::Sleep(Duration::from_millis(millis))),
    ]
}

/// Groups of 0 and 1, and of 2 and 3.
fn check(routers: &mut Routers, holds: &mut [bool; 4], permission: bool) -> Result<(), TestCaseError> {
    for (index, action) in actions(routers) {
        match action {
            Action::AddAddress => holds[index] = true,
            Action::RemoveAddress => holds[index] = false,
            Action::SeekPermission | Action::YieldPermission => prop_assert!(permission),
            Action::SendGarp | Action::SendAdvert { .. } | Action::Moved(_) | Action::Follows { .. } => {}
        }
    }
    for pair in [[0, 1], [2, 3]] {
        let masters = pair.map(|index| routers.state(index) == State::Master);
        prop_assert_eq!(masters[0], masters[1], "one of the group is master and the other is not");
        for index in pair {
            prop_assert_eq!(holds[index], routers.state(index) == State::Master || routers.lingers(index));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn all_of_a_group_or_none_of_it_is_master(
        preempt: bool,
        permission: bool,
        delay in prop_oneof![Just(0), Just(50)],
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut now = Instant::now();
        let preempt_delay = Duration::from_millis(delay);
        let settings = Settings { preempt, permission, preempt_delay, start_delay: preempt_delay, ..settings() };
        let plans = ["a", "a", "b", "b"].map(|group| Plan { settings, ..plan(Some(group)) });
        let mut routers = Routers::new(&plans, now);
        let mut holds = [false; 4];
        for step in steps {
            match step {
                Step::Effective(index, effective) => routers.handle_effective(index, effective, now),
                Step::Advert(index, advert) => routers.handle_advert(index, advert, now),
                Step::Permission(index, granted) => routers.handle_permission(index, granted, now),
                Step::Lost(index) => routers.handle_address_lost(index, now),
                Step::Conflict(index) => routers.handle_conflict(index, now),
                Step::Sleep(time) => now += time,
                Step::Wait(time) => {
                    let end = now + time;
                    while let Some(due) = routers.poll_timeout().filter(|due| *due <= end) {
                        now = now.max(due);
                        routers.handle_timeout(now);
                        prop_assert!(routers.poll_timeout().is_none_or(|next| next > now), "a timer that does not move on");
                        check(&mut routers, &mut holds, permission)?;
                    }
                    now = end;
                }
            }
            check(&mut routers, &mut holds, permission)?;
        }
    }
}
