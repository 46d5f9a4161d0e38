//! A virtual router: who holds its address, since when.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Look, Plan};

/// A virtual address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vip {
    /// The virtual router's name.
    pub name: String,
    /// Its first address.
    pub address: String,
    /// Where clients connect.
    pub port: u16,
    /// Who says that it holds it: one, if all is well.
    pub holders: Vec<String>,
    /// Since when the first of them does (RFC 3339).
    pub since: Option<String>,
    /// How many lb hosts have said whether they do, and how many there are.
    pub asked: (usize, usize),
}

impl Vip {
    pub(super) fn new(name: &str, address: &str, plan: &Plan, looks: &[Look]) -> Self {
        let mut vip = Self {
            name: name.to_owned(),
            address: address.to_owned(),
            port: plan.port,
            holders: Vec::new(),
            since: None,
            asked: (0, plan.hosts.iter().filter(|host| host.lb).count()),
        };
        for (host, look) in plan.hosts.iter().zip(looks) {
            let Look::Said(report) = look else { continue };
            let Some(program) = report.program("evermq-vip") else { continue };
            // A program that has ended holds nothing: it, its guard or the unit has taken the address away.
            vip.asked.0 += 1;
            let Some(instance) = instance(&program.state, name) else { continue };
            if instance["state"] == "master" {
                vip.holders.push(host.name.clone());
                if vip.since.is_none() {
                    vip.since = instance["since"].as_str().map(str::to_owned);
                }
            }
        }
        vip
    }

    /// Whether a host holds it.
    #[must_use]
    pub fn is_held_by(&self, host: &str) -> bool {
        self.holders.iter().any(|holder| holder == host)
    }
}

fn instance<'a>(state: &'a Value, name: &str) -> Option<&'a Value> {
    state["instances"].as_array()?.iter().find(|instance| instance["name"] == name)
}
