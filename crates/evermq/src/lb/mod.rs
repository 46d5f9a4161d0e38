//! `evermq connections`, `evermq backend`, `evermq drain`: what an lb does, seen and steered through its control socket.
//!
//! A control socket is a file on its own host. What is asked for another host is not sent anywhere: the error says how to ask
//! there.

mod backend;
mod connections;
mod drain;
mod render;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use evermq_config::{Cluster, HostName, RoleError};
use evermq_daemon::command::this_host;
use evermq_daemon::control::{self, ControlError};
use serde_json::Value;

use crate::command::CommandError;
use crate::config_file::{ConfigFile, ThisHost};

pub use backend::{BackendArgs, run as run_backend};
pub use connections::{ConnectionsArgs, run as run_connections};
pub use drain::{DrainArgs, run as run_drain};

/// Which lb.
#[derive(Debug, Args)]
pub struct LbArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    host: ThisHost,
    /// How long to wait for each answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why an lb did not do it.
#[derive(Debug, thiserror::Error)]
pub enum LbError {
    /// Nobody answers here, and the host that is meant is another one.
    #[error("{error}; {host} is not this machine, and an lb is asked on its own host: {how}", how = elsewhere(.host))]
    Elsewhere {
        /// The host that is meant.
        host: HostName,
        /// What happened here.
        error: ControlError,
    },
    /// Another host's lb answers here.
    #[error("{path} is the control socket of {answers}, not of {host}: {how}", path = path.display(), how = elsewhere(.host))]
    Other {
        /// The host that is meant.
        host: HostName,
        /// Whose lb answers.
        answers: String,
        /// Where.
        path: PathBuf,
    },
    /// The lb does not run.
    #[error("{0}; start it: systemctl start evermq-lb")]
    Away(#[source] ControlError),
    /// It would not.
    #[error("evermq-lb: {0}")]
    Refused(String),
    /// It answers something else.
    #[error("{0}; is evermq-lb of the same version as evermq? `evermq-lb --version`")]
    Answer(#[source] ControlError),
    /// No broker, or an lb that can do nothing for it any more.
    #[error("{0}")]
    Gone(String),
}

fn elsewhere(host: &HostName) -> String {
    format!("`ssh {host} evermq ...`, or in a lab `evermq lab exec {host} -- evermq ...`")
}

/// One lb.
struct Lb {
    host: HostName,
    socket: PathBuf,
    timeout: Duration,
}

impl Lb {
    /// Which one is meant; none is asked yet.
    ///
    /// # Errors
    /// The cluster file is wrong, or the host is none of its lbs.
    fn of(args: &LbArgs) -> Result<Self, CommandError> {
        let cluster: Cluster = args.config.load()?;
        let host = args.host.find(&cluster)?;
        if !host.lb {
            let (host, role) = (host.name.clone(), "lb");
            return Err(RoleError::WithoutRole { host, role, program: "evermq-lb" }.into());
        }
        Ok(Self {
            host: host.name.clone(),
            socket: cluster.run_dir.join("lb.sock"),
            timeout: Duration::from_millis(args.timeout),
        })
    }

    /// Asks; `longer` is how long the answer takes by itself.
    ///
    /// # Errors
    /// See [`LbError`].
    fn ask(&self, request: &Value, longer: Duration) -> Result<Value, LbError> {
        let answer = control::request(&self.socket, request, self.timeout + longer).map_err(|error| match error {
            ControlError::Refused { text, .. } => LbError::Refused(text),
            error @ ControlError::Answer { .. } => LbError::Answer(error),
            error if self.host.as_str() != this_host() => LbError::Elsewhere { host: self.host.clone(), error },
            error => LbError::Away(error),
        })?;
        match answer["host"].as_str() {
            Some(answers) if answers != self.host.as_str() => {
                Err(LbError::Other { host: self.host.clone(), answers: answers.to_owned(), path: self.socket.clone() })
            }
            _ => Ok(answer),
        }
    }
}
