//! Why a lab does not do what was asked.

use std::io;
use std::path::PathBuf;

use super::plan;

/// Why a lab does not do what was asked. Each text says what to do next.
#[derive(Debug, thiserror::Error)]
pub(super) enum LabError {
    /// No lab of that name.
    #[error("lab \"{name}\" is not up{others}; start it with `evermq lab{options} up`")]
    NotUp {
        /// Its name.
        name: String,
        /// Text about labs that are up.
        others: String,
        /// `--name` and `--dir` where they are not the default.
        options: String,
    },
    /// Its keeper is dead, and with it every process; the directory is still there.
    #[error("lab \"{name}\" is dead: its keeper was killed; remove what is left with `evermq lab{options} down`")]
    Dead {
        /// Its name.
        name: String,
        /// `--name` and `--dir` where they are not the default.
        options: String,
    },
    /// A lab of that name runs.
    #[error(
        "lab \"{name}\" is up already; look at it with `evermq lab{options} status`, end it with `evermq lab{options} down`, \
         or start another one beside it with `evermq lab --name OTHER up`"
    )]
    AlreadyUp {
        /// Its name.
        name: String,
        /// `--name` and `--dir` where they are not the default.
        options: String,
    },
    /// The directory holds something else than a lab.
    #[error("{path} exists and is not a lab's directory; choose another --dir or --name", path = .0.display())]
    NotALab(PathBuf),
    /// The name cannot be used.
    #[error("\"{0}\" is no name for a lab; use 1 to 32 letters, digits and hyphens, none of these at either end")]
    Name(String),
    /// There is no such host.
    #[error("there is no host \"{0}\" in a lab; its hosts: {hosts}", hosts = plan::host_names())]
    UnknownHost(String),
    /// A program of the stack is not where it should be.
    #[error("there is no {program} in {directory}; build the programs (`cargo build --release`), or name their directory with --bin-dir",
        directory = directory.display())]
    NoProgram {
        /// Its name.
        program: &'static str,
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// The kernel or the system's settings forbid it.
    #[error("{action}: {source}; {advice}")]
    Kernel {
        /// What was tried.
        action: String,
        /// What the kernel says.
        source: io::Error,
        /// What to do.
        advice: String,
    },
    /// A file, socket or process.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why not.
        source: io::Error,
    },
    /// The cluster file, as `--set` changes it, is wrong.
    #[error(transparent)]
    Config(#[from] evermq_config::Report),
    /// A `--set` that is not `SECTION.KEY=VALUE`.
    #[error("\"{0}\" is no setting; write SECTION.KEY=VALUE, for example lb.balance=round_robin")]
    Setting(String),
    /// The certificates could not be made.
    #[error("cannot make the lab's certificates")]
    Certificates(#[from] crate::certs::CertsError),
    /// The keeper or a host says no.
    #[error("{0}")]
    Refused(String),
    /// Not in time.
    #[error("{0}")]
    NotReady(String),
    /// The operator wants to stop.
    #[error("interrupted")]
    Interrupted,
}

impl LabError {
    /// `source` with the words for what was tried.
    pub(super) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// The same for an error number.
    pub(super) fn errno(action: impl Into<String>) -> impl FnOnce(nix::Error) -> Self {
        let action = action.into();
        move |errno| Self::Io { action, source: errno.into() }
    }
}
