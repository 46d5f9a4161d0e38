//! `evermq-broker` as a process of its own, for what concerns a whole process: open files, memory.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evermq_daemon::log::FILTER_VARIABLE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::client::{Client, connect};
use crate::running::{PATIENCE, Site};

pub(crate) struct Program {
    child: Child,
    log: Arc<Mutex<String>>,
    deaf: Arc<AtomicBool>,
    reader: Option<std::thread::JoinHandle<()>>,
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    peer: u16,
    directory: PathBuf,
}

impl Program {
    /// With these lines more in `[broker]`, and `files` open files at most.
    pub(crate) fn start(site: &Site, more: &str, files: Option<u64>) -> Self {
        let mut command = match files {
            Some(files) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={files}")).arg(env!("CARGO_BIN_EXE_evermq-broker"));
                command
            }
            None => Command::new(env!("CARGO_BIN_EXE_evermq-broker")),
        };
        command.env_remove(FILTER_VARIABLE);
        Self::launch(site, more, command)
    }

    /// What it logs is chosen by this filter.
    pub(crate) fn logging(site: &Site, filter: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evermq-broker"));
        command.env(FILTER_VARIABLE, filter);
        Self::launch(site, "", command)
    }

    fn launch(site: &Site, more: &str, mut command: Command) -> Self {
        site.ca.issue("broker1", 1);
        let directory = site.directory.path().to_owned();
        let [plain, tls, peer] = std::array::from_fn(|_| evermq_ports::free_address());
        let mut program = Self {
            child: Command::new("true").spawn().unwrap(),
            log: Arc::default(),
            deaf: Arc::default(),
            reader: None,
            plain,
            tls,
            peer: peer.port(),
            directory,
        };
        program.child.wait().unwrap();
        program.write(more);
        command.arg("--config").arg(program.directory.join("evermq.toml")).args(["--host", "broker1"]);
        program.child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(program.child.stderr.take().unwrap()).lines();
        let (into, deaf) = (Arc::clone(&program.log), Arc::clone(&program.deaf));
        program.reader = Some(std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                into.lock().unwrap().push_str(&(line + "\n"));
                if deaf.load(Ordering::SeqCst) {
                    break;
                }
            }
        }));
        program.wait_for("its listener", || std::net::TcpStream::connect(plain).is_ok());
        program
    }

    /// Writes the cluster file, with these lines more in `[broker]` and after it.
    pub(crate) fn write(&self, more: &str) {
        let path = |name: &str| self.directory.join(name);
        let store = format!("[broker.store]\npath = {:?}", path("store"));
        // `more` may have more of it.
        let (more, store) = if more.contains("[broker.store]") {
            (more.replace("[broker.store]", &store), String::new())
        } else {
            (more.to_owned(), store)
        };
        let text = format!(
            "[cluster]\nname = \"test\"\nrun_dir = {run_dir:?}\n[broker]\nlisten = \"{tls}\"\nlisten_plain = \"{plain}\"\n\
             peer_port = {peer}\n{more}\n{store}\n\
             [tls]\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\n\
             [[hosts]]\nname = \"broker1\"\naddress = \"127.0.0.1\"\nroles = [\"lb\", \"broker\"]\n",
            run_dir = self.directory,
            tls = self.tls,
            plain = self.plain,
            peer = self.peer,
            ca = path("ca.crt"),
            cert = path("ca-broker1.crt"),
            key = path("ca-broker1.key"),
        );
        std::fs::write(path("evermq.toml"), text).unwrap();
    }

    /// Has it read the file again; what it says to that.
    pub(crate) fn reload(&self) -> Result<Value, String> {
        self.ask("reload")
    }

    /// What its control socket answers.
    pub(crate) fn ask(&self, request: &str) -> Result<Value, String> {
        let request = serde_json::json!({ "request": request });
        let answer = evermq_daemon::control::request(&self.directory.join("broker.sock"), &request, PATIENCE);
        answer.map_err(|error| error.to_string())
    }

    /// How it says that it is, as `evermq status` asks.
    pub(crate) fn health(&self) -> String {
        let mut stream = std::os::unix::net::UnixStream::connect(self.directory.join("broker.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"{\"request\":\"health\"}\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()["health"].as_str().unwrap().to_owned()
    }

    /// From now on nobody reads its log.
    pub(crate) fn go_deaf(&mut self) {
        self.deaf.store(true, Ordering::SeqCst);
        let reader = self.reader.take().unwrap();
        // It says something to that, but for the moment before it serves.
        self.wait_for("a line", || {
            self.signal(Signal::SIGHUP);
            reader.is_finished()
        });
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub(crate) fn client(&self, id: &str) -> Client {
        Client::open(self.plain, connect(id)).0
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn() -> bool) {
        let deadline = evermq_broker::connection::clock() + PATIENCE;
        while !wanted() {
            assert!(evermq_broker::connection::clock() < deadline, "waited in vain for {what}:\n{}", self.log());
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Resident memory in kB.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
