//! The daemon's side of its guard: the ordinary thread starts and replaces it, the real-time thread tells it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use evermq_config::cluster::{LogFormat, LogLevel};

use super::beat::Beat;
use super::process::ARGUMENT;
use super::wire::{self, Sender, Setup, Written};

/// A guard that has nothing left to do ends in far less.
const PATIENCE: Duration = Duration::from_secs(1);

/// The real-time thread's line to the guard.
#[derive(Debug)]
pub struct Line {
    notes: Sender,
    beat: Beat,
    /// What was told did not arrive, so the guard knows less than there is.
    broken: bool,
}

/// The guard's process. It is waited for, or killed, when this is dropped.
#[derive(Debug)]
pub struct Keeper {
    child: Child,
}

/// Starts a guard: this program once more.
///
/// # Errors
/// The program cannot be started.
pub fn start(realtime: bool, control_socket: &Path) -> io::Result<(Keeper, Line)> {
    let (notes, socket) = wire::pair()?;
    let (beat, page) = Beat::create()?;
    // The program as it runs, whatever an upgrade has put in its place.
    let child = Command::new("/proc/self/exe")
        // The name that operators see in lists of processes.
        .arg0(std::env::args_os().next().unwrap_or_else(|| "evermq-vip".into()))
        .arg(ARGUMENT)
        .stdin(Stdio::from(socket))
        .stdout(Stdio::from(page))
        .spawn()?;
    let keeper = Keeper { child };
    notes.setup(&setup(realtime, control_socket))?;
    Ok((keeper, Line { notes, beat, broken: false }))
}

fn setup(realtime: bool, control_socket: &Path) -> Setup {
    let log = evermq_daemon::log::current();
    let level = match log.map_or(LogLevel::Info, |log| log.level) {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    Setup {
        realtime,
        log_level: level.to_owned(),
        log_json: log.is_some_and(|log| log.format == LogFormat::Json),
        daemon: nix::unistd::getpid().as_raw(),
        control_socket: control_socket.to_owned(),
    }
}

impl Line {
    /// A turn of the real-time thread, and until when the quorum lets it hold what it holds.
    pub fn beat(&self, now: Instant, lease_end: Option<Instant>) {
        // A machine without a monotonic clock runs no program.
        let _ = self.beat.turn(now, lease_end);
    }

    /// How to leave a virtual router's addresses. Slots come in order.
    pub fn charge(&mut self, slot: usize, charge: &mut Written, sockets: [BorrowedFd<'_>; 2]) {
        let sent = self.notes.charge(slot, charge, sockets);
        self.note(sent);
    }

    /// The addresses are up.
    pub fn held(&mut self, slot: usize) {
        let sent = self.notes.held(slot);
        self.note(sent);
    }

    /// The addresses are taken away.
    pub fn released(&mut self, slot: usize) {
        let sent = self.notes.released(slot);
        self.note(sent);
    }

    /// Whether the guard has to be replaced: it is gone, or does not read.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    fn note(&mut self, sent: io::Result<()>) {
        self.broken |= sent.is_err();
    }
}

/// Readable when the guard is gone: it never says anything.
impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notes.as_fd()
    }
}

impl Keeper {
    /// Ends the guard at once, before another one takes its place.
    pub fn kill(mut self) {
        let _ = self.child.kill();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let end = clock() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if clock() >= end {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a process is waited for in real time")]
fn clock() -> Instant {
    Instant::now()
}
