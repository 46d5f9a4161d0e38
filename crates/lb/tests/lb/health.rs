//! What backends say of themselves, and what failing connections of clients say of them.

use std::time::Duration;

use crate::harness::broker::{Broker, Clients};
use crate::harness::{self, PATIENCE, Running, config, eventually, ping, wait_closed};
use evermq_config::lb::Probe;

#[test]
fn who_drains_or_is_not_ready_gets_no_new_clients_and_keeps_those_it_has() {
    let brokers = [Broker::start("broker1", Clients::Echoed), Broker::start("broker2", Clients::Echoed)];
    brokers.iter().for_each(|broker| broker.say("ready"));
    let lb = Running::start_up(config(&[brokers[0].address, brokers[1].address]));
    let mut old: Vec<_> = (0..4).map(|_| lb.echoing_client()).collect();
    let state = lb.state();
    assert_eq!(state.backends.iter().map(|backend| backend.connections).collect::<Vec<_>>(), [2, 2]);
    for word in ["draining", "not ready"] {
        brokers[0].say(word);
        lb.until(word, |state| state.backends[0].state == word);
        let new: Vec<_> = (0..4).map(|_| lb.echoing_client()).collect();
        let state = lb.state();
        assert_eq!(state.backends.iter().map(|backend| backend.connections).collect::<Vec<_>>(), [2, 6], "{word}");
        old.iter_mut().for_each(ping);
        drop(new);
        lb.until("gone", |state| state.connections.current == 4);
    }
    brokers[0].say("ready");
    lb.until("up again", |state| state.backends[0].state == "up");
    // Its session has stood all the time.
    assert_eq!(brokers[0].sessions(), 1);
    let _new = lb.echoing_client();
}

#[test]
fn the_end_of_a_draining_broker_closes_who_is_left() {
    let brokers = [Broker::start("broker1", Clients::Echoed), Broker::start("broker2", Clients::Echoed)];
    brokers.iter().for_each(|broker| broker.say("ready"));
    let lb = Running::start_up(config(&[brokers[0].address, brokers[1].address]));
    let mut clients: Vec<_> = (0..4).map(|_| lb.echoing_client()).collect();
    brokers[0].say("draining");
    lb.until("draining", |state| state.backends[0].state == "draining");
    brokers[0].kill();
    lb.until("down", |state| state.backends[0].state == "down" && state.connections.current == 2);
    let mut closed = 0;
    for client in &mut clients {
        client.set_nonblocking(true).unwrap();
        if client.peek(&mut [0]).map_or_else(|error| error.kind() != std::io::ErrorKind::WouldBlock, |count| count == 0)
        {
            closed += 1;
        }
    }
    assert_eq!(closed, 2);
}

#[test]
fn one_that_is_not_probed_is_up_and_left_out_while_clients_are_refused_there() {
    let good = Broker::start("broker1", Clients::Echoed);
    let nobody = evermq_ports::free_address();
    let mut config = config(&[good.address, nobody]);
    config.backends[1].probe = Probe::None;
    let lb = Running::start_up(config);
    // It is tried now and then, and the client does not notice.
    for _ in 0..10 {
        drop(lb.echoing_client());
    }
    let state = lb.until("noticed", |state| state.backends[1].refused > 0);
    assert!(state.backends[1].refused < 10, "{state:?}");
    assert_eq!(state.connections.refused, 0);
    lb.until("tried again after its time", |state| state.backends[1].state == "up");
}

#[test]
fn a_backend_that_takes_connections_and_drops_them_is_left_out_for_a_while() {
    let good = Broker::start("broker1", Clients::Echoed);
    let bad = Broker::start("broker2", Clients::HandedOver);
    let lb = Running::start_up(config(&[good.address, bad.address]));
    let closer = std::thread::spawn(move || {
        for _ in 0..5 {
            drop(bad.accept());
        }
        bad
    });
    // Its connections end at once, so it has the fewest again and again.
    eventually("left out", || {
        let mut client = lb.client();
        std::io::Write::write_all(&mut client, harness::hello()).unwrap();
        if lb.state().backends[1].state == "suspect" {
            return Some(());
        }
        client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let _ = std::io::Read::read(&mut client, &mut [0]);
        None
    });
    let state = lb.state();
    assert!(state.backends[1].refused >= 5, "{state:?}");
    let _bad = closer.join().unwrap();
}

#[test]
fn not_all_of_a_group_are_left_out_at_once() {
    let brokers = ["broker1", "broker2"].map(|name| Broker::start(name, Clients::Echoed));
    let lb = Running::start_up(config(&[brokers[0].address, brokers[1].address]));
    // Both refuse clients while their sessions stand.
    brokers.iter().for_each(Broker::stop_listening);
    for _ in 0..20 {
        wait_closed(&mut {
            let mut client = lb.client();
            std::io::Write::write_all(&mut client, harness::hello()).unwrap();
            client
        });
    }
    lb.until("one is left", |state| state.backends.iter().any(|backend| backend.state == "up"));
    brokers.iter().for_each(Broker::listen_again);
    lb.until("both", |state| state.backends.iter().all(|backend| backend.state == "up"));
    let _client = lb.echoing_client();
}

#[test]
fn clients_of_a_broker_that_is_drained_are_sent_away_by_the_broker_itself() {
    let brokers = [Broker::start("broker1", Clients::Echoed), Broker::start("broker2", Clients::Echoed)];
    // What they say has been heard once it shows.
    brokers.iter().for_each(|broker| broker.say("not ready"));
    let lb = Running::start(config(&[brokers[0].address, brokers[1].address]));
    for word in ["not ready", "ready"] {
        brokers.iter().for_each(|broker| broker.say(word));
        let shown = if word == "ready" { "up" } else { word };
        lb.until(shown, |state| state.backends.iter().all(|backend| backend.state == shown));
    }
    let clients: Vec<_> = (0..80).map(|_| lb.echoing_client()).collect();
    let before = lb.state();
    assert_eq!(before.backends.iter().map(|backend| backend.connections).collect::<Vec<_>>(), [40, 40]);
    // More than one message's worth of them.
    let request = serde_json::json!({"request": "backend", "name": "broker1", "state": "drain", "rate": 10_000});
    evermq_daemon::control::request(&lb.control, &request, PATIENCE).unwrap();
    lb.until("all have gone", |state| state.backends[0].connections == 0);
    assert_eq!(brokers[0].sent_away(), 40);
    assert_eq!(lb.state().backends[1].connections, 40);
    assert_eq!(lb.state().backends[0].state, "up");
    let mut left = 0;
    for client in &clients {
        client.set_nonblocking(true).unwrap();
        left += usize::from(client.peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    }
    assert_eq!(left, 40);
}
