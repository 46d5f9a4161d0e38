//! The programs of one host: started, signalled and reaped by the host's first process.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::notify::Notices;
use super::plan::Program;
use super::wire::{ProgramState, through};

/// How long a program rests before it is started again, where that is asked for.
const RESTART_DELAY: Duration = Duration::from_millis(100);

/// The programs of one host.
pub(super) struct Programs {
    bin_dir: PathBuf,
    logs: std::os::fd::OwnedFd,
    restart: bool,
    all: Vec<Entry>,
}

struct Entry {
    program: Program,
    pid: Option<Pid>,
    ended: Option<String>,
    starts: u32,
    /// When to start it again.
    due: Option<Instant>,
    /// It was asked to end, so it is not started again.
    stopping: bool,
}

impl Programs {
    /// None of them runs yet. `logs` is the directory of their log files.
    pub(super) fn new(programs: &[Program], bin_dir: PathBuf, logs: std::os::fd::OwnedFd, restart: bool) -> Self {
        let entry = |&program| Entry { program, pid: None, ended: None, starts: 0, due: None, stopping: false };
        Self { bin_dir, logs, restart, all: programs.iter().map(entry).collect() }
    }

    /// Starts each one that does not run.
    ///
    /// # Errors
    /// What could not be started, in words.
    pub(super) fn start_all(&mut self) -> Result<(), String> {
        let mut failures = Vec::new();
        for index in 0..self.all.len() {
            if let Err(failure) = self.start_at(index) {
                failures.push(failure);
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }

    /// Starts one that does not run.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn start(&mut self, name: &str) -> Result<(), String> {
        let index = self.index(name)?;
        self.start_at(index)
    }

    /// Sends one a signal.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn signal(&mut self, name: &str, signal: Signal) -> Result<(), String> {
        let index = self.index(name)?;
        let pid = self.all.get(index).and_then(|entry| entry.pid).ok_or_else(|| format!("{name} does not run"))?;
        kill(pid, signal).map_err(|errno| format!("cannot send {signal} to {name}: {errno}"))
    }

    /// Asks one to end.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn stop(&mut self, name: &str) -> Result<(), String> {
        let index = self.index(name)?;
        if let Some(entry) = self.all.get_mut(index) {
            entry.stopping = true;
            entry.due = None;
        }
        self.signal(name, Signal::SIGTERM)
    }

    /// What runs.
    pub(super) fn states(&self) -> Vec<ProgramState> {
        let state = |entry: &Entry| ProgramState {
            name: entry.program.name().to_owned(),
            pid: entry.pid.map(Pid::as_raw),
            ended: entry.ended.clone(),
            starts: entry.starts,
        };
        self.all.iter().map(state).collect()
    }

    /// Takes note of every process that has ended: the programs, and any whose parent is gone.
    pub(super) fn reap(&mut self, now: Instant) {
        loop {
            let (pid, ended) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, 0)) => (pid, "ended".to_owned()),
                Ok(WaitStatus::Exited(pid, status)) => (pid, format!("ended with status {status}")),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, format!("killed by {signal}")),
                Err(Errno::EINTR) => continue,
                Ok(_) | Err(_) => return,
            };
            if let Some(entry) = self.all.iter_mut().find(|entry| entry.pid == Some(pid)) {
                entry.pid = None;
                entry.ended = Some(ended);
                entry.due = (self.restart && !entry.stopping).then(|| now + RESTART_DELAY);
            }
        }
    }

    /// `pid` is the main process of its program now: a new one took over from the one that was started here.
    pub(super) fn replace(&mut self, pid: i32) {
        let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if let Some(entry) = self.all.iter_mut().find(|entry| entry.program.name() == command.trim_end()) {
            entry.pid = Some(Pid::from_raw(pid));
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.all.iter().filter_map(|entry| entry.due).min()
    }

    /// Starts those that are due again.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for index in 0..self.all.len() {
            if self.all.get(index).and_then(|entry| entry.due).is_some_and(|due| due <= now) {
                // A failure is kept in the state.
                let _ = self.start_at(index);
            }
        }
    }

    fn index(&self, name: &str) -> Result<usize, String> {
        let program = Program::named(name);
        self.all.iter().position(|entry| Some(entry.program) == program).ok_or_else(|| {
            let names: Vec<_> = self.all.iter().map(|entry| entry.program.name()).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            format!("there is no program \"{name}\" on this host; its programs: {names}")
        })
    }

    fn start_at(&mut self, index: usize) -> Result<(), String> {
        let Some(entry) = self.all.get(index) else { return Ok(()) };
        if entry.pid.is_some() {
            return Ok(());
        }
        let started = self.spawn(entry.program);
        let Some(entry) = self.all.get_mut(index) else { return Ok(()) };
        entry.due = None;
        entry.stopping = false;
        match started {
            Ok(pid) => {
                entry.pid = Some(pid);
                entry.starts += 1;
                Ok(())
            }
            Err(error) => {
                let text = format!("cannot start {}: {error}", entry.program.name());
                entry.ended = Some(text.clone());
                Err(text)
            }
        }
    }

    fn spawn(&self, program: Program) -> io::Result<Pid> {
        let path = through(&self.logs, &format!("{}.log", program.name()));
        let log = OpenOptions::new().create(true).append(true).open(path)?;
        let (executable, arguments) = program.command();
        let child = Command::new(self.bin_dir.join(executable))
            .args(arguments)
            .current_dir("/")
            .env("NOTIFY_SOCKET", Notices::address())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        Ok(Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?))
    }
}
