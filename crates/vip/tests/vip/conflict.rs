//! Another host claims the VIP: told with its hardware address, counted, and answered.

use std::net::IpAddr;

use crate::net::{self, Net, Options, VIP, wait_for};
use evermq_vip::announce::Announcer;
use evermq_vip::interface;

#[test]
fn a_claim_is_told_counted_and_answered_but_moves_nothing() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, client] = net.start();
    let before = lb1.state()["counters"]["garp_sent"].as_u64().unwrap();
    let mac = client.inside(|| {
        let eth0 = interface::find(Some("eth0"), client.address.into()).unwrap();
        let (sent, error) = Announcer::open(&eth0, &[IpAddr::V4(VIP)]).unwrap().burst(1);
        assert!(sent > 0 && error.is_none());
        eth0.mac.unwrap().to_string()
    });
    let counted = |host: &net::Host| host.state()["counters"]["conflicts"].as_u64().unwrap();
    wait_for("the claim to be counted", || (counted(lb1) > 0).then_some(()));
    assert_eq!(lb1.logged(&["WARN", "another host claims the VIP", "10.77.0.100", &mac]), 1);
    wait_for("the VIP to be announced again", || {
        (lb1.state()["counters"]["garp_sent"].as_u64().unwrap() > before).then_some(())
    });
    assert!(lb1.vip.held());
    // A backup knows that the VIP is another host's.
    assert_eq!(counted(lb2), 0);
    assert_eq!(lb1.state()["state"], "master");
}
