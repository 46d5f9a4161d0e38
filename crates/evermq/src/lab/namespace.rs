//! Namespaces: processes started in new ones, and this process moved into those of a host.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, clone, setns};
use nix::unistd::{Gid, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, execv, setgid, setuid};

use super::error::LabError;

/// What a host has of its own.
const OWN: CloneFlags = CloneFlags::CLONE_NEWPID
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWUTS);
/// Stack of a new process until it executes this program anew.
const STACK: usize = 256 * 1024;
/// This program, also after its file has been replaced by a newer build.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// A process to start: this program, with these arguments.
pub(super) struct Process<'a> {
    /// The arguments after the program's name.
    pub(super) arguments: &'a [String],
    /// Its standard input: a socket to the process that started it.
    pub(super) socket: BorrowedFd<'a>,
    /// Its standard output and error.
    pub(super) log: BorrowedFd<'a>,
    /// A descriptor that it inherits under its number, if any.
    pub(super) inherit: Option<BorrowedFd<'a>>,
}

/// Starts a process with namespaces of its own, as the one that may do so: the root of a new user namespace where this
/// process is not privileged.
///
/// The process is the first one of its process id namespace: when it ends, however it ends, the kernel kills all others in
/// there, and network, mounts and names go with the last of them.
pub(super) fn start_privileged_or_not(process: &Process<'_>) -> Result<Pid, LabError> {
    if nix::unistd::geteuid().is_root() {
        match start(process, false) {
            Err(Errno::EPERM) => {}
            result => return result.map_err(|errno| refused("cannot make namespaces", errno.into())),
        }
    }
    start(process, true).map_err(|errno| refused("cannot make a user namespace", errno.into()))
}

/// Starts a process with namespaces of its own.
///
/// # Errors
/// That of clone(2) or of the user namespace's maps.
pub(super) fn start(process: &Process<'_>, new_user: bool) -> nix::Result<Pid> {
    let mut argv = vec![text(THIS_PROGRAM)?];
    for argument in process.arguments {
        argv.push(text(argument)?);
    }
    let flags = if new_user { OWN | CloneFlags::CLONE_NEWUSER } else { OWN };
    // Once the pipe ends, the maps are written: before that, execve(2) would take the new root's capabilities away.
    let (ready, go) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let mut go = Some(go);
    let mut stack = vec![0; STACK];
    let run = || {
        drop(go.take());
        match become_process(process, &ready, &argv) {
            Ok(never) => match never {},
            Err(errno) => 100_isize.saturating_add(errno as isize),
        }
    };
    // SAFETY: this program has one thread here, so the copy of its memory is whole, and the child only runs `become_process`,
    // which needs a small part of the stack that it is given; without CLONE_VM that stack is its own.
    let pid = unsafe { clone(Box::new(run), &mut stack, flags, Some(libc::SIGCHLD)) }?;
    let mapped = if new_user { write_maps(pid) } else { Ok(()) };
    drop(go);
    if let Err(error) = mapped {
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(pid, None);
        return Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EPERM)));
    }
    Ok(pid)
}

fn become_process(process: &Process<'_>, ready: &OwnedFd, argv: &[CString]) -> nix::Result<std::convert::Infallible> {
    while nix::unistd::read(ready, &mut [0]) == Err(Errno::EINTR) {}
    // What the one who starts it waits for with a descriptor is blocked there, not here.
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    dup2_stdin(process.socket)?;
    dup2_stdout(process.log)?;
    dup2_stderr(process.log)?;
    if let Some(inherit) = process.inherit {
        nix::fcntl::fcntl(inherit, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    }
    execv(argv.first().ok_or(Errno::EINVAL)?, argv)
}

/// Root in there is this user out here; there is nobody else.
fn write_maps(pid: Pid) -> io::Result<()> {
    let directory = std::path::PathBuf::from(format!("/proc/{pid}"));
    // Without this an unprivileged user may not map groups (user_namespaces(7)).
    fs::write(directory.join("setgroups"), "deny")?;
    fs::write(directory.join("uid_map"), format!("0 {} 1", nix::unistd::geteuid()))?;
    fs::write(directory.join("gid_map"), format!("0 {} 1", nix::unistd::getegid()))
}

fn text(text: &str) -> nix::Result<CString> {
    CString::new(text).map_err(|_| Errno::EINVAL)
}

/// The namespaces of a host, as descriptors, in the order in which they are entered.
pub(super) const ENTERED: [(&str, CloneFlags); 5] = [
    ("user", CloneFlags::CLONE_NEWUSER),
    ("mnt", CloneFlags::CLONE_NEWNS),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("net", CloneFlags::CLONE_NEWNET),
    ("pid", CloneFlags::CLONE_NEWPID),
];

/// This process's namespaces, in the order of [`ENTERED`].
pub(super) fn own() -> io::Result<Vec<OwnedFd>> {
    ENTERED.iter().map(|(name, _)| Ok(fs::File::open(format!("/proc/self/ns/{name}"))?.into())).collect()
}

/// Moves this process into a host's namespaces; processes that it starts from then on are the host's.
///
/// The process must have one thread.
pub(super) fn enter(namespaces: &[OwnedFd]) -> io::Result<()> {
    for ((name, flag), namespace) in ENTERED.iter().zip(namespaces) {
        if *flag == CloneFlags::CLONE_NEWUSER && is_own(name, namespace.as_fd())? {
            continue;
        }
        setns(namespace, *flag)?;
        if *flag == CloneFlags::CLONE_NEWUSER {
            // Root of the machine is nobody in a lab of another user until it becomes that lab's root.
            setgid(Gid::from_raw(0))?;
            setuid(Uid::from_raw(0))?;
        }
    }
    Ok(())
}

fn is_own(name: &str, namespace: BorrowedFd<'_>) -> io::Result<bool> {
    let own = fs::metadata(format!("/proc/self/ns/{name}"))?;
    let other = fs::metadata(format!("/proc/self/fd/{}", namespace.as_raw_fd()))?;
    Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
}

/// The error for something that needs the kernel's permission, with what to do about it on this machine.
pub(super) fn refused(action: impl Into<String>, source: io::Error) -> LabError {
    let advice = advice(source.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw), setting);
    LabError::Kernel { action: action.into(), source, advice }
}

fn setting(name: &str) -> Option<String> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).ok().map(|value| value.trim().to_owned())
}

fn advice(errno: Errno, setting: impl Fn(&str) -> Option<String>) -> String {
    let is = |name, value| setting(name).as_deref() == Some(value);
    let as_root = "or run this as root";
    if is("kernel.apparmor_restrict_unprivileged_userns", "1") {
        return format!(
            "AppArmor keeps unprivileged users from it: `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, {as_root}"
        );
    }
    if is("kernel.unprivileged_userns_clone", "0") {
        return format!(
            "the system keeps unprivileged users from it: `sysctl kernel.unprivileged_userns_clone=1`, {as_root}"
        );
    }
    for name in ["user.max_user_namespaces", "user.max_net_namespaces", "user.max_pid_namespaces"] {
        if is(name, "0") {
            return format!("the system allows none of them: `sysctl {name}=10000`, {as_root}");
        }
    }
    match errno {
        Errno::EPERM | Errno::EACCES => {
            "in a container, start it with --privileged; elsewhere, run this as root".to_owned()
        }
        Errno::ENOSPC | Errno::EUSERS => {
            "too many namespaces: end other labs, or raise `sysctl user.max_user_namespaces`".to_owned()
        }
        Errno::EINVAL | Errno::ENOSYS => {
            "this kernel is built without namespaces (CONFIG_USER_NS, CONFIG_PID_NS, CONFIG_NET_NS)".to_owned()
        }
        Errno::EOPNOTSUPP | Errno::ENODEV => {
            "the kernel lacks a module: `modprobe bridge veth` as root (CONFIG_BRIDGE, CONFIG_VETH)".to_owned()
        }
        _ => "run this as root".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_setting_that_forbids_it() {
        for (name, value) in [
            ("kernel.apparmor_restrict_unprivileged_userns", "1"),
            ("kernel.unprivileged_userns_clone", "0"),
            ("user.max_user_namespaces", "0"),
        ] {
            let text = advice(Errno::EPERM, |asked| (asked == name).then(|| value.to_owned()));
            assert!(text.contains(&format!("sysctl {name}=")), "{text}");
        }
    }

    #[test]
    fn advice_without_a_setting_follows_the_error() {
        assert!(advice(Errno::EPERM, |_| None).contains("--privileged"));
        assert!(advice(Errno::EOPNOTSUPP, |_| None).contains("modprobe bridge"));
        assert!(advice(Errno::ENOSYS, |_| None).contains("CONFIG_USER_NS"));
    }
}
