//! The one cluster file: parse, validate, locate.
//!
//! [`load`] reads `evermq.toml` and gives either a [`Cluster`] whose values cannot be wrong, or a [`Report`] of every
//! problem, each with file, line, column, the offending text and what to write instead. A program then takes its host's
//! view of it: [`Cluster::vip_for`], [`Cluster::lb_for`], [`Cluster::broker_for`].
//!
//! | module | subject |
//! |---|---|
//! | [`cluster`] | the whole file as validated types |
//! | [`broker`] | `[broker]` as validated types: listeners, limits, the store, who may do what |
//! | [`bridges`] | `[[bridges]]` as validated types: brokers that are not of the cluster |
//! | [`admin`] | `[admin]` as validated types: who may see and act where |
//! | [`lb`] | `[lb]` as validated types: listeners, backends, routes, limits |
//! | [`vip`] | `[vip]` as validated types: virtual routers, tracks, quorum |
//! | [`roles`] | what one program on one host takes from it |
//! | [`names`] | identities: host names, cluster name, VRID |
//! | [`report`] | problems and how they are shown |
//! | `section` | reads one table key by key, collecting problems |
//! | `value` | durations, sizes, addresses as they are written in the file |
//! | `decode` | one function for each table of the file |
//! | `consistency` | what only shows when sections are held against each other |
//! | [`certificates`] | the files that `[tls]` names |

pub mod admin;
pub mod bridges;
pub mod broker;
pub mod certificates;
pub mod cluster;
mod consistency;
mod decode;
pub mod lb;
pub mod names;
pub mod report;
pub mod roles;
mod section;
mod value;
pub mod vip;

use std::path::Path;

pub use bridges::BridgeConfig;
pub use cluster::Cluster;
pub use names::{ClusterName, HostName, Vrid};
pub use report::{Problem, Report, Severity};
pub use roles::{
    BackendConfig, BrokerConfig, LbConfig, LbHost, Peer, QuorumConfig, RoleError, TlsFiles, VipConfig, VipInstance,
    Voter,
};

/// A good cluster file.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it says.
    pub cluster: Cluster,
    /// What it says and should perhaps not.
    pub warnings: Report,
    /// The keys that it leaves to their defaults, such as `lb.balance`.
    pub defaulted: Vec<String>,
}

/// Reads and validates the cluster file. Relative paths in it are taken from the file's directory.
///
/// # Errors
/// Every problem of the file, at once.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    let text = std::fs::read_to_string(path).map_err(|error| Report::from(Problem::unreadable(path, &error)))?;
    parse(path, &text)
}

/// Validates `text` as the content of the cluster file at `path`, which is not read.
///
/// # Errors
/// Every problem of the text, at once.
pub fn parse(path: &Path, text: &str) -> Result<Loaded, Report> {
    let source = section::Source::new(path, text);
    let (cluster, defaulted) = decode::cluster(&source);
    let report = Report { problems: source.into_problems() };
    match cluster {
        Some(cluster) if !report.has_errors() => Ok(Loaded { cluster, warnings: report, defaulted }),
        _ => Err(report),
    }
}

#[cfg(test)]
mod tests;
