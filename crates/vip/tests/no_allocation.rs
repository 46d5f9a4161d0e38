//! The real-time thread must not allocate: not to send or read an advertisement, not in the machines, as master and as backup,
//! alone and in a sync group.

#![expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use evermq_config::Vrid;
use evermq_config::vip::{AuthPass, Checksum, VrrpVersion};
use evermq_vip::fsm::{Advert, Fsm, Settings, State};
use evermq_vip::packet::{self, Identity, MAX_ADDRESSES, MAX_LENGTH, Received, TTL};
use evermq_vip::routers::{Plan, Routers};
use evermq_vip::track::{Cause, Effective};

/// Counts what the calling thread allocates; other threads belong to the test harness.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came; counting touches nothing but a number.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `work` allocates.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

const INTERVAL: Duration = Duration::from_millis(20);
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3));
const UP: Effective = Effective { priority: Some(100), cause: Cause::LbUp };
const GONE: Effective = Effective { priority: None, cause: Cause::LbGone };

fn settings() -> Settings {
    Settings {
        address: Ipv4Addr::new(10, 0, 0, 2).into(),
        version: VrrpVersion::V3,
        interval: INTERVAL,
        preempt: true,
        preempt_delay: INTERVAL * 9,
        start_delay: Duration::ZERO,
        garp_repeat_delay: INTERVAL * 5,
        garp_refresh: INTERVAL * 7,
        peers: true,
        permission: false,
    }
}

fn advert(priority: u8) -> Advert {
    Advert { source: PEER, priority, interval: INTERVAL }
}

#[test]
fn the_count_counts() {
    assert_eq!(allocations(|| drop(black_box(vec![1, 2, 3]))), 1);
    assert_eq!(allocations(|| assert_eq!(black_box([1, 2, 3]).len(), 3)), 0);
}

#[test]
fn adverts_are_written_and_read_in_place() {
    let identity = |version, addresses, auth_pass| Identity {
        vrid: Vrid::new(51).unwrap(),
        version,
        addresses,
        interval: Duration::from_secs(1),
        auth_pass,
        checksum: Checksum::Rfc,
    };
    let four: Vec<IpAddr> = (1..=MAX_ADDRESSES as u8).map(|n| Ipv4Addr::new(10, 0, 0, n).into()).collect();
    let six: Vec<IpAddr> = (1..=MAX_ADDRESSES as u8).map(|n| format!("fe80::{n}").parse().unwrap()).collect();
    for (identity, source, destination) in [
        (identity(VrrpVersion::V2, four.clone(), AuthPass::new("geheim")), PEER, packet::GROUP_V4.into()),
        (identity(VrrpVersion::V3, four, None), PEER, packet::GROUP_V4.into()),
        (identity(VrrpVersion::V3, six, None), "fe80::99".parse().unwrap(), packet::GROUP_V6.into()),
    ] {
        let counted = allocations(|| {
            let mut message = [0; MAX_LENGTH];
            for priority in 0..=255 {
                let length = packet::encode(&identity, priority, source, destination, &mut message);
                let message = &mut message[..length];
                let read = packet::decode(&Received { source, destination, ttl: TTL, message }, &identity);
                assert_eq!(read.map(|advert| advert.priority), Ok(priority));
                message[6] ^= 1;
                assert!(packet::decode(&Received { source, destination, ttl: TTL, message }, &identity).is_err());
            }
        });
        assert_eq!(counted, 0, "{identity:?}");
    }
}

/// A thousand intervals: wakes the routers as they ask, and lets each hear an advert of this priority now and then. Gives how
/// many actions there were.
fn beat(routers: &mut Routers, heard: Option<u8>, now: &mut Instant) -> u64 {
    let mut actions = 0;
    for _ in 0..1000 {
        *now += INTERVAL;
        for index in 0..routers.len() {
            if let Some(priority) = heard {
                routers.handle_advert(index, advert(priority), *now);
            }
            routers.handle_conflict(index, *now);
        }
        while let Some(due) = routers.poll_timeout().filter(|due| due <= now) {
            black_box(due);
            routers.handle_timeout(*now);
        }
        while black_box(routers.poll_action()).is_some() {
            actions += 1;
        }
    }
    actions
}

#[test]
fn routers_that_have_settled_allocate_nothing_as_master_and_as_backup() {
    for group in [None, Some("g")] {
        let plan = Plan { settings: settings(), sync_group: group.map(str::to_owned), keeps: None };
        let mut now = Instant::now();
        let mut routers = Routers::new(&[plan.clone(), plan], now);
        let counted = allocations(|| {
            for index in 0..2 {
                routers.handle_effective(index, UP, now);
            }
            beat(&mut routers, Some(200), &mut now);
            assert_eq!(routers.state(0), State::Backup);
            assert!(beat(&mut routers, None, &mut now) > 2000);
            // Masters that another one of lower rank challenges.
            assert!(beat(&mut routers, Some(50), &mut now) > 2000);
            assert_eq!([routers.state(0), routers.state(1)], [State::Master; 2]);
        });
        assert_eq!(counted, 0, "group {group:?}");
    }
}

#[test]
fn changes_of_state_and_settings_allocate_nothing_either() {
    let mut now = Instant::now();
    let mut fsm = Fsm::new(settings(), now);
    let counted = allocations(|| {
        for round in 0..100 {
            let interval = INTERVAL * (1 + round % 3);
            fsm.handle_settings(Settings { interval, permission: round % 2 == 0, ..settings() }, now);
            fsm.handle_effective(UP, now);
            fsm.handle_advert(advert(0), now);
            for _ in 0..10 {
                now = fsm.poll_timeout().unwrap_or(now);
                fsm.handle_timeout(now);
                fsm.handle_permission(true, now);
                fsm.handle_address_lost(now);
                while black_box(fsm.poll_action()).is_some() {}
            }
            assert_eq!(fsm.state(), State::Master);
            fsm.handle_advert(advert(200), now);
            fsm.handle_effective(GONE, now);
            fsm.handle_shutdown(now);
            while black_box(fsm.poll_action()).is_some() {}
        }
    });
    assert_eq!(counted, 0);
}

#[test]
fn what_is_read_at_once_does_not_fill_the_queue() {
    let now = Instant::now();
    let mut backup = Fsm::new(settings(), now);
    backup.handle_effective(UP, now);
    let mut master = Fsm::new(settings(), now);
    master.handle_effective(Effective { priority: Some(255), ..UP }, now);
    let other = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 4));
    let counted = allocations(|| {
        for _ in 0..1000 {
            backup.handle_advert(advert(200), now);
            backup.handle_advert(Advert { source: other, ..advert(200) }, now);
            master.handle_advert(advert(0), now);
            master.handle_advert(advert(1), now);
        }
    });
    assert_eq!(counted, 0);
}
