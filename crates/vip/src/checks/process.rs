//! A process by its pid file: alive or not, and never mistaken for another one.
//!
//! The number in the file is looked up once; from then on a pidfd stands for the process. A number whose process has ended
//! counts again only when the file has been written anew, so another process that got the number is not taken for it.
//! What cannot be told: whether a file that an earlier process left, before this program started, means the process that
//! has its number today.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::directory::Directory;
use super::file::read;
use crate::pidfd::Pidfd;
use crate::track::Verdict;

/// Between two looks while there is no process.
const ABSENT: Duration = Duration::from_millis(100);
/// Between two looks for another process in the file while this one lives, where the kernel's notices do not reach.
const PRESENT: Duration = Duration::from_secs(1);

/// What the pid file says, and when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    pid: i32,
    inode: u64,
    time: (i64, i64),
}

pub(super) async fn run(pid_file: &Path, name: &str, tell: impl Fn(Verdict) + Send + Sync) -> Infallible {
    let mut directory = Directory::of(pid_file);
    let mut told = Verdict::Pending;
    let mut tell = |verdict| {
        if std::mem::replace(&mut told, verdict) != verdict {
            tell(verdict);
        }
    };
    let mut dead = None;
    let mut unable = false;
    loop {
        let written = written(pid_file).filter(|written| Some(*written) != dead);
        let alive = written.and_then(|written| match alive(written.pid) {
            Ok(process) => process.map(|process| (written, process)),
            Err(error) => {
                if !std::mem::replace(&mut unable, true) {
                    tracing::warn!(track = name, %error, "cannot watch a process, so it counts as dead (needs Linux 5.3)");
                }
                None
            }
        });
        match alive {
            Some((written, process)) => {
                tell(Verdict::Good);
                tracing::debug!(track = name, pid = written.pid, "process lives");
                dead = Some(end(pid_file, &mut directory, written, process).await);
            }
            None => {
                tell(Verdict::Failed);
                directory.changed(ABSENT).await;
            }
        }
    }
}

/// Waits for the end of the process, or of those that followed it in the file while it lived. The last one's entry.
async fn end(pid_file: &Path, directory: &mut Directory, mut written: Written, mut process: Pidfd) -> Written {
    loop {
        tokio::select! {
            biased;
            _ = process.ended() => return written,
            () = directory.changed(PRESENT) => {}
        }
        // A file that is gone or names nobody says nothing of a process that lives.
        if let Some(next) = self::written(pid_file).filter(|next| next.pid != written.pid)
            && let Ok(Some(successor)) = alive(next.pid)
        {
            (written, process) = (next, successor);
        }
    }
}

/// The process of this number, unless it has ended.
fn alive(pid: i32) -> io::Result<Option<Pidfd>> {
    match Pidfd::open(Pid::from_raw(pid)) {
        // One that ended and was not waited for still has its number.
        Ok(process) => Ok((!process.has_ended()).then_some(process)),
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(None),
        // The number of a thread that is no process.
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(None),
        Err(error) => Err(error),
    }
}

fn written(pid_file: &Path) -> Option<Written> {
    let metadata = std::fs::metadata(pid_file).ok()?;
    let text = read(pid_file).ok()?;
    let pid = text.lines().next()?.trim().parse().ok().filter(|pid| *pid > 0)?;
    Some(Written { pid, inode: metadata.ino(), time: (metadata.mtime(), metadata.mtime_nsec()) })
}
