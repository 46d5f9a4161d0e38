//! What has to be known of a site, and the cluster file that follows from it.

use std::net::{IpAddr, Ipv4Addr};

use evermq_config::{ClusterName, HostName};

use super::draft::{Draft, Value};

/// What clients connect to, and the hosts behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The cluster's name.
    pub name: ClusterName,
    /// The virtual IP; none behind a load balancer of somebody else.
    pub vip: Option<IpAddr>,
    /// Where the lb hosts listen.
    pub port: u16,
    /// The interface of the VIP, if it is not the one with the host's address.
    pub interface: Option<String>,
    /// Every host, each once.
    pub hosts: Vec<SiteHost>,
}

/// A host of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteHost {
    /// As `hostname` prints it up to the first dot.
    pub name: HostName,
    /// Where the others reach it.
    pub address: Ipv4Addr,
    /// Passes clients on, holds the VIP.
    pub lb: bool,
    /// Is a broker.
    pub broker: bool,
}

/// Where the lb hosts listen unless told otherwise.
pub const USUAL_PORT: u16 = 9000;
/// Where each host says how the cluster is, unless clients connect there.
const ADMIN_PORT: u16 = 9003;
/// The cluster's name unless told otherwise.
pub const USUAL_NAME: &str = "mqtt";

/// A problem with what was said of a site.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SiteError {
    /// One name, two addresses.
    #[error(
        "host \"{name}\" has two addresses, {first} and {second}; give it the one by which the other hosts reach it"
    )]
    TwoAddresses {
        /// The host.
        name: HostName,
        /// The address that was said first.
        first: Ipv4Addr,
        /// The other one.
        second: Ipv4Addr,
    },
    /// Nobody to pass clients on.
    #[error("no lb host was named; name one, better two, with --lb NAME=ADDRESS")]
    NoLb,
    /// Nobody to pass clients on to.
    #[error("no broker was named; name one, better two, with --broker NAME=ADDRESS")]
    NoBroker,
    /// Nothing to connect to.
    #[error(
        "no VIP was named; name it with --vip ADDRESS, or say --no-vip where a cloud's load balancer stands before the lb hosts"
    )]
    NoVip,
}

impl Site {
    /// Adds a role to a host, and the host if it is new.
    ///
    /// # Errors
    /// The host is known by another address.
    pub fn add(&mut self, name: &HostName, address: Ipv4Addr, lb: bool, broker: bool) -> Result<(), SiteError> {
        match self.hosts.iter_mut().find(|host| host.name == *name) {
            Some(host) if host.address != address => {
                Err(SiteError::TwoAddresses { name: name.clone(), first: host.address, second: address })
            }
            Some(host) => {
                host.lb |= lb;
                host.broker |= broker;
                Ok(())
            }
            None => {
                self.hosts.push(SiteHost { name: name.clone(), address, lb, broker });
                Ok(())
            }
        }
    }

    /// Whether there is a host of each role.
    ///
    /// # Errors
    /// There is not.
    pub fn check(&self) -> Result<(), SiteError> {
        if !self.hosts.iter().any(|host| host.lb) {
            return Err(SiteError::NoLb);
        }
        if !self.hosts.iter().any(|host| host.broker) {
            return Err(SiteError::NoBroker);
        }
        Ok(())
    }

    /// The cluster file. What it leaves out has its default value.
    #[must_use]
    pub fn draft(&self) -> Draft {
        let mut draft = Draft::default();
        preamble(&mut draft);
        draft.table("cluster").set("name", self.name.as_str(), "brokers refuse peers of another cluster");
        if let Some(network) = self.network() {
            draft.table("cluster").set("network", network, "of the lb hosts; the VIP must be in it");
        }
        match self.vip {
            Some(vip) => {
                draft
                    .table("vip")
                    .comment("The virtual IP: held by one of the lb hosts, moved by VRRP within a tenth of a second.")
                    .set("address", vip.to_string(), "what clients connect to")
                    .set("vrid", 51, "1 to 255; no other VRRP user of the network may have the same");
                if vip.is_ipv6() {
                    draft.table("vip").set("adverts", "multicast", "unicast needs address6 of each lb host");
                }
            }
            None => draft.preamble("There is no [vip]: a load balancer of somebody else stands before the lb hosts."),
        }
        draft.table("lb").comment("The load balancer on each lb host. TLS passes through it to the brokers.").set(
            "listen",
            format!("{}:{}", if self.vip.is_some_and(|vip| vip.is_ipv6()) { "[::]" } else { "0.0.0.0" }, self.port),
            "",
        );
        draft.table("broker").comment("The MQTT broker on each broker host: MQTT 3.1, 3.1.1 and 5.0.").set(
            "listen",
            "0.0.0.0:8883",
            "MQTT over mutual TLS",
        );
        if let Some((table, key, other)) = self.clash() {
            let value = if key == "listen" { Value::from(format!("0.0.0.0:{other}")) } else { Value::from(other) };
            draft.table(table).set(key, value, "not its usual one, which clients connect to");
        }
        self.admin(&mut draft);
        tls(&mut draft);
        self.hosts(&mut draft);
        draft
    }

    /// `[admin]`: a cluster that is new is one that somebody wants to look at, and nobody gets in without a certificate.
    fn admin(&self, draft: &mut Draft) {
        let port = if self.port == ADMIN_PORT { ADMIN_PORT + 1 } else { ADMIN_PORT };
        draft
            .table("admin")
            .comment("Status, events, figures and a web page, at each host: for these certificates, and the hosts' own to see.")
            .set("listen", format!("0.0.0.0:{port}"), "HTTPS with mutual TLS; without it nothing is served")
            .set("admins", Value::list(["admin"]), "`evermq certs client admin` makes it; no device may have such a name");
    }

    /// What has the port that clients connect to as its usual one on the same host: table, key, and a port instead.
    #[must_use]
    pub fn clash(&self) -> Option<(&'static str, &'static str, u64)> {
        let both = self.hosts.iter().any(|host| host.lb && host.broker);
        match self.port {
            9001 => Some(("lb", "peer_port", 9000)),
            8883 if both => Some(("broker", "listen", 8885)),
            8884 if both => Some(("broker", "peer_port", 8885)),
            _ => None,
        }
    }

    /// `[[hosts]]`.
    pub fn hosts(&self, draft: &mut Draft) {
        for (index, host) in self.hosts.iter().enumerate() {
            let roles = [(host.lb, "lb"), (host.broker, "broker")].into_iter().filter(|role| role.0).map(|role| role.1);
            let table = draft.entry("hosts");
            if index == 0 {
                table.comment("The hosts. \"lb\" runs evermq-lb and evermq-vip, \"broker\" runs evermq-broker; a host may have both.");
            }
            let what = if index == 0 { "as `hostname` prints it up to the first dot" } else { "" };
            table.set("name", host.name.as_str(), what).set("address", host.address.to_string(), "").set(
                "roles",
                Value::list(roles),
                "",
            );
            if let (true, Some(interface), Some(_)) = (host.lb, &self.interface, self.vip) {
                table.set("interface", interface.as_str(), "for the VIP");
            }
        }
    }

    /// The network to write down: none where the VIP is in the /24 of the first lb host, which is taken without being written.
    #[must_use]
    pub fn network(&self) -> Option<String> {
        self.network_with(self.vip)
    }

    /// The same for several virtual addresses.
    #[must_use]
    pub fn network_with(&self, vips: impl IntoIterator<Item = IpAddr>) -> Option<String> {
        let vips = vips.into_iter().filter_map(|vip| match vip {
            IpAddr::V4(vip) => Some(vip.to_bits()),
            IpAddr::V6(_) => None,
        });
        let lbs = self.hosts.iter().filter(|host| host.lb).map(|host| host.address.to_bits());
        let first = lbs.clone().next()?;
        let mut vips = vips.peekable();
        vips.peek()?;
        let differ = lbs.chain(vips).fold(0, |bits, address| bits | (first ^ address));
        let prefix_length = differ.leading_zeros();
        let mask = u32::MAX.checked_shl(32 - prefix_length).unwrap_or(0);
        (prefix_length < 24).then(|| format!("{}/{prefix_length}", Ipv4Addr::from_bits(first & mask)))
    }
}

/// What stands on top of a file that is written here.
pub fn preamble(draft: &mut Draft) {
    draft.preamble(
        "EverMQ: the one cluster file. It is the same on every host, as /etc/evermq/evermq.toml; `evermq check` checks it.",
    );
    draft.preamble(
        "What is not here has its default value: /usr/share/doc/evermq/evermq.toml names every key with its default.",
    );
}

/// `[tls]`, with the files that `evermq certs` makes.
pub fn tls(draft: &mut Draft) {
    draft
        .table("tls")
        .comment("Certificates in PEM, below this file's directory: `evermq certs init` makes them. {host} is the host's name.")
        .set("ca", "tls/ca.crt", "")
        .set("cert", "tls/{host}.crt", "")
        .set("key", "tls/{host}.key", "");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(vip: Option<&str>, hosts: &[(&str, &str, &str)]) -> Site {
        let mut site = Site {
            name: ClusterName::new("plant-7").unwrap(),
            vip: vip.map(|vip| vip.parse().unwrap()),
            port: 9000,
            interface: None,
            hosts: Vec::new(),
        };
        for (name, address, roles) in hosts {
            let name = HostName::new(name).unwrap();
            site.add(&name, address.parse().unwrap(), roles.contains('l'), roles.contains('b')).unwrap();
        }
        site
    }

    const FOUR: [(&str, &str, &str); 4] = [
        ("lb1", "192.168.10.11", "l"),
        ("lb2", "192.168.10.12", "l"),
        ("broker1", "192.168.10.21", "b"),
        ("broker2", "192.168.10.22", "b"),
    ];

    #[test]
    fn what_is_written_is_good() {
        let both = [("one", "10.0.0.1", "lb"), ("two", "10.0.0.2", "lb")];
        let wide =
            [("lb1", "10.1.0.11", "l"), ("lb2", "10.1.9.12", "l"), ("b1", "10.9.0.1", "b"), ("b2", "10.9.0.2", "b")];
        let sites: [(Option<&str>, &[_]); 6] = [
            (Some("192.168.10.10"), &FOUR),
            (None, &FOUR),
            (Some("2001:db8::10"), &FOUR),
            (Some("10.0.0.9"), &both),
            (Some("10.1.200.1"), &wide),
            (Some("10.1.0.1"), &wide),
        ];
        for (vip, hosts) in sites {
            let site = site(vip, hosts);
            site.check().unwrap();
            let text = site.draft().to_string();
            let loaded = evermq_config::parse("/etc/evermq/evermq.toml".as_ref(), &text)
                .unwrap_or_else(|report| panic!("{report}\n{text}"));
            assert_eq!(loaded.warnings.problems, [], "{text}");
            assert_eq!(loaded.cluster.hosts.len(), hosts.len());
            assert_eq!(loaded.cluster.vips().next(), site.vip);
            assert_eq!(loaded.cluster.admin.listen, "0.0.0.0:9003".parse().ok());
            assert_eq!(loaded.cluster.admin.admins, ["admin"]);
        }
    }

    #[test]
    fn ports_do_not_clash() {
        let both = [("one", "10.0.0.1", "lb"), ("two", "10.0.0.2", "lb")];
        for port in [1, 8883, 8884, 8885, 9000, 9001, 9002, 9003, 9004, 65_535] {
            for hosts in [&FOUR[..], &both[..]] {
                let site = Site { port, ..site(None, hosts) };
                let text = site.draft().to_string();
                let loaded = evermq_config::parse("/etc/evermq/evermq.toml".as_ref(), &text);
                assert_eq!(loaded.unwrap_or_else(|report| panic!("{report}")).cluster.lb.listen().port(), port);
            }
        }
    }

    #[test]
    fn a_network_is_written_where_the_usual_one_is_too_small() {
        let of = |vip, hosts: &[_]| site(Some(vip), hosts).network();
        assert_eq!(of("192.168.10.10", &FOUR), None);
        assert_eq!(of("192.168.11.10", &FOUR).as_deref(), Some("192.168.10.0/23"));
        assert_eq!(of("10.0.0.1", &FOUR).as_deref(), Some("0.0.0.0/0"));
        assert_eq!(of("192.168.10.11", &FOUR), None);
    }

    #[test]
    fn roles_add_up_and_addresses_do_not() {
        let mut site = site(None, &FOUR);
        let name = HostName::new("lb1").unwrap();
        site.add(&name, "192.168.10.11".parse().unwrap(), false, true).unwrap();
        assert!(site.hosts[0].lb && site.hosts[0].broker);
        let error = site.add(&name, "192.168.10.99".parse().unwrap(), true, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "host \"lb1\" has two addresses, 192.168.10.11 and 192.168.10.99; give it the one by which the other hosts reach it"
        );
        site.hosts.retain(|host| !host.lb);
        assert_eq!(site.check(), Err(SiteError::NoLb));
        site.hosts.clear();
        site.add(&name, "192.168.10.11".parse().unwrap(), true, false).unwrap();
        assert_eq!(site.check(), Err(SiteError::NoBroker));
    }
}
