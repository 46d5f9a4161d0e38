//! One run of a program of the operator's: a script, or a notify program.
//!
//! It gets nothing of what evermq-vip is: not its user where that is root, no capability, no real-time scheduling, no blocked
//! signal, no open file, no environment but `PATH` and `EVERMQ_*`. It has a process group of its own, which is killed
//! with it. Nothing here waits for a process without end but for one that the kernel itself does not end.

mod shed;

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::runtime::Handle;

use self::shed::{protected_from_oom, shed};
use crate::account::Account;
use crate::pidfd::Pidfd;

/// Between SIGTERM and SIGKILL.
pub const GRACE: Duration = Duration::from_secs(1);
/// Of what a program prints, this much is kept for the log; the rest is read and thrown away.
pub const KEPT_OUTPUT: usize = 2048;
/// Bytes at a time.
const READ: usize = 4096;
/// Where evermq-vip itself has no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Reads of what is left in the pipe after the end; the pipe holds no more than 64 KiB.
const LAST_READS: usize = 16;

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Whom it runs as.
    pub account: Account,
    /// Added to its environment.
    pub environment: Vec<(String, String)>,
    /// What becomes of processes that it leaves in its group when it ends.
    pub leftovers: Leftovers,
}

/// Processes that a program leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// They are killed with it, and it is killed with evermq-vip.
    Kill,
    /// They go on. Only a timeout kills them.
    Keep,
}

/// A program that was started. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    /// Present until its end was seen, so that its identifier is not another process's by then.
    process: Option<Process>,
    status: Option<ExitStatus>,
    output: Option<pipe::Receiver>,
    kept: Vec<u8>,
    leftovers: Leftovers,
}

#[derive(Debug)]
struct Process {
    child: Child,
    group: Pid,
    pidfd: Pidfd,
}

impl Program {
    /// Starts it; needs the I/O driver of a runtime.
    ///
    /// # Errors
    /// There is no such program, or the user must not run it.
    pub fn spawn(&self) -> io::Result<Running> {
        let (program, arguments) =
            self.command.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let (reader, writer) = io::pipe()?;
        let output = pipe::Receiver::from_owned_fd(reader.into())?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir("/").process_group(0);
        command.env_clear().envs(inherited()).envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let (account, leftovers) = (self.account.clone(), self.leftovers);
        let protected = protected_from_oom();
        // SAFETY: the closure makes system calls only, and allocates nothing, as a child of several threads must.
        unsafe { command.pre_exec(move || shed(&account, protected, leftovers)) };
        let mut child = command.spawn()?;
        let group = Pid::from_raw(child.id().cast_signed());
        match Pidfd::open(group) {
            Ok(pidfd) => Ok(Running {
                process: Some(Process { child, group, pidfd }),
                status: None,
                output: Some(output),
                kept: Vec::new(),
                leftovers: self.leftovers,
            }),
            Err(error) => {
                let _ = killpg(group, Signal::SIGKILL);
                child.wait()?;
                Err(error)
            }
        }
    }
}

impl Running {
    /// Waits for its end, reading what it prints. Cancel-safe; after the end it answers at once.
    ///
    /// # Errors
    /// The runtime is gone, or someone else has waited for the process.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            let Some(process) = &self.process else { return self.status.ok_or_else(|| io::ErrorKind::NotFound.into()) };
            let mut bytes = [0; READ];
            tokio::select! {
                biased;
                ended = process.pidfd.ended() => {
                    ended?;
                    return self.reap();
                }
                read = read(&mut self.output, &mut bytes) => self.keep(&bytes, read),
            }
            // A program that prints without end must not keep those who wait beside this one from their turn.
            tokio::task::yield_now().await;
        }
    }

    /// Ends it: SIGTERM to its group, SIGKILL after [`GRACE`].
    ///
    /// # Errors
    /// As [`Running::wait`].
    pub async fn stop(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGTERM);
        if let Ok(ended) = tokio::time::timeout(GRACE, self.wait()).await {
            return ended;
        }
        self.signal(Signal::SIGKILL);
        self.wait().await
    }

    /// The first of what it has printed, without what could confuse a terminal.
    #[must_use]
    pub fn output(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        text.trim().chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process
            && let Err(error) = killpg(process.group, signal)
            && error != Errno::ESRCH
        {
            tracing::warn!(pid = %process.group, %error, "a program that takes too long cannot be killed (CAP_KILL?)");
        }
    }

    /// It has ended and is a zombie, so its group is still its own.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        if self.leftovers == Leftovers::Kill {
            self.signal(Signal::SIGKILL);
        }
        for _ in 0..LAST_READS {
            let mut bytes = [0; READ];
            let Some(output) = &self.output else { break };
            match output.try_read(&mut bytes) {
                Ok(length) => self.keep(&bytes, Ok(length)),
                Err(_) => break,
            }
        }
        self.output = None;
        let Some(mut process) = self.process.take() else { return Err(io::ErrorKind::NotFound.into()) };
        let status = process.child.wait()?;
        self.status = Some(status);
        Ok(status)
    }

    fn keep(&mut self, bytes: &[u8], read: io::Result<usize>) {
        match read {
            Ok(0) | Err(_) => self.output = None,
            Ok(length) => {
                let room = KEPT_OUTPUT - self.kept.len();
                self.kept.extend_from_slice(&bytes[..length.min(room)]);
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        let Some(mut process) = self.process.take() else { return };
        // A killed process ends in its own time. Its task ends with it, or with the runtime, and then with evermq-vip, whose
        // orphans are init's.
        if matches!(process.child.try_wait(), Ok(None))
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                let _ = process.pidfd.ended().await;
                let _ = process.child.wait();
            });
        }
    }
}

async fn read(output: &mut Option<pipe::Receiver>, bytes: &mut [u8]) -> io::Result<usize> {
    match output {
        Some(output) => output.read(bytes).await,
        None => std::future::pending().await,
    }
}

/// The part of evermq-vip's own environment that programs may see.
fn inherited() -> impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
    let own = std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"EVERMQ_"));
    own.chain([("PATH".into(), path)])
}

#[cfg(test)]
mod tests;
