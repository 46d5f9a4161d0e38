//! The directory and its files, as far as the log needs them. Behind a trait, so that tests can lose what was not synced.

use std::fmt::Debug;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::unistd::fdatasync;

/// A directory.
pub(crate) trait Disk: Debug + Send + Sync {
    /// Names and lengths of its files, in no order.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// A new file; fails if there is one.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;
    /// A file that is there.
    fn open(&self, name: &str) -> io::Result<Box<dyn File>>;
    /// Another name for a file.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Which files there are is on the disk afterwards.
    fn sync_names(&self) -> io::Result<()>;
}

/// A file.
pub(crate) trait File: Debug + Send + Sync {
    /// Its first `len` bytes, or all if it is shorter, in the place of what is in `out`.
    fn read(&self, out: &mut Vec<u8>, len: u64) -> io::Result<()>;
    /// Writes all of `bytes`. After an error any part of them may be written.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// What was written is on the disk afterwards. After an error nobody knows what is.
    fn sync(&self) -> io::Result<()>;
    /// Takes room for the first `len` bytes; false if the file system cannot do this.
    fn allocate(&self, len: u64) -> io::Result<bool>;
    /// Its length is `len` from now on.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// What is read next comes from the disk, not from memory that may claim more than the disk has.
    fn forget_cached(&self);
}

/// A directory of the system.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    handle: fs::File,
    read_only: bool,
}

impl Directory {
    /// Opens it, and makes it for its owner alone (0700) if it is not there.
    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        let made =
            path.ancestors().take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists()).count();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        // What is in a directory that is gone after a power failure is gone too.
        for parent in path.ancestors().skip(1).take(made) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            fs::File::open(parent)?.sync_all()?;
        }
        Ok(Self { path: path.to_owned(), handle: fs::File::open(path)?, read_only: false })
    }

    /// Opens it for reading.
    pub(crate) fn read_only(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), handle: fs::File::open(path)?, read_only: true })
    }
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // What has no text for a name is not ours.
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => files.push((name, metadata.len())),
                Ok(_) => {}
                // A running broker may remove it at any time.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(Box::new(options.open(self.path.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(OpenOptions::new().read(true).write(!self.read_only).open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

impl File for fs::File {
    fn read(&self, out: &mut Vec<u8>, len: u64) -> io::Result<()> {
        let len = usize::try_from(self.metadata()?.len().min(len)).map_err(io::Error::other)?;
        out.resize(len, 0);
        let mut filled = 0;
        while filled < len {
            match self.read_at(&mut out[filled..], filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        out.truncate(filled);
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fdatasync(self)?)
    }

    fn allocate(&self, len: u64) -> io::Result<bool> {
        let len = i64::try_from(len).map_err(io::Error::other)?;
        loop {
            match fallocate(self, FallocateFlags::empty(), 0, len) {
                Ok(()) => return Ok(true),
                Err(Errno::EINTR) => {}
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        fs::File::set_len(self, len)
    }

    fn forget_cached(&self) {
        // A hint: where the system does not take it, what is in memory is read, as it would be without.
        let _ = posix_fadvise(self, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}

/// Whether the error says that there is no room, which may pass.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

#[cfg(any(test, feature = "simulated-disk"))]
pub(crate) mod simulated;
