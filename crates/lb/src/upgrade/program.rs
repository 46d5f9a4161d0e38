//! Starting the new process: the same program with the same arguments, from where this one was started.
//!
//! The new process gets its end of the channel as its standard input, which no daemon reads: so nothing has to be done between
//! fork and exec.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

/// Says that there is a channel on standard input.
pub const VARIABLE: &str = "EVERMQ_UPGRADE_FD";
/// Its value.
const STANDARD_INPUT: &str = "0";
/// For the new program to read the cluster file and its certificates.
pub const CHECK: Duration = Duration::from_secs(10);
/// Of what it says against them.
const MAX_COMPLAINT: u64 = 16 * 1024;

/// How this process was started.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// Why there is no new process.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It could not be started.
    #[error("cannot start {path}: {source}", path = path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It does not like what it would serve with.
    #[error("the new program refuses: {0}")]
    Check(String),
    /// It has nothing to say.
    #[error("the new program has not checked the cluster file within {} s", .0.as_secs())]
    Slow(Duration),
}

impl Program {
    /// This process's. To be called at the start, before its file is replaced.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn of_this_process() -> io::Result<Self> {
        let file = std::fs::read_link("/proc/self/exe")?;
        let mut arguments = std::env::args_os();
        let called = arguments.next().and_then(|name| find(&name));
        // The name that it was called by may be a link, which will lead to the new version.
        let path = called.filter(|called| is_same_file(called, Path::new("/proc/self/exe"))).unwrap_or(file);
        Ok(Self { path, arguments: arguments.collect() })
    }

    /// Where the new program is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has the new program check the cluster file and the certificates, within that time. Must be called on a runtime.
    ///
    /// # Errors
    /// It cannot be started, or says what is wrong.
    pub async fn check(&self, within: Duration) -> Result<(), ProgramError> {
        let fail = |source| ProgramError::Start { path: self.path.clone(), source };
        let mut child =
            self.command().arg("--check").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(fail)?;
        let words = child.stderr.take().map(OwnedFd::from);
        let listen = async {
            let mut text = Vec::new();
            if let Some(words) = words {
                pipe::Receiver::from_owned_fd(words)?.take(MAX_COMPLAINT).read_to_end(&mut text).await?;
            }
            Ok(text)
        };
        let text = match tokio::time::timeout(within, listen).await {
            Ok(text) => text.map_err(fail)?,
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(ProgramError::Slow(within));
            }
        };
        // It has closed its standard error, so it is at its end.
        let status = match tokio::task::spawn_blocking(move || child.wait()).await {
            Ok(status) => status,
            Err(error) => Err(io::Error::other(error)),
        };
        match status.map_err(fail)? {
            status if status.success() => Ok(()),
            status => Err(ProgramError::Check(match String::from_utf8_lossy(&text).trim() {
                "" => status.to_string(),
                text => text.to_owned(),
            })),
        }
    }

    /// Starts it with its end of the channel.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, channel: OwnedFd) -> Result<Child, ProgramError> {
        self.command()
            .env(VARIABLE, STANDARD_INPUT)
            .stdin(Stdio::from(channel))
            .spawn()
            .map_err(|source| ProgramError::Start { path: self.path.clone(), source })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env_remove(VARIABLE).stdin(Stdio::null());
        // What systemd has said to this process only: its descriptors, and whose signs of life it waits for.
        for variable in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(variable);
        }
        command
    }
}

/// The channel to the process that this one is to succeed; none where it was started in the usual way. To be called once.
///
/// # Errors
/// The system has no descriptor to give.
pub fn inherited() -> io::Result<Option<OwnedFd>> {
    if std::env::var_os(VARIABLE).as_deref() != Some(OsStr::new(STANDARD_INPUT)) {
        return Ok(None);
    }
    let channel = io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(Some(channel))
}

/// Where a program of that name is, as a shell would find it.
fn find(name: &OsStr) -> Option<PathBuf> {
    let path = Path::new(name);
    if path.components().count() > 1 || path.is_absolute() {
        return std::path::absolute(path).ok();
    }
    let places = std::env::var_os("PATH")?;
    std::env::split_paths(&places).map(|place| place.join(path)).find(|candidate| candidate.is_file())
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    identity(one).is_some_and(|one| Some(one) == identity(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(script: &str) -> (tempfile::TempDir, Program) {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let text = directory.path().join("text");
        std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o755)).unwrap();
        // By a process of its own: what this one has open for writing cannot be run while another test starts a process.
        assert!(Command::new("cp").arg(&text).arg(&path).status().unwrap().success());
        (directory, Program { path, arguments: vec!["--host".into(), "lb1".into()] })
    }

    #[test]
    fn this_process_is_found() {
        let program = Program::of_this_process().unwrap();
        assert!(is_same_file(program.path(), Path::new("/proc/self/exe")));
        assert!(find(OsStr::new("sh")).unwrap().is_absolute());
        assert!(find(OsStr::new("no-such-program-anywhere")).is_none());
    }

    #[tokio::test]
    async fn the_new_program_is_asked_first_and_its_words_are_told() {
        let (_directory, good) = program(r#"[ "$*" = "--host lb1 --check" ] && [ -z "$EVERMQ_UPGRADE_FD" ]"#);
        good.check(CHECK).await.unwrap();
        let (_directory, bad) = program("echo 'evermq.toml:3: no such key' >&2; exit 2");
        let error = bad.check(CHECK).await.unwrap_err();
        assert_eq!(error.to_string(), "the new program refuses: evermq.toml:3: no such key");
        let (_directory, silent) = program("exit 3");
        assert!(silent.check(CHECK).await.unwrap_err().to_string().contains("exit status: 3"));
        let missing = Program { path: "/nonexistent/evermq-lb".into(), arguments: Vec::new() };
        assert!(matches!(missing.check(CHECK).await, Err(ProgramError::Start { .. })));
    }

    #[tokio::test]
    async fn the_new_process_has_the_channel() {
        use std::io::{Read as _, Write as _};
        let (_directory, echo) = program(r#"read line; echo "$line $EVERMQ_UPGRADE_FD $*" >&0"#);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut child = echo.start(theirs.into()).unwrap();
        (&ours).write_all(b"hello\n").unwrap();
        let mut answer = String::new();
        (&ours).read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello 0 --host lb1\n");
        assert!(child.wait().unwrap().success());
    }
}
