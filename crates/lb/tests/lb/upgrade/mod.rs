//! A new process of the program takes over while clients are connected: real processes, real sockets, real signals.

mod crowd;
mod killed;
mod moved;
mod refused;

use std::cell::RefCell;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use evermq_daemon::control::{self, ControlError};
use evermq_daemon::health::Health;
use evermq_lb::state::State;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use self::crowd::Watcher;
use crate::harness::broker::{Broker, Clients};
use crate::harness::{self, PATIENCE, certs, eventually, ping};

/// An lb whose program is a file of its own, so that it can be replaced. All of its processes are killed when it is dropped.
struct Lb {
    first: RefCell<Child>,
    address: SocketAddr,
    broker_port: u16,
    control: PathBuf,
    config: PathBuf,
    program: PathBuf,
    log: PathBuf,
    processes: RefCell<Vec<u32>>,
    _directory: tempfile::TempDir,
}

impl Lb {
    fn start(broker: &Broker, more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (address, broker_port) = (evermq_ports::free_address(), broker.address.port());
        let (config, program, log) = (path("evermq.toml"), path("evermq-lb"), path("log"));
        copy(env!("CARGO_BIN_EXE_evermq-lb").as_ref(), &program);
        write_config(&config, address, broker_port, more);
        let first = Command::new(&program)
            .args(["--host", "lb1", "--config"])
            .arg(&config)
            .env("EVERMQ_LOG", "info,evermq_lb=debug")
            .stdout(std::fs::File::create(&log).unwrap())
            .stderr(std::fs::OpenOptions::new().append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        let processes = RefCell::new(vec![first.id()]);
        let control = config.parent().unwrap().join("run/lb.sock");
        let first = RefCell::new(first);
        let lb = Self { first, address, broker_port, control, config, program, log, processes, _directory: directory };
        eventually("serves", || lb.state().filter(|state| state.health == Health::Up));
        lb
    }

    fn state(&self) -> Option<State> {
        let answer = control::request(&self.control, &json!({"request": "state"}), PATIENCE).ok()?;
        Some(serde_json::from_value(answer).unwrap())
    }

    /// Replaces the program, as a package manager does: under the same name, another file.
    fn install(&self, content: &[u8]) {
        let text = self.program.with_extension("text");
        std::fs::write(&text, content).unwrap();
        std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o755)).unwrap();
        self.install_file(&text);
    }

    fn install_good(&self) {
        self.install_file(env!("CARGO_BIN_EXE_evermq-lb").as_ref());
    }

    fn install_file(&self, file: &Path) {
        let new = self.program.with_extension("new");
        copy(file, &new);
        std::fs::rename(&new, &self.program).unwrap();
    }

    fn upgrade(&self) -> Result<Value, ControlError> {
        let answer = upgrade(&self.control)?;
        self.processes.borrow_mut().push(u32::try_from(answer["process"].as_u64().unwrap()).unwrap());
        Ok(answer)
    }

    /// The process that was started last.
    fn last(&self) -> u32 {
        *self.processes.borrow().last().unwrap()
    }

    fn client(&self) -> TcpStream {
        let mut client = harness::connect(self.address).unwrap();
        ping(&mut client);
        client
    }

    fn watch(&self) -> Watcher {
        Watcher::start(&self.control)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for the end of the process that was started first.
    fn wait_first(&self) -> Option<i32> {
        eventually("the first process ends", || self.first.borrow_mut().try_wait().unwrap()).code()
    }
}

impl Drop for Lb {
    fn drop(&mut self) {
        for process in self.processes.borrow().iter().chain(&children(&self.processes.borrow())) {
            let _ = kill(Pid::from_raw(process.cast_signed()), Signal::SIGKILL);
        }
        let _ = self.first.borrow_mut().wait();
        if std::thread::panicking() {
            eprintln_log(&self.log());
        }
    }
}

#[expect(clippy::print_stderr, reason = "the log of a test that failed")]
fn eprintln_log(log: &str) {
    eprintln!("{log}");
}

/// By a process of its own: a file that this one has open for writing, and with it any process that another test is about
/// to start, cannot be run (ETXTBSY).
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

fn upgrade(control: &Path) -> Result<Value, ControlError> {
    control::request(control, &json!({"request": "upgrade"}), PATIENCE * 2)
}

fn write_config(file: &Path, listen: SocketAddr, broker_port: u16, more: &str) {
    let directory = certs::directory().display();
    let text = format!(
        "[cluster]\nname = \"test\"\nrun_dir = \"{run_dir}\"\n\
         [lb]\nlisten = \"{listen}\"\n{more}\n\
         [broker]\nlisten = \"0.0.0.0:{broker_port}\"\n\
         [tls]\nca = \"{directory}/ca.crt\"\ncert = \"{directory}/{{host}}.crt\"\nkey = \"{directory}/{{host}}.key\"\n\
         [[hosts]]\nname = \"lb1\"\naddress = \"127.0.0.1\"\nroles = [\"lb\"]\n\
         [[hosts]]\nname = \"broker1\"\naddress = \"127.0.0.2\"\nroles = [\"broker\"]\n",
        run_dir = file.parent().unwrap().join("run").display()
    );
    std::fs::write(file, text).unwrap();
}

/// Processes that those have started.
fn children(of: &[u32]) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        if parent.is_some_and(|parent| of.contains(&parent)) {
            found.push(process);
        }
    }
    found
}

/// Whether the process is there and not a corpse.
fn children_or_self(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

fn echoing() -> Broker {
    Broker::start_at("broker1", Clients::Echoed, SocketAddr::from(([127, 0, 0, 2], 0)))
}
