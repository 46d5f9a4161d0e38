//! Beside keepalived on one network: VRRP 2, by multicast, by unicast and with a password. See [`net::keepalived`] for what happens.

use crate::net::keepalived::{self, Link, beside};
use crate::net::wait_for;
use nix::sys::signal::Signal;

/// At the same time: nearly all of it is waiting for seconds to pass.
fn each(links: impl IntoIterator<Item = Link>, test: impl Fn(Link) + Sync) {
    std::thread::scope(|scope| {
        for link in links {
            scope.spawn(|| test(link));
        }
    });
}

#[test]
fn lower_priority_waits_and_both_hand_over() {
    each(Link::v2(), |link| keepalived::lower_priority_waits_and_both_hand_over(&link));
}

#[test]
fn higher_priority_preempts_and_hands_over() {
    each(Link::v2(), keepalived::higher_priority_preempts_and_hands_over);
}

#[test]
fn we_preempt() {
    each(Link::v2(), keepalived::we_preempt);
}

#[test]
fn equal_priorities_are_decided_by_the_address() {
    each(Link::v2(), |link| keepalived::equal_priorities_are_decided_by_the_address(&link));
}

#[test]
fn keepaliveds_silence_is_noticed() {
    each(Link::v2(), keepalived::its_silence_is_noticed);
}

/// RFC 3768 §7.1: what does not agree is discarded on both sides, so both are master, and we say why.
#[test]
fn what_does_not_agree_is_counted_and_said() {
    let [plain, _, secret] = Link::v2();
    let mut slow = plain.clone();
    slow.theirs.advert_int = "2";
    let mut other = secret.clone();
    other.theirs.more = "authentication {\n    auth_type PASS\n    auth_pass other\n  }";
    let mut open = secret.clone();
    open.theirs.more = "";
    let mut newer = plain.clone();
    (newer.theirs.version, newer.theirs.advert_int) = (3, "1");
    let cases = [
        (slow, "interval_errors", "its advertisement interval is 2s"),
        (other, "auth_failures", "password is another one"),
        (open, "auth_type_mismatch", "authentication type is 0, not 1"),
        (newer, "version_errors", "VRRP version is 3, not 2"),
    ];
    std::thread::scope(|scope| {
        for (link, counter, words) in cases {
            scope.spawn(move || {
                beside(&link, |lb1, lb2| {
                    lb1.start();
                    lb1.vip.wait(true);
                    lb2.start_keepalived(&link, lb1);
                    assert_eq!(lb1.logged(&["WARN", "advertisement discarded", "10.77.0.2", words]), 1);
                    wait_for(counter, || (lb1.state()["counters"][counter].as_u64() > Some(0)).then_some(()));
                    lb2.vip.wait(true);
                    assert!(lb1.vip.held(), "neither hears the other");
                    lb2.signal(Signal::SIGTERM);
                    lb2.ended();
                });
            });
        }
    });
}
