//! The inventory of the Ansible bundle for mosquitto, nginx and keepalived, as a site.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use evermq_config::{ClusterName, HostName};

use super::inventory::{Entry, Inventory, InventoryError};
use super::site::{Site, SiteError, USUAL_NAME, USUAL_PORT};

/// The groups that the bundle knows.
const GROUPS: [&str; 9] = [
    "mosquitto-master",
    "mosquitto-broker",
    "mosquitto-broker-address",
    "mosquitto-nginx-keepalived",
    "keepalived-vip",
    "vip-port",
    "add-broker",
    "add-broker-address",
    "ungrouped",
];

/// A site out of an inventory, and what an operator should know of how it came about.
#[derive(Debug)]
pub struct Read {
    /// The site.
    pub site: Site,
    /// What was not taken as it stands there, a sentence each.
    pub notes: Vec<String>,
}

/// Why an inventory gives no site.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnsibleError {
    /// It is no inventory.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// A contradiction.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// A host whose address nothing says.
    #[error(
        "line {line}: nothing says the address of host \"{name}\"; add ansible_host=ADDRESS to its line, or the host to the file that \
         --hosts-file names"
    )]
    NoAddress {
        /// The line.
        line: usize,
        /// The host.
        name: String,
    },
    /// A name that is none.
    #[error(
        "line {line}: \"{name}\" cannot be a host's name; use letters, digits and hyphens, and ansible_host=ADDRESS beside it"
    )]
    NoName {
        /// The line.
        line: usize,
        /// What stands there.
        name: String,
    },
    /// Two values where one belongs.
    #[error("line {line}: \"{text}\" is no value of the group [{group}]; write one {wanted}")]
    NoValue {
        /// The line.
        line: usize,
        /// What stands there.
        text: String,
        /// The group.
        group: &'static str,
        /// What belongs there.
        wanted: &'static str,
    },
}

/// Reads the bundle's inventory. `known` has the addresses of hosts that /etc/hosts has.
///
/// # Errors
/// It is no inventory, or a host's address is not to be found.
pub fn read(text: &str, known: &BTreeMap<String, Ipv4Addr>) -> Result<Read, AnsibleError> {
    let inventory = Inventory::parse(text)?;
    let mut reader = Reader { inventory: &inventory, known, notes: Vec::new(), made_up: BTreeMap::new() };
    let name = ClusterName::new(USUAL_NAME).expect("the usual name is one");
    let port = reader.one("vip-port", "port, such as 9000", |text| text.parse().ok().filter(|port| *port != 0))?;
    let vip = reader.one("keepalived-vip", "address, such as 192.168.10.10", |text| text.parse::<IpAddr>().ok())?;
    let mut site = Site { name, vip, port: port.unwrap_or(USUAL_PORT), interface: None, hosts: Vec::new() };
    for entry in inventory.group("mosquitto-nginx-keepalived") {
        let (name, address) = reader.host(entry, None, "lb")?;
        site.add(&name, address, true, false)?;
    }
    for (group, addresses) in [("mosquitto-broker", "mosquitto-broker-address"), ("add-broker", "add-broker-address")] {
        let addresses = inventory.group(addresses);
        for (index, entry) in inventory.group(group).into_iter().enumerate() {
            let (name, address) = reader.host(entry, addresses.get(index).copied(), "broker")?;
            site.add(&name, address, false, true)?;
        }
    }
    reader.master(&mut site)?;
    reader.rest();
    Ok(Read { notes: reader.notes, site })
}

/// The addresses of an /etc/hosts, by name. The first line of a name counts; loopback addresses do not.
#[must_use]
pub fn hosts_file(text: &str) -> BTreeMap<String, Ipv4Addr> {
    let mut known = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<Ipv4Addr>().ok()) else { continue };
        for name in words.filter(|_| !address.is_loopback()) {
            known.entry(name.to_owned()).or_insert(address);
        }
    }
    known
}

struct Reader<'a> {
    inventory: &'a Inventory,
    known: &'a BTreeMap<String, Ipv4Addr>,
    notes: Vec<String>,
    /// Hosts that stand there as addresses, and the names that were made for them.
    made_up: BTreeMap<Ipv4Addr, HostName>,
}

impl Reader<'_> {
    /// The one value of a group.
    fn one<T>(
        &mut self,
        group: &'static str,
        wanted: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, AnsibleError> {
        let entries = self.inventory.group(group);
        let Some(first) = entries.first() else { return Ok(None) };
        if let Some(second) = entries.get(1) {
            self.notes.push(format!("line {}: only the first entry of [{group}] counts, {}", second.line, first.name));
        }
        // `vip=192.168.10.10` or `ansible_host=...`: what is behind the sign.
        let text = first.name.rsplit_once('=').map_or(first.name.as_str(), |(_, value)| value);
        let text = text.split_once('/').map_or(text, |(address, _)| address);
        let no_value = AnsibleError::NoValue { line: first.line, text: first.name.clone(), group, wanted };
        parse(text).map(Some).ok_or(no_value)
    }

    fn host(
        &mut self,
        entry: &Entry,
        beside: Option<&Entry>,
        role: &str,
    ) -> Result<(HostName, Ipv4Addr), AnsibleError> {
        let given = self.inventory.variable(&entry.name, &["ansible_host", "ansible_ssh_host"]);
        let is_address = entry.name.parse::<Ipv4Addr>().ok();
        let beside = beside.and_then(|beside| beside.name.parse::<Ipv4Addr>().ok());
        let short = entry.name.split('.').next().unwrap_or_default();
        let of_hosts_file = || self.known.get(&entry.name).or_else(|| self.known.get(short)).copied();
        // The bundle has the brokers' addresses in a group of their own: that is where its own templates take them from.
        let address = beside
            .or_else(|| given.and_then(|given| given.parse().ok()))
            .or(is_address)
            .or_else(of_hosts_file)
            .ok_or_else(|| AnsibleError::NoAddress { line: entry.line, name: entry.name.clone() })?;
        if is_address.is_some() {
            return Ok((self.name_for(address, role), address));
        }
        let name =
            HostName::new(short).ok_or_else(|| AnsibleError::NoName { line: entry.line, name: entry.name.clone() })?;
        if short != entry.name {
            self.note(format!("\"{}\" is host \"{name}\": a name is what `hostname -s` prints", entry.name));
        }
        Ok((name, address))
    }

    /// A host that stands there as an address only: by its /etc/hosts name, or by its role and a number.
    fn name_for(&mut self, address: Ipv4Addr, role: &str) -> HostName {
        if let Some(name) = self.made_up.get(&address) {
            return name.clone();
        }
        let known = self.known.iter().find(|(_, known)| **known == address);
        let known = known.and_then(|(name, _)| HostName::new(name.split('.').next().unwrap_or_default()));
        let number = 1 + self.made_up.values().filter(|name| name.as_str().starts_with(role)).count();
        let made = HostName::new(&format!("{role}{number}")).expect("a role and a number are a host's name");
        let name = known.unwrap_or(made);
        self.note(format!(
            "{address} stands without a name and is called \"{name}\": change it to what `hostname -s` prints there"
        ));
        self.made_up.insert(address, name.clone());
        name
    }

    /// The bridge's host has no such work any more. It is a broker: one more of them keeps the rest up when one dies.
    fn master(&mut self, site: &mut Site) -> Result<(), AnsibleError> {
        for entry in self.inventory.group("mosquitto-master") {
            let (name, address) = self.host(entry, None, "broker")?;
            let was_broker = site.hosts.iter().any(|host| host.name == name && host.broker);
            site.add(&name, address, false, true)?;
            if !was_broker {
                self.note(format!(
                    "the bridge's host \"{name}\" is a broker like the others: brokers are connected to each other without it. Delete \
                     its [[hosts]] entry if it is to be given up"
                ));
            }
        }
        Ok(())
    }

    fn rest(&mut self) {
        for (group, line) in self.inventory.other_groups(&GROUPS) {
            self.notes.push(format!("line {line}: the group [{group}] means nothing here"));
        }
        let ssh =
            ["ansible_user", "ansible_ssh_user", "ansible_port", "ansible_ssh_port", "ansible_ssh_private_key_file"];
        let groups = ["mosquitto-master", "mosquitto-broker", "mosquitto-nginx-keepalived", "add-broker"];
        let hosts = groups.iter().flat_map(|group| self.inventory.group(group));
        let with_ssh = hosts.filter(|entry| self.inventory.variable(&entry.name, &ssh).is_some()).count();
        if with_ssh > 0 {
            self.note(
                "users, ports and keys for ssh are not of the cluster file: `evermq deploy` takes them from ~/.ssh/config".to_owned(),
            );
        }
        let hosts = groups.iter().flat_map(|group| self.inventory.group(group));
        let secret = ["ansible_ssh_pass", "ansible_password", "ansible_become_pass", "ansible_sudo_pass"];
        if hosts.filter(|entry| self.inventory.variable(&entry.name, &secret).is_some()).count() > 0 {
            self.note(
                "passwords in the inventory were not taken over: `evermq deploy --ask-pass` asks for one".to_owned(),
            );
        }
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(site: &Site) -> Vec<String> {
        let roles = |lb, broker| [(lb, "lb"), (broker, "broker")].into_iter().filter(|role| role.0).map(|role| role.1);
        let host = |host: &super::super::site::SiteHost| {
            format!("{} {} {}", host.name, host.address, roles(host.lb, host.broker).collect::<Vec<_>>().join("+"))
        };
        site.hosts.iter().map(host).collect()
    }

    const BUNDLE: &str = "[mosquitto-master]\nbridge\n\n[mosquitto-broker]\nbroker1\nbroker2.plant\n[mosquitto-broker-address]\n\
                          192.168.10.21\n192.168.10.22\n[mosquitto-nginx-keepalived]\nlb1 ansible_host=192.168.10.11 ansible_user=root\n\
                          lb2 ansible_host=192.168.10.12 ansible_ssh_pass=secret\n[keepalived-vip]\n192.168.10.10\n[vip-port]\n9001\n";

    fn known() -> BTreeMap<String, Ipv4Addr> {
        hosts_file(
            "127.0.0.1 localhost bridge\n192.168.10.20 bridge.plant bridge # the old one\n192.168.10.99 bridge\n::1 lb1\n",
        )
    }

    #[test]
    fn the_bundles_inventory_is_a_site() {
        let read = read(BUNDLE, &known()).unwrap();
        assert_eq!(
            shown(&read.site),
            [
                "lb1 192.168.10.11 lb",
                "lb2 192.168.10.12 lb",
                "broker1 192.168.10.21 broker",
                "broker2 192.168.10.22 broker",
                "bridge 192.168.10.20 broker"
            ]
        );
        assert_eq!((read.site.vip, read.site.port), (Some("192.168.10.10".parse().unwrap()), 9001));
        assert_eq!(read.notes.len(), 4, "{:#?}", read.notes);
        evermq_config::parse("/etc/evermq/evermq.toml".as_ref(), &read.site.draft().to_string()).unwrap();
    }

    #[test]
    fn brokers_that_were_added_come_too() {
        let more = format!("{BUNDLE}[add-broker]\nbroker3\n[add-broker-address]\n192.168.10.23\n[printers]\nlaser\n");
        let read = read(&more, &known()).unwrap();
        assert!(shown(&read.site).contains(&"broker3 192.168.10.23 broker".to_owned()));
        assert!(
            read.notes.iter().any(|note| note == "line 22: the group [printers] means nothing here"),
            "{:#?}",
            read.notes
        );
    }

    #[test]
    fn addresses_without_names_get_names() {
        let text = "[mosquitto-nginx-keepalived]\n10.0.0.1\n10.0.0.2\n[mosquitto-broker]\n10.0.0.1\n10.0.0.3\n[keepalived-vip]\n10.0.0.9/24\n";
        let read = read(text, &BTreeMap::new()).unwrap();
        assert_eq!(shown(&read.site), ["lb1 10.0.0.1 lb+broker", "lb2 10.0.0.2 lb", "broker1 10.0.0.3 broker"]);
        assert_eq!(read.site.port, USUAL_PORT);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |text: &str| read(text, &BTreeMap::new()).unwrap_err().to_string();
        assert!(
            error("[mosquitto-broker]\nbroker1\n")
                .starts_with("line 2: nothing says the address of host \"broker1\"; add ansible_host")
        );
        assert!(
            error("[vip-port]\nmany\n")
                .starts_with("line 2: \"many\" is no value of the group [vip-port]; write one port")
        );
        assert!(error("[mosquitto-broker]\na_b ansible_host=10.0.0.1\n").contains("cannot be a host's name"));
    }
}
