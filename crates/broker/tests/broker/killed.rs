//! The program itself, killed at random moments while clients of others use it: nothing that it acknowledged is lost, and
//! what is of QoS 2 comes once.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::paho::python;
use crate::running::{PATIENCE, Site};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broker/paho_kills.py");
/// How often the broker dies.
const KILLS: usize = 6;

/// Small files, so that checkpoints come and go.
pub(crate) const SMALL: &str = "segment_size = \"1MiB\"\n";

/// A running `evermq-broker`; killed when dropped.
pub(crate) struct Program {
    process: Child,
}

impl Program {
    /// It serves.
    pub(crate) fn start(file: &Path, host: &str, address: SocketAddr) -> Self {
        let mut program = Self::spawn(file, host);
        let deadline = evermq_broker::connection::clock() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(program.process.try_wait().unwrap().is_none(), "it ended by itself: {}", read_log(file));
            assert!(evermq_broker::connection::clock() < deadline, "it does not serve: {}", read_log(file));
            std::thread::yield_now();
        }
        program
    }

    /// It begins to start.
    pub(crate) fn spawn(file: &Path, host: &str) -> Self {
        let log = file.with_extension("log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_evermq-broker"))
            .args(["--host", host, "--config"])
            .arg(file)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
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

/// A broker of a cluster.
pub(crate) struct Member {
    pub(crate) host: &'static str,
    pub(crate) file: PathBuf,
    pub(crate) plain: SocketAddr,
}

/// Each with a file of its own: they share this host, and no port of it. `store` has lines more for their stores.
pub(crate) fn cluster(site: &Site, hosts: &[&'static str], store: &str) -> Vec<Member> {
    // Peers listen on their own addresses, 127.0.0.10 and on.
    let peer_port = evermq_ports::free_port();
    let directory = site.directory.path();
    let shown = directory.display();
    let listed: String = hosts
        .iter()
        .enumerate()
        .map(|(index, host)| {
            format!("[[hosts]]\nname = \"{host}\"\naddress = \"127.0.0.{}\"\nroles = [\"broker\"]\n", 10 + index)
        })
        .collect();
    let member = |host: &&'static str| {
        site.ca.issue(host, 1);
        let run_dir = directory.join(host);
        std::fs::create_dir(&run_dir).unwrap();
        let [tls, plain] = std::array::from_fn(|_| evermq_ports::free_address());
        let text = format!(
            "[cluster]\nname = \"test\"\nrun_dir = \"{shown}/{host}\"\n\
             [broker]\nlisten = \"{tls}\"\nlisten_plain = \"{plain}\"\npeer_port = {peer_port}\nworkers = 2\n\
             max_queued_messages = 1000000\nmax_queued_bytes = \"1GiB\"\n\
             [broker.store]\npath = \"{shown}/{host}/store\"\nsync = \"always\"\n{store}\
             [tls]\nca = \"{shown}/ca.crt\"\ncert = \"{shown}/ca-{{host}}.crt\"\nkey = \"{shown}/ca-{{host}}.key\"\n\
             [[hosts]]\nname = \"lb1\"\naddress = \"127.0.0.2\"\nroles = [\"lb\"]\n{listed}",
        );
        let file = directory.join(format!("{host}.toml"));
        std::fs::write(&file, text).unwrap();
        Member { host, file, plain }
    };
    hosts.iter().map(member).collect()
}

/// The publisher is at the first broker, the subscribers are at the last one; any of them is killed, or all at once.
fn run(version: &str, hosts: &[&'static str]) {
    let site = Site::new();
    let members = cluster(&site, hosts, SMALL);
    let start = |member: &Member| Program::start(&member.file, member.host, member.plain);
    let mut programs: Vec<_> = members.iter().map(|member| Some(start(member))).collect();
    let mut script = Command::new(python())
        .arg(SCRIPT)
        .arg(version)
        .args([&members[0], &members[members.len() - 1]].map(|member| member.plain.port().to_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(script.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().map(Result::unwrap).as_deref(), Some("ready"));
    for _ in 0..KILLS * hosts.len() {
        // The moment is what matters here, so it is any.
        let random = RandomState::new().hash_one(0);
        std::thread::park_timeout(Duration::from_millis(50 + random % 500));
        let all = (random >> 32).is_multiple_of(3);
        let one = usize::try_from(random >> 48).unwrap() % hosts.len();
        let killed: Vec<_> = (0..hosts.len()).filter(|index| all || *index == one).collect();
        killed.iter().for_each(|index| programs[*index] = None);
        killed.iter().rev().for_each(|index| programs[*index] = Some(start(&members[*index])));
    }
    script.stdin.take().unwrap().write_all(b"\n").unwrap();
    let said: Vec<String> = lines.map(Result::unwrap).collect();
    let output = script.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    let logs: String = members.iter().map(|member| read_log(&member.file)).collect();
    assert!(output.status.success(), "{said:?}\n{err}\n{logs}");
    let subscribers = if version == "311" { 3 } else { 2 };
    assert_eq!(said.len(), 1 + subscribers, "{said:?}\n{err}");
}

#[test]
fn mqtt_3_1_1() {
    run("311", &["broker1"]);
}

#[test]
fn mqtt_5() {
    run("5", &["broker1"]);
}

#[test]
fn mqtt_3_1_1_through_two_brokers() {
    run("311", &["broker1", "broker2"]);
}

#[test]
fn mqtt_5_through_two_brokers() {
    run("5", &["broker1", "broker2"]);
}
