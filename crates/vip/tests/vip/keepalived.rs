//! Beside keepalived on one network: VRRP 3 over IPv4, by multicast and by unicast. See [`net::keepalived`] for what happens.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::net::keepalived::{self, Link, beside};
use crate::net::watch::stays;
use crate::net::{Host, VIP, wait_for};
use nix::sys::signal::Signal;

#[test]
fn lower_priority_waits_and_both_hand_over() {
    Link::v3_of_ipv4().iter().for_each(keepalived::lower_priority_waits_and_both_hand_over);
}

#[test]
fn higher_priority_preempts_and_hands_over() {
    Link::v3_of_ipv4().into_iter().for_each(keepalived::higher_priority_preempts_and_hands_over);
}

#[test]
fn we_preempt() {
    Link::v3_of_ipv4().into_iter().for_each(keepalived::we_preempt);
}

#[test]
fn keepalived_does_not_preempt_where_it_is_told_so() {
    Link::v3_of_ipv4().into_iter().for_each(keepalived::it_does_not_preempt_where_it_is_told_so);
}

#[test]
fn equal_priorities_are_decided_by_the_address() {
    Link::v3_of_ipv4().iter().for_each(keepalived::equal_priorities_are_decided_by_the_address);
}

#[test]
fn keepaliveds_silence_is_noticed() {
    Link::v3_of_ipv4().into_iter().for_each(keepalived::its_silence_is_noticed);
}

/// A backup learns the master's interval (RFC 9568 §6.4.2), so neither side takes the other's pace for silence.
#[test]
fn another_interval_is_said_and_does_no_harm() {
    let second = Duration::from_secs(1);
    let mut link = Link::v3("another interval", VIP.into(), "multicast").with_priority(250);
    link.theirs.advert_int = "1";
    beside(&link, |lb1, lb2| {
        lb1.start();
        lb1.vip.wait(true);
        lb2.start_keepalived(&link, lb1);
        lb2.vip.wait(true);
        lb1.vip.wait(false);
        lb1.wait_to_hear(lb2, VIP.into());
        stays("we wait for 3 of its intervals", second * 4, || lb2.vip.held() && !lb1.vip.held());
        assert_eq!(lb1.logged(&["WARN", "interval", "10.77.0.2", "interval_ms=1000"]), 1);
        assert!(lb1.state()["counters"]["interval_errors"].as_u64() > Some(0));
        let fault = Instant::now();
        lb2.cut(true);
        let after = lb1.vip.wait(true) - fault;
        assert!(after > second * 2 && after < second * 6, "{after:?}");
        lb2.cut(false);
        lb1.vip.wait(false);
        // Told, it does not wait for them, as with any other interval.
        lb2.signal(Signal::SIGTERM);
        lb1.vip.wait(true);
        keepalived::it_left(lb1, lb2, &link);
        lb2.ended();
    });
    // The other way round: it learns ours.
    let link = link.with_priority(150);
    beside(&link, |lb1, lb2| {
        lb1.start();
        lb1.vip.wait(true);
        lb2.start_keepalived(&link, lb1);
        stays("it hears us", second * 4, || lb1.vip.held() && !lb2.vip.held());
        let fault = Instant::now();
        lb1.cut(true);
        // Three of ours and a skew; three of its own would be three seconds.
        assert!(lb2.vip.wait(true) - fault < second * 2);
        lb2.signal(Signal::SIGTERM);
        lb2.ended();
    });
}

#[test]
fn its_old_unicast_checksum_is_understood_and_spoken() {
    let mut link = Link::v3("old checksum", VIP.into(), "unicast");
    link.theirs.more = "old_unicast_checksum";
    link.ours.more = "checksum = \"old_unicast\"";
    keepalived::lower_priority_waits_and_both_hand_over(&link);
}

#[test]
fn several_addresses_move_together_in_whichever_order_they_are_listed() {
    let others: [IpAddr; 2] = ["10.77.0.101".parse().unwrap(), "10.77.0.102".parse().unwrap()];
    for mut link in Link::v3_of_ipv4() {
        link.ours.more = "more_addresses = [\"10.77.0.101\", \"10.77.0.102\"]";
        link.theirs.addresses = vec![others[1], VIP.into(), others[0]];
        beside(&link, |lb1, lb2| {
            lb1.start();
            lb1.vip.wait(true);
            lb2.start_keepalived(&link, lb1);
            stays("keepalived hears our adverts", link.calm(), || lb1.vip.held() && !lb2.vip.held());
            wait_for("all of them here", || others.iter().all(|other| has(lb1, *other)).then_some(()));
            lb1.signal(Signal::SIGTERM);
            assert!(lb1.ended().success());
            lb2.vip.wait(true);
            wait_for("all of them there", || {
                others.iter().all(|other| has(lb2, *other) && !has(lb1, *other)).then_some(())
            });
            lb1.start();
            lb1.wait_to_hear(lb2, VIP.into());
            lb2.signal(Signal::SIGTERM);
            lb1.vip.wait(true);
            wait_for("all of them back", || {
                others.iter().all(|other| has(lb1, *other) && !has(lb2, *other)).then_some(())
            });
            lb2.ended();
        });
    }
}

fn has(host: &Host, address: IpAddr) -> bool {
    let shown = host.command("ip").args(["-oneline", "address", "show", "to", &address.to_string()]).output().unwrap();
    !shown.stdout.is_empty()
}
