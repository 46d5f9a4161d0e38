//! `--config` and `--host`, as every command that reads the cluster file takes them.

use std::path::{Path, PathBuf};

use clap::Args;
use evermq_config::cluster::Host;
use evermq_config::{Cluster, Report, RoleError};
use evermq_daemon::command::{DEFAULT_CONFIG, this_host};

/// `--config PATH`
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The cluster file
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

/// `--host NAME`
#[derive(Debug, Args)]
pub struct ThisHost {
    /// Which host of the cluster file this is [default: this machine's host name]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

impl ConfigFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.config
    }

    /// What it says. Its warnings are for `evermq check`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self) -> Result<Cluster, Report> {
        evermq_config::load(&self.config).map(|loaded| loaded.cluster)
    }
}

impl ThisHost {
    /// The host of the cluster that was named.
    ///
    /// # Errors
    /// The name, or this machine's, is not in the cluster file.
    pub fn find<'a>(&self, cluster: &'a Cluster) -> Result<&'a Host, RoleError> {
        let name = self.host.clone().unwrap_or_else(this_host);
        let hosts = &cluster.hosts;
        hosts.iter().find(|host| host.name.as_str() == name).ok_or_else(|| RoleError::UnknownHost {
            host: name,
            known: hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// The same; none where nobody was named and this machine is no host of the cluster, as a laptop is not.
    ///
    /// # Errors
    /// The name is not in the cluster file: who names one means it.
    pub fn find_if_any<'a>(&self, cluster: &'a Cluster) -> Result<Option<&'a Host>, RoleError> {
        match self.find(cluster) {
            Err(_) if self.host.is_none() => Ok(None),
            found => found.map(Some),
        }
    }
}
