//! Asking the program of one role on its control socket.
//!
//! A control socket is a file on its own host. What is asked for another host is not sent anywhere: the error says how to ask
//! there.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use evermq_config::cluster::Host;
use evermq_config::{Cluster, HostName, RoleError};
use evermq_daemon::command::this_host;
use evermq_daemon::control::{self, ControlError};
use serde_json::Value;

use crate::command::CommandError;
use crate::config_file::{ConfigFile, ThisHost};

/// Which host's program, and how.
#[derive(Debug, Args)]
pub struct ProgramArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    host: ThisHost,
    /// How long to wait for each answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl ProgramArgs {
    /// The file, and the host that is meant: none where nobody was named and this machine is no host of the cluster.
    ///
    /// # Errors
    /// The cluster file is wrong, or does not have the host that was named.
    pub fn load(&self) -> Result<(Cluster, Option<Host>), CommandError> {
        let cluster = self.config.load()?;
        let host = self.host.find_if_any(&cluster)?.cloned();
        Ok((cluster, host))
    }

    /// For each answer.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout)
    }
}

/// A role of hosts, and the program that has it.
#[derive(Debug, Clone, Copy)]
pub struct Role {
    /// As `roles` has it.
    pub name: &'static str,
    /// Its program.
    pub program: &'static str,
    /// Its control socket in `run_dir`.
    pub socket: &'static str,
    /// Whether a host has it.
    pub has: fn(&Host) -> bool,
}

/// Why a program did not do it.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody answers here, and the host that is meant is another one.
    #[error("{error}; {host} is not this machine, and its {role} is asked there: {how}", how = elsewhere(.host))]
    Elsewhere {
        /// The host that is meant.
        host: HostName,
        /// The role that was asked for.
        role: &'static str,
        /// What happened here.
        error: ControlError,
    },
    /// Another host's program answers here.
    #[error("{path} is the control socket of {answers}, not of {host}: {how}", path = path.display(), how = elsewhere(.host))]
    Other {
        /// The host that is meant.
        host: HostName,
        /// Whose program answers.
        answers: String,
        /// Where.
        path: PathBuf,
    },
    /// The program does not run.
    #[error("{error}; start it: systemctl start {program}")]
    Away {
        /// The program.
        program: &'static str,
        /// What happened.
        error: ControlError,
    },
    /// It would not.
    #[error("{program}: {text}")]
    Refused {
        /// The program.
        program: &'static str,
        /// Its words.
        text: String,
    },
    /// It answers something else.
    #[error("{error}; is {program} of the same version as evermq? `{program} --version`")]
    Answer {
        /// The program.
        program: &'static str,
        /// What came.
        error: ControlError,
    },
    /// What was asked for is not there, or cannot be done any more.
    #[error("{0}")]
    Gone(String),
}

fn elsewhere(host: &HostName) -> String {
    format!("`ssh {host} evermq ...`, or in a lab `evermq lab exec {host} -- evermq ...`")
}

/// One program.
#[derive(Debug)]
pub struct Program {
    role: Role,
    host: HostName,
    socket: PathBuf,
    timeout: Duration,
}

impl Role {
    /// Which program is meant; it is not asked yet.
    ///
    /// # Errors
    /// The cluster file is wrong, or the host does not have the role.
    pub fn find(self, args: &ProgramArgs) -> Result<Program, CommandError> {
        let cluster = args.config.load()?;
        let host = args.host.find(&cluster)?;
        if !(self.has)(host) {
            let (host, role) = (host.name.clone(), self.name);
            return Err(RoleError::WithoutRole { host, role, program: self.program }.into());
        }
        Ok(Program {
            role: self,
            host: host.name.clone(),
            socket: cluster.run_dir.join(self.socket),
            timeout: args.timeout(),
        })
    }
}

impl Program {
    /// Its host's name.
    #[must_use]
    pub fn host(&self) -> &str {
        self.host.as_str()
    }

    /// Asks; `longer` is how long the answer takes by itself.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn ask(&self, request: &Value, longer: Duration) -> Result<Value, AskError> {
        let answer =
            control::request(&self.socket, request, self.timeout + longer).map_err(|error| self.explain(error))?;
        self.check(&answer)?;
        Ok(answer)
    }

    /// Asks for lines, and gives each to `take` until it breaks or there are no more.
    ///
    /// # Errors
    /// See [`AskError`].
    pub fn follow(&self, request: &Value, mut take: impl FnMut(Value) -> ControlFlow<()>) -> Result<(), AskError> {
        let mut first = true;
        let mut other = None;
        let followed = control::follow(&self.socket, request, self.timeout, |line| {
            if std::mem::take(&mut first)
                && let Err(error) = self.check(&line)
            {
                other = Some(error);
                return ControlFlow::Break(());
            }
            take(line)
        });
        followed.map_err(|error| self.explain(error))?;
        other.map_or(Ok(()), Err)
    }

    fn explain(&self, error: ControlError) -> AskError {
        let program = self.role.program;
        match error {
            ControlError::Refused { text, .. } => AskError::Refused { program, text },
            error @ ControlError::Answer { .. } => AskError::Answer { program, error },
            error if self.host.as_str() != this_host() => {
                AskError::Elsewhere { host: self.host.clone(), role: self.role.name, error }
            }
            error => AskError::Away { program, error },
        }
    }

    fn check(&self, answer: &Value) -> Result<(), AskError> {
        match answer["host"].as_str() {
            Some(answers) if answers != self.host.as_str() => {
                let (host, path) = (self.host.clone(), self.socket.clone());
                Err(AskError::Other { host, answers: answers.to_owned(), path })
            }
            _ => Ok(()),
        }
    }
}
