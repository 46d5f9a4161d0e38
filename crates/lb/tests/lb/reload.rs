//! A changed cluster file comes into force while clients stay connected; a bad one changes nothing.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::harness::broker::{Broker, Clients};
use crate::harness::{self, PATIENCE, certs, eventually, ping, wait_closed};
use evermq_daemon::health::Health;
use evermq_lb::state::State;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// A running `evermq-lb` with a file that the test changes; killed when dropped.
struct Program {
    process: Child,
    address: SocketAddr,
    file: PathBuf,
    control: PathBuf,
    log: PathBuf,
    broker: Broker,
}

impl Program {
    fn start(lb: &str) -> Self {
        let broker = Broker::start_at("broker1", Clients::Echoed, SocketAddr::from(([127, 0, 0, 2], 0)));
        let address = evermq_ports::free_address();
        let file = certs::path(&format!("reload-{}.toml", address.port()));
        let run_dir = certs::path(&format!("run-reload-{}", address.port()));
        let log = file.with_extension("log");
        let mut program = Self {
            process: Command::new("true").spawn().unwrap(),
            address,
            control: run_dir.join("lb.sock"),
            file,
            log,
            broker,
        };
        program.write(lb, "");
        program.process.wait().unwrap();
        program.process = Command::new(env!("CARGO_BIN_EXE_evermq-lb"))
            .args(["--host", "lb1", "--config"])
            .arg(&program.file)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&program.log).unwrap())
            .spawn()
            .unwrap();
        eventually("serves", || program.state().filter(|state| state.health == Health::Up));
        program
    }

    /// The cluster file, with keys of `[lb]`, and more tables.
    fn write(&self, lb: &str, more: &str) {
        let directory = certs::directory().display();
        let text = format!(
            "[cluster]\nname = \"test\"\nrun_dir = \"{run_dir}\"\n\
             [lb]\nlisten = \"{listen}\"\n{workers}{lb}\n\
             [broker]\nlisten = \"0.0.0.0:{broker_port}\"\n\
             [tls]\nca = \"{directory}/ca.crt\"\ncert = \"{directory}/{{host}}.crt\"\nkey = \"{directory}/{{host}}.key\"\n\
             [[hosts]]\nname = \"lb1\"\naddress = \"127.0.0.1\"\nroles = [\"lb\"]\n\
             [[hosts]]\nname = \"broker1\"\naddress = \"127.0.0.2\"\nroles = [\"broker\"]\n{more}\n",
            run_dir = self.control.parent().unwrap().display(),
            listen = self.address,
            workers = if lb.contains("workers") { "" } else { "workers = 2\n" },
            broker_port = self.broker.address.port(),
        );
        std::fs::write(&self.file, text).unwrap();
    }

    fn reload(&self) -> Result<Value, String> {
        let answer = evermq_daemon::control::request(&self.control, &json!({ "request": "reload" }), PATIENCE);
        answer.map_err(|error| error.to_string())
    }

    fn state(&self) -> Option<State> {
        let answer = evermq_daemon::control::request(&self.control, &json!({ "request": "state" }), PATIENCE).ok()?;
        Some(serde_json::from_value(answer).unwrap())
    }

    fn client(&self) -> TcpStream {
        let mut client = harness::connect(self.address).unwrap();
        ping(&mut client);
        client
    }

    fn hang_up(&self) {
        kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGHUP).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn keys(answer: &Value, of: &str) -> Vec<String> {
    answer[of].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect()
}

#[test]
fn addresses_come_and_go_and_nobody_is_dropped() {
    let program = Program::start("");
    let mut old = program.client();
    assert_eq!(program.reload().unwrap()["changed"], false);

    let second = evermq_ports::free_address();
    program.write("", &format!("[[lb.listeners]]\nname = \"second\"\nlisten = \"{second}\"\n"));
    let answer = program.reload().unwrap();
    assert_eq!((&answer["changed"], &answer["host"]), (&json!(true), &json!("lb1")));
    assert_eq!(keys(&answer, "applied"), ["lb.listen, lb.mode and [[lb.listeners]]"]);
    // It is in force when the answer is there.
    let mut there = harness::connect(second).unwrap();
    ping(&mut there);
    ping(&mut old);

    program.write("", "");
    assert_eq!(program.reload().unwrap()["changed"], true);
    eventually("it is closed", || TcpStream::connect(second).is_err().then_some(()));
    ping(&mut there);
    ping(&mut old);
    program.client();

    // A place that was given up is no hindrance.
    program.write("", &format!("[[lb.listeners]]\nname = \"third\"\nlisten = \"{second}\"\n"));
    assert_eq!(program.reload().unwrap()["changed"], true);
    ping(&mut harness::connect(second).unwrap());
    ping(&mut there);
}

#[test]
fn backends_weights_and_limits_are_applied_in_place() {
    let program = Program::start("");
    let mut old = program.client();
    let other = Broker::start_at("broker2", Clients::Echoed, SocketAddr::from(([127, 0, 0, 1], 0)));
    let tables = format!(
        "[[lb.backends]]\nname = \"broker1\"\nweight = 1\n\
         [[lb.backends]]\nname = \"other\"\naddress = \"{}\"\nweight = 3\nprobe = \"tcp\"\n",
        other.address
    );
    program.write("max_connections = 50\nslow_start = \"0s\"", &tables);
    let answer = program.reload().unwrap();
    assert!(keys(&answer, "applied").iter().any(|key| key.contains("max_connections")), "{answer}");
    let state = eventually("both up", || {
        program.state().filter(|state| state.backends.len() == 2 && state.backends.iter().all(|one| one.state == "up"))
    });
    assert_eq!((state.connections.limit, state.backends[1].weight), (50, 3));
    let mut clients: Vec<TcpStream> = (0..3).map(|_| program.client()).collect();
    assert_eq!(program.state().unwrap().backends[1].connections, 3);

    // It goes, and its clients with it; the others stay.
    program.write("", "");
    program.reload().unwrap();
    for client in &mut clients {
        wait_closed(client);
    }
    ping(&mut old);
    assert_eq!(program.state().unwrap().backends.len(), 1);
    program.client();
}

#[test]
fn a_bad_file_changes_nothing_and_the_answer_says_where_it_is_bad() {
    let program = Program::start("");
    let mut old = program.client();
    program.write("max_connections = \"many\"", "");
    let error = program.reload().unwrap_err();
    assert!(error.contains(&format!("{}:7:", program.file.display())), "line and column: {error}");
    assert_eq!(program.state().unwrap().not_in_force.as_deref().map(|text| error.contains(text)), Some(true));

    // An address that is somebody else's.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let free = evermq_ports::free_address();
    let listeners = format!(
        "[[lb.listeners]]\nname = \"good\"\nlisten = \"{free}\"\n[[lb.listeners]]\nname = \"taken\"\nlisten = \"{address}\"\n"
    );
    program.write("max_connections = 7", &listeners);
    let error = program.reload().unwrap_err();
    assert!(error.contains("\"taken\"") && error.contains(&address.to_string()), "{error}");
    assert!(TcpStream::connect(free).is_err(), "what was bound before it is let go");
    assert_ne!(program.state().unwrap().connections.limit, 7);

    // A certificate that is not there.
    program.write("access_log = \"/nowhere/access.log\"\nmax_connections = 7", "");
    assert!(program.reload().unwrap_err().contains("/nowhere/access.log"));
    ping(&mut old);
    program.client();

    program.write("max_connections = 7", "");
    assert_eq!(program.reload().unwrap()["changed"], true);
    let state = program.state().unwrap();
    assert_eq!((state.connections.limit, state.not_in_force), (7, None));
    ping(&mut old);
}

#[test]
fn sighup_reloads_opens_the_access_log_again_and_says_what_needs_a_restart() {
    let path = certs::path("access-reload.log");
    let moved = certs::path("access-reload.log.1");
    let line = format!("access_log = \"{}\"\n", path.display());
    let program = Program::start(&line);
    drop(program.client());
    let lines = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    eventually("one line", || (lines(&path) == 1).then_some(()));
    std::fs::rename(&path, &moved).unwrap();
    program.write(&format!("{line}workers = 3\n"), "");
    program.hang_up();
    eventually("a new file", || path.exists().then_some(()));
    let said = eventually("said", || {
        std::fs::read_to_string(&program.log).ok().filter(|log| log.contains("needs a restart of evermq-lb"))
    });
    assert!(said.contains("lb.workers"), "{said}");
    eventually("in force", || {
        drop(program.client());
        (lines(&path) > 0).then_some(())
    });
    assert_eq!(lines(&moved), 1);
    // Until the restart the file keeps saying something else.
    assert_eq!(keys(&program.reload().unwrap(), "restart"), ["lb.workers"]);
    assert_eq!(program.state().unwrap().workers, 2);
}

#[test]
fn new_certificates_are_taken() {
    let directory = certs::directory();
    let [cert, key] = ["crt", "key"].map(|suffix| directory.join(format!("lb1.{suffix}")));
    // A copy, so that other tests keep theirs.
    let program = Program::start("");
    let own = certs::path(&format!("tls-{}", program.address.port()));
    std::fs::create_dir_all(&own).unwrap();
    std::fs::copy(&cert, own.join("lb1.crt")).unwrap();
    std::fs::copy(&key, own.join("lb1.key")).unwrap();
    let text = std::fs::read_to_string(&program.file).unwrap();
    let text = text
        .replace(&format!("cert = \"{}/{{host}}", directory.display()), &format!("cert = \"{}/{{host}}", own.display()))
        .replace(&format!("key = \"{}/{{host}}", directory.display()), &format!("key = \"{}/{{host}}", own.display()));
    std::fs::write(&program.file, text).unwrap();
    assert_eq!(program.reload().unwrap()["changed"], true);
    assert_eq!(program.reload().unwrap()["changed"], false);
    let mut old = program.client();
    std::fs::copy(directory.join("lb2.crt"), own.join("lb1.crt")).unwrap();
    let mismatch = program.reload().unwrap_err();
    assert!(mismatch.contains("lb1"), "{mismatch}");
    std::fs::copy(directory.join("lb2.key"), own.join("lb1.key")).unwrap();
    let answer = program.reload().unwrap();
    assert_eq!((&answer["changed"], &answer["certificates"]), (&json!(true), &json!(true)));
    ping(&mut old);
    assert_eq!(program.state().unwrap().health, Health::Up);
}
