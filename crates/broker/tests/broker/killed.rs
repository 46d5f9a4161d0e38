//! The program itself, killed at random moments while clients of others use it: nothing that it acknowledged is lost, and
//! what is of QoS 2 comes once.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::paho::python;
use crate::running::{PATIENCE, Site};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broker/paho_kills.py");
/// How often the broker dies.
const KILLS: usize = 6;

/// A running `evermq-broker`; killed when dropped.
struct Program {
    process: Child,
}

impl Program {
    fn start(file: &Path, address: SocketAddr) -> Self {
        let log = file.with_extension("log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_evermq-broker"))
            .args(["--host", "broker1", "--config"])
            .arg(file)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let deadline = evermq_broker::connection::clock() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(process.try_wait().unwrap().is_none(), "it ended by itself: {}", read_log(file));
            assert!(evermq_broker::connection::clock() < deadline, "it does not serve: {}", read_log(file));
            std::thread::yield_now();
        }
        Self { process }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SIGKILL.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read_log(file: &Path) -> String {
    std::fs::read_to_string(file.with_extension("log")).unwrap_or_default()
}

/// The cluster file of a broker on addresses that are free at the moment.
fn cluster_file(site: &Site) -> (PathBuf, SocketAddr) {
    site.ca.issue("broker1", 1);
    let held: Vec<_> = (0..3).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    let port = |index: usize| held[index].local_addr().unwrap().port();
    let directory = site.directory.path();
    let shown = directory.display();
    let text = format!(
        "[cluster]\nname = \"test\"\nrun_dir = \"{shown}\"\n\
         [broker]\nlisten = \"127.0.0.1:{}\"\nlisten_plain = \"127.0.0.1:{}\"\npeer_port = {}\nworkers = 2\n\
         [broker.store]\npath = \"{shown}/store\"\nsync = \"always\"\nsegment_size = \"1MiB\"\n\
         [tls]\nca = \"{shown}/ca.crt\"\ncert = \"{shown}/ca-{{host}}.crt\"\nkey = \"{shown}/ca-{{host}}.key\"\n\
         [[hosts]]\nname = \"lb1\"\naddress = \"127.0.0.2\"\nroles = [\"lb\"]\n\
         [[hosts]]\nname = \"broker1\"\naddress = \"127.0.0.1\"\nroles = [\"broker\"]\n",
        port(0),
        port(1),
        port(2)
    );
    let file = directory.join("evermq.toml");
    std::fs::write(&file, text).unwrap();
    (file, SocketAddr::from((Ipv4Addr::LOCALHOST, port(1))))
}

fn run(version: &str) {
    let site = Site::new();
    let (file, address) = cluster_file(&site);
    let mut program = Program::start(&file, address);
    let mut script = Command::new(python())
        .arg(SCRIPT)
        .args([version, &address.port().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(script.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().map(Result::unwrap).as_deref(), Some("ready"));
    for _ in 0..KILLS {
        // The moment is what matters here, so it is any.
        std::thread::park_timeout(Duration::from_millis(50 + RandomState::new().hash_one(0) % 500));
        drop(program);
        program = Program::start(&file, address);
    }
    script.stdin.take().unwrap().write_all(b"\n").unwrap();
    let said: Vec<String> = lines.map(Result::unwrap).collect();
    let output = script.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said:?}\n{err}\n{}", read_log(&file));
    assert_eq!(said.len(), 3, "{said:?}\n{err}");
}

#[test]
fn mqtt_3_1_1() {
    run("311");
}

#[test]
fn mqtt_5() {
    run("5");
}
