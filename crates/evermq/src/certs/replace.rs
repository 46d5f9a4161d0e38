//! Files that others may read at any moment: replaced as a whole, so that a reader sees the old one or the new one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::CertsError;

/// New contents for files that may be there already. Nothing is in their places before all of it is on the disk.
#[derive(Default)]
pub struct Replacement {
    files: Vec<Staged>,
}

struct Staged {
    path: PathBuf,
    contents: String,
    mode: u32,
}

impl Replacement {
    /// A certificate or a list, which everyone may read.
    pub fn public(&mut self, path: PathBuf, contents: String) {
        self.files.push(Staged { path, contents, mode: 0o644 });
    }

    /// A key, which only its owner may read.
    pub fn key(&mut self, path: PathBuf, contents: String) {
        self.files.push(Staged { path, contents, mode: 0o600 });
    }

    /// Puts all of them in place, in the order in which they were given.
    ///
    /// # Errors
    /// The disk refuses. Files that are not yet in place are as they were.
    pub fn write(&self) -> Result<(), CertsError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| CertsError::Replace { path, source }
        };
        for (index, file) in self.files.iter().enumerate() {
            if let Err(error) = file.stage() {
                self.files[..=index].iter().for_each(Staged::forget);
                return Err(failed(&file.path)(error));
            }
        }
        for (index, file) in self.files.iter().enumerate() {
            if let Err(error) = fs::rename(file.beside(), &file.path) {
                self.files[index..].iter().for_each(Staged::forget);
                return Err(failed(&file.path)(error));
            }
        }
        Ok(())
    }
}

impl Staged {
    /// In the same directory, so that renaming is one step; hidden, and not called like a certificate.
    fn beside(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(format!(".{name}.new"))
    }

    fn stage(&self) -> io::Result<()> {
        // What an earlier call left when it was cut off.
        self.forget();
        let mut file = OpenOptions::new().write(true).create_new(true).mode(self.mode).open(self.beside())?;
        file.write_all(self.contents.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(self.mode))?;
        file.sync_all()
    }

    fn forget(&self) {
        let _ = fs::remove_file(self.beside());
    }
}

/// Moves a file into `directory` beside it, which is made where it is missing, under another name.
///
/// # Errors
/// The file system refuses.
pub fn put_away(path: &Path, directory: &Path, name: &str) -> Result<(), CertsError> {
    super::files::make_dir(directory)?;
    fs::rename(path, directory.join(name)).map_err(|source| CertsError::Replace { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_nothing_and_nothing_left_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("a.crt"), "old").unwrap();
        let mut new = Replacement::default();
        new.public(path("a.crt"), "new".into());
        new.key(path("a.key"), "key".into());
        new.write().unwrap();
        assert_eq!(fs::read_to_string(path("a.crt")).unwrap(), "new");
        assert_eq!(fs::metadata(path("a.key")).unwrap().permissions().mode() & 0o7777, 0o600);
        let mut bad = Replacement::default();
        bad.public(path("a.crt"), "newer".into());
        bad.public(path("nowhere/b.crt"), "never".into());
        assert!(matches!(bad.write(), Err(CertsError::Replace { .. })));
        assert_eq!(fs::read_to_string(path("a.crt")).unwrap(), "new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
