//! The kernel's notices of what happens in directories (inotify(7)), for the ordinary thread.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Notices of some directories.
#[derive(Debug)]
pub(crate) struct Notices(AsyncFd<Descriptor>);

#[derive(Debug)]
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Notices {
    /// Notices of `what` in each of the directories, from here on. Needs a runtime.
    ///
    /// # Errors
    /// One of them is no directory, may not be read, or the user watches too many already.
    pub(crate) fn of<P: AsRef<Path>>(
        directories: impl IntoIterator<Item = P>,
        what: AddWatchFlags,
    ) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        for directory in directories {
            inotify.add_watch(directory.as_ref(), what | AddWatchFlags::IN_ONLYDIR)?;
        }
        // SAFETY: the wrapper owns its descriptor for as long as it lives, and always answers with the same one.
        Ok(Self(unsafe { AsyncFd::register_with_interest(Descriptor(inotify), Interest::READABLE) }?))
    }

    /// Waits for the next ones. Cancel-safe.
    ///
    /// # Errors
    /// The descriptor is broken.
    pub(crate) async fn next(&self) -> io::Result<Vec<InotifyEvent>> {
        loop {
            let mut ready = self.0.readable().await?;
            // A busy directory must not keep others from their turn.
            tokio::task::yield_now().await;
            match self.0.get_ref().0.read_events() {
                Ok(events) => return Ok(events),
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
