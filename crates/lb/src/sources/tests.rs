use super::*;

fn limits(connections: Option<usize>, rate: Option<u32>) -> SourceLimits {
    SourceLimits { connections, rate }
}

fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]
    Instant::now()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn an_address_has_so_many_and_the_next_one_its_own() {
    let now = start();
    let sources = Arc::new(Sources::new(limits(Some(2), None), now));
    let one = address("192.0.2.1");
    let first = sources.enter(one, now).unwrap();
    let second = sources.enter(one, now).unwrap();
    assert_eq!(sources.enter(one, now).unwrap_err(), Refused::TooMany);
    let other = sources.enter(address("192.0.2.2"), now).unwrap();
    drop(first);
    let third = sources.enter(one, now).unwrap();
    assert_eq!(sources.enter(one, now).unwrap_err(), Refused::TooMany);
    assert_eq!(sources.len(), 2);
    drop((second, third, other));
    assert!(sources.is_empty());
}

#[test]
fn an_address_comes_so_fast() {
    let now = start();
    let sources = Arc::new(Sources::new(limits(None, Some(10)), now));
    let one = address("192.0.2.1");
    for _ in 0..10 {
        drop(sources.enter(one, now).unwrap());
    }
    assert_eq!(sources.enter(one, now).unwrap_err(), Refused::TooFast);
    assert!(sources.enter(address("192.0.2.2"), now).is_ok());
    let later = now + Duration::from_millis(100);
    assert!(sources.enter(one, later).is_ok());
    assert_eq!(sources.enter(one, later).unwrap_err(), Refused::TooFast);
}

#[test]
fn a_network_of_ipv6_counts_as_one_and_ipv4_in_either_spelling_too() {
    assert_eq!(Source::of(address("2001:db8::1")), Source::of(address("2001:db8::ffff:0:0:2")));
    assert_ne!(Source::of(address("2001:db8::1")), Source::of(address("2001:db8:0:1::1")));
    assert_eq!(Source::of(address("192.0.2.1")), Source::of(address("::ffff:192.0.2.1")));
    assert_ne!(Source::of(address("192.0.2.1")), Source::of(address("192.0.2.2")));
}

#[test]
fn without_a_limit_nothing_is_kept() {
    let now = start();
    let sources = Arc::new(Sources::new(limits(None, None), now));
    let place = sources.enter(address("192.0.2.1"), now).unwrap();
    assert!(sources.is_empty());
    // A limit that comes later counts from then on, and who was not counted does not leave.
    sources.set_limits(limits(Some(1), None));
    let counted = sources.enter(address("192.0.2.1"), now).unwrap();
    drop(place);
    assert_eq!(sources.enter(address("192.0.2.1"), now).unwrap_err(), Refused::TooMany);
    sources.set_limits(limits(None, None));
    drop(counted);
    assert!(sources.is_empty());
}

#[test]
fn strangers_that_knock_once_leave_nothing_behind() {
    let now = start();
    let sources = Arc::new(Sources::new(limits(Some(5), Some(5)), now));
    let mut most = 0;
    for stranger in 0..200_000_u32 {
        // 20,000 in a second; each owes for a fifth of one.
        let now = now + Duration::from_micros(50) * stranger;
        let address = IpAddr::V4((0x0A00_0000 + stranger).into());
        drop(sources.enter(address, now).unwrap());
        if stranger % 1000 == 0 {
            most = most.max(sources.len());
        }
    }
    assert!((1..=12_000).contains(&most), "{most}");
    let capacity: usize = sources.shards.iter().map(|shard| lock(shard).entries.capacity()).sum();
    assert!(capacity < 40_000, "{capacity}");
}

#[test]
fn many_threads_count_right() {
    let now = start();
    let sources = Arc::new(Sources::new(limits(Some(100), None), now));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let sources = Arc::clone(&sources);
            std::thread::spawn(move || {
                let mut held = Vec::new();
                for round in 0..2000 {
                    held.extend(sources.enter(address("192.0.2.1"), now));
                    if round % 3 == 0 {
                        held.pop();
                    }
                }
                held
            })
        })
        .collect();
    let held: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert!((97..=100).contains(&held.len()), "{}", held.len());
    drop(held);
    assert!(sources.is_empty());
}
