//! Labs on disk: where they are, whether they live, and how they are removed.
//!
//! ```text
//! DIR/NAME/lock            held (flock) for as long as the keeper lives, by whatever end it comes to
//!          state.json      the keeper's process id, where the programs are
//!          keeper.sock     requests to the keeper
//!          keeper.log
//!          pki/            the lab's CA and every certificate
//!          hosts/HOST/etc/     what the host sees as /etc/evermq
//!                     logs/    one file for each program, and the host's own
//!                     host.sock
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::clock;
use super::error::LabError;

/// The name of a lab that was given none.
pub(super) const DEFAULT_NAME: &str = "evermq";
/// How long the kernel may take to end every process of a lab.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A lab's place on disk, whether it is up or not.
#[derive(Debug, Clone)]
pub(super) struct Lab {
    name: String,
    directory: PathBuf,
    options: String,
}

/// What `state.json` says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// The keeper, as this machine numbers it.
    pub(super) keeper: i32,
    /// Where the programs are.
    pub(super) bin_dir: PathBuf,
}

/// Whether a lab lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// There is nothing.
    Absent,
    /// Its keeper runs, or is being started.
    Up,
    /// Only the directory is left.
    Dead,
}

impl Lab {
    /// The lab of that name under `parent`, or where labs of this user are kept.
    pub(super) fn new(name: &str, parent: Option<&Path>) -> Result<Self, LabError> {
        let label = (1..=32).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        if !label {
            return Err(LabError::Name(name.to_owned()));
        }
        let mut options = String::new();
        if name != DEFAULT_NAME {
            options.push_str(&format!(" --name {name}"));
        }
        let parent = match parent {
            Some(parent) => {
                options.push_str(&format!(" --dir {}", parent.display()));
                std::path::absolute(parent).map_err(LabError::io(format!("cannot use {}", parent.display())))?
            }
            None => default_parent(),
        };
        Ok(Self { name: name.to_owned(), directory: parent.join(name), options })
    }

    /// The lab of another name in the same place.
    pub(super) fn beside(&self, name: &str) -> Result<Self, LabError> {
        let is_default = self.directory.parent() == Some(&default_parent());
        Self::new(name, self.directory.parent().filter(|_| !is_default))
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its directory.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// ` --name` and ` --dir`, as far as they are needed to find it again.
    pub(super) fn options(&self) -> &str {
        &self.options
    }

    /// The directory of one of its hosts.
    pub(super) fn host_directory(&self, host: &str) -> PathBuf {
        host_directory(&self.directory, host)
    }

    /// Whether it lives.
    pub(super) fn life(&self) -> Result<Life, LabError> {
        if !self.directory.exists() {
            return Ok(Life::Absent);
        }
        let path = self.directory.join("lock");
        match OpenOptions::new().read(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(LabError::NotALab(self.directory.clone())),
            Err(error) => Err(LabError::io(format!("cannot open {}", path.display()))(error)),
            Ok(file) => match is_locked(&file) {
                Ok(false) => Ok(Life::Dead),
                Ok(true) => Ok(Life::Up),
                Err(errno) => Err(LabError::errno(format!("cannot lock {}", path.display()))(errno)),
            },
        }
    }

    /// That it is up, or the error that says what to do.
    pub(super) fn must_be_up(&self) -> Result<(), LabError> {
        match self.life()? {
            Life::Up => Ok(()),
            Life::Dead => Err(LabError::Dead { name: self.name.clone(), options: self.options.clone() }),
            Life::Absent => Err(self.not_up()),
        }
    }

    /// Makes its directory and takes its lock. The keeper inherits the file; the lock is free when every copy of it is closed.
    pub(super) fn create(&self) -> Result<File, LabError> {
        if let Some(parent) = self.directory.parent() {
            fs::create_dir_all(parent).map_err(LabError::io(format!("cannot make {}", parent.display())))?;
        }
        let place = self.directory.display();
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if self.life()? == Life::Up {
                    return Err(LabError::AlreadyUp { name: self.name.clone(), options: self.options.clone() });
                }
                // What a dead lab left is in nobody's way.
                self.remove()?;
                return self.create();
            }
            Err(error) => return Err(LabError::io(format!("cannot make {place}"))(error)),
        }
        let path = self.directory.join("lock");
        let file = File::create_new(&path).map_err(LabError::io(format!("cannot make {}", path.display())))?;
        lock(&file).map_err(LabError::errno(format!("cannot lock {}", path.display())))?;
        Ok(file)
    }

    /// Writes `state.json`.
    pub(super) fn write_state(&self, state: &State) -> Result<(), LabError> {
        let path = self.directory.join("state.json");
        let text = serde_json::to_vec_pretty(state).map_err(io::Error::from);
        text.and_then(|text| fs::write(&path, text)).map_err(LabError::io(format!("cannot write {}", path.display())))
    }

    /// Reads `state.json`.
    pub(super) fn read_state(&self) -> Result<State, LabError> {
        let path = self.directory.join("state.json");
        fs::read(&path)
            .and_then(|text| serde_json::from_slice(&text).map_err(io::Error::from))
            .map_err(LabError::io(format!("cannot read {}", path.display())))
    }

    /// Ends every process of the lab, and with them its namespaces and mounts, and removes its directory.
    /// Gives whether there was anything.
    pub(super) fn remove(&self) -> Result<bool, LabError> {
        match self.life()? {
            Life::Absent => return Ok(false),
            Life::Dead => {}
            Life::Up => self.end()?,
        }
        fs::remove_dir_all(&self.directory)
            .map_err(LabError::io(format!("cannot remove {}", self.directory.display())))?;
        // The directory that holds labs goes with the last one, if it is ours to choose.
        if self.directory.parent() == Some(&default_parent()) {
            let _ = fs::remove_dir(default_parent());
        }
        Ok(true)
    }

    /// Kills the keeper. It is the first process of a process id namespace that holds all others, so the kernel ends those
    /// before it lets go of the keeper.
    fn end(&self) -> Result<(), LabError> {
        let pid = Pid::from_raw(self.read_state()?.keeper);
        let action = || format!("cannot end the keeper (process {pid}) of lab \"{}\"", self.name);
        let handle = match pidfd_open(pid) {
            Ok(handle) => handle,
            Err(Errno::ESRCH) => return Ok(()),
            Err(errno) => return Err(LabError::errno(action())(errno)),
        };
        // The handle keeps the id from being used for another process; the lock, looked at once more, says that it is ours.
        if self.life()? != Life::Up {
            return Ok(());
        }
        match nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(LabError::errno(action())(errno)),
        }
        let mut waited = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
        let ended = poll(&mut waited, clock::poll_timeout(Some(END_TIMEOUT))).map_err(LabError::errno(action()))?;
        if ended == 0 {
            let text =
                format!("the processes of lab \"{}\" have not ended after {END_TIMEOUT:?}; try again", self.name);
            return Err(LabError::NotReady(text));
        }
        // Ours to reap if this process started it (`lab demo`), otherwise somebody else's.
        let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        Ok(())
    }

    fn not_up(&self) -> LabError {
        let mut names: Vec<String> = self.directory.parent().map(names_under).unwrap_or_default();
        names.sort();
        let others = if names.is_empty() { String::new() } else { format!(" (there is: {})", names.join(", ")) };
        LabError::NotUp { name: self.name.clone(), others, options: self.options.clone() }
    }
}

/// The directory of one host of the lab in `directory`.
pub(super) fn host_directory(directory: &Path, host: &str) -> PathBuf {
    directory.join("hosts").join(host)
}

fn names_under(parent: &Path) -> Vec<String> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().join("lock").exists())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn default_parent() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return "/run/evermq-lab".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if Path::new(&directory).is_dir() => Path::new(&directory).join("evermq-lab"),
        _ => std::env::temp_dir().join(format!("evermq-lab-{}", nix::unistd::geteuid())),
    }
}

/// Takes the lock of an open file, which lasts until its last copy in any process is closed. Waits for those who only look.
fn lock(file: &File) -> nix::Result<()> {
    flock(file, libc::LOCK_EX)
}

/// Whether a lab's keeper, or the `lab up` that starts it, holds the lock. Several may look at once.
fn is_locked(file: &File) -> nix::Result<bool> {
    match flock(file, libc::LOCK_SH | libc::LOCK_NB) {
        Ok(()) => Ok(false),
        Err(Errno::EWOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno),
    }
}

fn flock(file: &File, operation: libc::c_int) -> nix::Result<()> {
    // SAFETY: the call takes a descriptor, which `file` keeps open, and an integer.
    Errno::result(unsafe { libc::flock(file.as_raw_fd(), operation) }).map(drop)
}

/// A handle to a process, readable when it has ended (pidfd_open(2), Linux 5.3).
fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes two integers and gives a new descriptor or -1.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let descriptor = Errno::result(result)?;
    let descriptor = libc::c_int::try_from(descriptor).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_lives_as_long_as_its_lock_is_held() {
        let parent = tempfile::tempdir().unwrap();
        let lab = Lab::new("one", Some(parent.path())).unwrap();
        assert_eq!(lab.life().unwrap(), Life::Absent);
        assert!(matches!(lab.must_be_up(), Err(LabError::NotUp { .. })));
        let lock = lab.create().unwrap();
        assert_eq!(lab.life().unwrap(), Life::Up);
        assert!(matches!(lab.create(), Err(LabError::AlreadyUp { .. })));
        drop(lock);
        assert_eq!(lab.life().unwrap(), Life::Dead);
        assert!(matches!(lab.must_be_up(), Err(LabError::Dead { .. })));
        drop(lab.create().unwrap());
        assert!(lab.remove().unwrap());
        assert_eq!(lab.life().unwrap(), Life::Absent);
        assert!(!lab.remove().unwrap());
    }

    #[test]
    fn a_directory_of_something_else_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("photos")).unwrap();
        let lab = Lab::new("photos", Some(parent.path())).unwrap();
        assert!(matches!(lab.remove(), Err(LabError::NotALab(_))));
        assert!(parent.path().join("photos").exists());
    }

    #[test]
    fn names_are_labels() {
        for name in ["", "-a", "a-", "a/b", "..", &"a".repeat(33)] {
            assert!(matches!(Lab::new(name, None), Err(LabError::Name(_))), "{name}");
        }
    }

    #[test]
    fn a_missing_lab_names_those_that_are_there() {
        let parent = tempfile::tempdir().unwrap();
        let _lock = Lab::new("one", Some(parent.path())).unwrap().create().unwrap();
        let error = Lab::new("two", Some(parent.path())).unwrap().must_be_up().unwrap_err();
        assert!(error.to_string().contains("(there is: one)"), "{error}");
    }
}
