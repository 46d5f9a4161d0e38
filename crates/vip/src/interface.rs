//! Which network interface carries the VIP, found by name or by this host's address; and found again after it was removed.

use std::net::{IpAddr, Ipv6Addr};

use pnet_base::MacAddr;
use pnet_datalink::NetworkInterface;

/// The interface of the VIP.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The kernel's index.
    pub index: u32,
    /// Its hardware address; none where there is no ARP (loopback, tunnels).
    pub mac: Option<MacAddr>,
    /// Its address of the link itself, the source of advertisements over IPv6 (RFC 9568 §5.1.2.1).
    pub link_local: Option<Ipv6Addr>,
}

/// Why there is no interface for the VIP.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The named one is not there.
    #[error(
        "this machine has no interface \"{name}\" (it has: {known}); correct `interface` of this host, or leave it out"
    )]
    NoSuchName {
        /// The name in the cluster file.
        name: String,
        /// What there is.
        known: String,
    },
    /// None holds the host's address.
    #[error(
        "no interface of this machine holds {address}, the address of this host in the cluster file (it has: {known}); \
         configure the address, or correct the file"
    )]
    NoSuchAddress {
        /// The host's address.
        address: IpAddr,
        /// What there is.
        known: String,
    },
}

/// The interface called `name`, or the one that holds `address`.
///
/// # Errors
/// There is none.
pub fn find(name: Option<&str>, address: IpAddr) -> Result<Interface, InterfaceError> {
    let all = pnet_datalink::interfaces();
    let found = match name {
        Some(name) => all.iter().find(|interface| interface.name == name),
        None => all.iter().find(|interface| interface.ips.iter().any(|network| network.ip() == address)),
    };
    match (found, name) {
        (Some(found), _) => Ok(Interface {
            name: found.name.clone(),
            index: found.index,
            mac: found.mac.filter(|mac| *mac != MacAddr::zero()),
            link_local: link_local(found),
        }),
        (None, Some(name)) => {
            let known = all.iter().map(|interface| interface.name.clone()).collect::<Vec<_>>().join(", ");
            Err(InterfaceError::NoSuchName { name: name.to_owned(), known })
        }
        (None, None) => {
            let known = all.iter().flat_map(|interface| &interface.ips).map(ToString::to_string);
            Err(InterfaceError::NoSuchAddress { address, known: known.collect::<Vec<_>>().join(", ") })
        }
    }
}

/// A VIP of the link itself may be there as well, with the longest prefix; the host's own is the kernel's, with 64 bits.
fn link_local(interface: &NetworkInterface) -> Option<Ipv6Addr> {
    let of_the_link = interface.ips.iter().filter_map(|network| match network.ip() {
        IpAddr::V6(address) if address.is_unicast_link_local() => Some((network.prefix(), address)),
        _ => None,
    });
    of_the_link.min().map(|(_, address)| address)
}

/// The name of the interface with this index, for people; the index where it is gone.
#[must_use]
pub fn name(index: u32) -> String {
    let name = nix::net::if_::if_indextoname(index).ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| index.to_string())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn loopback_is_found_by_name_and_by_address_and_has_no_hardware_address() {
        let by_name = find(Some("lo"), Ipv4Addr::UNSPECIFIED.into()).expect("every machine has lo");
        assert_eq!((by_name.name.as_str(), by_name.mac), ("lo", None));
        let by_address = find(None, Ipv4Addr::LOCALHOST.into()).expect("lo is up where tests run");
        assert_eq!(by_address.index, by_name.index);
        assert_eq!(name(by_name.index), "lo");
    }

    #[test]
    fn what_is_missing_is_named_beside_what_there_is() {
        let error = find(Some("no-such-if"), Ipv4Addr::LOCALHOST.into()).expect_err("no such interface").to_string();
        assert!(error.contains("\"no-such-if\"") && error.contains("lo"), "{error}");
        let error = find(None, Ipv4Addr::new(203, 0, 113, 7).into()).expect_err("a documentation address").to_string();
        assert!(error.contains("203.0.113.7") && error.contains("127.0.0.1/8"), "{error}");
    }
}
