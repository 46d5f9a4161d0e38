//! Addresses and notices of the kernel, in network namespaces.

use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream};

use crate::net::{Host, Net, Options, SOON, VIP, run, wait_for};
use evermq_vip::address::Addresses;
use evermq_vip::interface;
use evermq_vip::link::{Event, Links, Watch};

const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);

/// What `ip` says of the addresses of eth0, one line each.
fn shown(host: &Host) -> String {
    let output = host.command("ip").args(["-oneline", "address", "show", "dev", "eth0"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_ipv6_address_is_usable_at_once_and_never_the_hosts_own_source() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    lb1.inside(|| {
        let mut addresses = Addresses::open().unwrap();
        let index = interface::find(Some("eth0"), VIP.into()).unwrap().index;
        assert!(!addresses.holds(VIP6.into(), index).unwrap());
        addresses.add(VIP6.into(), 128, index).unwrap();
        // A tentative address cannot be bound.
        let listener = TcpListener::bind((VIP6, 0)).unwrap();
        TcpStream::connect_timeout(&listener.local_addr().unwrap(), SOON).unwrap();
        // Again: it stays.
        addresses.add(VIP6.into(), 128, index).unwrap();
        assert!(addresses.holds(VIP6.into(), index).unwrap());
        assert_eq!(addresses.holders(VIP6.into()).unwrap(), [index]);
    });
    let line = shown(lb1).lines().find(|line| line.contains("fd77::100/128")).unwrap().to_owned();
    for flag in ["nodad", "noprefixroute", "deprecated", "scope global"] {
        assert!(line.contains(flag), "{flag}: {line}");
    }
    lb1.inside(|| {
        let mut addresses = Addresses::open().unwrap();
        let index = interface::find(Some("eth0"), VIP.into()).unwrap().index;
        assert!(addresses.remove(VIP6.into(), index).unwrap());
        assert!(!addresses.remove(VIP6.into(), index).unwrap());
        assert!(!addresses.remove(VIP.into(), index).unwrap());
        assert!(!addresses.remove(VIP6.into(), 9999).unwrap() && !addresses.holds(VIP6.into(), 9999).unwrap());
    });
}

#[test]
fn addresses_that_were_left_behind_go_whatever_their_prefix_and_interface() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    let namespace = lb1.namespace.clone();
    run("ip", &["-n", &namespace, "link", "add", "other", "type", "veth", "peer", "name", "far"]);
    run("ip", &["-n", &namespace, "link", "set", "other", "up"]);
    run("ip", &["-n", &namespace, "address", "add", "fd77::100/64", "dev", "other"]);
    run("ip", &["-n", &namespace, "address", "add", "fd77::100/127", "dev", "eth0", "nodad"]);
    run("ip", &["-n", &namespace, "address", "add", "10.77.0.100/24", "dev", "other"]);
    lb1.inside(|| {
        let mut addresses = Addresses::open().unwrap();
        assert_eq!(addresses.remove_everywhere(VIP6.into()).unwrap().len(), 2);
        assert_eq!(addresses.remove_everywhere(VIP.into()).unwrap().len(), 1);
        assert!(addresses.holders(VIP6.into()).unwrap().is_empty());
        assert!(addresses.holders(VIP.into()).unwrap().is_empty());
    });
}

#[test]
fn an_address_that_the_kernel_took_for_a_duplicate_is_made_usable() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.hosts();
    lb2.inside(|| {
        let index = interface::find(Some("eth0"), VIP.into()).unwrap().index;
        Addresses::open().unwrap().add(VIP6.into(), 128, index).unwrap();
    });
    lb1.inside(|| {
        let index = interface::find(Some("eth0"), VIP.into()).unwrap().index;
        let mut watch = Watch::open().unwrap();
        run("ip", &["address", "add", "fd77::100/128", "dev", "eth0"]);
        wait_for("the kernel to find the duplicate", || {
            told(&mut watch).contains(&Told::DadFailed(index, VIP6.into())).then_some(())
        });
        Addresses::open().unwrap().add(VIP6.into(), 128, index).unwrap();
        TcpListener::bind((VIP6, 0)).unwrap();
    });
}

#[test]
fn what_cannot_be_added_says_why() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    lb1.inside(|| {
        let index = interface::find(Some("eth0"), VIP.into()).unwrap().index;
        let mut addresses = Addresses::open().unwrap();
        let error = addresses.add(VIP.into(), 32, 9999).unwrap_err().to_string();
        assert!(error.contains("cannot add 10.77.0.100") && error.contains("No such device"), "{error}");
        run("sysctl", &["-q", "-w", "net.ipv6.conf.eth0.disable_ipv6=1"]);
        let error = addresses.add(VIP6.into(), 128, index).unwrap_err().to_string();
        assert!(error.contains("net.ipv6.conf.eth0.disable_ipv6"), "{error}");
    });
}

/// An event, kept.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Removed(u32, IpAddr),
    DadFailed(u32, IpAddr),
    Link(u32, bool),
    Gone(u32),
    Appeared(u32, String),
    Overrun,
}

fn told(watch: &mut Watch) -> Vec<Told> {
    let mut all = Vec::new();
    let keep = |event: Event<'_>| {
        all.push(match event {
            Event::AddressRemoved { index, address } => Told::Removed(index, address),
            Event::AddressDadFailed { index, address } => Told::DadFailed(index, address),
            Event::Link { index, up } => Told::Link(index, up),
            Event::LinkGone { index } => Told::Gone(index),
            Event::LinkAppeared { index, name } => Told::Appeared(index, name.to_owned()),
            Event::Overrun => Told::Overrun,
        });
    };
    watch.read(keep).unwrap();
    all
}

/// Waits until all of these were told.
fn expect(watch: &mut Watch, mut expected: Vec<Told>) {
    wait_for(&format!("the kernel to tell {expected:?}"), || {
        let new = told(watch);
        expected.retain(|event| !new.contains(event));
        expected.is_empty().then_some(())
    });
}

#[test]
fn addresses_that_are_removed_by_hand_are_told() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    lb1.inside(|| {
        let index = interface::find(Some("eth0"), VIP.into()).unwrap().index;
        let mut addresses = Addresses::open().unwrap();
        addresses.add(VIP.into(), 32, index).unwrap();
        addresses.add(VIP6.into(), 128, index).unwrap();
        let mut watch = Watch::open().unwrap();
        assert_eq!(told(&mut watch), []);
        run("ip", &["address", "delete", "10.77.0.100/32", "dev", "eth0"]);
        run("ip", &["address", "delete", "fd77::100/128", "dev", "eth0"]);
        expect(&mut watch, vec![Told::Removed(index, VIP.into()), Told::Removed(index, VIP6.into())]);
        assert_eq!(told(&mut watch), []);
    });
}

#[test]
fn cables_and_interfaces_that_go_and_come_are_told() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    let (mut watch, mut links, index) = lb1.inside(|| {
        let index = interface::find(Some("eth0"), VIP.into()).unwrap().index;
        (Watch::open().unwrap(), Links::open().unwrap(), index)
    });
    let before = links.state("eth0").unwrap().unwrap();
    assert_eq!((before.index, before.up), (index, true));
    assert!(before.mac.is_some());
    lb1.cable("down");
    expect(&mut watch, vec![Told::Link(index, false)]);
    assert!(!links.state("eth0").unwrap().unwrap().up);
    lb1.cable("up");
    expect(&mut watch, vec![Told::Link(index, true)]);
    assert!(links.state("eth0").unwrap().unwrap().up);
    let namespace = lb1.namespace.clone();
    run("ip", &["-n", &namespace, "link", "delete", "eth0"]);
    expect(&mut watch, vec![Told::Removed(index, lb1.address.into()), Told::Gone(index)]);
    assert_eq!(links.state("eth0").unwrap(), None);
    run("ip", &["-n", &namespace, "link", "add", "eth0", "type", "veth", "peer", "name", "far"]);
    let again = links.state("eth0").unwrap().unwrap();
    assert!(again.index != index && !again.up, "{again:?}");
    expect(&mut watch, vec![Told::Appeared(again.index, "eth0".to_owned())]);
    run("ip", &["-n", &namespace, "link", "set", "far", "up"]);
    run("ip", &["-n", &namespace, "link", "set", "eth0", "up"]);
    expect(&mut watch, vec![Told::Link(again.index, true)]);
    for name in ["", "no-such-if", "a-name-too-long-for-an-interface"] {
        assert_eq!(links.state(name).unwrap(), None);
    }
}

#[test]
fn a_port_that_leaves_its_bridge_is_not_gone() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    lb1.inside(|| {
        run("ip", &["link", "add", "bridge0", "type", "bridge"]);
        run("ip", &["link", "set", "eth0", "master", "bridge0"]);
        let index = interface::find(Some("eth0"), VIP.into()).unwrap().index;
        let mut watch = Watch::open().unwrap();
        run("ip", &["link", "set", "eth0", "nomaster"]);
        let mut all = Vec::new();
        wait_for("the kernel to tell something", || {
            all.extend(told(&mut watch));
            all.contains(&Told::Link(index, true)).then_some(())
        });
        assert!(!all.contains(&Told::Gone(index)), "{all:?}");
    });
}

#[test]
fn more_notices_than_there_is_room_for_are_told_as_such() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    lb1.inside(|| {
        let mut watch = Watch::open().unwrap();
        let mut addresses = Addresses::open().unwrap();
        let index = interface::find(Some("eth0"), VIP.into()).unwrap().index;
        wait_for("the queue to be full", || {
            for _ in 0..500 {
                addresses.add(VIP.into(), 32, index).unwrap();
                addresses.remove(VIP.into(), index).unwrap();
            }
            told(&mut watch).contains(&Told::Overrun).then_some(())
        });
    });
}

#[test]
fn an_ipv6_address_takes_connections_as_soon_as_it_is_added_again_and_again() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    lb1.inside(|| {
        let mut addresses = Addresses::open().unwrap();
        let index = interface::find(Some("eth0"), VIP.into()).unwrap().index;
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // A few late connections are the kernel's on a very busy machine; without waiting, most are.
        let late = (0..100)
            .filter(|_| {
                addresses.add(VIP6.into(), 128, index).unwrap();
                let target = (VIP6, port).into();
                let connected = TcpStream::connect_timeout(&target, SOON).is_ok() && listener.accept().is_ok();
                addresses.remove(VIP6.into(), index).unwrap();
                !connected
            })
            .count();
        assert!(late <= 20, "{late} of 100");
    });
}
