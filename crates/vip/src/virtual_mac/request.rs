//! What the kernel is asked for a virtual MAC, as bytes.

use nix::errno::Errno;
use nix::libc;
use pnet_base::MacAddr;

use crate::netlink::{Netlink, Request, attributes, u32_at};

/// `struct ifinfomsg`: family, padding, type, index, flags, mask of the flags to change.
const FIXED: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_MACVLAN_MODE: u16 = 1;
const MACVLAN_MODE_BRIDGE: u32 = 4;
/// In a request, attributes whose types are the settings; in an answer, an array whose first element is setting 1.
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

/// A setting of IPv4 on an interface, `IPV4_DEVCONF_...`, with its value.
pub(super) type Setting = (u16, u32);

/// On the base interface and on the macvlan: `arp_ignore` and `arp_announce`.
pub(super) const ARP_SETTINGS: [Setting; 2] = [(19, 1), (18, 2)];
/// On the macvlan: `rp_filter` and `forwarding`.
pub(super) const MACVLAN_SETTINGS: [Setting; 2] = [(8, 2), (1, 0)];

/// What an interface is.
pub(super) struct Found {
    pub(super) index: u32,
    pub(super) macvlan: bool,
}

/// The interface of this name.
pub(super) fn find(netlink: &mut Netlink, name: &str) -> Result<Option<Found>, Errno> {
    let mut request = Request::new(libc::RTM_GETLINK, libc::NLM_F_ACK, &fixed(0, 0));
    request.attribute(IFLA_IFNAME, &terminated(name));
    let mut found = None;
    let asked = netlink.ask(request, |message| {
        let link_info = attribute(message.payload.get(FIXED..).unwrap_or_default(), IFLA_LINKINFO);
        let kind = link_info.and_then(|info| attribute(info, IFLA_INFO_KIND));
        let macvlan = kind.is_some_and(|kind| kind.starts_with(b"macvlan"));
        found = u32_at(message.payload, 4).map(|index| Found { index, macvlan });
    });
    match asked {
        Ok(()) => Ok(found),
        Err(Errno::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// To make a macvlan.
pub(super) fn creation(base: u32, name: &str, mac: MacAddr) -> Request {
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut request = Request::new(libc::RTM_NEWLINK, flags, &fixed(0, 0));
    request.attribute(IFLA_IFNAME, &terminated(name));
    request.attribute(IFLA_LINK, &base.to_ne_bytes());
    request.attribute(IFLA_ADDRESS, &mac.octets());
    request.nested(IFLA_LINKINFO, |info| {
        info.attribute(IFLA_INFO_KIND, b"macvlan");
        info.nested(IFLA_INFO_DATA, |data| {
            data.attribute(IFLA_MACVLAN_MODE, &MACVLAN_MODE_BRIDGE.to_ne_bytes());
        });
    });
    request
}

/// To change settings of IPv4 on an interface.
pub(super) fn ipv4_settings(index: u32, settings: impl IntoIterator<Item = Setting>) -> Request {
    let mut request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &fixed(index, 0));
    request.nested(IFLA_AF_SPEC, |families| {
        families.nested(libc::AF_INET as u16, |family| {
            family.nested(IFLA_INET_CONF, |conf| {
                for (setting, value) in settings {
                    conf.attribute(setting, &value.to_ne_bytes());
                }
            });
        });
    });
    request
}

/// To keep the kernel from making an IPv6 address of the link.
pub(super) fn without_ipv6_address(index: u32) -> Request {
    let mut request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &fixed(index, 0));
    request.nested(IFLA_AF_SPEC, |families| {
        families.nested(libc::AF_INET6 as u16, |family| {
            family.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
        });
    });
    request
}

/// To set an interface up.
pub(super) fn raise(index: u32) -> Request {
    Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &fixed(index, libc::IFF_UP as u32))
}

/// To remove an interface.
pub(super) fn removal(index: u32) -> Request {
    Request::new(libc::RTM_DELLINK, libc::NLM_F_ACK, &fixed(index, 0))
}

/// The values that `settings` have on an interface; as given where the kernel does not tell.
pub(super) fn read_settings(
    netlink: &mut Netlink,
    index: u32,
    mut settings: [Setting; 2],
) -> Result<[Setting; 2], Errno> {
    let request = Request::new(libc::RTM_GETLINK, libc::NLM_F_ACK, &fixed(index, 0));
    netlink.ask(request, |message| {
        let conf = attribute(message.payload.get(FIXED..).unwrap_or_default(), IFLA_AF_SPEC)
            .and_then(|families| attribute(families, libc::AF_INET as u16))
            .and_then(|family| attribute(family, IFLA_INET_CONF));
        for (setting, value) in &mut settings {
            if let Some(found) = conf.and_then(|conf| u32_at(conf, 4 * (usize::from(*setting) - 1))) {
                *value = found;
            }
        }
    })?;
    Ok(settings)
}

/// `struct ifinfomsg` for an interface, and flags to set.
fn fixed(index: u32, flags: u32) -> [u8; FIXED] {
    let mut bytes = [0; FIXED];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}
