//! The virtual MAC in network namespaces: who answers for the VIP, and with which hardware address.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::net::{Host, Net, Options, SOON, VIP, run, wait_for};
use evermq_config::Vrid;
use evermq_config::vip::{Checksum, VrrpVersion};
use evermq_vip::address::Addresses;
use evermq_vip::announce::Announcer;
use evermq_vip::interface::{self, Interface};
use evermq_vip::packet::{GROUP_V4, GROUP_V6, Identity, decode};
use evermq_vip::socket::{Buffer, Destinations, VrrpSocket};
use evermq_vip::virtual_mac::{self, Created, VirtualMacs};

const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);

fn vrid() -> Vrid {
    Vrid::new(51).unwrap()
}

fn eth0(host: &Host) -> Interface {
    host.inside(|| interface::find(Some("eth0"), VIP.into()).unwrap())
}

/// Makes the virtual MAC of one family on a host, with strict reverse path filtering as some distributions have it.
fn create(host: &Host, ipv6: bool) -> (VirtualMacs, Created) {
    let base = eth0(host);
    host.inside(|| {
        run("sysctl", &["-q", "-w", "net.ipv4.conf.all.rp_filter=1"]);
        let mut macs = VirtualMacs::open().unwrap();
        let created = macs.create(&base, vrid(), ipv6).unwrap();
        assert_eq!(created.unset, [""; 0]);
        (macs, created)
    })
}

fn hold(host: &Host, interface: &Interface, vip: IpAddr) {
    let length = if vip.is_ipv4() { 32 } else { 128 };
    host.inside(|| Addresses::open().unwrap().add(vip, length, interface.index).unwrap());
}

/// Every hardware address by which a host has come to know `address`.
fn neighbour(client: &Host, address: IpAddr) -> Option<String> {
    let output = client.command("ip").args(["neighbour", "show", "to", &address.to_string()]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).map(str::to_owned)
}

fn setting(host: &Host, path: &str) -> String {
    host.inside(|| fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap().trim().to_owned())
}

#[test]
fn the_vip_answers_with_the_virtual_mac_and_the_host_with_its_own() {
    let mut net = Net::new(Options::default());
    let [lb1, _, client] = net.hosts();
    for (host, address) in [(&*lb1, "fd77::1/64"), (&*client, "fd77::3/64")] {
        run("ip", &["-n", &host.namespace, "address", "add", address, "dev", "eth0", "nodad"]);
    }
    let own = eth0(lb1).mac.unwrap().to_string();
    let cases: [(IpAddr, IpAddr, &str); 2] = [
        (VIP.into(), lb1.address.into(), "00:00:5e:00:01:33"),
        (VIP6.into(), "fd77::1".parse().unwrap(), "00:00:5e:00:02:33"),
    ];
    for (vip, host_address, virtual_mac) in cases {
        let (macs, created) = create(lb1, vip.is_ipv6());
        hold(lb1, &created.interface, vip);
        let any = if vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let listener = lb1.inside(|| TcpListener::bind(any).unwrap());
        let port = listener.local_addr().unwrap().port();
        for _ in 0..3 {
            // Asked anew each time: had the base interface answered too, one of them would have come first.
            run("ip", &["-n", &client.namespace, "neighbour", "flush", "all"]);
            client.inside(|| TcpStream::connect_timeout(&SocketAddr::from((vip, port)), SOON).unwrap());
            assert_eq!(neighbour(client, vip).as_deref(), Some(virtual_mac));
            client.inside(|| TcpStream::connect_timeout(&SocketAddr::from((host_address, port)), SOON).unwrap());
            assert_eq!(neighbour(client, host_address).as_deref(), Some(own.as_str()));
        }
        // Answers to the client made the host ask for the client, in its own name.
        assert_eq!(neighbour(client, vip).as_deref(), Some(virtual_mac));
        drop(macs);
    }
}

#[test]
fn a_successor_with_the_same_virtual_mac_changes_nothing_for_neighbours_and_is_reached_at_once() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, client] = net.hosts();
    let vip = IpAddr::from(VIP);
    let ((_macs1, created1), (_macs2, created2)) = (create(lb1, false), create(lb2, false));
    let listen = |host: &Host| host.inside(|| TcpListener::bind("0.0.0.0:9000").unwrap());
    let _listeners = [listen(lb1), listen(lb2)];
    let connect = || client.inside(|| TcpStream::connect_timeout(&SocketAddr::from((vip, 9000)), SOON).is_ok());
    for (from, to, interface) in [
        (None, &*lb1, &created1),
        (Some((&*lb1, &created1)), &*lb2, &created2),
        (Some((&*lb2, &created2)), &*lb1, &created1),
    ] {
        if let Some((host, created)) = from {
            host.inside(|| Addresses::open().unwrap().remove(vip, created.interface.index).unwrap());
        }
        hold(to, &interface.interface, vip);
        let (_, error) = to.inside(|| Announcer::open(&interface.interface, &[vip]).unwrap().burst(1));
        assert!(error.is_none(), "{error:?}");
        assert!(connect());
        assert_eq!(neighbour(client, vip).as_deref(), Some("00:00:5e:00:01:33"));
    }
}

#[test]
fn adverts_leave_by_the_virtual_mac_and_are_heard_by_a_host_that_has_it_too() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.hosts();
    for ipv6 in [false, true] {
        let ((_macs1, created1), (_macs2, _created2)) = (create(lb1, ipv6), create(lb2, ipv6));
        let identity = Identity {
            vrid: vrid(),
            version: VrrpVersion::V3,
            addresses: vec![if ipv6 { VIP6.into() } else { VIP.into() }],
            interval: Duration::from_millis(20),
            auth_pass: None,
            checksum: Checksum::Rfc,
        };
        let source = |host: &Host| {
            let local = wait_for("an address of the link", || eth0(host).link_local);
            if ipv6 { local.into() } else { IpAddr::from(host.address) }
        };
        let [from, other] = [source(lb1), source(lb2)];
        let receiver = lb2.inside(|| VrrpSocket::open(&eth0(lb2), other, Destinations::Group).unwrap());
        let sender = lb1.inside(|| {
            let mut socket = VrrpSocket::open(&eth0(lb1), from, Destinations::Group).unwrap();
            socket.send_by(&created1.interface).unwrap();
            socket
        });
        let frame = lb2.inside(|| {
            // Every frame of the protocol on the wire, with its header.
            let protocol = if ipv6 { nix::libc::ETH_P_IPV6 } else { nix::libc::ETH_P_IP };
            let socket = socket2::Socket::new(
                socket2::Domain::PACKET,
                socket2::Type::RAW,
                Some(socket2::Protocol::from(i32::from((protocol as u16).to_be()))),
            );
            socket.unwrap()
        });
        frame.set_read_timeout(Some(SOON)).unwrap();
        wait_for("the interface to be ready", || sender.send(&identity, 150).ok());
        let mut buffer = Buffer::default();
        let (advert, destination) = wait_for("an advertisement", || {
            let received = receiver.receive(&mut buffer).unwrap()?;
            Some((decode(&received, &identity).unwrap(), received.destination))
        });
        let group = if ipv6 { IpAddr::from(GROUP_V6) } else { GROUP_V4.into() };
        assert_eq!((advert.source, advert.priority, destination), (from, 150, group));
        let at = if ipv6 { 20 } else { 23 };
        let bytes = wait_for("its frame", || {
            let mut bytes = [0; 200];
            nix::sys::socket::recv(
                std::os::fd::AsRawFd::as_raw_fd(&frame),
                &mut bytes,
                nix::sys::socket::MsgFlags::empty(),
            )
            .unwrap();
            (bytes[at] == 112).then_some(bytes)
        });
        assert_eq!(bytes[6..12], virtual_mac::mac(vrid(), ipv6).octets());
    }
}

#[test]
fn settings_of_the_base_interface_are_given_back_with_the_last_virtual_mac() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    let base = eth0(lb1);
    let arp = |host: &Host| ["arp_ignore", "arp_announce"].map(|name| setting(host, &format!("ipv4/conf/eth0/{name}")));
    let before = arp(lb1);
    assert_eq!(before, ["0", "0"]);
    let mut macs = lb1.inside(|| VirtualMacs::open().unwrap());
    for ipv6 in [false, true] {
        lb1.inside(|| macs.create(&base, vrid(), ipv6).unwrap());
        assert_eq!(arp(lb1), ["1", "2"]);
    }
    let on_macvlan = ["arp_ignore", "arp_announce", "rp_filter", "forwarding"];
    let set = on_macvlan.map(|name| setting(lb1, &format!("ipv4/conf/evmq-51/{name}")));
    assert_eq!(set, ["1", "2", "2", "0"]);
    assert_eq!(setting(lb1, "ipv6/conf/evmq-51/disable_ipv6"), "1");
    assert_eq!(setting(lb1, "ipv6/conf/evmq6-51/accept_ra"), "0");
    let shown = lb1.command("ip").args(["-6", "-o", "address", "show", "dev", "evmq6-51"]).output().unwrap();
    assert_eq!(String::from_utf8(shown.stdout).unwrap(), "", "no address of its own");
    assert!(macs.remove(vrid(), false).unwrap());
    assert!(!macs.remove(vrid(), false).unwrap());
    assert_eq!(arp(lb1), ["1", "2"]);
    drop(macs);
    assert_eq!(arp(lb1), before);
    assert!(lb1.inside(|| interface::find(Some("evmq6-51"), VIP.into()).is_err()));
}

#[test]
fn what_was_left_behind_is_replaced_and_what_is_foreign_is_not() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    let base = eth0(lb1);
    let left = lb1.inside(|| {
        let mut macs = VirtualMacs::open().unwrap();
        let created = macs.create(&base, vrid(), false).unwrap();
        std::mem::forget(macs);
        created.interface
    });
    hold(lb1, &left, VIP.into());
    let (mut macs, created) = create(lb1, false);
    assert_ne!(created.interface.index, left.index);
    assert!(lb1.inside(|| Addresses::open().unwrap().holders(VIP.into()).unwrap().is_empty()));
    macs.remove(vrid(), false).unwrap();

    run("ip", &["-n", &lb1.namespace, "link", "add", "evmq-51", "type", "veth", "peer", "name", "far"]);
    let error = macs.create(&base, vrid(), false).unwrap_err().to_string();
    assert!(error.contains("evmq-51 is there which is no macvlan"), "{error}");
    run("ip", &["-n", &lb1.namespace, "link", "add", "bridge0", "type", "bridge"]);
    run("ip", &["-n", &lb1.namespace, "link", "set", "far", "master", "bridge0"]);
    let port = lb1.inside(|| interface::find(Some("far"), VIP.into()).unwrap());
    let error = macs.create(&port, vrid(), true).unwrap_err().to_string();
    assert!(error.contains("far cannot carry a virtual MAC"), "{error}");
}
