//! Sees that the cluster file has changed: by the kernel's notices of its directory, and of the directory that it is a link
//! into; and by a look now and then where these do not reach (network file systems, links behind links).
//!
//! What counts is the content: an editor's temporary files, a rename over the file, and the exchange of the whole directory
//! behind a link (as Kubernetes does with its configuration volumes) all come down to that.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::AddWatchFlags;

use crate::notices::Notices;

/// Between a change and the look at it: whoever writes a file may do so in steps.
const CALM: Duration = Duration::from_millis(200);
/// A directory in which something changes all the time is looked at all the same.
const AT_MOST: Duration = Duration::from_secs(2);
/// Where the kernel tells nothing.
const NOW_AND_THEN: Duration = Duration::from_secs(10);

/// Follows one file.
#[derive(Debug)]
pub(super) struct FileWatch {
    path: PathBuf,
    /// As it was looked at last; none where it could not be read.
    content: Option<Vec<u8>>,
    notices: Option<Notices>,
}

impl FileWatch {
    /// The file as it is now.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), content: std::fs::read(path).ok(), notices: notices(path).ok() }
    }

    /// The content is known: it has just been read for another reason.
    pub(super) fn look(&mut self) {
        self.content = std::fs::read(&self.path).ok();
    }

    /// Waits until the file has another content. Cancel-safe: a change is seen by the next call.
    pub(super) async fn changed(&mut self) {
        loop {
            self.wait().await;
            let content = std::fs::read(&self.path).ok();
            // The link may lead elsewhere from now on.
            self.notices = notices(&self.path).ok();
            if content != self.content {
                self.content = content;
                return;
            }
        }
    }

    async fn wait(&self) {
        let Some(notices) = &self.notices else { return tokio::time::sleep(NOW_AND_THEN).await };
        if tokio::time::timeout(NOW_AND_THEN, notices.next()).await.is_ok() {
            let calm = async { while tokio::time::timeout(CALM, notices.next()).await.is_ok() {} };
            let _ = tokio::time::timeout(AT_MOST, calm).await;
        }
    }
}

/// Notices of everything that happens in the directories of the file and of what it is a link to.
fn notices(path: &Path) -> io::Result<Notices> {
    let what = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF;
    let directory = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut directories = BTreeSet::from([directory(path)]);
    directories.extend(path.canonicalize().ok().map(|target| directory(&target)));
    Notices::of(directories, what)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(8);

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn writing_and_renaming_are_changes_and_the_same_content_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("evermq.toml");
        fs::write(&path, "a").unwrap();
        block_on(async {
            let mut watch = FileWatch::new(&path);
            fs::write(&path, "b").unwrap();
            tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap();
            fs::write(directory.path().join("new"), "c").unwrap();
            fs::rename(directory.path().join("new"), &path).unwrap();
            tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap();
            fs::write(&path, "c").unwrap();
            assert!(tokio::time::timeout(2 * CALM, watch.changed()).await.is_err());
            fs::remove_file(&path).unwrap();
            tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap();
        });
    }

    #[test]
    fn a_directory_exchanged_behind_a_link_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for version in ["1", "2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("evermq.toml"), version).unwrap();
        }
        symlink("1", at("data")).unwrap();
        symlink("data/evermq.toml", at("evermq.toml")).unwrap();
        block_on(async {
            let mut watch = FileWatch::new(&at("evermq.toml"));
            symlink("2", at("new")).unwrap();
            fs::rename(at("new"), at("data")).unwrap();
            tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap();
            // Behind the link as well.
            fs::write(at("2/evermq.toml"), "3").unwrap();
            tokio::time::timeout(PATIENCE, watch.changed()).await.unwrap();
        });
    }
}
