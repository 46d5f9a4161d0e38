//! The VIP's addresses on the interface: added, removed and found by rtnetlink.
//!
//! An address goes onto the interface without a route to its prefix, and IPv6 without duplicate address detection and
//! with a preferred lifetime of zero: it answers at once, and the host's own traffic never has it as its source
//! (RFC 6724 §5, rule 3). Detection would keep a takeover waiting for a second, and would find the former master.

mod ready;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;
use nix::libc;

use self::ready::Routes;
use crate::netlink::{Message, Netlink, Request, attributes, u32_at};

/// `struct ifaddrmsg`: family, prefix length, flags, scope, index.
const FIXED: usize = 8;
/// Neither to be forgotten after some time (seconds), as `struct ifa_cacheinfo` has it.
const FOREVER: u32 = u32::MAX;

/// Why the VIP could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}; if the program is confined, let it have AF_NETLINK")]
    Open(#[source] io::Error),
    /// `CAP_NET_ADMIN` is missing.
    #[error(
        "not permitted to change addresses; run evermq-vip as root or with CAP_NET_ADMIN \
         (systemd: AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW; containers: --cap-add NET_ADMIN --cap-add NET_RAW)"
    )]
    NotPermitted,
    /// IPv6 is switched off.
    #[error(
        "cannot add {address}: IPv6 is off on {interface}; set net.ipv6.conf.{interface}.disable_ipv6 = 0, or take the \
         address from the cluster file"
    )]
    NoIpv6 {
        /// The address.
        address: IpAddr,
        /// The interface.
        interface: String,
    },
    /// The kernel keeps the address unusable.
    #[error("{address} is on {interface}, but the kernel holds it for a duplicate of another host's; find that host")]
    Duplicate {
        /// The address.
        address: IpAddr,
        /// The interface.
        interface: String,
    },
    /// The kernel refused.
    #[error("cannot {doing} {address}: {source}")]
    Refused {
        /// Add, remove or look for.
        doing: &'static str,
        /// The address.
        address: IpAddr,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Changes and lists this machine's addresses.
#[derive(Debug)]
pub struct Addresses {
    netlink: Netlink,
}

impl Addresses {
    /// Opens the netlink socket.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn open() -> Result<Self, AddressError> {
        Netlink::open().map(|netlink| Self { netlink }).map_err(AddressError::Open)
    }

    /// Puts `address` on the interface, usable at once; one that is there already stays.
    ///
    /// # Errors
    /// Not permitted, the interface is gone, or IPv6 is off on it.
    pub fn add(&mut self, address: IpAddr, prefix_length: u8, interface: u32) -> Result<(), AddressError> {
        let IpAddr::V6(address_v6) = address else { return self.put(address, prefix_length, interface) };
        let routes = Routes::watch().map_err(AddressError::Open)?;
        self.put(address, prefix_length, interface)?;
        // One that was there already may have failed the detection of whoever added it.
        if !self.usable(address, interface)? {
            self.remove(address, interface)?;
            self.put(address, prefix_length, interface)?;
            if !self.usable(address, interface)? {
                return Err(AddressError::Duplicate { address, interface: crate::interface::name(interface) });
            }
        }
        routes.wait_for(&mut self.netlink, address_v6, interface);
        Ok(())
    }

    /// Takes `address` from the interface. Gives whether it was there.
    ///
    /// # Errors
    /// Not permitted.
    pub fn remove(&mut self, address: IpAddr, interface: u32) -> Result<bool, AddressError> {
        // The kernel wants to hear the prefix length of an IPv6 address, and asks none for IPv4.
        let prefix_length = match self.find(address, interface) {
            Ok(Some(found)) => found.prefix_length,
            // Removing what is not there still tells whether it would be permitted.
            Ok(None) => longest_prefix(address),
            Err(error) => return Err(refused("look for", address, error)),
        };
        match self.netlink.change(request(libc::RTM_DELADDR, libc::NLM_F_ACK, address, prefix_length, interface)) {
            Ok(()) => Ok(true),
            Err(Errno::EADDRNOTAVAIL | Errno::ENODEV | Errno::ENXIO) => Ok(false),
            Err(error) => Err(refused("remove", address, error)),
        }
    }

    /// Takes `address` from every interface that has it. Gives the indices of those that had.
    ///
    /// # Errors
    /// Not permitted.
    pub fn remove_everywhere(&mut self, address: IpAddr) -> Result<Vec<u32>, AddressError> {
        let interfaces = self.holders(address)?;
        for interface in &interfaces {
            self.remove(address, *interface)?;
        }
        Ok(interfaces)
    }

    /// Indices of the interfaces that have `address`.
    ///
    /// # Errors
    /// The kernel does not list addresses.
    pub fn holders(&mut self, address: IpAddr) -> Result<Vec<u32>, AddressError> {
        let mut interfaces = Vec::new();
        self.list(address, 0, |found| {
            if !interfaces.contains(&found.index) {
                interfaces.push(found.index);
            }
        })
        .map_err(|error| refused("look for", address, error))?;
        Ok(interfaces)
    }

    /// Whether the interface has `address`. Allocates nothing.
    ///
    /// # Errors
    /// The kernel does not list addresses.
    pub fn holds(&mut self, address: IpAddr, interface: u32) -> Result<bool, AddressError> {
        self.find(address, interface).map(|found| found.is_some()).map_err(|error| refused("look for", address, error))
    }

    fn put(&mut self, address: IpAddr, prefix_length: u8, interface: u32) -> Result<(), AddressError> {
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let mut request = request(libc::RTM_NEWADDR, flags, address, prefix_length, interface);
        match address {
            // No label: the old tools show none either.
            IpAddr::V4(address) => {
                request.attribute(libc::IFA_ADDRESS, &address.octets());
                request.attribute(libc::IFA_FLAGS, &libc::IFA_F_NOPREFIXROUTE.to_ne_bytes());
            }
            IpAddr::V6(_) => {
                request.attribute(libc::IFA_FLAGS, &(libc::IFA_F_NOPREFIXROUTE | libc::IFA_F_NODAD).to_ne_bytes());
                request.attribute(libc::IFA_CACHEINFO, &lifetimes(0, FOREVER));
            }
        }
        match self.netlink.change(request) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(Errno::EACCES) if address.is_ipv6() => {
                Err(AddressError::NoIpv6 { address, interface: crate::interface::name(interface) })
            }
            Err(error) => Err(refused("add", address, error)),
        }
    }

    fn usable(&mut self, address: IpAddr, interface: u32) -> Result<bool, AddressError> {
        let found = self.find(address, interface).map_err(|error| refused("look for", address, error))?;
        Ok(found.is_some_and(|found| !found.tentative() && !found.duplicate()))
    }

    /// The address on this interface.
    fn find(&mut self, address: IpAddr, interface: u32) -> Result<Option<Found>, Errno> {
        let mut there = None;
        let listed = self.list(address, interface, |found| {
            if found.index == interface {
                there = Some(found);
            }
        });
        match listed {
            Ok(()) | Err(Errno::ENODEV) => Ok(there),
            Err(error) => Err(error),
        }
    }

    /// Gives every occurrence of `address` on this machine. Those on other interfaces than this one (0: any) may be left
    /// out: kernels from 4.20 on look no further.
    fn list(&mut self, address: IpAddr, interface: u32, mut each: impl FnMut(Found)) -> Result<(), Errno> {
        let request = Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &fixed(address, 0, interface));
        self.netlink.ask(request, |message| {
            if let Some(found) = Found::read(message).filter(|found| found.address == address) {
                each(found);
            }
        })
    }
}

/// An address that the kernel tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) address: IpAddr,
    pub(crate) index: u32,
    prefix_length: u8,
    flags: u32,
}

impl Found {
    /// Out of a message of type `RTM_NEWADDR` or `RTM_DELADDR`.
    pub(crate) fn read(message: Message<'_>) -> Option<Self> {
        if !matches!(message.kind, libc::RTM_NEWADDR | libc::RTM_DELADDR) {
            return None;
        }
        let (fixed, rest) = message.payload.split_first_chunk::<FIXED>()?;
        let [family, prefix_length, short_flags, _, ..] = *fixed;
        let mut flags = u32::from(short_flags);
        let (mut local, mut address) = (None, None);
        for (kind, value) in attributes(rest) {
            match kind {
                libc::IFA_LOCAL => local = read_address(family, value),
                libc::IFA_ADDRESS => address = read_address(family, value),
                libc::IFA_FLAGS => flags = u32_at(value, 0)?,
                _ => {}
            }
        }
        // Where an interface has a peer, `IFA_ADDRESS` is the peer's.
        Some(Self { address: local.or(address)?, index: u32_at(fixed, 4)?, prefix_length, flags })
    }

    /// Detection still keeps it from being used.
    pub(crate) fn tentative(self) -> bool {
        self.flags & libc::IFA_F_TENTATIVE != 0 && self.flags & libc::IFA_F_OPTIMISTIC == 0
    }

    /// Detection has found another host that has it.
    pub(crate) fn duplicate(self) -> bool {
        self.flags & libc::IFA_F_DADFAILED != 0
    }
}

fn read_address(family: u8, value: &[u8]) -> Option<IpAddr> {
    match libc::c_int::from(family) {
        libc::AF_INET => <[u8; 4]>::try_from(value).ok().map(|octets| Ipv4Addr::from(octets).into()),
        libc::AF_INET6 => <[u8; 16]>::try_from(value).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

/// A request about `address` on `interface`.
fn request(kind: u16, flags: libc::c_int, address: IpAddr, prefix_length: u8, interface: u32) -> Request {
    let mut request = Request::new(kind, flags, &fixed(address, prefix_length, interface));
    match address {
        IpAddr::V4(address) => request.attribute(libc::IFA_LOCAL, &address.octets()),
        IpAddr::V6(address) => request.attribute(libc::IFA_LOCAL, &address.octets()),
    };
    request
}

fn fixed(address: IpAddr, prefix_length: u8, interface: u32) -> [u8; FIXED] {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let [a, b, c, d] = interface.to_ne_bytes();
    [family as u8, prefix_length, 0, libc::RT_SCOPE_UNIVERSE, a, b, c, d]
}

/// `struct ifa_cacheinfo`: seconds preferred and valid; when it was made and changed, which only the kernel says.
fn lifetimes(preferred: u32, valid: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&preferred.to_ne_bytes());
    bytes[4..8].copy_from_slice(&valid.to_ne_bytes());
    bytes
}

fn longest_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn refused(doing: &'static str, address: IpAddr, error: Errno) -> AddressError {
    match error {
        Errno::EPERM | Errno::EACCES => AddressError::NotPermitted,
        error => AddressError::Refused { doing, address, source: error.into() },
    }
}
