//! Waits for a file to change: by the kernel's notices of its directory, as the file may come and go, and by the clock where
//! these do not reach (network file systems, links into other directories, a directory that is not there yet).

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::AddWatchFlags;

use crate::notices::Notices;

/// A file by its directory.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    name: OsString,
    notices: Option<Notices>,
}

impl Directory {
    /// The directory of `file`; changes count from here on.
    pub(super) fn of(file: &Path) -> Self {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let path = parent.unwrap_or(Path::new(".")).to_owned();
        let name = file.file_name().unwrap_or_default().to_owned();
        let notices = notices(&path).ok();
        Self { path, name, notices }
    }

    /// Waits for a change of the file, or for as long as `at_most`. Cancel-safe: at worst a change is seen with the next look.
    pub(super) async fn changed(&mut self, at_most: Duration) {
        if self.notices.is_none() {
            self.notices = notices(&self.path).ok();
        }
        let Some(notices) = &self.notices else { return tokio::time::sleep(at_most).await };
        match tokio::time::timeout(at_most, changed(notices, &self.name)).await {
            Err(_) | Ok(Ok(())) => {}
            // The directory is gone, or another one: look at the new one from the next wait on.
            Ok(Err(_)) => self.notices = None,
        }
    }
}

fn notices(directory: &Path) -> io::Result<Notices> {
    // When a writer is done, not while it writes: a file that is being written is empty at first.
    let file = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_ATTRIB;
    Notices::of([directory], file | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF)
}

async fn changed(notices: &Notices, name: &OsString) -> io::Result<()> {
    let gone = AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_IGNORED
        | AddWatchFlags::IN_UNMOUNT;
    loop {
        let events = notices.next().await?;
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
