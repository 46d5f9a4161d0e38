//! The VIP on its own hardware address, and packets kept out, by the running daemon.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::net::{Host, Net, Options, wait_for};
use nix::sys::signal::Signal;

fn links(host: &Host) -> String {
    let shown = host.command("ip").args(["-oneline", "link"]).output().unwrap();
    String::from_utf8_lossy(&shown.stdout).to_lowercase()
}

/// Whether the kernel behind the address takes packets: it refuses a connection to a port where nobody listens.
fn answers(client: &Host, address: &str) -> bool {
    let address = SocketAddr::new(address.parse().unwrap(), 9);
    let outcome = client.inside(|| TcpStream::connect_timeout(&address, Duration::from_millis(500)));
    outcome.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

const MAC: &str = "00:00:5e:00:01:33";

#[test]
fn the_virtual_mac_moves_with_the_vip_and_goes_with_the_daemon() {
    let mut net = Net::new(Options::default());
    for host in net.hosts() {
        host.set_vip("virtual_mac = true");
    }
    let [lb1, lb2, client] = net.start();
    assert!(links(lb1).contains(MAC) && links(lb2).contains(MAC), "{}", links(lb1));
    wait_for("an answer of the VIP", || answers(client, "10.77.0.100").then_some(()));
    let known = || {
        let shown = client.command("ip").args(["neighbour", "show", "10.77.0.100"]).output().unwrap();
        String::from_utf8_lossy(&shown.stdout).contains(MAC)
    };
    assert!(known());
    lb1.signal(Signal::SIGTERM);
    lb2.vip.wait(true);
    assert!(lb1.ended().success());
    assert!(!links(lb1).contains(MAC), "{}", links(lb1));
    wait_for("an answer of the VIP on the other host", || answers(client, "10.77.0.100").then_some(()));
    assert!(known());
    // kill -9: the next start begins with a clean machine.
    lb2.kill_guard();
    lb2.kill();
    assert!(links(lb2).contains(MAC));
    assert!(lb2.evermq_vip().arg("--release").status().unwrap().success());
    assert!(!links(lb2).contains(MAC));
    lb2.vip.wait(false);
}

#[test]
fn without_accept_the_master_takes_no_packets_for_the_vip() {
    let mut net = Net::new(Options::default());
    for host in net.hosts() {
        host.set_vip("accept = false");
    }
    let [lb1, _, client] = net.start();
    assert!(answers(client, "10.77.0.1") && !answers(client, "10.77.0.100"));
    lb1.signal(Signal::SIGTERM);
    assert!(lb1.ended().success());
    let tables = lb1.command("nft").args(["list", "tables"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&tables.stdout).contains("evermq"), "removed with the daemon");
}
