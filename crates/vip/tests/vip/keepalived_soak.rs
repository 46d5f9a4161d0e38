//! Two minutes beside keepalived without a flap, every version, family and kind of adverts at the same time: `make soak-vip`.

use std::time::{Duration, Instant};

use crate::net::keepalived::{Link, nothing_was_discarded};
use crate::net::{Host, Net};
use nix::sys::signal::Signal;

const TIME: Duration = Duration::from_secs(120);
/// Between two looks; the changes of an address are counted as they come.
const LOOK: Duration = Duration::from_secs(1);

#[test]
#[ignore = "takes two minutes: make soak-vip"]
fn two_minutes_beside_keepalived_without_a_flap() {
    let mut links = Vec::new();
    links.extend(Link::v3_of_ipv4());
    links.extend(Link::v3_of_ipv6());
    links.extend(Link::v2());
    // Each of them twice: we are master beside a keepalived of lower priority, and backup of one of higher priority.
    let wanted: Vec<_> =
        links.iter().flat_map(|link| [150, 250].map(|priority| link.clone().with_priority(priority))).collect();
    let mut nets: Vec<_> = wanted.iter().map(|link| Net::new(link.ours.clone())).collect();
    for (link, net) in wanted.iter().zip(&mut nets) {
        let [lb1, lb2, _] = net.hosts();
        lb1.lb.up();
        lb1.start();
        lb1.vip.wait(true);
        lb2.start_keepalived(link, lb1);
    }
    for (link, net) in wanted.iter().zip(&mut nets) {
        let [lb1, lb2, _] = net.hosts();
        let (master, backup) = by_priority(link, lb1, lb2);
        master.vip.wait(true);
        backup.vip.wait(false);
    }
    let mut changes = |net: &mut Net| net.hosts().map(|host| host.vip.changes());
    let before: Vec<_> = nets.iter_mut().map(&mut changes).collect();
    let begin = Instant::now();
    while begin.elapsed() < TIME {
        for ((link, net), before) in wanted.iter().zip(&mut nets).zip(&before) {
            assert_eq!(changes(net), *before, "{} beside priority {}: the VIP moved", link.name, link.theirs.priority);
        }
        std::thread::park_timeout(LOOK);
    }
    for (link, net) in wanted.iter().zip(&mut nets) {
        let [lb1, lb2, _] = net.hosts();
        let (master, backup) = by_priority(link, lb1, lb2);
        assert!(master.vip.held() && !backup.vip.held(), "{}", link.name);
        // A master hears nothing from a backup.
        if link.theirs.priority > 200 {
            nothing_was_discarded(lb1);
        }
        lb2.signal(Signal::SIGTERM);
        lb2.ended();
    }
}

fn by_priority<'a>(link: &Link, lb1: &'a Host, lb2: &'a Host) -> (&'a Host, &'a Host) {
    if link.theirs.priority > 200 { (lb2, lb1) } else { (lb1, lb2) }
}
