//! What clients that only listen see when the VIP moves: real kernels, in namespaces.

#![expect(clippy::print_stdout, reason = "the figures help where a bound is exceeded")]

use std::io::{ErrorKind, Read as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::fake_lb::FakeLb;
use crate::net::service::Service;
use crate::net::{Host, Net, Options, SOON, VIP, run, wait_for};
use evermq_vip::counters::TickleCounters;
use evermq_vip::takeover::Takeover;
use nix::sys::signal::Signal;

const PORT: u16 = 9000;
const CLIENTS: usize = 100;
/// Before anybody could have been told for the second time; with some clients it takes some milliseconds.
const MOMENT: Duration = Duration::from_secs(1);

/// Clients that have been greeted, and have nothing to say.
fn idle_clients(host: &Host, to: SocketAddr, count: usize) -> Vec<TcpStream> {
    host.inside(|| {
        let connect = |_| {
            let mut client = wait_for("a connection", || TcpStream::connect_timeout(&to, SOON).ok());
            client.set_read_timeout(Some(SOON)).unwrap();
            client.read_exact(&mut [0]).unwrap();
            client
        };
        (0..count).map(connect).collect()
    })
}

fn pairs(clients: &[TcpStream]) -> Vec<(SocketAddr, SocketAddr)> {
    clients.iter().map(|client| (client.local_addr().unwrap(), client.peer_addr().unwrap())).collect()
}

/// How long after `since` each client was reset, in order.
fn resets(clients: Vec<TcpStream>, since: Instant) -> Vec<Duration> {
    let wait = |mut client: TcpStream| {
        let error = client.read_exact(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        since.elapsed()
    };
    let mut times: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = clients.into_iter().map(|client| scope.spawn(move || wait(client))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    times.sort();
    println!("reset after {:?} .. {:?}", times[0], times[times.len() - 1]);
    times
}

/// On a very busy machine one may learn late that it was told in time.
fn assert_prompt(times: &[Duration]) {
    assert!(times[times.len() * 9 / 10] < MOMENT, "{times:?}");
}

fn vip() -> SocketAddr {
    SocketAddr::from((VIP, PORT))
}

#[test]
fn idle_clients_of_a_host_that_vanished_are_reset_by_the_new_one() {
    // RFC 7323 §3.2: a segment without a timestamp may be dropped where both sides have agreed on them. Linux does not.
    for timestamps in ["1", "0"] {
        reset_by_the_new_one(timestamps);
    }
}

fn reset_by_the_new_one(timestamps: &str) {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, client] = net.start();
    client.inside(|| std::fs::write("/proc/sys/net/ipv4/tcp_timestamps", timestamps).unwrap());
    let _services = [Service::start(lb1), Service::start(lb2)];
    let clients = idle_clients(client, vip(), CLIENTS);
    // One that is connected to another address than the VIP is not this host's business.
    let other = idle_clients(client, SocketAddr::from((lb2.address, PORT)), 1);
    lb2.lb.knows(&[pairs(&clients), pairs(&other)].concat());
    lb1.cable("down");
    let taken = lb2.vip.wait(true);
    assert_prompt(&resets(clients, taken));
    assert_eq!(lb2.logged(&["INFO", "told clients that the VIP has moved", "clients=100", "lb1", "not_sent=0"]), 1);
    wait_for("the second round", || (lb2.state()["tickle"]["tickles_sent"] == 8 * CLIENTS).then_some(()));
    let counters = &lb2.state()["tickle"];
    assert_eq!((&counters["clients_told"], &counters["tickle_errors"]), (&CLIENTS.into(), &0.into()));
    other[0].set_nonblocking(true).unwrap();
    assert_eq!((&other[0]).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn at_a_planned_handover_they_are_reset_as_well_also_one_that_came_in_the_last_moment() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, client] = net.start();
    let _services = [Service::start(lb1), Service::start(lb2)];
    let clients = idle_clients(client, vip(), CLIENTS);
    let late = idle_clients(client, vip(), 1);
    lb2.lb.knows(&pairs(&clients));
    let all = [pairs(&clients), pairs(&late)].concat();
    lb1.signal(Signal::SIGTERM);
    let taken = lb2.vip.wait(true);
    assert_prompt(&resets(clients, taken));
    lb2.lb.knows(&all);
    let times = resets(late, taken);
    assert!(times[0] >= MOMENT && times[0] < SOON, "it was in the second list only: {times:?}");
}

#[test]
fn without_tickle_nobody_tells_them() {
    let mut net = Net::new(Options { tickle: false, ..Options::default() });
    let [lb1, lb2, client] = net.start();
    let _services = [Service::start(lb1), Service::start(lb2)];
    let clients = idle_clients(client, vip(), 1);
    lb2.lb.knows(&pairs(&clients));
    lb1.cable("down");
    lb2.vip.wait(true);
    clients[0].set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    let error = (&clients[0]).read_exact(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "it goes on waiting");
}

/// Rules that many hosts have.
fn firewall(host: &Host, rules: &[&str]) {
    let setup = ["add table inet filter", "add chain inet filter input { type filter hook input priority 0; }"];
    let rules = rules.iter().map(|rule| format!("add rule inet filter input {rule}"));
    let commands = setup.into_iter().map(str::to_owned).chain(rules).collect::<Vec<_>>().join("; ");
    let output = host.command("nft").arg(commands).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// At the client this stands for Linux from 6.2 on: see [`evermq_vip::tickle`].
#[test]
fn firewalls_that_follow_connections_let_it_through() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, client] = net.start();
    let closed = ["ct state established,related accept", "ct state invalid drop"];
    let vrrp = ["meta l4proto { 112, icmp } accept", "iif lo accept"];
    firewall(client, &closed);
    firewall(
        lb2,
        &[&closed[..], &vrrp, &["tcp dport 9000 tcp flags & (fin|syn|rst|ack) == syn accept", "drop"]].concat(),
    );
    let _services = [Service::start(lb1), Service::start(lb2)];
    let clients = idle_clients(client, vip(), CLIENTS);
    lb2.lb.knows(&pairs(&clients));
    lb1.cable("down");
    let taken = lb2.vip.wait(true);
    assert_prompt(&resets(clients, taken));
}

/// What cannot be told is said.
#[test]
fn a_packet_filter_that_lets_nothing_out_is_worth_a_warning() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, client] = net.start();
    let _services = [Service::start(lb1), Service::start(lb2)];
    let clients = idle_clients(client, vip(), 1);
    lb2.lb.knows(&pairs(&clients));
    let rule = "add table inet filter; add chain inet filter output { type filter hook output priority 0; }; \
                add rule inet filter output tcp sport 9000 drop";
    assert!(lb2.command("nft").arg(rule).status().unwrap().success());
    lb1.cable("down");
    lb2.vip.wait(true);
    assert_eq!(lb2.logged(&["WARN", "told clients that the VIP has moved, but not all of them", "not_sent=4"]), 1);
}

const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);

fn address6(host: &Host, change: &str, address: &str) {
    run("ip", &["-n", &host.namespace, "address", change, address, "dev", "eth0", "nodad"]);
}

/// Greets every client, and keeps it.
fn serve6(host: &Host) {
    let listener = host.inside(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap());
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((mut client, _)) = listener.accept() {
            let _ = std::io::Write::write_all(&mut client, b"6");
            kept.push(client);
        }
    });
}

#[test]
fn ipv6_works_alike() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, client] = net.hosts();
    for (host, address) in [(&*lb1, "fd77::1/64"), (&*lb2, "fd77::2/64"), (&*client, "fd77::3/64")] {
        address6(host, "add", address);
    }
    address6(lb1, "add", "fd77::100/128");
    serve6(lb1);
    serve6(lb2);
    let clients = idle_clients(client, SocketAddr::from((VIP6, PORT)), CLIENTS);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("lb.sock");
    let lb = FakeLb::new(&socket);
    lb.up();
    lb.knows(&pairs(&clients));
    let counters = Arc::new(TickleCounters::default());
    let takeover = lb2.inside(|| Takeover::start(&socket, vec![vec![VIP6.into()]], counters.clone()).unwrap());

    lb1.cable("down");
    address6(lb2, "add", "fd77::100/128");
    // In the place of an unsolicited neighbour advertisement.
    run("ip", &["-n", &client.namespace, "neighbor", "flush", "dev", "eth0"]);
    let taken = Instant::now();
    takeover.announce(0);
    assert_prompt(&resets(clients, taken));
    wait_for("the end of the first round", || (counters.clients_told.get() > 0).then_some(()));
    takeover.lost(0);
    takeover.stop();
    assert_eq!((counters.clients_told.get(), counters.tickle_errors.get()), (CLIENTS as u64, 0));
    assert!(counters.tickles_sent.get() >= 4 * CLIENTS as u64);
    lb.die();
}

#[test]
fn without_the_capability_it_says_so_at_start() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.hosts();
    let output = lb1.evermq_vip_without("-net_raw").output().unwrap();
    assert!(!output.status.success());
    let said = [output.stdout, output.stderr].concat();
    assert!(String::from_utf8_lossy(&said).contains("CAP_NET_RAW"), "{}", String::from_utf8_lossy(&said));
}
