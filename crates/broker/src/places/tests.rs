use std::net::Ipv4Addr;

use evermq_config::{HostName, LbHost};

use super::*;
use crate::broker::tests::broker;
use crate::connection::clock;

const LB: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

fn places(change: impl FnOnce(&mut Admission)) -> Arc<Places> {
    let mut limits = evermq_config::broker::Broker::default().admission;
    change(&mut limits);
    Places::new(limits, LoadBalancers::new(&[LbHost { name: HostName::new("lb1").unwrap(), address: LB }]))
}

#[test]
fn an_address_has_its_share_and_an_lb_has_all() {
    let (broker, _) = broker();
    let places = places(|limits| limits.per_address = Some(1));
    let mut held: Vec<_> = (0..4).map(|_| places.take(&broker, None).unwrap()).collect();
    let addresses = ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::2:1"].map(|ip| ip.parse().unwrap());
    let mut take = |index: usize, address| places.take_address(&mut held[index], address);
    assert_eq!(take(0, addresses[0]), Ok(()));
    assert_eq!(take(1, addresses[1]), Err(Full::Address), "IPv4 in either spelling");
    assert_eq!(take(1, addresses[2]), Ok(()));
    assert_eq!(take(2, addresses[3]), Err(Full::Address), "a /64 is one");
    assert_eq!(take(2, LB.into()), Ok(()));
    assert_eq!(take(3, LB.into()), Ok(()));
    assert_eq!(take(3, addresses[0]), Err(Full::Address), "an lb's client counts for itself");
    held.remove(0);
    assert_eq!(places.take_address(&mut held[2], addresses[0]), Ok(()));
}

#[test]
fn a_user_has_his_share_and_may_come_back() {
    let (broker, _) = broker();
    let places = places(|limits| limits.per_user = Some(1));
    let mut held: Vec<_> = (0..3).map(|_| places.take(&broker, None).unwrap()).collect();
    assert_eq!(places.take_user(&mut held[0], "u", || panic!("there is room")), Ok(()));
    assert_eq!(places.take_user(&mut held[1], "u", || false), Err(Full::User));
    assert_eq!(places.take_user(&mut held[1], "v", || false), Ok(()));
    assert_eq!(places.take_user(&mut held[2], "u", || true), Ok(()), "for its old connection");
}

#[test]
fn refusals_are_counted_each_for_its_limit() {
    let (broker, _) = broker();
    let places = places(|limits| limits.connections = 2);
    let listener = ListenerPlaces::new(1);
    let _one = places.take(&broker, Some(&listener)).unwrap();
    assert!(matches!(places.take(&broker, Some(&listener)), Err(Full::Listener)));
    let _two = places.take(&broker, None).unwrap();
    assert!(matches!(places.take(&broker, None), Err(Full::Broker)));
    assert_eq!(broker.connections(), 2, "who is refused does not count");
    for full in [Full::Broker, Full::Listener, Full::Address, Full::User, Full::User] {
        places.refused(full, &broker.counters, clock());
    }
    let counted = broker.counters.to_json();
    let keys = ["refused_connections", "refused_listener", "refused_address", "refused_user"];
    assert_eq!(keys.map(|key| counted[key].as_u64().unwrap()), [1, 1, 1, 2]);
}
