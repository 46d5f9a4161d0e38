//! Every connection is the new process's, as it was.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use evermq_daemon::control;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::crowd::Crowd;
use super::{Lb, children_or_self, echoing, write_config};
use crate::harness::broker::{Broker, Clients};
use crate::harness::{self, AT_ONCE, PATIENCE, eventually, ping};

#[test]
fn hundreds_of_clients_do_not_notice_that_another_process_serves_them() {
    let broker = echoing();
    let lb = Lb::start(&broker, "workers = 2");
    let watcher = lb.watch();
    let crowd = Crowd::start(&lb, 400);
    let first = lb.last();
    for generation in 0..3 {
        lb.install_good();
        let answer = lb.upgrade().unwrap();
        assert_eq!((answer["moved"].as_u64(), answer["left"].as_u64()), (Some(400), Some(0)), "{answer}");
        if generation == 0 {
            assert_eq!(lb.wait_first(), Some(0), "the old process ends");
        }
        let before = lb.processes.borrow()[generation];
        eventually("the one before ends", || (!children_or_self(before)).then_some(()));
        assert_eq!(control::listener(&lb.control), Some(lb.last().cast_signed()));
        // The new process's threads count them when they come to them.
        eventually("all are there", || {
            let state = lb.state().unwrap();
            ((state.connections.current, state.backends[0].connections) == (400, 400)).then_some(())
        });
        // Whoever comes now is served, too.
        drop(lb.client());
        eventually("the newcomer has left", || (lb.state().unwrap().connections.current == 400).then_some(()));
    }
    assert_ne!(first, lb.last());
    watcher.assert_unbroken();
    let silence = Duration::from_micros(watcher.silence.load(Ordering::SeqCst) as u64);
    let tally = crowd.finish();
    assert_eq!((tally.alive, tally.dead), (400, 0), "{tally:?}");
    assert!(tally.slowest < AT_ONCE && silence < AT_ONCE, "{tally:?}, {silence:?}");
}

/// Writes until nothing is taken for a while; gives how much.
fn fill(stream: &mut TcpStream, seed: u8) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut written = 0;
    loop {
        let piece: Vec<u8> = (written..written + 4096).map(|at| byte_at(at, seed)).collect();
        match stream.write(&piece) {
            Ok(count) => written += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return written,
        }
    }
}

fn byte_at(at: usize, seed: u8) -> u8 {
    (at % 251) as u8 ^ seed
}

fn read_exactly(stream: &mut TcpStream, count: usize, seed: u8) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    let wrong = bytes.iter().enumerate().find(|&(at, &byte)| byte != byte_at(at, seed));
    assert_eq!(wrong, None, "not what was sent");
}

#[test]
fn what_was_kept_half_closed_or_on_its_way_arrives() {
    let broker = Broker::start_at("broker1", Clients::HandedOver, SocketAddr::from(([127, 0, 0, 2], 0)));
    let lb = Lb::start(&broker, "workers = 2");
    let connect = || {
        let client = harness::connect(lb.address).unwrap();
        (client, broker.accept())
    };
    // Neither side reads: everything between the two is full, both ways.
    let (mut client, mut server) = connect();
    let (up, down) = (fill(&mut client, 0), fill(&mut server, 0xa5));
    assert!(up > 64 * 1024 && down > 64 * 1024);
    // One that has said all it will, and gets an answer later.
    let (mut half, mut half_server) = connect();
    half.write_all(b"question").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    let mut question = Vec::new();
    half_server.read_to_end(&mut question).unwrap();
    assert_eq!(question, b"question");
    // And one whose end of file waits behind what is kept.
    let (mut ending, mut ending_server) = connect();
    let sent = fill(&mut ending, 7);
    ending.shutdown(Shutdown::Write).unwrap();

    let answer = lb.upgrade().unwrap();
    assert_eq!(answer["moved"], 3, "{answer}");
    assert_eq!(lb.wait_first(), Some(0));
    read_exactly(&mut server, up, 0);
    read_exactly(&mut client, down, 0xa5);
    // Nothing came twice: what comes next is what is sent next.
    client.write_all(b"on").unwrap();
    let mut word = [0; 2];
    server.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"on");

    half_server.write_all(b"answer").unwrap();
    drop(half_server);
    let mut answer = Vec::new();
    half.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");

    read_exactly(&mut ending_server, sent, 7);
    assert_eq!(harness::read(&mut ending_server, &mut [0]).unwrap(), 0, "end of file");
    drop(ending_server);

    // Counted over both processes.
    drop((client, server));
    let counted = format!("bytes_in={} bytes_out={down}", up + 2 + harness::hello().len());
    eventually("the counters tell all", || lb.log().contains(&counted).then_some(()));
}

#[test]
fn more_or_fewer_workers_serve_all_listeners() {
    let broker = echoing();
    let lb = Lb::start(&broker, "workers = 2");
    let crowd = Crowd::start(&lb, 40);
    for workers in [1, 3, 2] {
        write_config(&lb.config, lb.address, lb.broker_port, &format!("workers = {workers}"));
        let before = lb.last();
        lb.upgrade().unwrap();
        eventually("the one before ends", || (!children_or_self(before)).then_some(()));
        assert_eq!(lb.state().unwrap().workers, workers);
        // The kernel spreads them over all sockets that listen: none may be without an owner.
        let newcomers: Vec<_> = (0..24).map(|_| lb.client()).collect();
        drop(newcomers);
    }
    let tally = crowd.finish();
    assert_eq!((tally.alive, tally.dead), (40, 0), "{tally:?}");
}

#[test]
fn sigusr2_asks_for_an_upgrade_and_strangers_follow_when_they_have_spoken() {
    let broker = echoing();
    let lb = Lb::start(&broker, "workers = 2");
    let mut silent = TcpStream::connect(lb.address).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    eventually("accepted", || (lb.state().unwrap().connections.current == 1).then_some(()));
    let first = lb.last();
    kill(Pid::from_raw(first.cast_signed()), Signal::SIGUSR2).unwrap();
    eventually("another process is in charge", || lb.log().contains("this process has taken over").then_some(()));
    let second = control::listener(&lb.control).unwrap().cast_unsigned();
    lb.processes.borrow_mut().push(second);
    // It has not said anything, so it is the old process's still.
    assert!(children_or_self(first));
    let error = lb.upgrade().unwrap_err().to_string();
    assert!(error.contains("still has connections"), "{error}");
    silent.write_all(harness::hello()).unwrap();
    ping(&mut silent);
    assert_eq!(lb.wait_first(), Some(0), "it has moved");
    ping(&mut silent);
    assert_eq!(lb.state().unwrap().connections.current, 1);
}
