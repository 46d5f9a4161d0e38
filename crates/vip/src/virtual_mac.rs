//! The virtual router's own hardware address (RFC 9568 §7.3): a macvlan interface that carries it and the VIP.
//!
//! A successor answers to the same hardware address, so no neighbour has to learn another one. Only switches do, from the
//! advertisements, which leave by this interface.
//!
//! | on the macvlan | because |
//! |---|---|
//! | mode bridge | in the others, adverts from the same hardware address on another host would not reach the base interface |
//! | `arp_ignore` 1, `arp_announce` 2 | it speaks for the VIP only, not for the host's own addresses |
//! | `rp_filter` 2 | what it receives is answered by the base interface; the larger one of this and `all` counts |
//! | `forwarding` 0 | a backup does not pass on what a switch floods to the virtual MAC (RFC 9568 §6.4.2) |
//! | no IPv6 address of its own, no router advertisements | hosts with one hardware address would make the same address |
//!
//! On the base interface `arp_ignore` 1 and `arp_announce` 2 are set too, so that it neither answers for the VIP nor asks
//! in its name; they are as before when the last virtual MAC of this program is gone. All of it is set by rtnetlink, which
//! a confined program can use; what only /proc/sys can set is tried, and told where it failed.

mod request;

use std::io;
use std::path::Path;

use evermq_config::Vrid;
use nix::errno::Errno;
use pnet_base::MacAddr;

use self::request::{ARP_SETTINGS, MACVLAN_SETTINGS, Setting};
use crate::interface::{self, Interface};
use crate::netlink::Netlink;

/// Why there is no virtual MAC.
#[derive(Debug, thiserror::Error)]
pub enum VirtualMacError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}; if the program is confined, let it have AF_NETLINK")]
    Open(#[source] io::Error),
    /// `CAP_NET_ADMIN` is missing.
    #[error(
        "not permitted to make an interface for the virtual MAC; run evermq-vip as root or with CAP_NET_ADMIN, or set \
         `virtual_mac = false` in [vip]"
    )]
    NotPermitted,
    /// No macvlan in this kernel.
    #[error("this kernel has no macvlan; load the module macvlan, or set `virtual_mac = false` in [vip]")]
    Unsupported,
    /// The base interface carries no macvlan.
    #[error(
        "{base} cannot carry a virtual MAC: it is part of a bridge or bond, or another program uses {mac} on it; name the \
         bridge as `interface` of this host, stop the other program, or set `virtual_mac = false` in [vip]"
    )]
    Busy {
        /// The base interface.
        base: String,
        /// The virtual MAC.
        mac: MacAddr,
    },
    /// Something else has the name.
    #[error("an interface {0} is there which is no macvlan; rename it, or set `virtual_mac = false` in [vip]")]
    NameTaken(String),
    /// The kernel refused.
    #[error("cannot {doing} {name}, the interface of the virtual MAC: {source}")]
    Refused {
        /// Make, set, remove.
        doing: &'static str,
        /// The interface.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The RFC's hardware address for a virtual router of IPv4, or of IPv6 (RFC 9568 §7.3).
#[must_use]
pub fn mac(vrid: Vrid, ipv6: bool) -> MacAddr {
    MacAddr::new(0, 0, 0x5e, 0, if ipv6 { 2 } else { 1 }, vrid.get())
}

/// The name of its interface.
#[must_use]
pub fn name(vrid: Vrid, ipv6: bool) -> String {
    format!("evmq{}-{}", if ipv6 { "6" } else { "" }, vrid.get())
}

/// The interfaces of this program's virtual MACs; they go with this value.
#[derive(Debug)]
pub struct VirtualMacs {
    netlink: Netlink,
    made: Vec<Made>,
    bases: Vec<Base>,
}

/// A macvlan and the interface that carries it.
#[derive(Debug)]
struct Made {
    name: String,
    base: u32,
}

/// A base interface, and what its ARP settings were.
#[derive(Debug)]
struct Base {
    index: u32,
    before: [Setting; 2],
}

/// An interface for the VIP, its announcements and its advertisements.
#[derive(Debug)]
pub struct Created {
    /// It; its address of the link is that of the base interface.
    pub interface: Interface,
    /// What could not be set, one sentence each, for the operator.
    pub unset: Vec<String>,
}

impl VirtualMacs {
    /// None yet.
    ///
    /// # Errors
    /// The kernel refuses a netlink socket.
    pub fn open() -> Result<Self, VirtualMacError> {
        let netlink = Netlink::open().map_err(VirtualMacError::Open)?;
        Ok(Self { netlink, made: Vec::new(), bases: Vec::new() })
    }

    /// Makes the interface for a virtual router anew on `base`, and sets it up. One that was left behind goes first, with
    /// its addresses.
    ///
    /// # Errors
    /// See [`VirtualMacError`]; there is no such interface then.
    pub fn create(&mut self, base: &Interface, vrid: Vrid, ipv6: bool) -> Result<Created, VirtualMacError> {
        let (name, mac) = (name(vrid, ipv6), mac(vrid, ipv6));
        self.remove(vrid, ipv6)?;
        let creation = request::creation(base.index, &name, mac);
        self.netlink.change(creation).map_err(|error| refused("make", base, &name, mac, error))?;
        self.made.push(Made { name: name.clone(), base: base.index });
        let created = self.set_up(base, &name, mac, ipv6).map_err(|error| refused("set", base, &name, mac, error));
        if created.is_err() {
            self.remove(vrid, ipv6)?;
        }
        created
    }

    /// Removes the interface of a virtual router, also one that a killed process left. Gives whether it was there.
    ///
    /// # Errors
    /// Not permitted, or something else has its name.
    pub fn remove(&mut self, vrid: Vrid, ipv6: bool) -> Result<bool, VirtualMacError> {
        let name = name(vrid, ipv6);
        let removed = delete(&mut self.netlink, &name)?;
        self.made.retain(|made| made.name != name);
        self.restore_bases();
        Ok(removed)
    }

    fn set_up(&mut self, base: &Interface, name: &str, mac: MacAddr, ipv6: bool) -> Result<Created, Errno> {
        let index = request::find(&mut self.netlink, name)?.ok_or(Errno::ENODEV)?.index;
        self.hold_base(base.index)?;
        let settings = ARP_SETTINGS.into_iter().chain(MACVLAN_SETTINGS);
        self.netlink.change(request::ipv4_settings(index, settings))?;
        match self.netlink.change(request::without_ipv6_address(index)) {
            // A kernel without IPv6 makes no address.
            Ok(()) | Err(Errno::EAFNOSUPPORT) => {}
            Err(error) => return Err(error),
        }
        let unset = system_settings(name, ipv6);
        self.netlink.change(request::raise(index))?;
        let interface = Interface { name: name.to_owned(), index, mac: Some(mac), link_local: base.link_local };
        Ok(Created { interface, unset })
    }

    fn hold_base(&mut self, index: u32) -> Result<(), Errno> {
        if !self.bases.iter().any(|base| base.index == index) {
            let before = request::read_settings(&mut self.netlink, index, ARP_SETTINGS)?;
            self.netlink.change(request::ipv4_settings(index, ARP_SETTINGS))?;
            self.bases.push(Base { index, before });
        }
        Ok(())
    }

    /// Gives base interfaces without a virtual MAC their settings back.
    fn restore_bases(&mut self) {
        let (made, netlink) = (&self.made, &mut self.netlink);
        self.bases.retain(|base| {
            let used = made.iter().any(|made| made.base == base.index);
            if !used {
                match netlink.change(request::ipv4_settings(base.index, base.before)) {
                    // Where the interface is gone, so are its settings.
                    Ok(()) | Err(Errno::ENODEV) => {}
                    Err(error) => {
                        let interface = interface::name(base.index);
                        tracing::warn!(interface, %error, "arp_ignore and arp_announce stay as the virtual MAC needed them");
                    }
                }
            }
            used
        });
    }
}

impl Drop for VirtualMacs {
    fn drop(&mut self) {
        for Made { name, .. } in std::mem::take(&mut self.made) {
            if let Err(error) = delete(&mut self.netlink, &name) {
                tracing::error!(%error, "the interface of a virtual MAC stays behind; remove it with ip link delete");
            }
        }
        self.restore_bases();
    }
}

fn delete(netlink: &mut Netlink, name: &str) -> Result<bool, VirtualMacError> {
    let failed = |error| match error {
        Errno::EPERM | Errno::EACCES => VirtualMacError::NotPermitted,
        error => VirtualMacError::Refused { doing: "remove", name: name.to_owned(), source: error.into() },
    };
    let Some(found) = request::find(netlink, name).map_err(failed)? else { return Ok(false) };
    if !found.macvlan {
        return Err(VirtualMacError::NameTaken(name.to_owned()));
    }
    match netlink.change(request::removal(found.index)) {
        Ok(()) => Ok(true),
        // Gone with its base interface.
        Err(Errno::ENODEV) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// What no netlink message can set. On a macvlan of IPv4 there is no IPv6 at all.
fn system_settings(name: &str, ipv6: bool) -> Vec<String> {
    let wanted: &[(&str, u8)] = if ipv6 { &[("accept_ra", 0), ("autoconf", 0)] } else { &[("disable_ipv6", 1)] };
    // Where the rest of /proc/sys is, this machine is without IPv6; else it is hidden.
    if Path::new("/proc/sys/net/core").exists() && !Path::new("/proc/sys/net/ipv6").exists() {
        return Vec::new();
    }
    let mut unset = Vec::new();
    for (setting, value) in wanted {
        let path = format!("/proc/sys/net/ipv6/conf/{name}/{setting}");
        if let Err(error) = std::fs::write(path, value.to_string()) {
            unset.push(format!(
                "cannot set net.ipv6.conf.{name}.{setting} = {value} ({error}): where routers advertise prefixes, this \
                 interface gets an address of its own; set net.ipv6.conf.default.{setting} = {value} before evermq-vip \
                 starts, or let it write there (systemd: ReadWritePaths=/proc/sys/net/ipv6/conf, and no ProcSubset=pid)"
            ));
        }
    }
    unset
}

fn refused(doing: &'static str, base: &Interface, name: &str, mac: MacAddr, error: Errno) -> VirtualMacError {
    match error {
        Errno::EPERM | Errno::EACCES => VirtualMacError::NotPermitted,
        Errno::EOPNOTSUPP => VirtualMacError::Unsupported,
        Errno::EBUSY | Errno::EADDRINUSE => VirtualMacError::Busy { base: base.name.clone(), mac },
        error => VirtualMacError::Refused { doing, name: name.to_owned(), source: error.into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_hardware_addresses_tell_the_families_apart() {
        let vrid = Vrid::new(51).unwrap();
        assert_eq!(
            (mac(vrid, false).to_string().as_str(), name(vrid, false).as_str()),
            ("00:00:5e:00:01:33", "evmq-51")
        );
        assert_eq!(
            (mac(vrid, true).to_string().as_str(), name(vrid, true).as_str()),
            ("00:00:5e:00:02:33", "evmq6-51")
        );
        // The longest fits into IFNAMSIZ.
        assert!(name(Vrid::new(255).unwrap(), true).len() < 16);
    }
}
