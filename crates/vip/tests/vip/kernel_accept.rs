//! `accept = false` in network namespaces: the VIP is there, and takes nothing.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::net::{self, Host, Net, Options, VIP, run, wait_for};
use evermq_vip::accept::{self, AcceptFilter};
use evermq_vip::address::Addresses;
use evermq_vip::interface;

const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);
/// A dropped SYN is sent again after a second; an accepted one is answered in microseconds.
const DROPPED: Duration = Duration::from_millis(300);

fn connects(client: &Host, to: SocketAddr, timeout: Duration) -> bool {
    client.inside(|| TcpStream::connect_timeout(&to, timeout).is_ok())
}

fn known(client: &Host, address: IpAddr) -> bool {
    let output = client.command("ip").args(["neighbour", "show", "to", &address.to_string()]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().contains("lladdr")
}

#[test]
fn tcp_to_the_vip_is_dropped_and_neighbours_are_answered() {
    let mut net = Net::new(Options::default());
    let [lb1, _, client] = net.hosts();
    for (host, address) in [(&*lb1, "fd77::1/64"), (&*client, "fd77::3/64")] {
        run("ip", &["-n", &host.namespace, "address", "add", address, "dev", "eth0", "nodad"]);
    }
    let listeners = lb1.inside(|| {
        let index = interface::find(Some("eth0"), VIP.into()).unwrap().index;
        let mut addresses = Addresses::open().unwrap();
        addresses.add(VIP.into(), 32, index).unwrap();
        addresses.add(VIP6.into(), 128, index).unwrap();
        ["0.0.0.0:0", "[::]:0"].map(|any| TcpListener::bind(any).unwrap())
    });
    let filter = lb1.inside(|| AcceptFilter::install(&[VIP.into(), VIP6.into()]).unwrap());
    let [port4, port6] = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
    let targets = [SocketAddr::from((VIP, port4)), SocketAddr::from((VIP6, port6))];
    for target in targets {
        assert!(!connects(client, target, DROPPED), "{target}");
        let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        client.inside(|| UdpSocket::bind(any).unwrap().send_to(b"where are you", target).unwrap());
        wait_for("ARP or neighbour discovery to answer", || known(client, target.ip()).then_some(()));
    }
    // The host's own addresses are as open as before.
    for address in [IpAddr::from(lb1.address), "fd77::1".parse().unwrap()] {
        let port = if address.is_ipv4() { port4 } else { port6 };
        assert!(connects(client, (address, port).into(), net::SOON), "{address}");
    }
    lb1.inside(move || drop(filter));
    for target in targets {
        assert!(connects(client, target, net::SOON), "{target}");
    }
}

#[test]
fn a_table_that_was_left_behind_is_replaced_and_removed() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    let tables = |host: &Host| {
        let output = host.command("nft").args(["list", "ruleset"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    lb1.inside(|| {
        accept::remove_stale().unwrap();
        std::mem::forget(AcceptFilter::install(&[VIP.into()]).unwrap());
    });
    assert!(tables(lb1).contains("10.77.0.100"), "{}", tables(lb1));
    lb1.inside(|| std::mem::forget(AcceptFilter::install(&[VIP6.into()]).unwrap()));
    let text = tables(lb1);
    assert!(
        text.contains("fd77::100") && !text.contains("10.77.0.100") && text.matches("chain").count() == 1,
        "{text}"
    );
    lb1.inside(|| accept::remove_stale().unwrap());
    assert_eq!(tables(lb1), "");
}
