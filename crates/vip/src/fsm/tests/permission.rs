//! With a quorum: nobody is master without its permission.

use super::*;

fn careful() -> Settings {
    Settings { permission: true, ..settings(true) }
}

/// A backup whose master-down timer has just run out.
fn seeking() -> (Fsm, Instant) {
    let start = Instant::now();
    let mut fsm = Fsm::new(careful(), start);
    fsm.handle_effective(fit(100), start);
    actions(&mut fsm);
    let now = start + DOWN;
    fsm.handle_timeout(now);
    assert_eq!((actions(&mut fsm), fsm.poll_timeout()), (vec![Action::SeekPermission], None));
    (fsm, now)
}

fn master() -> (Fsm, Instant) {
    let (mut fsm, now) = seeking();
    fsm.handle_permission(true, now);
    let takeover = [Action::AddAddress, Action::SendGarp, Action::SendAdvert { priority: 100 }];
    let expected = [&takeover[..], &[moved(State::Backup, State::Master, Reason::NoMaster)]].concat();
    assert_eq!(actions(&mut fsm), expected);
    (fsm, now)
}

#[test]
fn a_backup_asks_and_waits() {
    let (mut fsm, now) = seeking();
    for _ in 0..3 {
        fsm.handle_permission(false, now + DOWN);
        fsm.handle_timeout(now + DOWN * 9);
        assert_eq!((fsm.state(), actions(&mut fsm)), (State::Backup, vec![]));
    }
    fsm.handle_permission(true, now + DOWN * 10);
    assert_eq!(fsm.state(), State::Master);
}

#[test]
fn whoever_hears_a_master_stops_asking() {
    let (mut fsm, now) = seeking();
    fsm.handle_advert(advert(HIGH, 50), now);
    let challenge = [Action::Follows { master: HIGH }, Action::SendAdvert { priority: 100 }];
    assert_eq!(actions(&mut fsm), challenge, "a lower one is no reason");
    fsm.handle_advert(advert(HIGH, 150), now);
    assert_eq!((actions(&mut fsm), fsm.poll_timeout()), (vec![Action::YieldPermission], Some(now + DOWN)));
    // The answer was on its way.
    fsm.handle_permission(true, now);
    fsm.handle_timeout(now + DOWN);
    assert_eq!((fsm.state(), actions(&mut fsm)), (State::Backup, vec![Action::SeekPermission]));
}

#[test]
fn a_master_without_permission_has_no_address_for_a_moment_longer() {
    let (mut fsm, now) = master();
    fsm.handle_permission(false, now);
    let expected = [
        Action::RemoveAddress,
        Action::SendAdvert { priority: 0 },
        Action::YieldPermission,
        moved(State::Master, State::Backup, Reason::PermissionLost),
    ];
    assert_eq!((actions(&mut fsm), fsm.lingers(), fsm.poll_timeout()), (expected.to_vec(), false, Some(now + DOWN)));
    fsm.handle_timeout(now + DOWN);
    assert_eq!(actions(&mut fsm), [Action::SeekPermission]);
}

#[test]
fn whoever_leaves_gives_the_permission_back() {
    for leave in [
        |fsm: &mut Fsm, now| fsm.handle_effective(unfit(), now),
        |fsm: &mut Fsm, now| fsm.handle_effective(sunk(), now),
        |fsm: &mut Fsm, now| fsm.handle_advert(advert(HIGH, 200), now),
        |fsm: &mut Fsm, now| fsm.handle_timeout(now + DOWN * 2),
        Fsm::handle_shutdown,
    ] {
        let (mut fsm, now) = master();
        leave(&mut fsm, now);
        assert_ne!(fsm.state(), State::Master);
        assert_eq!(actions(&mut fsm).iter().filter(|action| **action == Action::YieldPermission).count(), 1);
        let (mut fsm, now) = seeking();
        fsm.handle_shutdown(now);
        assert_eq!(actions(&mut fsm)[0], Action::YieldPermission);
    }
}

#[test]
fn the_owner_asks_at_once() {
    let now = Instant::now();
    let mut fsm = Fsm::new(careful(), now);
    fsm.handle_effective(fit(OWNER), now);
    assert_eq!(actions(&mut fsm), [moved(State::Initialize, State::Backup, UP), Action::SeekPermission]);
    fsm.handle_permission(true, now);
    assert_eq!(fsm.state(), State::Master);
}

#[test]
fn a_quorum_that_is_switched_on_lets_a_master_ask_for_a_while() {
    for answer in [true, false] {
        let (mut fsm, entered) = machine(State::Master, true);
        fsm.handle_settings(careful(), entered);
        assert_eq!((fsm.state(), actions(&mut fsm)), (State::Master, vec![Action::SeekPermission]));
        fsm.handle_permission(answer, entered);
        for beat in 1..=3 {
            fsm.handle_timeout(entered + INTERVAL * beat);
        }
        assert_eq!(fsm.state(), State::Master);
        fsm.handle_timeout(entered + DOWN);
        assert_eq!(fsm.state(), if answer { State::Master } else { State::Backup });
    }
}

#[test]
fn a_quorum_that_is_switched_off_is_not_waited_for() {
    let (mut fsm, now) = seeking();
    fsm.handle_settings(settings(true), now);
    assert_eq!((fsm.state(), actions(&mut fsm)[0]), (State::Master, Action::YieldPermission));
    let (mut fsm, now) = master();
    fsm.handle_settings(settings(true), now);
    assert_eq!((fsm.state(), actions(&mut fsm)), (State::Master, vec![Action::YieldPermission]));
    fsm.handle_permission(false, now);
    assert_eq!(fsm.state(), State::Master);
}

#[test]
fn a_lower_master_is_challenged_and_makes_room() {
    let (mut low, now) = master();
    let mut better = Fsm::new(Settings { address: HIGH, ..careful() }, now);
    better.handle_effective(fit(150), now);
    better.handle_advert(Advert { source: OWN, ..advert(OWN, 100) }, now);
    actions(&mut better);
    let now = better.poll_timeout().expect("a backup has a timer");
    better.handle_timeout(now);
    assert_eq!(actions(&mut better), [Action::SeekPermission, Action::SendAdvert { priority: 150 }]);
    low.handle_advert(advert(HIGH, 150), now);
    assert_eq!((low.state(), actions(&mut low).contains(&Action::YieldPermission)), (State::Backup, true));
    better.handle_permission(true, now);
    assert_eq!(better.state(), State::Master);
}

#[test]
fn challenges_that_bring_nothing_become_rare() {
    let start = Instant::now();
    let mut fsm = Fsm::new(careful(), start);
    fsm.handle_effective(fit(100), start);
    let mut challenges = Vec::new();
    // The lower master comes back again and again.
    for beat in 0..40_000 {
        let now = start + INTERVAL * beat;
        fsm.handle_timeout(now);
        fsm.handle_advert(advert(LOW, 50), now);
        let sent = actions(&mut fsm).into_iter().filter(|action| matches!(action, Action::SendAdvert { .. })).count();
        challenges.extend(std::iter::repeat_n(beat, sent));
    }
    let pauses: Vec<_> = challenges.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384]);
}
