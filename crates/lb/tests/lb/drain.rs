//! A broker's clients are moved: because an operator says so, or because it has too many.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::broker::{Broker, Clients};
use crate::harness::{AT_ONCE, PATIENCE, Running, certs, config, eventually, ping, wait_closed};
use evermq_config::{HostName, LbConfig, Peer};
use evermq_lb::state::{BackendState, State};
use serde_json::{Value, json};

fn say(lb: &Running, request: &Value) -> Value {
    evermq_daemon::control::request(&lb.control, request, PATIENCE).unwrap()
}

fn backend<'a>(state: &'a State, name: &str) -> &'a BackendState {
    state.backends.iter().find(|backend| backend.name == name).unwrap()
}

/// Clients that come back when they are sent away.
struct Fleet {
    clients: Vec<TcpStream>,
    returned: usize,
}

impl Fleet {
    fn new(lb: &Running, count: usize) -> Self {
        Self { clients: (0..count).map(|_| lb.echoing_client()).collect(), returned: 0 }
    }

    /// Whoever was closed comes back.
    fn tend(&mut self, lb: &Running) {
        for client in &mut self.clients {
            client.set_nonblocking(true).unwrap();
            let closed = match client.peek(&mut [0]) {
                Ok(0) => true,
                Err(error) => error.kind() != ErrorKind::WouldBlock,
                Ok(_) => false,
            };
            client.set_nonblocking(false).unwrap();
            if closed {
                *client = lb.echoing_client();
                self.returned += 1;
            }
        }
    }

    fn tend_until(&mut self, lb: &Running, what: &str, condition: impl Fn(&State) -> bool) -> State {
        eventually(what, || {
            self.tend(lb);
            Some(lb.state()).filter(&condition)
        })
    }
}

fn two_brokers() -> [Broker; 2] {
    ["broker1", "broker2"].map(|name| Broker::start(name, Clients::Echoed))
}

fn quiet(brokers: &[Broker; 2]) -> LbConfig {
    let mut config = config(&[brokers[0].address, brokers[1].address]);
    config.lb.rebalance.rate = None;
    config.lb.health.slow_start = Duration::ZERO;
    config
}

#[test]
fn a_drained_broker_loses_its_clients_at_the_rate_and_gets_none() {
    let brokers = two_brokers();
    let lb = Running::start_up(quiet(&brokers));
    let mut fleet = Fleet::new(&lb, 40);
    assert_eq!(backend(&lb.state(), "broker1").connections, 20);

    let start = Instant::now();
    let said = say(&lb, &json!({ "request": "backend", "name": "broker1", "state": "drain", "rate": 20 }));
    assert_eq!((&said["state"], &said["drain_rate"], &said["refuge"]), (&json!("drain"), &json!(20), &json!(true)));
    let state = fleet.tend_until(&lb, "drained", |now| backend(now, "broker1").connections == 0);
    // Twenty at twenty a second, the first at once.
    assert!(start.elapsed() > Duration::from_millis(800), "{:?}", start.elapsed());
    assert_eq!(backend(&state, "broker1").admin, "drain");
    fleet.tend_until(&lb, "all elsewhere", |now| backend(now, "broker2").connections == 40);
    assert_eq!(fleet.returned, 20);

    let ready = say(&lb, &json!({ "request": "backend", "name": "broker1", "state": "ready" }));
    assert_eq!(ready["state"], "ready");
    let mut more = Fleet::new(&lb, 4);
    assert_eq!(backend(&lb.state(), "broker1").connections, 4);
    ping(&mut more.clients[0]);
    assert_eq!(fleet.returned, 20);
}

#[test]
fn an_operator_has_clients_evened_out_where_that_is_not_done_by_itself() {
    let brokers = two_brokers();
    let lb = Running::start_up(quiet(&brokers));
    say(&lb, &json!({ "request": "backend", "name": "broker2", "state": "drain" }));
    let mut fleet = Fleet::new(&lb, 20);
    assert_eq!(backend(&lb.state(), "broker1").connections, 20);
    say(&lb, &json!({ "request": "backend", "name": "broker2", "state": "ready" }));
    let said = say(&lb, &json!({ "request": "rebalance", "rate": 200 }));
    assert_eq!((&said["rate"], &said["groups"]), (&json!(200), &json!([{ "name": "brokers", "moves": 10 }])));
    fleet.tend_until(&lb, "even", |now| ["broker1", "broker2"].iter().all(|name| backend(now, name).connections == 10));
    assert_eq!(fleet.returned, 10);
    assert_eq!(say(&lb, &json!({ "request": "rebalance" }))["groups"][0]["moves"], 0);
}

#[test]
fn the_last_broker_keeps_its_clients_until_there_is_another() {
    let brokers = two_brokers();
    let lb = Running::start_up(quiet(&brokers));
    let mut fleet = Fleet::new(&lb, 6);
    say(&lb, &json!({ "request": "backend", "name": "broker2", "state": "maint" }));
    fleet.tend_until(&lb, "closed at once", |now| backend(now, "broker1").connections == 6);
    let returned = fleet.returned;
    let said = say(&lb, &json!({ "request": "backend", "name": "broker1", "state": "drain", "rate": 1000 }));
    assert_eq!(said["refuge"], false);
    for client in &mut fleet.clients {
        ping(client);
    }
    fleet.tend(&lb);
    assert_eq!(fleet.returned, returned, "nobody would take them");
    say(&lb, &json!({ "request": "backend", "name": "broker2", "state": "ready" }));
    fleet.tend_until(&lb, "moved", |now| backend(now, "broker2").connections == 6);
}

#[test]
fn maintenance_closes_at_once_and_weights_hold() {
    let brokers = two_brokers();
    let lb = Running::start_up(quiet(&brokers));
    let mut clients: Vec<TcpStream> = (0..4).map(|_| lb.echoing_client()).collect();
    say(&lb, &json!({ "request": "backend", "name": "broker1", "state": "maint" }));
    say(&lb, &json!({ "request": "backend", "name": "broker2", "state": "maint" }));
    for client in &mut clients {
        assert!(wait_closed(client) < AT_ONCE);
    }
    say(&lb, &json!({ "request": "backend", "name": "broker1", "state": "ready", "weight": 3 }));
    say(&lb, &json!({ "request": "backend", "name": "broker2", "state": "ready" }));
    let _clients: Vec<TcpStream> = (0..8).map(|_| lb.echoing_client()).collect();
    let state = lb.state();
    assert_eq!((backend(&state, "broker1").connections, backend(&state, "broker2").connections), (6, 2));
    let shown = say(&lb, &json!({ "request": "backend", "name": "broker1", "weight": "file" }));
    assert_eq!((&shown["weight"], &shown["weight_by_hand"]), (&json!(1), &json!(false)));
    let error =
        evermq_daemon::control::request(&lb.control, &json!({ "request": "backend", "name": "brokerX" }), PATIENCE);
    assert!(error.unwrap_err().to_string().contains("there are: broker1, broker2"));
}

#[test]
fn connections_come_back_to_a_broker_that_is_back() {
    let brokers = two_brokers();
    let mut config = quiet(&brokers);
    config.lb.rebalance.rate = Some(100);
    config.lb.rebalance.delay = Duration::from_millis(500);
    config.lb.rebalance.threshold = 20;
    let lb = Running::start_up(config);
    let mut fleet = Fleet::new(&lb, 30);
    let address = brokers[0].address;
    let [first, _second] = brokers;
    drop(first);
    fleet.tend_until(&lb, "fled", |now| backend(now, "broker2").connections == 30);
    let fled = fleet.returned;
    let _back = Broker::start_at("broker1", Clients::Echoed, address);
    lb.until("it is back", |now| backend(now, "broker1").state == "up");
    let even = fleet.tend_until(&lb, "even again", |now| {
        backend(now, "broker1").connections == 15 && backend(now, "broker2").connections == 15
    });
    assert_eq!(even.connections.current, 30);
    // One or two may have come back to where they were.
    let moved = fleet.returned - fled;
    assert!((15..=18).contains(&moved), "no more clients than needed: {moved}");
    let quiet_until = Instant::now() + Duration::from_secs(1);
    eventually("it stays so", || {
        fleet.tend(&lb);
        (Instant::now() > quiet_until).then_some(())
    });
    assert_eq!(fleet.returned - fled, moved);
}

/// Addresses that no certificate of the tests holds, so that names decide.
const LB1: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const LB2: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);

/// A port that is free on both.
fn peer_port() -> u16 {
    evermq_ports::free_on([LB1, LB2].map(IpAddr::V4))[0].port()
}

#[test]
fn what_is_said_on_one_lb_holds_on_the_other_also_on_one_that_comes_later() {
    let (port, brokers) = (peer_port(), two_brokers());
    let configured = |name: &str| {
        let (mine, other, theirs) = if name == "lb1" { (LB1, "lb2", LB2) } else { (LB2, "lb1", LB1) };
        LbConfig {
            host: HostName::new(name).unwrap(),
            peer_listen: SocketAddr::from((mine, port)),
            peers: vec![Peer { name: HostName::new(other).unwrap(), address: SocketAddr::from((theirs, port)) }],
            tls: certs::files(name),
            ..quiet(&brokers)
        }
    };
    let one = Running::start_up(configured("lb1"));
    say(&one, &json!({ "request": "backend", "name": "broker1", "state": "drain", "weight": 9 }));
    let two = Running::start_up(configured("lb2"));
    two.until("told on connecting", |now| {
        let broker = backend(now, "broker1");
        (broker.admin.as_str(), broker.weight) == ("drain", 9)
    });
    let _client = two.echoing_client();
    assert_eq!(backend(&two.state(), "broker1").connections, 0);
    say(&two, &json!({ "request": "backend", "name": "broker1", "state": "ready" }));
    one.until("told at once", |now| backend(now, "broker1").admin == "ready" && backend(now, "broker1").weight == 9);
}
