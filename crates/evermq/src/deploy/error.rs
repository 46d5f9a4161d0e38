//! Why hosts were not changed, or not all.

use std::io;
use std::path::PathBuf;

use evermq_config::HostName;

use super::files::FilesError;
use crate::remote::RemoteError;

/// Why hosts were not changed, or not all.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A host was not reached; nothing has been changed anywhere.
    #[error("host {host}: {error}; nothing was changed")]
    Look {
        /// Which.
        host: String,
        /// Why.
        error: RemoteError,
    },
    /// A host cannot be changed.
    #[error("host {host} {what}; nothing was changed")]
    Host {
        /// Which.
        host: String,
        /// Why not, and what to do.
        what: String,
    },
    /// A file is missing here.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A directory of packages cannot be read.
    #[error("cannot read the directory {}; `make packages` fills target/packages", path.display())]
    Packages {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The host to be added is there.
    #[error("host \"{0}\" is in the cluster file already; run `evermq deploy` without --add-host")]
    Known(HostName),
    /// The cluster file cannot be written.
    #[error("cannot write {}; check who may write it", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A step failed. What the hosts are like has been told.
    #[error("it is not done: {0}")]
    Failed(String),
}

impl DeployError {
    /// Whether the command line or what it names has to change, rather than the hosts.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Files(_) | Self::Packages { .. } | Self::Known(_))
    }
}
