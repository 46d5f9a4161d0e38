//! What the hosts' reports come to: who holds the VIP since when, a row for each host, and the verdict on all of it.

use evermq_config::Cluster;
use evermq_daemon::health::Health;
use serde::{Deserialize, Serialize};

use crate::report::HostReport;

mod row;
mod verdict;
mod vip;

pub use self::row::{Backend, Lag, Peer, Row};
pub use self::verdict::{CERTIFICATE_SOON, LAG_SOON};
pub use self::vip::Vip;

/// What is looked for: the cluster file's part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The cluster's name.
    pub cluster: String,
    /// The virtual routers: name and first address.
    pub vips: Vec<(String, String)>,
    /// The port that clients connect to.
    pub port: u16,
    /// The hosts in the file's order.
    pub hosts: Vec<PlannedHost>,
}

/// A host of the cluster file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedHost {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Whether it runs evermq-lb.
    pub lb: bool,
    /// Whether it runs evermq-broker.
    pub broker: bool,
}

/// What came of asking a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// It says this.
    Said(HostReport),
    /// It does not answer, and why.
    Silent(String),
    /// Nobody asked, and why.
    NotAsked(String),
}

/// The whole cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// Its name.
    pub cluster: String,
    /// All in all: down where clients are not served, degraded where something needs a hand.
    pub verdict: Health,
    /// Why it is not up: what is worst comes first.
    pub reasons: Vec<String>,
    /// Each virtual router.
    pub vips: Vec<Vip>,
    /// Days until the first of the hosts' certificates ends.
    pub certificate_days: Option<i64>,
    /// Each host, in the file's order.
    pub hosts: Vec<Row>,
}

impl Plan {
    /// Of the cluster file.
    #[must_use]
    pub fn new(cluster: &Cluster) -> Self {
        let routers = cluster.virtual_routers.iter();
        let vip = |router: &evermq_config::vip::VirtualRouter| {
            (router.name.clone(), router.addresses.first().map(ToString::to_string).unwrap_or_default())
        };
        let held = cluster.vip.as_ref().is_some_and(|vip| vip.mode == evermq_config::vip::VipMode::Vrrp);
        Self {
            cluster: cluster.name.as_str().to_owned(),
            vips: if held { routers.map(vip).collect() } else { Vec::new() },
            port: cluster.lb.listen().port(),
            hosts: cluster
                .hosts
                .iter()
                .map(|host| PlannedHost {
                    name: host.name.to_string(),
                    address: host.address.to_string(),
                    lb: host.lb,
                    broker: host.broker,
                })
                .collect(),
        }
    }
}

impl Overview {
    /// Of what came of asking the hosts, in the plan's order.
    #[must_use]
    pub fn new(plan: &Plan, looks: &[Look], now_ms: u64) -> Self {
        let hosts: Vec<Row> = plan.hosts.iter().zip(looks).map(|(host, look)| Row::new(host, look, now_ms)).collect();
        let vips: Vec<Vip> = plan.vips.iter().map(|(name, address)| Vip::new(name, address, plan, looks)).collect();
        let (verdict, reasons) = verdict::of(plan, &vips, &hosts);
        Self {
            cluster: plan.cluster.clone(),
            verdict,
            reasons,
            vips,
            certificate_days: hosts.iter().filter_map(|host| host.certificate_days).min(),
            hosts,
        }
    }
}

#[cfg(test)]
mod tests;
