//! VRRP 2's arithmetic, IPv6's addresses, and the address owner.

use std::net::Ipv6Addr;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn version_2(interval: Duration) -> Settings {
    Settings { version: VrrpVersion::V2, interval, ..settings(true) }
}

#[test]
fn the_skew_of_version_2_is_part_of_a_second_and_exact() {
    for (interval, priority, down) in [
        (SECOND, 100, Duration::from_nanos(3_609_375_000)),
        (SECOND, 254, Duration::from_nanos(3_007_812_500)),
        (SECOND * 10, 100, Duration::from_nanos(30_609_375_000)),
    ] {
        let now = Instant::now();
        let mut fsm = Fsm::new(version_2(interval), now);
        fsm.handle_effective(fit(priority), now);
        assert_eq!((fsm.master_down_interval(), fsm.poll_timeout()), (down, Some(now + down)));
    }
}

#[test]
fn in_version_2_the_interval_is_configured_not_learned() {
    let now = Instant::now();
    let mut fsm = Fsm::new(version_2(SECOND), now);
    fsm.handle_effective(fit(100), now);
    fsm.handle_advert(Advert { interval: SECOND * 9, ..advert(HIGH, 200) }, now);
    assert_eq!(fsm.poll_timeout(), Some(now + Duration::from_nanos(3_609_375_000)));
    fsm.handle_advert(advert(HIGH, 0), now);
    assert_eq!(fsm.poll_timeout(), Some(now + Duration::from_nanos(609_375_000)));
}

#[test]
fn in_version_2_an_address_lingers_for_every_skew_and_no_longer() {
    let mut now = Instant::now();
    let mut fsm = Fsm::new(version_2(SECOND * 10), now);
    fsm.handle_effective(fit(100), now);
    now += fsm.master_down_interval();
    fsm.handle_timeout(now);
    fsm.handle_shutdown(now);
    assert_eq!((fsm.lingers(), fsm.poll_timeout()), (true, Some(now + SECOND + Duration::from_millis(10))));
}

#[test]
fn link_local_addresses_are_compared_as_numbers() {
    let own = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x00ff, 0xfe00, 0x0009);
    let lower = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x00ff, 0xfdff, 0xffff);
    let higher = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x0100, 0x0000, 0x0001);
    for (other, state) in [(lower, State::Master), (higher, State::Backup)] {
        let now = Instant::now();
        let mut fsm = Fsm::new(Settings { address: own.into(), ..settings(false) }, now);
        fsm.handle_effective(fit(100), now);
        fsm.handle_timeout(now + DOWN);
        fsm.handle_advert(advert(other.into(), 100), now + DOWN);
        assert_eq!(fsm.state(), state, "{other}");
    }
}

#[test]
fn the_owner_is_master_from_the_start() {
    let now = Instant::now();
    let mut fsm = Fsm::new(settings(false), now);
    fsm.handle_effective(fit(OWNER), now);
    let expected = [
        Action::AddAddress,
        Action::SendGarp,
        Action::SendAdvert { priority: OWNER },
        moved(State::Initialize, State::Master, UP),
    ];
    assert_eq!((actions(&mut fsm), fsm.poll_timeout()), (expected.to_vec(), Some(now + INTERVAL)));
    for other in [advert(HIGH, 254), advert(LOW, OWNER)] {
        fsm.handle_advert(other, now);
        assert_eq!(fsm.state(), State::Master);
    }
    fsm.handle_advert(advert(HIGH, OWNER), now);
    assert_eq!(fsm.state(), State::Backup, "two owners are a mistake, but not two masters for ever");
}

#[test]
fn the_owner_preempts_whatever_is_configured() {
    let now = Instant::now();
    let delayed = Settings { preempt_delay: SECOND * 60, ..settings(false) };
    for settings in [settings(false), delayed] {
        let mut fsm = Fsm::new(settings, now);
        fsm.handle_effective(fit(100), now);
        fsm.handle_advert(advert(HIGH, 200), now);
        fsm.handle_effective(fit(OWNER), now);
        let due = fsm.poll_timeout().expect("a backup has a timer");
        fsm.handle_advert(advert(HIGH, 200), now + LATER);
        assert_eq!(fsm.poll_timeout(), Some(due), "not put off");
        fsm.handle_timeout(due);
        assert_eq!(fsm.state(), State::Master);
    }
}
