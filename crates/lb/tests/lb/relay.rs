//! Bytes through the load balancer: all of them, in order, with half-close and back-pressure.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::broker::{Broker, Clients};
use crate::harness::{self, AT_ONCE, Random, Running, alone, bytes, config, ping, wait_closed};
use socket2::SockRef;

/// A load balancer before one broker whose client connections the test holds in its hands.
fn pair() -> (Broker, Running) {
    let broker = Broker::start("broker1", Clients::HandedOver);
    let lb = Running::start_up(config(&[broker.address]));
    (broker, lb)
}

/// A client and its connection at the broker, one byte into it.
fn joined(broker: &Broker, lb: &Running) -> (TcpStream, TcpStream) {
    let mut client = lb.client();
    client.write_all(b"<").unwrap();
    let mut server = broker.accept();
    server.read_exact(&mut [0]).unwrap();
    (client, server)
}

#[test]
fn bytes_arrive_both_ways_whole_and_in_order_however_they_are_cut() {
    let (broker, lb) = pair();
    let (client, server) = joined(&broker, &lb);
    let pieces = |mut stream: TcpStream, data: Vec<u8>, seed: u64| {
        std::thread::spawn(move || {
            let mut random = Random(seed);
            let mut rest = &data[..];
            while !rest.is_empty() {
                let size = match random.below(4) {
                    0 => 1,
                    1 => random.below(100) + 1,
                    2 => random.below(5000) + 1,
                    _ => random.below(200_000) + 1,
                };
                let (now, later) = rest.split_at(size.min(rest.len()));
                stream.write_all(now).unwrap();
                rest = later;
            }
            stream.shutdown(Shutdown::Write).unwrap();
        })
    };
    let there = bytes(3_000_000, 1);
    let back = bytes(5_000_000, 2);
    let threads =
        [pieces(client.try_clone().unwrap(), there.clone(), 3), pieces(server.try_clone().unwrap(), back.clone(), 4)];
    let read = |mut stream: TcpStream| {
        std::thread::spawn(move || {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all
        })
    };
    let (at_server, at_client) = (read(server), read(client));
    assert!(at_server.join().unwrap() == there);
    assert!(at_client.join().unwrap() == back);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let state = lb.until("connection ended", |state| state.connections.current == 0);
    let backend = &state.backends[0];
    assert_eq!((backend.bytes_in, backend.bytes_out), (3_000_001 + harness::hello().len() as u64, 5_000_000));
    assert_eq!((backend.connections, backend.total, state.connections.total), (0, 1, 1));
}

#[test]
fn a_client_that_closes_its_half_still_hears_the_answer() {
    let (broker, lb) = pair();
    let (mut client, mut server) = joined(&broker, &lb);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut question = String::new();
    server.read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");
    let answer = bytes(1_000_000, 7);
    server.write_all(&answer).unwrap();
    drop(server);
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    assert!(heard == answer);
}

#[test]
fn a_broker_that_closes_its_half_still_hears_the_client() {
    let (broker, lb) = pair();
    let (mut client, mut server) = joined(&broker, &lb);
    server.write_all(b"bye").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "bye");
    client.write_all(b"one more thing").unwrap();
    drop(client);
    let mut heard = String::new();
    server.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "one more thing");
}

#[test]
fn a_client_that_leaves_takes_its_connection_to_the_broker_along() {
    let (broker, lb) = pair();
    for reset in [false, true] {
        let (client, mut server) = joined(&broker, &lb);
        if reset {
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(client);
        wait_closed(&mut server);
        drop(server);
        lb.until("connection ended", |state| state.connections.current == 0);
    }
}

#[test]
fn what_a_broker_said_before_it_reset_the_connection_is_heard() {
    let (broker, lb) = pair();
    let (mut client, mut server) = joined(&broker, &lb);
    server.write_all(b"refused, because").unwrap();
    let mut heard = [0; 16];
    client.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"refused, because");
    SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    SockRef::from(&server).shutdown(Shutdown::Both).unwrap();
    drop(server);
    wait_closed(&mut client);
    // A client that was writing at that moment learns it as well, and nothing is left behind.
    drop(client);
    lb.until("connection ended", |state| state.connections.current == 0);
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Writes until the other side takes no more for a while.
fn fill(stream: &mut TcpStream, data: &[u8]) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut sent = 0;
    while sent < data.len() {
        match stream.write(&data[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

#[test]
fn a_slow_reader_slows_the_sender_and_costs_no_memory() {
    if !alone("relay::a_slow_reader_slows_the_sender_and_costs_no_memory", &[]) {
        return;
    }
    const CONNECTIONS: usize = 8;
    const OFFERED: usize = 64 << 20;
    let (broker, lb) = pair();
    let data = bytes(OFFERED, 11);
    let mut pairs: Vec<_> = (0..CONNECTIONS).map(|_| joined(&broker, &lb)).collect();
    let before = resident_bytes();
    let mut sent = Vec::new();
    for (client, server) in &mut pairs {
        // Both ways at once: neither direction's trouble may hold up the other for good.
        sent.push((fill(client, &data), fill(server, &data)));
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(sent.iter().all(|&(there, back)| there < OFFERED && back < OFFERED), "nobody slowed the sender: {sent:?}");
    assert!(grown < 4 << 20, "{grown} bytes for {CONNECTIONS} slow readers");
    // Others are served as if nothing were.
    let (mut client, mut server) = joined(&broker, &lb);
    let start = Instant::now();
    server.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();
    assert!(start.elapsed() < AT_ONCE);
    // All that was taken arrives.
    for ((client, server), (there, back)) in pairs.into_iter().zip(sent) {
        let check = |mut from: TcpStream, expected: &[u8]| {
            let mut heard = vec![0; expected.len()];
            from.read_exact(&mut heard).unwrap();
            assert!(heard == expected);
        };
        check(server, &data[..there]);
        check(client, &data[..back]);
    }
}

#[test]
fn a_busy_connection_does_not_starve_another_of_the_same_thread() {
    let broker = Broker::start("broker1", Clients::HandedOver);
    let mut config = config(&[broker.address]);
    config.lb.workers = 1;
    let lb = Running::start_up(config);
    let (mut busy, mut sink) = joined(&broker, &lb);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let writer = std::thread::spawn(move || {
        let data = vec![0; 1 << 20];
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) && busy.write_all(&data).is_ok() {}
    });
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while matches!(harness::read(&mut sink, &mut buffer), Ok(1..)) {}
    });
    let (mut client, mut server) = joined(&broker, &lb);
    let mut worst = Duration::ZERO;
    for _ in 0..200 {
        let start = Instant::now();
        client.write_all(b"?").unwrap();
        server.read_exact(&mut [0]).unwrap();
        worst = worst.max(start.elapsed());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().unwrap();
    reader.join().unwrap();
    assert!(worst < AT_ONCE, "{worst:?}");
}

#[test]
fn garbage_is_refused_or_reaches_the_broker_as_it_is_and_disturbs_nobody() {
    let broker = Broker::start("broker1", Clients::Echoed);
    let lb = Running::start_up(config(&[broker.address]));
    let mut steady = lb.echoing_client();
    for seed in 1..40 {
        let mut stranger = if seed % 2 == 0 { lb.client() } else { lb.stranger() };
        let _ = stranger.write_all(&bytes(2000, seed));
        if seed % 3 == 0 {
            let _ = stranger.shutdown(Shutdown::Write);
        }
        if seed % 5 == 0 {
            SockRef::from(&stranger).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(stranger);
        ping(&mut steady);
    }
    let state = lb.until("strangers gone", |state| state.connections.current == 1);
    assert_eq!(state.backends[0].state, "up");
    assert_eq!(state.connections.refused, 0);
    // The steady one, and those that began as TLS does.
    assert!(state.backends[0].total <= 1 + 19, "{state:?}");
}

#[test]
fn what_is_no_tls_is_closed_at_its_first_byte() {
    let (_broker, lb) = pair();
    for bytes in [&b"G"[..], &[0x10, 0x20], &[22, 3, 1, 0, 200, 2]] {
        let mut stranger = lb.stranger();
        stranger.write_all(bytes).unwrap();
        assert!(wait_closed(&mut stranger) < AT_ONCE);
    }
    assert_eq!(lb.until("gone", |state| state.connections.current == 0).backends[0].total, 0);
}

#[test]
fn a_hello_that_comes_byte_by_byte_is_passed_on_whole() {
    let (broker, lb) = pair();
    let mut client = lb.stranger();
    for byte in harness::hello() {
        client.write_all(&[*byte]).unwrap();
    }
    client.write_all(b"<").unwrap();
    // The broker has found the hello whole, or it would not hand the connection over.
    broker.accept().read_exact(&mut [0]).unwrap();
}

#[test]
fn bulk_arrives_whole_with_back_pressure_and_small_messages_after_it() {
    let (broker, lb) = pair();
    let (mut client, mut server) = joined(&broker, &lb);
    let data = bytes(40 << 20, 21);
    for _ in 0..2 {
        let expected = data.clone();
        let mut reader = server.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            let mut heard = vec![0; expected.len()];
            // Slow at first, so that a pipe stays full for a while.
            reader.read_exact(&mut heard[..100_000]).unwrap();
            std::thread::yield_now();
            reader.read_exact(&mut heard[100_000..]).unwrap();
            assert!(heard == expected);
        });
        client.write_all(&data).unwrap();
        thread.join().unwrap();
        for _ in 0..100 {
            client.write_all(b"?").unwrap();
            server.read_exact(&mut [0]).unwrap();
            server.write_all(b"!").unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
    }
}

#[test]
fn silent_and_short_lived_clients_leave_nothing_behind() {
    let broker = Broker::start("broker1", Clients::Echoed);
    let lb = Running::start_up(config(&[broker.address]));
    for round in 1..=2 {
        let silent: Vec<_> = (0..50).map(|_| lb.client()).collect();
        lb.until("all accepted", |state| state.connections.current == 50 && state.backends[0].connections == 50);
        drop(silent);
        let state = lb.until("all gone", |state| state.connections.current == 0 && state.backends[0].connections == 0);
        assert_eq!(state.backends[0].total, round * 50);
    }
}
