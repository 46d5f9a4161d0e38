//! Which broker clients reach, and what happens to them when brokers fail and return.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::broker::{Broker, Clients};
use crate::harness::{self, AT_ONCE, Running, config, eventually, ping, wait_closed};
use evermq_config::lb::Balance;
use evermq_daemon::health::Health;
use socket2::{Domain, Socket, Type};

fn echoing() -> [Broker; 2] {
    ["broker1", "broker2"].map(|name| Broker::start(name, Clients::Echoed))
}

fn two(brokers: &[Broker; 2]) -> [SocketAddr; 2] {
    [brokers[0].address, brokers[1].address]
}

fn counts(lb: &Running) -> Vec<usize> {
    lb.state().backends.iter().map(|backend| backend.connections).collect()
}

/// Whether a client gets through.
fn served(lb: &Running) -> bool {
    let mut client = lb.client();
    client.write_all(b"x").is_ok() && client.read_exact(&mut [0]).is_ok()
}

#[test]
fn least_conn_fills_up_the_broker_that_has_fewer() {
    let brokers = echoing();
    let lb = Running::start_up(config(&two(&brokers)));
    let mut clients: Vec<_> = (0..10).map(|_| lb.echoing_client()).collect();
    assert_eq!(counts(&lb), [5, 5]);
    clients.truncate(4);
    let state = lb.until("six left", |state| state.connections.current == 4);
    let before: Vec<_> = state.backends.iter().map(|backend| backend.connections).collect();
    clients.extend((0..4).map(|_| lb.echoing_client()));
    assert_eq!(counts(&lb), [4, 4], "from {before:?}");
}

#[test]
fn round_robin_takes_turns_whoever_stays() {
    let brokers = echoing();
    let mut config = config(&two(&brokers));
    config.lb.balance = Balance::RoundRobin;
    let lb = Running::start_up(config);
    let stays = lb.echoing_client();
    for _ in 0..9 {
        drop(lb.echoing_client());
    }
    let totals: Vec<_> = lb.state().backends.iter().map(|backend| backend.total).collect();
    assert_eq!(totals, [5, 5]);
    drop(stays);
}

#[test]
fn clients_do_not_notice_a_broker_that_is_not_there() {
    let broker = Broker::start("broker2", Clients::Echoed);
    let lb = Running::start(config(&[evermq_ports::free_address(), broker.address]));
    // From the first moment on, when nothing is known of either.
    for _ in 0..20 {
        assert!(served(&lb));
    }
    let state = lb.until("both known", |state| state.backends[0].state == "down" && state.health == Health::Up);
    assert!(state.backends[0].last_error.as_ref().unwrap().contains("refused"), "{state:?}");
    assert_eq!((state.connections.refused, state.backends[0].total), (0, 0));
}

/// An address where connections are neither accepted nor refused: its queue is full.
fn black_hole() -> (SocketAddr, Socket, Vec<TcpStream>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queue.push(stream);
    }
    (address, socket, queue)
}

#[test]
fn clients_are_late_but_served_when_a_broker_does_not_answer_at_all() {
    let broker = Broker::start("broker2", Clients::Echoed);
    let (hole, _socket, _queue) = black_hole();
    let mut config = config(&[hole, broker.address]);
    let connect_timeout = Duration::from_secs(1);
    config.lb.connect_timeout = connect_timeout;
    config.lb.health.timeout = connect_timeout;
    let lb = Running::start(config);
    let start = Instant::now();
    let clients: Vec<_> = (0..6).map(|_| lb.client()).collect();
    for mut client in clients {
        ping(&mut client);
    }
    assert!(start.elapsed() < connect_timeout * 5, "{:?}", start.elapsed());
    lb.until("found out", |state| state.backends[0].state == "down");
    let start = Instant::now();
    assert!(served(&lb));
    assert!(start.elapsed() < connect_timeout * 9 / 10, "still tried: {:?}", start.elapsed());
}

#[test]
fn a_dead_brokers_clients_are_closed_at_once_and_the_others_stay() {
    let brokers = echoing();
    let lb = Running::start_up(config(&two(&brokers)));
    let mut clients: Vec<_> = (0..20).map(|_| lb.echoing_client()).collect();
    let start = Instant::now();
    brokers[0].kill();
    let state = lb.until("half are gone", |state| state.connections.current == 10);
    let took = start.elapsed();
    assert!(took < AT_ONCE, "{took:?}");
    assert_eq!(state.backends[1].connections, 10);
    let mut closed = 0;
    for client in &mut clients {
        client.write_all(b"x").unwrap_or_default();
        closed += usize::from(client.read_exact(&mut [0]).is_err());
    }
    assert_eq!(closed, 10);
    for _ in 0..10 {
        assert!(served(&lb));
    }
    assert_eq!(lb.state().connections.refused, 0);
}

#[test]
fn a_frozen_brokers_clients_are_closed_within_health_timeout() {
    let brokers = ["broker1", "broker2"].map(|name| Broker::start(name, Clients::HandedOver));
    let mut config = config(&two(&brokers));
    let health_timeout = Duration::from_secs(1);
    config.lb.health.timeout = health_timeout;
    let lb = Running::start_up(config);
    let mut clients: Vec<_> = (0..2).map(|_| lb.client()).collect();
    let mut servers = Vec::new();
    for client in &mut clients {
        client.write_all(b"x").unwrap();
    }
    for broker in &brokers {
        servers.push(broker.accept());
    }
    let start = Instant::now();
    brokers[0].freeze();
    lb.until("one is gone", |state| state.connections.current == 1);
    let took = start.elapsed();
    assert!(took <= health_timeout * 2, "{took:?}");
    // Its ends are gone too: when it thaws, no ghost of a client is left there.
    assert!(!matches!(harness::read(&mut servers[0], &mut [0]), Ok(0)), "a reset, not an end");
    let mut rest = Vec::new();
    let error = servers[0].read_to_end(&mut rest).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let state = lb.state();
    assert_eq!(state.backends[0].state, "down");
    assert!(state.backends[0].last_error.as_ref().unwrap().contains("no answer"));
    assert_eq!(state.backends[1].connections, 1);
}

#[test]
fn a_restarted_broker_has_clients_again_in_a_tenth_of_a_second() {
    let mut brokers = echoing();
    let mut config = config(&two(&brokers));
    // Its full share from its first moment on.
    config.lb.health.slow_start = Duration::ZERO;
    let lb = Running::start_up(config);
    let address = brokers[0].address;
    brokers[0].kill();
    lb.until("gone", |state| state.backends[0].state == "down");
    // Long enough for pauses between attempts to have grown.
    let down_since = Instant::now();
    eventually("a while", || (down_since.elapsed() > Duration::from_secs(2)).then_some(()));
    brokers[0] = Broker::start_at("broker1", Clients::Echoed, address);
    let start = Instant::now();
    lb.until("back", |state| state.backends[0].state == "up");
    let took = start.elapsed();
    // Had the pauses grown with the time, the next one would be longer than this.
    assert!(took < Duration::from_millis(1500), "{took:?}");
    let clients: Vec<_> = (0..6).map(|_| lb.echoing_client()).collect();
    assert_eq!(counts(&lb), [3, 3]);
    drop(clients);
}

#[test]
fn a_broker_that_only_stopped_listening_keeps_its_clients_and_gets_no_new_ones() {
    let brokers = echoing();
    let lb = Running::start_up(config(&two(&brokers)));
    let mut clients: Vec<_> = (0..4).map(|_| lb.echoing_client()).collect();
    brokers[0].stop_listening();
    clients.extend((0..8).map(|_| lb.echoing_client()));
    let state = lb.state();
    assert_eq!((state.backends[0].connections, state.backends[1].connections), (2, 10));
    assert!(state.backends[0].refused > 0);
    assert_eq!(state.health, Health::Up);
    for client in &mut clients {
        ping(client);
    }
    brokers[0].listen_again();
    eventually("it gets clients again", || {
        clients.push(lb.echoing_client());
        (lb.state().backends[0].connections > 2).then_some(())
    });
}

#[test]
fn nobody_left_closes_clients_at_once_and_says_so() {
    let brokers = echoing();
    let lb = Running::start_up(config(&two(&brokers)));
    let mut health = lb.health();
    assert_eq!(health.next(), Some(Health::Up));
    brokers.iter().for_each(Broker::kill);
    assert_eq!(health.find(|&health| health != Health::Up), Some(Health::Degraded));
    lb.until("both down", |state| state.backends.iter().all(|backend| backend.state == "down"));
    let mut client = lb.client();
    let took = wait_closed(&mut client);
    assert!(took < AT_ONCE, "{took:?}");
    lb.until("counted", |state| state.connections.refused == 1 && state.health == Health::Degraded);
}

#[test]
fn a_broker_that_rejects_the_lbs_own_session_is_the_last_resort() {
    let brokers = echoing();
    brokers[0].refuse_sessions(true);
    let lb = Running::start(config(&two(&brokers)));
    lb.until("known", |state| state.backends[0].state == "rejecting" && state.backends[1].state == "up");
    let clients: Vec<_> = (0..4).map(|_| lb.echoing_client()).collect();
    assert_eq!(counts(&lb), [0, 4]);
    drop(clients);
    brokers[1].kill();
    lb.until("other is gone", |state| state.backends[1].state == "down");
    assert!(served(&lb));
    let state = lb.state();
    assert_eq!(state.health, Health::Degraded);
    assert!(state.backends[0].last_error.as_ref().unwrap().contains("Not authorized"), "{state:?}");
    brokers[0].refuse_sessions(false);
    lb.until("accepted at last", |state| state.backends[0].state == "up");
    assert_eq!(brokers[0].sessions(), 1);
}

#[test]
fn a_broker_with_another_hosts_certificate_is_not_up() {
    // Valid for the address, as all of these are, but signed by nobody we know.
    let broker = Broker::start("stranger", Clients::Echoed);
    let lb = Running::start(config(&[broker.address]));
    let state = lb.until("known", |state| state.backends[0].state == "rejecting");
    assert!(state.backends[0].last_error.as_ref().unwrap().contains("certificate"), "{state:?}");
    assert_eq!(broker.sessions(), 0);
}

#[test]
fn one_session_stands_and_its_round_trip_is_measured() {
    let broker = Broker::start("broker1", Clients::Echoed);
    let lb = Running::start_up(config(&[broker.address]));
    lb.until("some rounds", |state| state.backends[0].health_rtt_us.is_some() && state.backends[0].since_ms > 500);
    assert_eq!(broker.sessions(), 1);
}

#[test]
fn brokers_that_restart_in_turn_turn_nobody_away() {
    let [first, second] = echoing();
    let addresses = [first.address, second.address];
    let lb = Running::start_up(config(&addresses));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (stop, address) = (std::sync::Arc::clone(&stop), lb.address);
            std::thread::spawn(move || {
                let (mut served, mut cut) = (0_u32, 0_u32);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let mut client = harness::connect(address).unwrap();
                    let answered = client.write_all(b"x").is_ok() && client.read_exact(&mut [0]).is_ok();
                    *if answered { &mut served } else { &mut cut } += 1;
                }
                (served, cut)
            })
        })
        .collect();
    let mut brokers = [Some(first), Some(second)];
    for round in 0..6 {
        let index = round % 2;
        drop(brokers[index].take());
        lb.until("down", |state| state.backends[index].state == "down");
        brokers[index] = Some(Broker::start_at(["broker1", "broker2"][index], Clients::Echoed, addresses[index]));
        lb.until("up", |state| state.backends[index].state == "up");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let results: Vec<_> = clients.into_iter().map(|thread| thread.join().unwrap()).collect();
    let (served, cut) = results.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    // Whoever was at a broker when it died is cut off; nobody is for want of a broker.
    assert!(served > 100 && cut <= 8 * 6, "{results:?}");
    let state = lb.until("all gone", |state| state.connections.current == 0);
    assert_eq!(state.connections.refused, 0);
    assert!(state.backends.iter().all(|backend| backend.connections == 0), "{state:?}");
}
