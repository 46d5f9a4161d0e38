//! What has been gathered from all files: the cluster file so far, the hosts that they name, and what became of each line.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use evermq_config::{ClusterName, HostName};

use super::finding::{Finding, Outcome, Place};
use crate::init::draft::{Draft, Table, Value};
use crate::init::site::{Site, SiteError, USUAL_NAME};

/// Gathered from all files.
#[derive(Debug)]
pub struct Model {
    /// The cluster file so far, without its hosts.
    pub draft: Draft,
    /// What became of each line.
    pub findings: Vec<Finding>,
    /// The hosts, as options name them and files know them.
    pub hosts: Vec<KnownHost>,
    /// Names and addresses of /etc/hosts.
    pub known: BTreeMap<String, Ipv4Addr>,
    /// What nginx passes clients to, and the group of brokers that it is in.
    pub groups: BTreeMap<String, String>,
    /// Every virtual address.
    pub vips: Vec<IpAddr>,
    /// The interface of the first virtual router, if its file says it.
    pub interface: Option<String>,
    /// The VIP takes part beside keepalived for a while.
    pub beside: bool,
}

/// A host that something names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHost {
    /// Its name, if an option said it.
    pub name: Option<HostName>,
    /// Its address.
    pub address: Ipv4Addr,
    /// Passes clients on.
    pub lb: bool,
    /// Is a broker.
    pub broker: bool,
    /// keepalived's priority there.
    pub priority: Option<u8>,
    /// keepalived's interface there.
    pub interface: Option<String>,
}

impl Model {
    /// Nothing yet, but for the hosts that options name.
    #[must_use]
    pub fn new(
        lbs: &[(HostName, Ipv4Addr)],
        brokers: &[(HostName, Ipv4Addr)],
        known: BTreeMap<String, Ipv4Addr>,
        beside: bool,
    ) -> Self {
        let mut draft = Draft::default();
        // It stands first.
        draft.table("cluster").set("name", USUAL_NAME, "");
        let mut model = Self {
            draft,
            findings: Vec::new(),
            hosts: Vec::new(),
            known,
            groups: BTreeMap::new(),
            vips: Vec::new(),
            interface: None,
            beside,
        };
        for (named, is_lb) in lbs.iter().map(|host| (host, true)).chain(brokers.iter().map(|host| (host, false))) {
            let host = model.host(named.1);
            host.name = Some(named.0.clone());
            host.lb |= is_lb;
            host.broker |= !is_lb;
        }
        model
    }

    /// The host of that address, added where it is new.
    pub fn host(&mut self, address: Ipv4Addr) -> &mut KnownHost {
        let at = self.hosts.iter().position(|host| host.address == address).unwrap_or_else(|| {
            let (name, interface) = (None, None);
            self.hosts.push(KnownHost { name, address, lb: false, broker: false, priority: None, interface });
            self.hosts.len() - 1
        });
        &mut self.hosts[at]
    }

    /// An address, or the one of a host's name.
    #[must_use]
    pub fn address_of(&self, host: &str) -> Option<Ipv4Addr> {
        let named = |known: &&KnownHost| known.name.as_ref().is_some_and(|name| name.as_str() == host);
        host.parse().ok().or_else(|| self.hosts.iter().find(named).map(|known| known.address)).or_else(|| {
            let short = host.split('.').next().unwrap_or_default();
            self.known.get(host).or_else(|| self.known.get(short)).copied()
        })
    }

    /// Notes what became of a line.
    pub fn note(&mut self, place: &Place, text: &str, outcome: Outcome) {
        self.findings.push(Finding { place: place.clone(), text: text.to_owned(), outcome });
    }

    /// A line that is in the file now, under that key of a table.
    pub fn keep(&mut self, at: (&Place, &str), table: &'static str, key: &'static str, value: impl Into<Value>) {
        self.draft.table(table).set(key, value, "");
        self.note(at.0, at.1, Outcome::Kept { key: format!("{table}.{key}") });
    }

    /// A line that is in the file now, but not quite as it was.
    pub fn alter(
        &mut self,
        at: (&Place, &str),
        table: &'static str,
        key: &'static str,
        value: impl Into<Value>,
        why: &str,
    ) {
        self.draft.table(table).set(key, value, "");
        self.note(at.0, at.1, Outcome::Differs { why: why.to_owned() });
    }

    /// A line that says what is so in any case.
    pub fn usual(&mut self, at: (&Place, &str), why: &str) {
        self.note(at.0, at.1, Outcome::Usual { why: why.to_owned() });
    }

    /// A line whose counterpart is not quite the same, or is not said.
    pub fn differs(&mut self, at: (&Place, &str), why: &str) {
        self.note(at.0, at.1, Outcome::Differs { why: why.to_owned() });
    }

    /// A line without a counterpart.
    pub fn leave(&mut self, at: (&Place, &str), why: &str) {
        self.note(at.0, at.1, Outcome::Left { why: why.to_owned() });
    }

    /// The hosts as a site, each with a name: its own, that of /etc/hosts, or its role and a number.
    ///
    /// # Errors
    /// There is no host of a role, or one has two addresses.
    pub fn site(&self, name: ClusterName, port: u16) -> Result<(Site, Vec<String>), SiteError> {
        let mut site = Site { name, vip: None, port, interface: None, hosts: Vec::new() };
        let (mut notes, mut lbs, mut brokers) = (Vec::new(), 0, 0);
        for host in &self.hosts {
            let count = if host.lb { &mut lbs } else { &mut brokers };
            *count += 1;
            let made = format!("{}{count}", if host.lb { "lb" } else { "broker" });
            let known = self.known.iter().filter(|(_, address)| **address == host.address);
            let known = known.filter_map(|(name, _)| HostName::new(name.split('.').next().unwrap_or_default())).next();
            let name = host.name.clone().or(known).unwrap_or_else(|| {
                notes.push(format!(
                    "{} is called \"{made}\" here: change it to what `hostname -s` prints there, or name it with {} NAME={}",
                    host.address,
                    if host.lb { "--lb" } else { "--broker" },
                    host.address
                ));
                HostName::new(&made).expect("a role and a number are a host's name")
            });
            site.add(&name, host.address, host.lb, host.broker)?;
        }
        site.check()?;
        Ok((site, notes))
    }

    /// The port that clients connect to, so far.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.draft.value("lb", "listen")?.rsplit(':').next()?.parse().ok()
    }

    /// Writes `[[hosts]]`.
    pub fn write_hosts(&mut self, site: &Site) {
        site.hosts(&mut self.draft);
        let mut used = Vec::new();
        for (index, host) in site.hosts.iter().enumerate() {
            let Some(known) = self.hosts.iter().find(|known| known.address == host.address) else { continue };
            let Some(table) = self.draft.nth("hosts", index) else { continue };
            set_lb_keys(table, host.lb, known, &mut used);
        }
    }
}

fn set_lb_keys(table: &mut Table, is_lb: bool, known: &KnownHost, used: &mut Vec<u8>) {
    if !is_lb {
        return;
    }
    if let Some(priority) = known.priority.filter(|priority| *priority >= 2 && !used.contains(priority)) {
        used.push(priority);
        table.set("vip_priority", u64::from(priority), "keepalived's");
    }
    if let Some(interface) = &known.interface {
        table.set("interface", interface.as_str(), "keepalived's");
    }
}
