//! With a broker of the field behind the load balancer: Debian's mosquitto, mutual TLS, its own clients.

#![expect(clippy::print_stdout, reason = "tests say what they measured")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::{self, AT_ONCE, PATIENCE, Running, certs, config, eventually};
use bytes::BytesMut;
use evermq_config::HostName;
use evermq_config::lb::Probe;
use evermq_lb::state::State;
use evermq_mqtt::codec::{self, Limits};
use evermq_mqtt::packet::Connect;
use evermq_mqtt::properties::ConnectProperties;
use evermq_mqtt::{Packet, ReasonCode, Text, Version};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::{ClientConnection, StreamOwned};

/// A mosquitto of its own; killed when dropped.
struct Mosquitto {
    address: SocketAddr,
    process: Child,
}

impl Mosquitto {
    fn start(name: &str) -> Self {
        Self::start_at(name, evermq_ports::free_address())
    }

    fn start_at(name: &str, address: SocketAddr) -> Self {
        let files = certs::files(name);
        let file = certs::path(&format!("mosquitto-{}.conf", address.port()));
        let text = format!(
            "user root\npersistence false\nallow_anonymous true\nlistener {} {}\ncafile {}\ncertfile {}\nkeyfile {}\n\
             require_certificate true\n",
            address.port(),
            address.ip(),
            files.ca.display(),
            files.cert.display(),
            files.key.display()
        );
        std::fs::write(&file, text).unwrap();
        Self::spawn(&file, address)
    }

    /// Plain, for anybody.
    fn start_plain_at(address: SocketAddr) -> Self {
        let file = certs::path(&format!("mosquitto-{}.conf", address.port()));
        let text = format!(
            "user root\npersistence false\nallow_anonymous true\nlistener {} {}\n",
            address.port(),
            address.ip()
        );
        std::fs::write(&file, text).unwrap();
        Self::spawn(&file, address)
    }

    fn spawn(file: &std::path::Path, address: SocketAddr) -> Self {
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        Self { address, process: command.spawn().expect("mosquitto is installed") }
    }

    /// As kill -9.
    fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.process.wait().unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// An MQTT client through the load balancer, its CONNACK received.
fn connect(lb: &Running, id: &str) -> Tls {
    try_connect(lb, id).unwrap()
}

/// A client that tries again at once, as clients do: the kernel of a broker that dies may accept for a moment still.
fn reconnect(lb: &Running, id: &str) -> Tls {
    eventually("connected", || try_connect(lb, id).ok())
}

fn try_connect(lb: &Running, id: &str) -> std::io::Result<Tls> {
    let material = evermq_daemon::tls::Material::load(&certs::files("client")).unwrap();
    // Whichever broker it will be: all certificates name the address.
    let name = HostName::new("anybody").unwrap();
    let tls = material.client_config_for(&name, lb.address.ip()).unwrap();
    let connection = ClientConnection::new(Arc::clone(&tls), evermq_daemon::tls::server_name(&name)).unwrap();
    let mut stream = StreamOwned::new(connection, lb.stranger());
    let connect = Packet::Connect(Box::new(Connect {
        version: Version::V4,
        clean_start: true,
        keep_alive: 60,
        client_id: Text::new(id).unwrap(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
        is_bridge: false,
    }));
    let mut bytes = BytesMut::new();
    codec::encode(&connect, Version::V4, &mut bytes).unwrap();
    stream.write_all(&bytes)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    let mut answer = BytesMut::from(&answer[..]);
    match codec::decode(&mut answer, Version::V4, &Limits::default()).unwrap() {
        Some(Packet::ConnAck(ack)) => assert_eq!(ack.reason, ReasonCode::Success),
        other => panic!("{other:?}"),
    }
    Ok(stream)
}

/// How long after `start` every one of `clients` was closed.
fn all_closed(clients: Vec<Tls>, start: Instant) -> Duration {
    for mut client in clients {
        client.sock.set_read_timeout(Some(PATIENCE)).unwrap();
        match harness::read(&mut client, &mut [0]) {
            Ok(count) => assert_eq!(count, 0),
            Err(error) => assert!(
                matches!(error.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset),
                "{error}"
            ),
        }
    }
    start.elapsed()
}

/// `count` clients of the broker at `index`, and of the other the rest.
fn clients_of(lb: &Running, index: usize, count: usize) -> Vec<Tls> {
    let mut found = Vec::new();
    for number in 0.. {
        if found.len() == count {
            break;
        }
        let before = lb.state().backends[index].connections;
        let client = connect(lb, &format!("client-{index}-{number}"));
        if lb.state().backends[index].connections > before {
            found.push(client);
        } else {
            // Stays, so that least_conn turns to the other one; closed at the end of the process.
            std::mem::forget(client);
        }
    }
    found
}

fn mosquitto_client(program: &str, lb: &Running, cert: &str) -> Command {
    let files = certs::files(cert);
    let mut command = Command::new(program);
    command
        .args(["-h", "127.0.0.1", "-p", &lb.address.port().to_string(), "-q", "1", "--cafile"])
        .arg(files.ca)
        .arg("--cert")
        .arg(files.cert)
        .arg("--key")
        .arg(files.key)
        .stdin(Stdio::null());
    command
}

#[test]
fn mosquittos_own_clients_talk_through_it() {
    let broker = Mosquitto::start("broker1");
    let lb = Running::start_up(config(&[broker.address]));
    let subscriber = mosquitto_client("mosquitto_sub", &lb, "client")
        .args(["-t", "a/b", "-C", "1", "-W", "10"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("mosquitto_sub is installed");
    lb.until("subscriber is there", |state| state.connections.current == 1 && state.backends[0].bytes_in > 1000);
    // Published until received: subscribing has no moment that could be seen from here.
    let mut subscriber = subscriber;
    eventually("received", || {
        let published = mosquitto_client("mosquitto_pub", &lb, "client").args(["-t", "a/b", "-m", "hello"]).status();
        assert!(published.unwrap().success());
        subscriber.try_wait().unwrap()
    });
    let mut heard = String::new();
    subscriber.stdout.unwrap().read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "hello\n");
    let state = lb.state();
    assert!(state.backends[0].bytes_in > 2000 && state.backends[0].bytes_out > 2000, "{state:?}");
}

#[test]
fn the_broker_sees_the_clients_certificate_not_ours() {
    let broker = Mosquitto::start("broker1");
    let lb = Running::start_up(config(&[broker.address]));
    let refused = mosquitto_client("mosquitto_pub", &lb, "stranger")
        .args(["-t", "a/b", "-m", "hello"])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!refused.success());
    assert_eq!(lb.state().backends[0].state, "up");
}

#[test]
fn kill_9_closes_its_clients_at_once_and_the_other_broker_takes_them() {
    let brokers = [Mosquitto::start("broker1"), Mosquitto::start("broker2")];
    let lb = Running::start_up(config(&[brokers[0].address, brokers[1].address]));
    let clients = clients_of(&lb, 0, 10);
    let start = Instant::now();
    brokers[0].signal(Signal::SIGKILL);
    let took = all_closed(clients, start);
    println!("kill -9: clients closed after {took:?}");
    assert!(took < AT_ONCE, "{took:?}");
    let start = Instant::now();
    drop(reconnect(&lb, "returns"));
    let again = start.elapsed();
    println!("kill -9: connected again in {again:?}");
    let state = lb.until("down", |state| state.backends[0].state == "down");
    assert_eq!(state.connections.refused, 0);
}

#[test]
fn a_stopped_process_is_found_within_health_timeout_and_used_again_when_it_goes_on() {
    let brokers = [Mosquitto::start("broker1"), Mosquitto::start("broker2")];
    let mut config = config(&[brokers[0].address, brokers[1].address]);
    let health_timeout = Duration::from_secs(1);
    config.lb.health.timeout = health_timeout;
    let lb = Running::start_up(config);
    let clients = clients_of(&lb, 0, 10);
    let start = Instant::now();
    brokers[0].signal(Signal::SIGSTOP);
    let took = all_closed(clients, start);
    println!("SIGSTOP: clients closed after {took:?} with health_timeout {health_timeout:?}");
    assert!(took < health_timeout * 2, "{took:?}");
    let start = Instant::now();
    drop(connect(&lb, "elsewhere"));
    assert!(start.elapsed() < AT_ONCE);
    brokers[0].signal(Signal::SIGCONT);
    let start = Instant::now();
    lb.until("up again", |state| state.backends[0].state == "up");
    println!("SIGCONT: up again after {:?}", start.elapsed());
}

#[test]
fn a_restarted_mosquitto_has_clients_again() {
    let mut brokers = [Mosquitto::start("broker1"), Mosquitto::start("broker2")];
    let lb = Running::start_up(config(&[brokers[0].address, brokers[1].address]));
    let address = brokers[0].address;
    brokers[0].signal(Signal::SIGKILL);
    brokers[0].process.wait().unwrap();
    lb.until("down", |state| state.backends[0].state == "down");
    brokers[0] = Mosquitto::start_at("broker1", address);
    eventually("listens", || TcpStream::connect(address).ok());
    let start = Instant::now();
    lb.until("up", |state| state.backends[0].state == "up");
    println!("restart: used {:?} after it listens", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let _clients = clients_of(&lb, 0, 3);
}

/// A load balancer to which these are brokers of somebody else, probed so.
fn foreign(backends: &[(SocketAddr, bool, Probe)]) -> Running {
    let addresses: Vec<_> = backends.iter().map(|(address, ..)| *address).collect();
    let mut config = config(&addresses);
    config.lb.health.timeout = Duration::from_secs(1);
    for (backend, &(address, tls, probe)) in config.backends.iter_mut().zip(backends) {
        backend.host = None;
        backend.send_proxy_plain = false;
        backend.address = tls.then_some(address);
        backend.plain_address = (!tls).then_some(address);
        backend.probe = probe;
    }
    Running::start(config)
}

fn state_is(state: &State, index: usize, wanted: &str) -> bool {
    state.backends[index].state == wanted
}

#[test]
fn foreign_brokers_are_probed_with_mqtt_in_the_clear_and_over_tls() {
    let mut brokers = [Mosquitto::start_plain_at(evermq_ports::free_address()), Mosquitto::start("broker2")];
    let lb = foreign(&[(brokers[0].address, false, Probe::Mqtt), (brokers[1].address, true, Probe::Mqtt)]);
    for index in [0, 1] {
        lb.until("up", |state| state_is(state, index, "up"));

        brokers[index].signal(Signal::SIGSTOP);
        let start = Instant::now();
        let state = lb.until("down when stopped", |state| state_is(state, index, "down"));
        println!("SIGSTOP: down after {:?}: {:?}", start.elapsed(), state.backends[index].last_error);
        brokers[index].signal(Signal::SIGCONT);
        lb.until("up when it goes on", |state| state_is(state, index, "up"));

        brokers[index].kill();
        let start = Instant::now();
        let state = lb.until("down when killed", |state| state_is(state, index, "down"));
        println!("kill -9: down after {:?}", start.elapsed());
        let error = state.backends[index].last_error.clone().unwrap();
        assert!(error.contains("refused"), "{error}");
        let address = brokers[index].address;
        brokers[index] =
            if index == 0 { Mosquitto::start_plain_at(address) } else { Mosquitto::start_at("broker2", address) };
        lb.until("up when restarted", |state| state_is(state, index, "up"));
    }
}

#[test]
fn probes_leave_no_trace_of_a_lost_client() {
    let file = certs::path("mosquitto-quiet.log");
    let address = evermq_ports::free_address();
    let conf = certs::path("mosquitto-quiet.conf");
    let text = format!(
        "user root\npersistence false\nallow_anonymous true\nlog_dest file {}\nlog_type all\nlistener {} {}\n",
        file.display(),
        address.port(),
        address.ip()
    );
    std::fs::write(&conf, text).unwrap();
    let broker = Mosquitto::spawn(&conf, address);
    let _lb = foreign(&[(broker.address, false, Probe::Mqtt)]);
    let log = eventually("three probes", || {
        std::fs::read_to_string(&file).ok().filter(|log| log.matches("Received DISCONNECT from evermq-lb").count() >= 3)
    });
    assert!(!log.contains("error"), "{log}");
    assert!(!log.contains("closed its connection"), "{log}");
}

#[test]
fn a_connection_or_a_handshake_is_all_that_some_probes_want() {
    let mut brokers = [Mosquitto::start_plain_at(evermq_ports::free_address()), Mosquitto::start("broker2")];
    let lb = foreign(&[(brokers[0].address, false, Probe::Tcp), (brokers[1].address, true, Probe::Tls)]);
    for index in [0, 1] {
        lb.until("up", |state| state_is(state, index, "up"));
        brokers[index].kill();
        lb.until("down", |state| state_is(state, index, "down"));
    }
}

#[test]
fn a_broker_with_a_certificate_of_somebody_else_is_no_broker_of_ours() {
    let brokers = [Mosquitto::start("stranger"), Mosquitto::start("broker2")];
    // The other's name is on its certificate, but so is the address: either will do.
    let lb = foreign(&[(brokers[0].address, true, Probe::Tls), (brokers[1].address, true, Probe::Tls)]);
    let state = lb.until("both are known", |state| state_is(state, 0, "rejecting") && state_is(state, 1, "up"));
    let error = state.backends[0].last_error.clone().unwrap();
    assert!(error.contains("certificate"), "{error}");
}

#[test]
fn a_plain_port_is_no_tls_port() {
    let broker = Mosquitto::start_plain_at(evermq_ports::free_address());
    let lb = foreign(&[(broker.address, true, Probe::Tls)]);
    lb.until("not up", |state| matches!(state.backends[0].state.as_str(), "down" | "rejecting"));
}
