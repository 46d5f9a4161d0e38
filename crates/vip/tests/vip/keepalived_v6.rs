//! Beside keepalived on one network: VRRP 3 over IPv6, by multicast and by unicast. See [`net::keepalived`] for what happens.

use crate::net::keepalived::{self, Link, beside};
use crate::net::watch::stays;
use crate::net::{VIP6, wait_for};
use nix::sys::signal::Signal;

#[test]
fn lower_priority_waits_and_both_hand_over() {
    Link::v3_of_ipv6().iter().for_each(keepalived::lower_priority_waits_and_both_hand_over);
}

#[test]
fn higher_priority_preempts_and_hands_over() {
    Link::v3_of_ipv6().into_iter().for_each(keepalived::higher_priority_preempts_and_hands_over);
}

#[test]
fn we_preempt() {
    Link::v3_of_ipv6().into_iter().for_each(keepalived::we_preempt);
}

#[test]
fn equal_priorities_are_decided_by_the_address() {
    Link::v3_of_ipv6().iter().for_each(keepalived::equal_priorities_are_decided_by_the_address);
}

#[test]
fn keepaliveds_silence_is_noticed() {
    Link::v3_of_ipv6().into_iter().for_each(keepalived::its_silence_is_noticed);
}

/// RFC 9568 §5.2.9: the first address of an IPv6 virtual router is link-local; a global one comes after it.
#[test]
fn a_link_local_address_comes_first() {
    for mut link in Link::v3_of_ipv6() {
        link.ours.vip = "fe80::100".parse().unwrap();
        link.ours.more = "more_addresses = [\"fd77::100\"]";
        link.theirs.addresses = vec![link.ours.vip, VIP6.into()];
        keepalived::lower_priority_waits_and_both_hand_over(&link);
    }
}

/// By unicast keepalived leaves the hop limit to the kernel unless told otherwise; RFC 9568 §7.1 has anything but 255 discarded.
#[test]
fn a_hop_limit_of_64_is_discarded_counted_and_said() {
    let mut link = Link::v3("hop limit", VIP6.into(), "unicast");
    link.theirs.more = "";
    beside(&link, |lb1, lb2| {
        lb1.start();
        lb1.vip.wait(true);
        lb2.start_keepalived(&link, lb1);
        // It hears us all the same, and is the backup.
        stays("we are master", link.calm(), || lb1.vip.held() && !lb2.vip.held());
        lb1.signal(Signal::SIGTERM);
        assert!(lb1.ended().success());
        lb2.vip.wait(true);
        lb1.start();
        assert_eq!(lb1.logged(&["WARN", "advertisement discarded", "fd77::2", "unicast_ttl 255"]), 1);
        wait_for("it to be counted", || (lb1.state()["counters"]["ip_ttl_errors"].as_u64() > Some(0)).then_some(()));
        lb2.signal(Signal::SIGTERM);
        lb2.ended();
    });
}
