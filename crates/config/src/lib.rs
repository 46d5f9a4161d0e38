//! The one cluster file: parse, validate, locate.
//!
//! [`Loaded::from_file`] reads `evermq.toml` and gives either a [`Cluster`] whose values cannot be wrong, or a [`Report`] of
//! every problem, each with file, line, column, the offending text and what to write instead. A program then takes its
//! host's view of it: [`Cluster::vip_for`], [`Cluster::lb_for`], [`Cluster::broker_for`].
//!
//! | module | subject |
//! |---|---|
//! | [`cluster`] | the whole file as validated types |
//! | [`roles`] | what one program on one host takes from it |
//! | [`names`] | identities: host names, cluster name, VRID |
//! | [`report`] | problems and how they are shown |

pub mod cluster;
pub mod names;
pub mod roles;

pub use cluster::Cluster;
pub use names::{ClusterName, HostName, Vrid};
pub use roles::{BrokerConfig, LbConfig, RoleError, TlsFiles, VipConfig};
