//! Sees another host claim one of the VIP's addresses: ARP packets in its name, and neighbour advertisements for it.
//!
//! A filter in the kernel passes nothing else, so that a quiet network costs nothing. A host that shares this one's virtual
//! MAC cannot be told from this one here; its advertisements can.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, recv};
use pnet_base::MacAddr;
use socket2::{Domain, SockFilter, Socket, Type};

use crate::announce::{NA_FRAME, link_address};
use crate::bpf::{self, Width};
use crate::interface::Interface;

/// Offsets in the frame of an ARP packet.
mod arp {
    pub(super) const SENDER_MAC: usize = 22;
    pub(super) const SENDER: usize = 28;
    /// Ethernet, IPv4, and the lengths of their addresses.
    pub(super) const KIND: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];
    pub(super) const KIND_AT: usize = 14;
}

/// Offsets in the frame of a neighbour advertisement behind a plain IPv6 header.
mod na {
    pub(super) const SOURCE_MAC: usize = 6;
    pub(super) const NEXT_HEADER: usize = 20;
    pub(super) const TYPE: usize = 54;
    pub(super) const TARGET: usize = 62;
    pub(super) const OPTION: usize = 78;
}

const ICMPV6: u32 = 58;
const NEIGHBOUR_ADVERTISEMENT: u32 = 136;
/// Target link-layer address, 8 bytes long.
const TARGET_OPTION: [u8; 2] = [2, 1];
/// Claims read before the other inputs get their turn: whoever repeats his does not silence us.
const CLAIMS_AT_ONCE: usize = 16;

/// Another host says that it has one of our addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Which.
    pub address: IpAddr,
    /// The hardware address to which it wants it.
    pub mac: MacAddr,
}

/// Listens for claims of a virtual router's addresses on one interface.
#[derive(Debug)]
pub struct Conflicts {
    socket: Socket,
    addresses: Vec<IpAddr>,
    own: Vec<MacAddr>,
}

impl Conflicts {
    /// Listens on `interface` for others than the hardware addresses `own` that claim one of `addresses`, which are of one
    /// family.
    ///
    /// # Errors
    /// The kernel refuses a packet socket: `CAP_NET_RAW` is missing.
    pub fn open(interface: &Interface, addresses: &[IpAddr], own: &[MacAddr]) -> io::Result<Self> {
        let ipv4 = addresses.iter().all(IpAddr::is_ipv4);
        let protocol = if ipv4 { libc::ETH_P_ARP } else { libc::ETH_P_IPV6 };
        // Protocol 0 at first: nothing arrives before the filter is there. Frames that this host sends never arrive.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(&filter(addresses, own))?;
        socket.bind(&link_address(interface.index, protocol as u16))?;
        Ok(Self { socket, addresses: addresses.to_vec(), own: own.to_vec() })
    }

    /// Gives the claims that wait to `each`, a flood in several calls. Never waits, allocates nothing.
    ///
    /// # Errors
    /// The kernel reports an error of the socket, such as the interface going down.
    pub fn read(&self, mut each: impl FnMut(Claim)) -> io::Result<()> {
        let mut frame = [0; NA_FRAME];
        for _ in 0..CLAIMS_AT_ONCE {
            match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    if let Some(claim) = self.claim(&frame[..length]) {
                        each(claim);
                    }
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// What the filter cannot see is checked here: whose hardware address an advertisement's option names.
    fn claim(&self, frame: &[u8]) -> Option<Claim> {
        let claim = if self.addresses.iter().all(IpAddr::is_ipv4) { read_arp(frame)? } else { read_na(frame)? };
        (self.addresses.contains(&claim.address) && !self.own.contains(&claim.mac)).then_some(claim)
    }
}

impl AsFd for Conflicts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn read_arp(frame: &[u8]) -> Option<Claim> {
    let address = Ipv4Addr::from(*frame.get(arp::SENDER..)?.first_chunk::<4>()?);
    Some(Claim { address: address.into(), mac: mac_at(frame, arp::SENDER_MAC)? })
}

fn read_na(frame: &[u8]) -> Option<Claim> {
    let address = Ipv6Addr::from(*frame.get(na::TARGET..)?.first_chunk::<16>()?);
    let named = frame.get(na::OPTION..na::OPTION + 2) == Some(&TARGET_OPTION[..]);
    let mac = if named { mac_at(frame, na::OPTION + 2)? } else { mac_at(frame, na::SOURCE_MAC)? };
    Some(Claim { address: address.into(), mac })
}

fn mac_at(frame: &[u8], at: usize) -> Option<MacAddr> {
    Some(MacAddr::from(*frame.get(at..)?.first_chunk::<6>()?))
}

/// The program of the kernel's filter.
fn filter(addresses: &[IpAddr], own: &[MacAddr]) -> Vec<SockFilter> {
    let mut program = bpf::Program::default();
    let ipv4 = addresses.iter().all(IpAddr::is_ipv4);
    if ipv4 {
        program.require_bytes(arp::KIND_AT, &arp::KIND);
    } else {
        program.require(Width::Byte, na::NEXT_HEADER, ICMPV6);
        program.require(Width::Byte, na::TYPE, NEIGHBOUR_ADVERTISEMENT);
    }
    let octets: Vec<Vec<u8>> = addresses
        .iter()
        .map(|address| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        })
        .collect();
    program.require_one_of(if ipv4 { arp::SENDER } else { na::TARGET }, &octets);
    for mac in own {
        program.refuse_bytes(if ipv4 { arp::SENDER_MAC } else { na::SOURCE_MAC }, &mac.octets());
    }
    program.accept()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announce;

    const OWN: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);
    const OTHER: MacAddr = MacAddr(2, 0, 0, 0, 0, 2);

    #[test]
    fn claims_are_read_from_what_other_hosts_send() {
        let vip = Ipv4Addr::new(10, 77, 0, 100);
        let frame = announce::arp(pnet_packet::arp::ArpOperations::Reply, OTHER, vip);
        assert_eq!(read_arp(&frame), Some(Claim { address: vip.into(), mac: OTHER }));
        let vip = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);
        let mut frame = announce::neighbour_advertisement(OTHER, vip, false);
        assert_eq!(read_na(&frame), Some(Claim { address: vip.into(), mac: OTHER }));
        // Without the option it is the sender's.
        frame[na::OPTION] = 0;
        frame[na::SOURCE_MAC..na::SOURCE_MAC + 6].copy_from_slice(&OWN.octets());
        assert_eq!(read_na(&frame), Some(Claim { address: vip.into(), mac: OWN }));
        for length in 0..na::OPTION {
            assert_eq!(read_na(&frame[..length]), None);
        }
    }
}
