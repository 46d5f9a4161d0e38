//! Limits, start and end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::broker::{Broker, Clients};
use crate::harness::{self, AT_ONCE, Running, config, eventually, ping, wait_closed};
use evermq_daemon::health::Health;
use evermq_lb::{Drained, LoadBalancer, StartError};

fn lb(broker: &Broker, change: impl FnOnce(&mut evermq_config::lb::Lb)) -> Running {
    let mut config = config(&[broker.address]);
    change(&mut config.lb);
    Running::start_up(config)
}

fn is_served_now(client: &mut TcpStream) -> bool {
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    client.read_exact(&mut [0]).is_ok()
}

#[test]
fn above_the_limit_clients_wait_and_are_served_when_others_leave() {
    for workers in [1, 2] {
        let broker = Broker::start("broker1", Clients::Echoed);
        let lb = lb(&broker, |lb| {
            lb.max_connections = 4;
            lb.workers = workers;
        });
        let mut inside: Vec<_> = (0..4).map(|_| lb.echoing_client()).collect();
        let mut waiting: Vec<_> = (0..8).map(|_| lb.client()).collect();
        for client in &mut waiting {
            client.write_all(b"x").unwrap();
        }
        for client in &mut waiting {
            assert!(!is_served_now(client));
        }
        let state = lb.state();
        assert_eq!((state.connections.current, state.connections.limit), (4, 4));
        assert_eq!(state.backends[0].connections, 4);
        inside.iter_mut().for_each(ping);
        drop(inside);
        // Each that is served makes room for the next by leaving.
        let mut served = 0;
        while !waiting.is_empty() {
            let found = eventually("one is served", || waiting.iter_mut().position(is_served_now));
            drop(waiting.swap_remove(found));
            served += 1;
        }
        assert_eq!(served, 8);
        assert_eq!(lb.until("all gone", |state| state.connections.current == 0).connections.total, 12);
    }
}

#[test]
fn strangers_that_say_nothing_do_not_keep_clients_out_and_reach_no_broker() {
    let broker = Broker::start("broker1", Clients::Echoed);
    let lb = lb(&broker, |lb| {
        lb.max_connections = 20;
        lb.greeting_timeout = Duration::from_secs(60);
    });
    let mut strangers: Vec<_> = (0..30).map(|_| lb.stranger()).collect();
    lb.until("full", |state| state.connections.current == 20);
    let start = Instant::now();
    let clients: Vec<_> = (0..10).map(|_| lb.echoing_client()).collect();
    assert!(start.elapsed() < 2 * AT_ONCE, "{:?}", start.elapsed());
    let state = lb.state();
    assert!(state.connections.current <= 20);
    assert_eq!((state.backends[0].connections, state.backends[0].total), (10, 10));
    // Those that came first went first.
    for stranger in &mut strangers[..5] {
        wait_closed(stranger);
    }
    drop(clients);
}

#[test]
fn who_does_not_say_in_time_what_it_wants_is_closed() {
    let broker = Broker::start("broker1", Clients::Echoed);
    let lb = lb(&broker, |lb| lb.greeting_timeout = Duration::from_millis(300));
    let start = Instant::now();
    let mut silent = lb.stranger();
    let mut slow = lb.stranger();
    slow.write_all(&harness::hello()[..3]).unwrap();
    let mut client = lb.echoing_client();
    for stranger in [&mut silent, &mut slow] {
        wait_closed(stranger);
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(290) && took < AT_ONCE, "{took:?}");
    }
    ping(&mut client);
    assert_eq!(lb.state().backends[0].total, 1);
}

#[test]
fn an_idle_connection_is_closed_and_one_that_says_something_stays() {
    let broker = Broker::start("broker1", Clients::Echoed);
    let lb = lb(&broker, |lb| lb.idle_timeout = Some(Duration::from_millis(800)));
    let (mut idle, mut busy) = (lb.echoing_client(), lb.echoing_client());
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2000) {
        busy.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(harness::read(&mut busy, &mut [0]).is_err());
        busy.set_read_timeout(Some(harness::PATIENCE)).unwrap();
        ping(&mut busy);
    }
    assert_eq!(lb.state().connections.current, 1);
    assert!(wait_closed(&mut idle) < AT_ONCE);
}

#[test]
fn draining_is_said_first_then_accepting_stops_and_clients_may_finish() {
    let broker = Broker::start("broker1", Clients::Echoed);
    let lb = lb(&broker, |_| {});
    let mut health = lb.health();
    assert_eq!(health.next(), Some(Health::Up));
    let mut client = lb.echoing_client();
    lb.shutdown.cancel();
    assert_eq!(health.find(|&health| health != Health::Up), Some(Health::Down));
    // The VIP may still be here: whoever comes now is served.
    let mut late = lb.echoing_client();
    eventually("refused", || TcpStream::connect(lb.address).is_err().then_some(()));
    ping(&mut client);
    ping(&mut late);
    assert_eq!(lb.state().connections.current, 2);
    drop((client, late));
    assert_eq!(lb.join().unwrap(), Drained::Finished);
    assert_eq!(health.find(|&health| health != Health::Down), None, "then end of file");
}

#[test]
fn those_that_do_not_leave_in_time_are_closed() {
    let broker = Broker::start("broker1", Clients::Echoed);
    let lb = lb(&broker, |lb| lb.drain_timeout = Duration::from_millis(400));
    let mut clients: Vec<_> = (0..3).map(|_| lb.echoing_client()).collect();
    let start = Instant::now();
    lb.shutdown.cancel();
    for client in &mut clients {
        wait_closed(client);
    }
    let took = start.elapsed();
    assert_eq!(lb.join().unwrap(), Drained::Closed(3));
    assert!(took >= Duration::from_millis(390) && took < AT_ONCE, "{took:?}");
}

#[test]
fn a_broker_that_dies_during_the_drain_still_has_its_clients_closed() {
    let broker = Broker::start("broker1", Clients::Echoed);
    let lb = lb(&broker, |_| {});
    let mut client = lb.echoing_client();
    lb.shutdown.cancel();
    broker.kill();
    assert!(wait_closed(&mut client) < AT_ONCE);
    assert_eq!(lb.join().unwrap(), Drained::Finished);
}

#[test]
fn whoever_still_gets_in_at_the_end_is_served() {
    let broker = Broker::start("broker1", Clients::Echoed);
    for _ in 0..5 {
        let lb = lb(&broker, |_| {});
        let address = lb.address;
        lb.shutdown.cancel();
        let crowd: Vec<_> = (0..6)
            .map(|_| {
                std::thread::spawn(move || {
                    let (mut served, mut lost) = (0, 0);
                    while let Ok(mut client) = TcpStream::connect(address) {
                        client.set_read_timeout(Some(harness::PATIENCE)).unwrap();
                        let sent = client.write_all(harness::hello()).and_then(|()| client.write_all(b"x"));
                        let answered = sent.is_ok() && client.read_exact(&mut [0]).is_ok();
                        *if answered { &mut served } else { &mut lost } += 1;
                    }
                    (served, lost)
                })
            })
            .collect();
        let results: Vec<(u32, u32)> = crowd.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(lb.join().unwrap(), Drained::Finished);
        assert!(results.iter().all(|&(served, _)| served > 0), "{results:?}");
        // Linux cannot close a queue before it is emptied, so a connection can get in between the last accept and the close
        // of a listener. The worker may be off its core just then; but each client meets each of the two listeners once.
        assert!(results.iter().all(|&(_, lost)| lost <= 2), "{results:?}");
    }
}

#[test]
fn a_second_one_with_the_same_control_socket_does_not_start() {
    let broker = Broker::start("broker1", Clients::Echoed);
    let first = lb(&broker, |_| {});
    let mut second = config(&[broker.address]);
    second.control_socket = first.control.clone();
    second.lb.listeners[0].address = first.address;
    let error = LoadBalancer::bind(second).unwrap_err();
    assert!(matches!(error, StartError::Control(_)), "{error}");
    drop(first.echoing_client());
}

#[test]
fn without_certificates_it_does_not_start_and_says_which_file() {
    let broker = Broker::start("broker1", Clients::Echoed);
    let mut config = config(&[broker.address]);
    config.tls.cert = "/nonexistent/lb1.crt".into();
    let error = LoadBalancer::bind(config).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/lb1.crt"), "{error}");
}
