//! Advertisements and announcements on a wire between network namespaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use crate::net::{Host, Net, Options, VIP, run, wait_for};
use evermq_config::vip::{Checksum, VrrpVersion};
use evermq_vip::address::Addresses;
use evermq_vip::announce::Announcer;
use evermq_vip::interface::{self, Interface};
use evermq_vip::packet::{GROUP_V4, GROUP_V6, Identity, decode};
use evermq_vip::socket::{Buffer, Destinations, VrrpSocket};

const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);

fn eth0(host: &Host) -> Interface {
    host.inside(|| interface::find(Some("eth0"), VIP.into()).unwrap())
}

/// The interface, when its IPv6 address of the link has passed duplicate address detection.
fn eth0_with_link_local(host: &Host) -> (Interface, Ipv6Addr) {
    wait_for("an address of the link", || {
        let output =
            host.command("ip").args(["-6", "-o", "address", "show", "dev", "eth0", "tentative"]).output().unwrap();
        let interface = eth0(host);
        let link_local = interface.link_local?;
        output.stdout.is_empty().then_some((interface, link_local))
    })
}

/// A virtual router of version 3, or of version 2.
fn identity(vip: IpAddr, version: VrrpVersion) -> Identity {
    Identity {
        vrid: evermq_config::Vrid::new(51).unwrap(),
        version,
        addresses: vec![vip],
        interval: Duration::from_secs(1),
        auth_pass: None,
        checksum: Checksum::Rfc,
    }
}

fn ipv4() -> Identity {
    identity(VIP.into(), VrrpVersion::V3)
}

fn ipv6() -> Identity {
    identity(VIP6.into(), VrrpVersion::V3)
}

/// Waits for the next advertisement, which passes every check. Gives from where and to where it went.
fn heard(socket: &VrrpSocket, identity: &Identity) -> (IpAddr, IpAddr) {
    let mut buffer = Buffer::default();
    wait_for("an advertisement", || {
        let received = socket.receive(&mut buffer).unwrap()?;
        let advert = decode(&received, identity).unwrap();
        assert_eq!((advert.source, advert.priority, received.ttl), (received.source, 150, 255));
        Some((received.source, received.destination))
    })
}

fn nothing(socket: &VrrpSocket) {
    assert!(socket.receive(&mut Buffer::default()).unwrap().is_none());
}

#[test]
fn adverts_arrive_as_they_were_sent_by_group_and_by_peer_in_both_families() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.hosts();
    let ((interface1, local1), (interface2, local2)) = (eth0_with_link_local(lb1), eth0_with_link_local(lb2));
    let cases: [(IpAddr, IpAddr, IpAddr, Identity); 3] = [
        (lb1.address.into(), lb2.address.into(), GROUP_V4.into(), ipv4()),
        (lb1.address.into(), lb2.address.into(), GROUP_V4.into(), identity(VIP.into(), VrrpVersion::V2)),
        (local1.into(), local2.into(), GROUP_V6.into(), ipv6()),
    ];
    for (from, peer, group, identity) in cases {
        let open = |host: &Host, interface: &Interface, source, to: &Destinations| {
            host.inside(|| VrrpSocket::open(interface, source, to.clone()).unwrap())
        };
        let receiver = open(lb2, &interface2, peer, &Destinations::Group);
        let sender = open(lb1, &interface1, from, &Destinations::Group);
        sender.send(&identity, 150).unwrap();
        assert_eq!(heard(&receiver, &identity), (from, group));
        nothing(&receiver);
        // Our own do not come back.
        nothing(&sender);

        let receiver = open(lb2, &interface2, peer, &Destinations::Peers(vec![from]));
        let sender = open(lb1, &interface1, from, &Destinations::Peers(vec![peer]));
        sender.send(&identity, 150).unwrap();
        assert_eq!(heard(&receiver, &identity), (from, peer));
        // A socket for peers has not joined the group.
        open(lb1, &interface1, from, &Destinations::Group).send(&identity, 150).unwrap();
        sender.send(&identity, 150).unwrap();
        assert_eq!(heard(&receiver, &identity), (from, peer));
        nothing(&receiver);
    }
}

#[test]
fn ipv6_adverts_carry_the_hosts_own_address_where_it_has_one() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.hosts();
    let addresses = ["fd77::1", "fd77::2"];
    for (host, address) in [&*lb1, &*lb2].into_iter().zip(addresses) {
        let address = format!("{address}/64");
        run("ip", &["-n", &host.namespace, "address", "add", &address, "dev", "eth0", "nodad"]);
    }
    let [from, peer]: [IpAddr; 2] = addresses.map(|address| address.parse().unwrap());
    let receiver = lb2.inside(|| VrrpSocket::open(&eth0(lb2), peer, Destinations::Peers(vec![from])).unwrap());
    let sender = lb1.inside(|| VrrpSocket::open(&eth0(lb1), from, Destinations::Peers(vec![peer])).unwrap());
    sender.send(&ipv6(), 150).unwrap();
    assert_eq!(heard(&receiver, &ipv6()), (from, peer));
}

#[test]
fn a_hop_limit_that_was_lowered_is_seen() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.hosts();
    let ((interface1, local1), (interface2, local2)) = (eth0_with_link_local(lb1), eth0_with_link_local(lb2));
    let receiver =
        lb2.inside(|| VrrpSocket::open(&interface2, local2.into(), Destinations::Peers(vec![local1.into()])).unwrap());
    lb1.inside(|| {
        let protocol = socket2::Protocol::from(112);
        let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::RAW, Some(protocol)).unwrap();
        socket.set_unicast_hops_v6(254).unwrap();
        let to = std::net::SocketAddrV6::new(local2, 0, 0, interface1.index);
        // Longer than the buffer, too: what is cut off does not matter.
        socket.send_to(&[0x31; 8], &to.into()).unwrap();
        socket.send_to(&[], &to.into()).unwrap();
    });
    let mut buffer = Buffer::default();
    for length in [8, 0] {
        wait_for("a message", || {
            let received = receiver.receive(&mut buffer).unwrap()?;
            assert_eq!((received.ttl, received.message.len()), (254, length));
            Some(())
        });
    }
}

#[test]
fn a_link_that_is_down_is_an_error_and_not_the_end() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.hosts();
    let (from, peer) = (lb1.address, lb2.address);
    let sender = lb1.inside(|| VrrpSocket::open(&eth0(lb1), from.into(), Destinations::Group).unwrap());
    let receiver = lb2.inside(|| VrrpSocket::open(&eth0(lb2), peer.into(), Destinations::Group).unwrap());
    let namespace = lb1.namespace.clone();
    run("ip", &["-n", &namespace, "link", "set", "eth0", "down"]);
    assert!(sender.send(&ipv4(), 150).is_err());
    run("ip", &["-n", &namespace, "link", "set", "eth0", "up"]);
    // What is sent before the switch has noticed is lost.
    let mut buffer = Buffer::default();
    let advert = wait_for("the interface to send again", || {
        sender.send(&ipv4(), 150).ok()?;
        receiver.receive(&mut buffer).unwrap().map(|received| decode(&received, &ipv4()).unwrap())
    });
    assert_eq!((advert.source, advert.priority), (from.into(), 150));
}

/// The hardware address by which the client knows `address`.
fn neighbour(client: &Host, address: IpAddr) -> Option<String> {
    let output = client.command("ip").args(["neighbour", "show", "to", &address.to_string()]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).map(str::to_owned)
}

#[test]
fn announcements_move_an_address_in_the_neighbours_cache() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, client] = net.hosts();
    run("ip", &["-n", &client.namespace, "address", "add", "fd77::3/64", "dev", "eth0", "nodad"]);
    let [interface1, interface2] = [eth0(lb1), eth0(lb2)];
    for vip in [IpAddr::from(VIP), IpAddr::from(VIP6)] {
        let length = if vip.is_ipv4() { 32 } else { 128 };
        let move_to = |host: &Host, interface: &Interface| {
            host.inside(|| {
                Addresses::open().unwrap().add(vip, length, interface.index).unwrap();
                Announcer::open(interface, &[vip]).unwrap()
            })
        };
        let first = move_to(lb1, &interface1);
        client.inside(|| {
            let any = if vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            UdpSocket::bind(any).unwrap().send_to(b"where are you", (vip, 9)).unwrap();
        });
        let mac = |interface: &Interface| interface.mac.map(|mac| mac.to_string());
        wait_for("the client to know the first host", || (neighbour(client, vip) == mac(&interface1)).then_some(()));

        let second = move_to(lb2, &interface2);
        let frames = if vip.is_ipv4() { 6 } else { 3 };
        let (sent, error) = second.burst(3);
        assert!(sent == frames && error.is_none(), "{sent}, {error:?}");
        wait_for("the client to know the second host", || (neighbour(client, vip) == mac(&interface2)).then_some(()));
        assert_eq!(first.burst(0).0, 0);
    }
}

#[test]
fn where_there_is_no_hardware_address_there_is_nothing_to_announce() {
    let lo = interface::find(Some("lo"), Ipv4Addr::LOCALHOST.into()).unwrap();
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    let announcer = lb1.inside(|| Announcer::open(&lo, &[VIP.into(), VIP6.into()]).unwrap());
    let (sent, error) = announcer.burst(5);
    assert!(sent == 0 && error.is_none());
}
