//! What can go wrong with a store, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made or used.
    #[error(
        "cannot use the store's directory {}: {source}; it must belong to the user as whom the broker runs (user {user}), \
         with mode 0700, on a file system that is mounted for writing",
        path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The user number of this process.
        user: u32,
        /// The cause.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "the store in {} is in use by process {holder}; two brokers need two directories: set another broker.store.path, \
         or stop the other one",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// What the other process wrote down of itself.
        holder: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {what} {} of the store: {source}", file.display())]
    File {
        /// What was to be done.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It was written by another version.
    #[error(
        "{} has version {version} of the store's format, this program knows version {known}; run the version of EverMQ \
         that wrote it, or move the directory away to begin without it",
        file.display()
    )]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: u16,
        /// The version that is known here.
        known: u16,
    },
    /// No file says which store it belongs to.
    #[error(
        "no segment in {} has a readable header, so nothing of the store can be read; restore the directory from a copy, \
         or move it away to begin without it",
        path.display()
    )]
    Unreadable {
        /// The directory.
        path: PathBuf,
    },
    /// There is no store.
    #[error("there is no store in {}", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread of the store: {0}")]
    Thread(#[source] io::Error),
}
