//! `lab exec`: a command in a host, with this terminal, this directory and its own exit status.

use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitCode, ExitStatus};

use nix::libc;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::error::LabError;
use super::registry::Lab;
use super::{namespace, remote};

/// Status where the lab itself fails, as with other programs that start a command.
pub(super) const FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// `evermq lab exec`
#[derive(Debug, clap::Args)]
pub(super) struct ExecArgs {
    /// The host: lb1, lb2, broker1, broker2 or client
    host: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Runs the command and gives its exit status; 128 and the signal's number where a signal ended it.
pub(super) fn run(lab: &Lab, arguments: &ExecArgs) -> Result<ExitCode, LabError> {
    lab.must_be_up()?;
    let door = remote::door(lab, &arguments.host)?;
    let bin_dir = lab.read_state()?.bin_dir;
    let directory = std::env::current_dir();
    namespace::enter(&door.namespaces)
        .map_err(|error| namespace::refused(format!("cannot enter host {}", arguments.host), error))?;
    drop(door);
    // The host does not see every directory of the machine.
    if directory.and_then(std::env::set_current_dir).is_err() {
        std::env::set_current_dir("/").map_err(LabError::io("cannot change to /"))?;
    }
    let Some((program, rest)) = arguments.command.split_first() else { return Ok(ExitCode::from(FAILED)) };
    let mut command = Command::new(program);
    command.args(rest).env("PATH", path_with(&bin_dir));
    let mask = SigSet::thread_get_mask().map_err(LabError::errno("cannot read the signal mask"))?;
    // From before the command starts on: what comes meanwhile is passed on, too.
    let arrivals = watch_signals().map_err(LabError::errno("cannot watch signals"))?;
    // SAFETY: two system calls are all that happens between fork and exec.
    unsafe {
        command.pre_exec(move || {
            mask.thread_set_mask()?;
            Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)
        });
    }
    match command.spawn() {
        Ok(child) => {
            let status = wait(child, &arrivals).map_err(LabError::io(format!("cannot wait for {program}")))?;
            Ok(ExitCode::from(exit_status(status)))
        }
        Err(error) => {
            crate::output::complain(&format!("evermq lab exec: cannot start {program}: {error}"));
            let missing = error.kind() == io::ErrorKind::NotFound;
            Ok(ExitCode::from(if missing { NOT_FOUND } else { NOT_EXECUTABLE }))
        }
    }
}

/// The programs' directory comes first, so that `evermq` is found.
fn path_with(bin_dir: &std::path::Path) -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin".into());
    let directories = std::iter::once(bin_dir.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(directories).unwrap_or(path)
}

fn exit_status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

fn watch_signals() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)
}

/// Waits for the child, and passes on the signals that only this process got. Those of the terminal reach the child by
/// themselves, and it decides what they mean.
fn wait(mut child: Child, arrivals: &SignalFd) -> io::Result<ExitStatus> {
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let Some(arrival) = arrivals.read_signal()? else { continue };
        let from_process = arrival.ssi_code == libc::SI_USER || arrival.ssi_code == libc::SI_TKILL;
        let signal = i32::try_from(arrival.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
        if let Some(signal) = signal.filter(|signal| from_process && *signal != Signal::SIGCHLD) {
            let _ = kill(pid, signal);
        }
    }
}
