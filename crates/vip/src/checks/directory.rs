//! Waits for a file to change: by the kernel's notices of its directory, as the file may come and go, and by the clock where
//! these do not reach (network file systems, links into other directories, a directory that is not there yet).

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A file by its directory.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    name: OsString,
    watch: Option<AsyncFd<Watch>>,
}

#[derive(Debug)]
struct Watch(Inotify);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Directory {
    /// The directory of `file`; changes count from here on.
    pub(super) fn of(file: &Path) -> Self {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let path = parent.unwrap_or(Path::new(".")).to_owned();
        let name = file.file_name().unwrap_or_default().to_owned();
        let watch = watch(&path).ok();
        Self { path, name, watch }
    }

    /// Waits for a change of the file, or for as long as `at_most`. Cancel-safe: at worst a change is seen with the next look.
    pub(super) async fn changed(&mut self, at_most: Duration) {
        if self.watch.is_none() {
            self.watch = watch(&self.path).ok();
        }
        let Some(watch) = &self.watch else { return tokio::time::sleep(at_most).await };
        match tokio::time::timeout(at_most, changed(watch, &self.name)).await {
            Err(_) | Ok(Ok(())) => {}
            // The directory is gone, or another one: look at the new one from the next wait on.
            Ok(Err(_)) => self.watch = None,
        }
    }
}

fn watch(directory: &Path) -> io::Result<AsyncFd<Watch>> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    // When a writer is done, not while it writes: a file that is being written is empty at first.
    let file = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_ATTRIB;
    let gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_ONLYDIR;
    inotify.add_watch(directory, file | gone)?;
    // SAFETY: the watch owns its descriptor for as long as it lives, and always answers with the same one.
    Ok(unsafe { AsyncFd::register_with_interest(Watch(inotify), Interest::READABLE) }?)
}

async fn changed(watch: &AsyncFd<Watch>, name: &OsString) -> io::Result<()> {
    let gone = AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_IGNORED
        | AddWatchFlags::IN_UNMOUNT;
    loop {
        let mut ready = watch.readable().await?;
        // A busy directory must not keep the other checks from their turn.
        tokio::task::yield_now().await;
        let events = match watch.get_ref().0.read_events() {
            Ok(events) => events,
            Err(Errno::EAGAIN) => {
                ready.clear_ready();
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if events.iter().any(|event| event.mask.intersects(gone)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // Too many at once: the file's may have been among them.
        let lost = AddWatchFlags::IN_Q_OVERFLOW;
        if events.iter().any(|event| event.name.as_ref() == Some(name) || event.mask.intersects(lost)) {
            return Ok(());
        }
    }
}
