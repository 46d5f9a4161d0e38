//! What a host sees of the file system: the machine's, with its own `/run`, `/proc` and `/etc/evermq`.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::error::LabError;
use super::{namespace, plan};

/// Where the machine's own `/etc` is found in a host.
const MACHINE_ETC: &str = "/run/machine-etc";
/// Most that a host's `/run` or `/etc` may hold.
const TMPFS: &str = "mode=0755,size=64m";

/// Keeps mounts that are made in this process's mount namespace from showing anywhere else.
pub(super) fn separate() -> Result<(), LabError> {
    // Slave, not private: what the machine unmounts must not stay busy because of a lab.
    call("cannot separate the mounts", None, "/", None, MsFlags::MS_REC | MsFlags::MS_SLAVE, None)
}

/// Makes the file system of the host `name`; `etc` is the directory that becomes `/etc/evermq`.
pub(super) fn make(name: &str, etc: &OwnedFd) -> Result<(), LabError> {
    separate()?;
    tmpfs("/run")?;
    directory(MACHINE_ETC)?;
    bind(Path::new("/etc"), MACHINE_ETC)?;
    let entries = entries(Path::new(MACHINE_ETC)).map_err(LabError::io("cannot read /etc"))?;
    tmpfs("/etc")?;
    for (entry, target) in &entries {
        // A host has these itself.
        if !["evermq", "hostname", "hosts"].contains(&entry.as_str()) {
            let link = Path::new("/etc").join(entry);
            symlink(target, &link).map_err(LabError::io(format!("cannot make {}", link.display())))?;
        }
    }
    write("/etc/hostname", &format!("{name}\n"))?;
    write("/etc/hosts", &hosts_file())?;
    directory("/etc/evermq")?;
    bind(Path::new(&format!("/proc/self/fd/{}", etc.as_raw_fd())), "/etc/evermq")?;
    directory("/run/evermq")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    call("cannot mount /proc", Some(Path::new("proc")), "/proc", Some("proc"), flags, None)
}

/// Names in `/etc`, each with what the same name in a host's `/etc` points to.
fn entries(etc: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(etc)? {
        let entry = entry?;
        // Whose name is not UTF-8 is not needed by any program here.
        let Ok(name) = entry.file_name().into_string() else { continue };
        // A relative link is right only from /etc itself.
        let target = if entry.file_type()?.is_symlink() { fs::read_link(entry.path())? } else { entry.path() };
        entries.push((name, target));
    }
    Ok(entries)
}

fn hosts_file() -> String {
    let mut text = format!("127.0.0.1 localhost\n{} vip\n", plan::VIP);
    for host in &plan::HOSTS {
        let _ = writeln!(text, "{} {}", host.address(), host.name);
    }
    text
}

fn tmpfs(target: &str) -> Result<(), LabError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    call(
        &format!("cannot mount a tmpfs on {target}"),
        Some(Path::new("tmpfs")),
        target,
        Some("tmpfs"),
        flags,
        Some(TMPFS),
    )
}

fn bind(source: &Path, target: &str) -> Result<(), LabError> {
    // With all that is mounted below, which an unprivileged user may not uncover.
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    call(&format!("cannot mount {} on {target}", source.display()), Some(source), target, None, flags, None)
}

fn call(
    action: &str,
    source: Option<&Path>,
    target: &str,
    kind: Option<&str>,
    flags: MsFlags,
    data: Option<&str>,
) -> Result<(), LabError> {
    mount(source, target, kind, flags, data).map_err(|errno| namespace::refused(action, errno.into()))
}

fn directory(path: &str) -> Result<(), LabError> {
    fs::create_dir(path).map_err(LabError::io(format!("cannot make {path}")))
}

fn write(path: &str, text: &str) -> Result<(), LabError> {
    fs::write(path, text).map_err(LabError::io(format!("cannot write {path}")))
}
