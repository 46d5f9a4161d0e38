//! Having something done by another host of the cluster, at its endpoint (`[admin]`), as its page does it.

use std::time::Duration;

use evermq_admin::remote::RemoteError;
use evermq_config::Cluster;
use evermq_config::cluster::Host;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::command::CommandError;
use crate::hosts::{CertificateArgs, Hosts};
use crate::output;

/// Why another host did not do it.
#[derive(Debug, thiserror::Error)]
pub enum AfarError {
    /// It cannot be asked.
    #[error("{host} cannot be asked from here: {why}; or run this there: `ssh {host} evermq ...`", why = what_to_do(.why))]
    NoDoor {
        /// The host.
        host: String,
        /// Why not.
        why: String,
    },
    /// It does not answer, or would not.
    #[error("{host}: {error}")]
    Remote {
        /// The host.
        host: String,
        /// What happened.
        error: RemoteError,
    },
    /// Nobody else can do it.
    #[error("{silence}; {more}")]
    Only {
        /// Who does not answer.
        silence: Box<AfarError>,
        /// What can be done about it.
        more: &'static str,
    },
}

fn what_to_do(why: &str) -> String {
    let listen = if why.contains("admin.listen") {
        "; with `listen = \"0.0.0.0:9003\"` in its [admin], deployed, it can be"
    } else {
        ""
    };
    format!("{why}{listen}")
}

impl AfarError {
    /// Whether the host may be down: others may do it in its place.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Remote { error: RemoteError::Slow { .. } | RemoteError::Connect { .. }, .. })
    }
}

/// The other hosts.
#[derive(Debug)]
pub struct Afar {
    runtime: Runtime,
    hosts: Hosts,
    timeout: Duration,
}

impl Afar {
    /// Of a cluster, asked from `this` if that is one of its hosts. Nobody is asked yet.
    ///
    /// # Errors
    /// The certificate that was named cannot be used, or the system has no runtime to give.
    pub fn new(
        cluster: &Cluster,
        this: Option<&Host>,
        certificate: &CertificateArgs,
        timeout: Duration,
    ) -> Result<Self, CommandError> {
        let hosts = Hosts::new(cluster, this, certificate, timeout)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, hosts, timeout })
    }

    /// Asks a host for `path`.
    ///
    /// # Errors
    /// See [`AfarError`].
    pub fn get(&mut self, host: &str, path: &str) -> Result<Value, AfarError> {
        self.ask(host, path, None)
    }

    /// Has a host do something.
    ///
    /// # Errors
    /// See [`AfarError`].
    pub fn post(&mut self, host: &str, path: &str, body: &Value) -> Result<Value, AfarError> {
        self.ask(host, path, Some(body))
    }

    fn ask(&mut self, host: &str, path: &str, body: Option<&Value>) -> Result<Value, AfarError> {
        let Self { runtime, hosts, timeout } = self;
        let door = hosts.door(host).map_err(|why| AfarError::NoDoor { host: host.to_owned(), why })?;
        let answer = runtime.block_on(async {
            match body {
                Some(body) => door.post(path, body, *timeout).await,
                None => door.get(path, *timeout).await,
            }
        });
        answer.map_err(|error| AfarError::Remote { host: host.to_owned(), error })
    }

    /// Has all of these hosts do something, and says of those that did not why, unless none did.
    ///
    /// # Errors
    /// Why the first one did not, where none did.
    pub fn post_to_each(
        &mut self,
        hosts: &[String],
        path: &str,
        body: &Value,
    ) -> Result<Vec<(String, Value)>, AfarError> {
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for host in hosts {
            match self.post(host, path, body) {
                Ok(answer) => done.push((host.clone(), answer)),
                Err(error) => failed.push(error),
            }
        }
        if done.is_empty() && !failed.is_empty() {
            return Err(failed.swap_remove(0));
        }
        for error in failed {
            output::complain(&format!("evermq: {error}"));
        }
        Ok(done)
    }
}
