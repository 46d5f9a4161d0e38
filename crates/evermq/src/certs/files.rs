//! Certificates and keys on disk: all of them or none, never over an existing file, keys never readable by others.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::CertsError;

/// Files that are to be made together.
#[derive(Default)]
pub struct NewFiles {
    files: Vec<NewFile>,
}

struct NewFile {
    path: PathBuf,
    contents: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Certificate,
    Key,
}

impl Kind {
    const fn mode(self) -> u32 {
        match self {
            Self::Certificate => 0o644,
            Self::Key => 0o600,
        }
    }
}

impl NewFiles {
    /// Adds a certificate, which everyone may read.
    pub fn certificate(&mut self, path: PathBuf, pem: String) {
        self.files.push(NewFile { path, contents: pem, kind: Kind::Certificate });
    }

    /// Adds a private key, which only its owner may read.
    pub fn key(&mut self, path: PathBuf, pem: String) {
        self.files.push(NewFile { path, contents: pem, kind: Kind::Key });
    }

    /// Makes the files. If one cannot be made, those made before it are removed again.
    ///
    /// # Errors
    /// One of the files exists, or the disk refuses.
    pub fn write(&self) -> Result<(), CertsError> {
        refuse_existing(self.files.iter().map(|file| file.path.as_path()))?;
        for (index, file) in self.files.iter().enumerate() {
            if let Err(error) = file.write() {
                for made in &self.files[..index] {
                    let _ = fs::remove_file(&made.path);
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Says which of `paths` exist already, if any; a dangling symbolic link is in the way too.
///
/// # Errors
/// At least one exists.
pub fn refuse_existing<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<(), CertsError> {
    let files: Vec<PathBuf> = paths.filter(|path| path.symlink_metadata().is_ok()).map(Path::to_owned).collect();
    if files.is_empty() { Ok(()) } else { Err(CertsError::InTheWay { files }) }
}

/// Makes the directory and its parents where missing.
///
/// # Errors
/// The file system refuses, or something else has that name.
pub fn make_dir(dir: &Path) -> Result<(), CertsError> {
    fs::create_dir_all(dir).map_err(|source| CertsError::MakeDir { path: dir.to_owned(), source })
}

impl NewFile {
    fn write(&self) -> Result<(), CertsError> {
        // O_EXCL and the mode at creation: a key is never open to others, and a file or link that somebody puts there
        // between the check and now is not written through.
        let mut file = match OpenOptions::new().write(true).create_new(true).mode(self.kind.mode()).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(CertsError::InTheWay { files: vec![self.path.clone()] });
            }
            Err(source) => return Err(self.failed(source)),
        };
        let written = file
            .write_all(self.contents.as_bytes())
            // A strict umask must not keep a certificate from the programs that need it.
            .and_then(|()| file.set_permissions(fs::Permissions::from_mode(self.kind.mode())))
            .and_then(|()| file.sync_all());
        written.map_err(|source| {
            let _ = fs::remove_file(&self.path);
            self.failed(source)
        })
    }

    fn failed(&self, source: io::Error) -> CertsError {
        CertsError::Write { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn pair(dir: &Path) -> NewFiles {
        let mut files = NewFiles::default();
        files.certificate(dir.join("a.crt"), "certificate".into());
        files.key(dir.join("a.key"), "key".into());
        files
    }

    #[test]
    fn keys_are_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        pair(dir.path()).write().unwrap();
        assert_eq!(mode(&dir.path().join("a.crt")), 0o644);
        assert_eq!(mode(&dir.path().join("a.key")), 0o600);
        assert_eq!(fs::read_to_string(dir.path().join("a.key")).unwrap(), "key");
    }

    #[test]
    fn an_existing_file_stops_all_of_them() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.key"), "precious").unwrap();
        let error = pair(dir.path()).write().unwrap_err();
        assert!(matches!(error, CertsError::InTheWay { files } if files == [dir.path().join("a.key")]));
        assert!(!dir.path().join("a.crt").exists());
        assert_eq!(fs::read_to_string(dir.path().join("a.key")).unwrap(), "precious");
    }

    #[test]
    fn a_dangling_link_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), dir.path().join("a.key")).unwrap();
        assert!(matches!(pair(dir.path()).write(), Err(CertsError::InTheWay { .. })));
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = pair(dir.path());
        files.key(dir.path().join("missing/b.key"), "key".into());
        assert!(matches!(files.write(), Err(CertsError::Write { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
