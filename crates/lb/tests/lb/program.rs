//! The program itself: its file, its descriptors, its end.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::broker::{Broker, Clients};
use crate::harness::{self, AT_ONCE, PATIENCE, certs, eventually, ping, wait_closed};
use evermq_daemon::health::Health;
use evermq_lb::state::State;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running `evermq-lb`; killed when dropped.
struct Program {
    process: Child,
    address: SocketAddr,
    control: PathBuf,
    log: PathBuf,
}

/// The cluster file with one lb on 127.0.0.1 and one broker on 127.0.0.2.
fn cluster_file(listen: SocketAddr, broker_port: u16, more: &str) -> (PathBuf, PathBuf) {
    let run_dir = certs::path(&format!("run-{}", listen.port()));
    let file = certs::path(&format!("evermq-{}.toml", listen.port()));
    let directory = certs::directory().display();
    let text = format!(
        "[cluster]\nname = \"test\"\nrun_dir = \"{run_dir}\"\n\
         [lb]\nlisten = \"{listen}\"\nworkers = 2\n{more}\n\
         [broker]\nlisten = \"0.0.0.0:{broker_port}\"\n\
         [tls]\nca = \"{directory}/ca.crt\"\ncert = \"{directory}/{{host}}.crt\"\nkey = \"{directory}/{{host}}.key\"\n\
         [[hosts]]\nname = \"lb1\"\naddress = \"127.0.0.1\"\nroles = [\"lb\"]\n\
         [[hosts]]\nname = \"broker1\"\naddress = \"127.0.0.2\"\nroles = [\"broker\"]\n",
        run_dir = run_dir.display()
    );
    std::fs::write(&file, text).unwrap();
    (file, run_dir.join("lb.sock"))
}

impl Program {
    /// Starts it under a limit of open files, and waits until it serves.
    fn start(broker: &Broker, open_files: usize, more: &str) -> Self {
        let address = evermq_ports::free_address();
        let (file, control) = cluster_file(address, broker.address.port(), more);
        let log = file.with_extension("log");
        let process = Command::new("prlimit")
            .arg(format!("--nofile={open_files}"))
            .arg(env!("CARGO_BIN_EXE_evermq-lb"))
            .args(["--host", "lb1", "--config"])
            .arg(&file)
            .stdout(std::fs::File::create(&log).unwrap())
            .stderr(std::fs::OpenOptions::new().append(true).open(&log).unwrap())
            .spawn()
            .expect("prlimit (util-linux) is installed");
        let program = Self { process, address, control, log };
        eventually("serves", || program.state().filter(|state| state.health == Health::Up));
        program
    }

    fn state(&self) -> Option<State> {
        let request = serde_json::json!({"request": "state"});
        let answer = evermq_daemon::control::request(&self.control, &request, PATIENCE).ok()?;
        Some(serde_json::from_value(answer).unwrap())
    }

    fn client(&self) -> TcpStream {
        harness::connect(self.address).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// SIGTERM, then the exit status and how long it took.
    fn terminate(&mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGTERM).unwrap();
        let status = eventually("ends", || self.process.try_wait().unwrap());
        (status.code(), start.elapsed())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn broker() -> Broker {
    Broker::start_at("broker1", Clients::Echoed, SocketAddr::from(([127, 0, 0, 2], 0)))
}

#[test]
fn serves_drains_at_sigterm_and_says_that_it_finished() {
    let broker = broker();
    let mut program = Program::start(&broker, 4096, "max_connections = 100");
    let mut client = program.client();
    ping(&mut client);
    let leaver = std::thread::spawn(move || {
        // Leaves as soon as a new client would be refused.
        let address = client.peer_addr().unwrap();
        eventually("no more accepted", || TcpStream::connect(address).is_err().then_some(()));
        ping(&mut client);
    });
    let (status, took) = program.terminate();
    leaver.join().unwrap();
    let log = program.log();
    assert_eq!(status, Some(0), "{log}");
    assert!(took < AT_ONCE, "{took:?}");
    assert!(log.contains("drained: every client has left"), "{log}");
    let changes = log.lines().filter(|line| line.contains("backend changed")).count();
    assert_eq!(changes, 1, "{log}");
}

#[test]
fn sigterm_closes_those_that_stay_and_says_so() {
    let broker = broker();
    let mut program = Program::start(&broker, 4096, "max_connections = 100\ndrain_timeout = \"300ms\"");
    let mut client = program.client();
    ping(&mut client);
    let (status, _) = program.terminate();
    wait_closed(&mut client);
    let log = program.log();
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("drain_timeout is over"), "{log}");
}

#[test]
fn nothing_is_left_of_clients_that_have_gone() {
    let broker = broker();
    let program = Program::start(&broker, 4096, "max_connections = 1000");
    let before = program.descriptors();
    for _ in 0..3 {
        let clients: Vec<_> = (0..100)
            .map(|_| {
                let mut client = program.client();
                ping(&mut client);
                client
            })
            .collect();
        // A control connection of the test itself may have been among those before.
        assert!(program.descriptors() >= before + 195);
        drop(clients);
        eventually("given back", || (program.descriptors() <= before).then_some(()));
    }
}

#[test]
fn too_few_descriptors_are_said_at_start_and_clients_wait_instead_of_failing() {
    let broker = broker();
    // 216 are kept for everything else with two workers, so there are 20 clients' worth left.
    let program = Program::start(&broker, 256, "max_connections = 1000");
    assert!(program.log().contains("limit of open files is too low"), "{}", program.log());
    assert_eq!(program.state().unwrap().connections.limit, 20);
    let mut inside: Vec<_> = (0..20)
        .map(|_| {
            let mut client = program.client();
            ping(&mut client);
            client
        })
        .collect();
    let mut waiting: Vec<_> = (0..30).map(|_| program.client()).collect();
    waiting.iter_mut().for_each(|client| client.write_all(b"x").unwrap());
    inside.iter_mut().for_each(ping);
    assert_eq!(program.state().unwrap().connections.current, 20);
    drop(inside);
    for mut client in waiting {
        client.read_exact(&mut [0]).unwrap();
    }
    let log = program.log();
    assert_eq!(log.matches("connection limit reached").count(), 1, "{log}");
}

#[test]
fn descriptors_taken_away_while_it_runs_stop_accepting_and_not_the_clients_it_has() {
    let broker = broker();
    let program = Program::start(&broker, 4096, "max_connections = 1000");
    let mut steady = program.client();
    ping(&mut steady);
    let limit = |files: usize| {
        let pid = program.process.id().to_string();
        let status = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={files}:4096")]).status();
        assert!(status.unwrap().success());
    };
    // Room for one client's socket, and none for a connection to the broker.
    limit(program.descriptors() + 1);
    let mut late: Vec<_> = (0..10).map(|_| program.client()).collect();
    late.iter_mut().for_each(|client| client.write_all(b"x").unwrap());
    eventually("said", || program.log().contains("cannot accept clients").then_some(()));
    ping(&mut steady);
    limit(4096);
    let mut served = 0;
    for client in &mut late {
        served += usize::from(client.read_exact(&mut [0]).is_ok());
    }
    // The one that was accepted may have been closed when no connection to a broker was to be had for connect_timeout.
    assert!(served >= 9, "{served}: {}", program.log());
    assert!(program.log().contains("accepts clients again"), "{}", program.log());
    ping(&mut steady);
    assert_eq!(program.state().unwrap().backends[0].state, "up");
}

#[test]
fn a_bad_file_and_a_host_without_the_role_are_refused_with_status_2() {
    let (file, _) = cluster_file(evermq_ports::free_address(), 8883, "max_connection = 10");
    for host in ["lb1", "broker1"] {
        let output = Command::new(env!("CARGO_BIN_EXE_evermq-lb"))
            .args(["--host", host, "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Every descriptor of the program that is a socket, with its inode.
fn sockets(pid: u32) -> Vec<(i32, u64)> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let socket = |entry: std::fs::DirEntry| {
        let link = std::fs::read_link(entry.path()).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, inode))
    };
    descriptors.map_while(Result::ok).filter_map(socket).collect()
}

/// The inodes of sockets that listen on a port, and of those that are connected to it.
fn inodes(port: u16) -> (Vec<u64>, Vec<u64>) {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (mut listening, mut connected) = (Vec::new(), Vec::new());
    for line in table.lines().skip(1) {
        let words: Vec<_> = line.split_whitespace().collect();
        if words[1].ends_with(&format!(":{port:04X}")) {
            let list = if words[3] == "0A" { &mut listening } else { &mut connected };
            list.push(words[9].parse().unwrap());
        }
    }
    (listening, connected)
}

#[test]
fn listeners_have_the_highest_descriptors_then_the_connection_that_tells_health() {
    let broker = broker();
    let program = Program::start(&broker, 4096, "max_connections = 500\nmax_handshakes_per_broker = 500");
    let before: Vec<_> = sockets(program.process.id()).into_iter().map(|(_, inode)| inode).collect();
    let mut vip = UnixStream::connect(&program.control).unwrap();
    vip.write_all(b"{\"request\":\"health\"}\n").unwrap();
    vip.read_exact(&mut [0; 10]).unwrap();
    let health: Vec<_> = eventually("one more socket", || {
        let new = sockets(program.process.id()).into_iter().filter(|(_, inode)| !before.contains(inode));
        Some(new.map(|(descriptor, _)| descriptor).collect::<Vec<_>>()).filter(|new| new.len() == 1)
    });
    let clients: Vec<_> = (0..300)
        .map(|_| {
            let mut client = program.client();
            ping(&mut client);
            client
        })
        .collect();
    let (listening, _) = inodes(program.address.port());
    let all = sockets(program.process.id());
    let listeners: Vec<_> = all.iter().filter(|(_, inode)| listening.contains(inode)).map(|&(fd, _)| fd).collect();
    assert_eq!(listeners.len(), 2, "one for each worker");
    let others = all.iter().map(|&(fd, _)| fd).filter(|fd| !listeners.contains(fd) && !health.contains(fd));
    let highest = others.max().unwrap();
    assert!(highest < health[0], "{highest} {health:?}");
    assert!(health[0] < *listeners.iter().min().unwrap(), "{health:?} {listeners:?}");
    drop(clients);
}

#[test]
fn who_comes_again_when_the_program_is_killed_is_refused_at_once_and_never_swallowed() {
    let broker = broker();
    let mut program = Program::start(
        &broker,
        8192,
        "max_connections = 3000\nmax_handshakes = 3000\nmax_handshakes_per_broker = 3000",
    );
    let mut idle: Vec<_> = (0..1500)
        .map(|_| {
            let mut client = program.client();
            ping(&mut client);
            client
        })
        .collect();
    let address = program.address;
    // Each of these hears of the end as early as its place among the descriptors lets it.
    let watchers: Vec<_> = (0..8)
        .map(|index| {
            let mut client = idle.swap_remove(index * 150);
            std::thread::spawn(move || {
                wait_closed(&mut client);
                (0..200).filter(|_| TcpStream::connect(address).is_ok()).count()
            })
        })
        .collect();
    program.process.kill().unwrap();
    program.process.wait().unwrap();
    for watcher in watchers {
        assert_eq!(watcher.join().unwrap(), 0, "the dead have taken connections");
    }
}
