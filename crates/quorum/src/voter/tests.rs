#![expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]

use proptest::prelude::*;

use super::*;

const LEASE: Duration = Duration::from_millis(200);
const VIP: Resource = Resource::new(false, 51);
const A: HostId = HostId(1);
const B: HostId = HostId(2);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A voter whose abstention is over at the instant that comes with it.
fn voter() -> (Voter, Instant) {
    let start = Instant::now();
    (Voter::new(LEASE, start), start + LEASE)
}

fn granted(lease: Duration) -> Vote {
    Vote::Granted { lease }
}

fn held(left: Duration) -> Vote {
    Vote::Refused { refusal: Refusal::Held, left }
}

#[test]
fn one_that_has_started_abstains_for_a_lease() {
    let (mut voter, over) = voter();
    let almost = over - ms(1);
    let left = Vote::Refused { refusal: Refusal::Abstains, left: ms(1) };
    assert_eq!(voter.handle_request(VIP, A, LEASE, almost), left);
    assert_eq!(voter.abstains(almost), Some(ms(1)));
    assert_eq!(voter.abstains(over), None);
    assert_eq!(voter.handle_request(VIP, A, LEASE, over), granted(LEASE));
}

#[test]
fn lends_to_one_at_a_time_until_it_has_run_out() {
    let (mut voter, start) = voter();
    assert_eq!(voter.handle_request(VIP, A, LEASE, start), granted(LEASE));
    assert_eq!(voter.handle_request(VIP, B, LEASE, start + ms(199)), held(ms(1)));
    assert_eq!(voter.handle_request(VIP, A, LEASE, start + ms(199)), granted(LEASE), "its holder may keep it");
    assert_eq!(voter.handle_request(VIP, B, LEASE, start + ms(398)), held(ms(1)));
    assert_eq!(voter.handle_request(VIP, B, LEASE, start + ms(399)), granted(LEASE));
    assert_eq!(voter.handle_request(VIP, A, LEASE, start + ms(399)), held(LEASE));
}

#[test]
fn each_resource_has_a_lease_of_its_own() {
    let (mut voter, start) = voter();
    for (resource, host) in [(VIP, A), (Resource::new(true, 51), B), (Resource::new(false, 52), B)] {
        assert_eq!(voter.handle_request(resource, host, LEASE, start), granted(LEASE));
    }
    let shown: Vec<_> = voter.leases(start).map(|lease| (lease.resource, lease.holder)).collect();
    assert_eq!(shown, [(VIP, A), (Resource::new(true, 51), B), (Resource::new(false, 52), B)]);
    assert_eq!(voter.leases(start + LEASE).count(), 0);
}

#[test]
fn only_its_holder_can_give_a_lease_back() {
    let (mut voter, start) = voter();
    voter.handle_request(VIP, A, LEASE, start);
    voter.handle_yield(VIP, B);
    voter.handle_yield(Resource::new(false, 52), A);
    assert_eq!(voter.handle_request(VIP, B, LEASE, start), held(LEASE));
    voter.handle_yield(VIP, A);
    assert_eq!(voter.handle_request(VIP, B, LEASE, start), granted(LEASE));
}

#[test]
fn the_shorter_of_two_leases_counts_and_a_granted_one_is_never_cut() {
    let (mut voter, start) = voter();
    assert_eq!(voter.handle_request(VIP, A, ms(500), start), granted(LEASE));
    assert_eq!(voter.handle_request(VIP, A, ms(50), start), granted(ms(50)));
    assert_eq!(voter.handle_request(VIP, B, LEASE, start + ms(100)), held(ms(100)));
    voter.handle_lease(ms(40));
    assert_eq!(voter.handle_request(VIP, B, LEASE, start + ms(100)), held(ms(100)));
    assert_eq!(voter.handle_request(VIP, B, LEASE, start + LEASE), granted(ms(40)));
}

#[test]
fn room_is_bounded_and_comes_back() {
    let (mut voter, start) = voter();
    let capacity = voter.leases.capacity();
    for number in 0..MOST_LEASES {
        let resource = Resource::new(number >= 255, u8::try_from(number % 255).unwrap() + 1);
        assert_eq!(voter.handle_request(resource, A, LEASE, start), granted(LEASE));
    }
    let full = Vote::Refused { refusal: Refusal::Full, left: LEASE };
    assert_eq!(voter.handle_request(Resource::new(true, 0), A, LEASE, start), full);
    assert_eq!(voter.handle_request(Resource::new(true, 0), A, LEASE, start + LEASE), granted(LEASE));
    assert_eq!(voter.leases.capacity(), capacity);
}

proptest! {
    /// Whatever is asked and given back: who was granted a lease keeps it for all of it, unless it gives it back.
    #[test]
    fn a_lease_is_never_broken(steps in proptest::collection::vec((0..3u64, 0..2u8, 0..80u64, 1..300u64, any::<bool>()), 1..80)) {
        let (mut voter, mut now) = voter();
        let mut promised: [Option<(HostId, Instant)>; 2] = [None; 2];
        for (host, vrid, pause, asked, yields) in steps {
            now += ms(pause);
            let (host, resource, promise) = (HostId(host), Resource::new(false, vrid), &mut promised[usize::from(vrid)]);
            if yields {
                voter.handle_yield(resource, host);
                *promise = promise.filter(|(holder, _)| *holder != host);
                continue;
            }
            let other = promise.filter(|(holder, until)| *holder != host && *until > now);
            match voter.handle_request(resource, host, ms(asked), now) {
                Vote::Granted { lease } => {
                    prop_assert_eq!(other, None);
                    prop_assert!(lease <= LEASE && lease <= ms(asked));
                    let before = promise.filter(|(holder, _)| *holder == host).map(|(_, until)| until);
                    *promise = Some((host, before.max(Some(now + lease)).unwrap_or(now)));
                }
                Vote::Refused { refusal, left } => {
                    prop_assert_eq!(refusal, Refusal::Held);
                    prop_assert_eq!(other.map(|(_, until)| until), Some(now + left));
                }
            }
        }
    }
}
