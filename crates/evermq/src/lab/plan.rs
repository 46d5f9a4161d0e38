//! What a lab consists of: the hosts, their addresses, and the programs that run on them.

use std::net::{Ipv4Addr, SocketAddrV4};

/// The virtual address of every lab; labs do not see each other.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);
/// Where clients connect.
pub(super) const VIP_PORT: u16 = 9000;
/// Length of the network's prefix. 198.18.0.0/15 is for tests of networks (RFC 2544), so it is nobody's own.
pub(super) const PREFIX_LENGTH: u8 = 24;
/// Names of the client certificates, all in the client host's `/etc/evermq/tls`.
pub(super) const CLIENT_CERTIFICATES: [&str; 4] = ["admin", "client", "pub", "sub"];
/// Where each host says how the cluster is.
pub(super) const ADMIN_PORT: u16 = 9003;
/// The host that clients run on.
pub(super) const CLIENT: &str = "client";

/// A program of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    /// `evermq-lb`.
    Lb,
    /// `evermq-vip`.
    Vip,
    /// `evermq-broker`.
    Broker,
    /// `evermq admin`.
    Admin,
}

impl Program {
    /// Every program, in the order in which a host starts them.
    pub(super) const ALL: [Self; 4] = [Self::Lb, Self::Vip, Self::Broker, Self::Admin];

    /// Its name, as its unit and its log file have it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Lb => "evermq-lb",
            Self::Vip => "evermq-vip",
            Self::Broker => "evermq-broker",
            Self::Admin => "evermq-admin",
        }
    }

    /// The name of the executable, and what it is told.
    pub(super) const fn command(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Lb | Self::Vip | Self::Broker => (self.name(), &[]),
            Self::Admin => ("evermq", &["admin"]),
        }
    }

    /// The control socket's file name in the run directory.
    pub(super) const fn control_socket(self) -> &'static str {
        match self {
            Self::Lb => "lb.sock",
            Self::Vip => "vip.sock",
            Self::Broker => "broker.sock",
            Self::Admin => evermq_admin::CONTROL_SOCKET,
        }
    }

    /// The program of that name, with or without `evermq-`.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|program| {
            program.name() == name || program.name().strip_prefix("evermq-").is_some_and(|short| short == name)
        })
    }
}

/// A host of the lab.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// Its name, also that of its port on the switch.
    pub(super) name: &'static str,
    /// Last octet of its address.
    octet: u8,
    /// Its roles in the cluster file; none for the client, which is not in it.
    pub(super) roles: &'static [&'static str],
    /// The programs that it starts, in this order.
    pub(super) programs: &'static [Program],
}

/// Every host of a lab.
pub(super) const HOSTS: [Host; 5] = [
    Host { name: "lb1", octet: 11, roles: &["lb"], programs: &[Program::Lb, Program::Vip, Program::Admin] },
    Host { name: "lb2", octet: 12, roles: &["lb"], programs: &[Program::Lb, Program::Vip, Program::Admin] },
    Host { name: "broker1", octet: 21, roles: &["broker"], programs: &[Program::Broker, Program::Admin] },
    Host { name: "broker2", octet: 22, roles: &["broker"], programs: &[Program::Broker, Program::Admin] },
    Host { name: CLIENT, octet: 100, roles: &[], programs: &[] },
];

impl Host {
    /// The host of that name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        HOSTS.iter().find(|host| host.name == name)
    }

    /// Its address.
    pub(super) const fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, 0, self.octet)
    }

    /// Its hardware address: the same after each start, as with a real network card.
    pub(super) const fn mac(&self) -> [u8; 6] {
        [0x02, 0, 198, 18, 0, self.octet]
    }
}

/// Where clients connect, as an address.
pub(super) const fn service() -> SocketAddrV4 {
    SocketAddrV4::new(VIP, VIP_PORT)
}

/// Where the first host shows how the cluster is, as an address.
pub(super) const fn page() -> SocketAddrV4 {
    SocketAddrV4::new(HOSTS[0].address(), ADMIN_PORT)
}

/// The names of all hosts, for messages.
pub(super) fn host_names() -> String {
    HOSTS.map(|host| host.name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_unique() {
        for (index, host) in HOSTS.iter().enumerate() {
            for other in &HOSTS[index + 1..] {
                assert_ne!(host.name, other.name);
                assert_ne!(host.address(), other.address());
                assert_ne!(host.mac(), other.mac());
            }
            assert_ne!(host.address(), VIP);
        }
    }

    #[test]
    fn programs_are_found_by_both_names() {
        for program in Program::ALL {
            assert_eq!(Program::named(program.name()), Some(program));
        }
        assert_eq!(Program::named("lb"), Some(Program::Lb));
        assert_eq!(Program::named("nginx"), None);
    }
}
