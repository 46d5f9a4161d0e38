//! Other hosts that claim the VIP, between network namespaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use crate::net::{Host, Net, Options, VIP, wait_for};
use evermq_vip::announce::Announcer;
use evermq_vip::conflict::{Claim, Conflicts};
use evermq_vip::interface::{self, Interface};

const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);

fn eth0(host: &Host) -> Interface {
    host.inside(|| interface::find(Some("eth0"), VIP.into()).unwrap())
}

fn claims(conflicts: &Conflicts) -> Vec<Claim> {
    let mut all = Vec::new();
    conflicts.read(|claim| all.push(claim)).unwrap();
    all
}

#[test]
fn anothers_claim_is_seen_and_nothing_else() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.hosts();
    let [ours, theirs] = [eth0(lb1), eth0(lb2)];
    let others: [[IpAddr; 2]; 2] = [
        [Ipv4Addr::new(10, 77, 0, 101).into(), Ipv4Addr::new(10, 77, 0, 102).into()],
        ["fd77::101".parse().unwrap(), "fd77::102".parse().unwrap()],
    ];
    for (vip, [second, foreign]) in [IpAddr::from(VIP), IpAddr::from(VIP6)].into_iter().zip(others) {
        let conflicts = lb1.inside(|| Conflicts::open(&ours, &[vip, second], ours.mac.as_slice()).unwrap());
        let announce = |host: &Host, interface: &Interface, address: IpAddr| {
            host.inside(|| assert!(Announcer::open(interface, &[address]).unwrap().burst(1).1.is_none()));
        };
        // Ours, and theirs of an address that is none of ours.
        announce(lb1, &ours, vip);
        announce(lb2, &theirs, foreign);
        // Their frames arrive in order: what comes first is the claim.
        announce(lb2, &theirs, second);
        announce(lb2, &theirs, vip);
        let mut seen = Vec::new();
        let frames = if vip.is_ipv4() { 4 } else { 2 };
        wait_for("the claims", || {
            seen.extend(claims(&conflicts));
            (seen.len() >= frames).then_some(())
        });
        let mac = theirs.mac.unwrap();
        let expected = [second, vip].map(|address| vec![Claim { address, mac }; frames / 2]).concat();
        assert_eq!(seen, expected);
        assert_eq!(claims(&conflicts), []);
    }
}

#[test]
fn a_flood_of_claims_is_read_in_portions() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.hosts();
    let [ours, theirs] = [eth0(lb1), eth0(lb2)];
    let conflicts = lb1.inside(|| Conflicts::open(&ours, &[VIP.into()], ours.mac.as_slice()).unwrap());
    let announcer = lb2.inside(|| Announcer::open(&theirs, &[VIP.into()]).unwrap());
    announcer.burst(20);
    let mut total = 0;
    wait_for("all claims", || {
        let portion = claims(&conflicts).len();
        assert!(portion <= 16);
        total += portion;
        (total == 40).then_some(())
    });
}

#[test]
fn a_neighbours_own_probe_of_the_vip_is_no_claim() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, client] = net.hosts();
    let ours = eth0(lb1);
    let conflicts = lb1.inside(|| Conflicts::open(&ours, &[VIP.into()], ours.mac.as_slice()).unwrap());
    // The client asks who has the VIP; a claim behind it shows that the question has been passed over.
    client.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"where are you", (VIP, 9)).unwrap());
    let theirs = eth0(lb2);
    lb2.inside(|| Announcer::open(&theirs, &[VIP.into()]).unwrap().burst(1));
    let first = wait_for("a claim", || claims(&conflicts).first().copied());
    assert_eq!(Some(first.mac), theirs.mac);
}
