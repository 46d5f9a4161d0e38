//! Tells neighbours and switches which host holds the VIP: gratuitous ARP, and unsolicited neighbour advertisements.
//!
//! Both forms of gratuitous ARP are sent, because some devices learn from one only: a request for the VIP by the VIP (the
//! RFC's own form, RFC 9568 §6.4.2) and an unasked reply. Sender and target protocol address are the VIP in both. With a
//! virtual MAC they are sent on its interface, and carry it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc;
use pnet_base::MacAddr;
use pnet_packet::arp::{ArpHardwareTypes, ArpOperation, ArpOperations, MutableArpPacket};
use pnet_packet::ethernet::{EtherTypes, MutableEthernetPacket};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::util::ipv6_checksum;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::interface::Interface;
use crate::netlink::{Netlink, Request, attributes, u32_at};

const ETHERNET: usize = 14;
const IPV6: usize = 40;
/// A neighbour advertisement with one option.
const ADVERTISEMENT: usize = 24 + 8;
/// Bytes of an ARP frame before the network card pads it.
pub const ARP_FRAME: usize = ETHERNET + 28;
/// Bytes of the frame of a neighbour advertisement.
pub const NA_FRAME: usize = ETHERNET + IPV6 + ADVERTISEMENT;

/// All nodes of the link, and their hardware address (RFC 2464 §7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddr = MacAddr(0x33, 0x33, 0, 0, 0, 1);

/// `RTM_GETNETCONF` and its attributes: settings of an interface.
const RTM_GETNETCONF: u16 = 82;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;

/// Announces a virtual router's addresses on one interface.
#[derive(Debug)]
pub struct Announcer {
    socket: Socket,
    frames: Vec<Frame>,
}

#[derive(Debug)]
enum Frame {
    Arp([u8; ARP_FRAME]),
    Na([u8; NA_FRAME]),
}

impl Announcer {
    /// An announcer of `addresses` on `interface`; on one without a hardware address it has nothing to say.
    ///
    /// # Errors
    /// The kernel refuses a packet socket: `CAP_NET_RAW` is missing.
    pub fn open(interface: &Interface, addresses: &[IpAddr]) -> io::Result<Self> {
        // Protocol 0: this socket never receives anything.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&link_address(interface.index, 0))?;
        let Some(mac) = interface.mac else { return Ok(Self { socket, frames: Vec::new() }) };
        let router = addresses.iter().any(IpAddr::is_ipv6) && forwards_ipv6(interface.index)?;
        let mut frames = Vec::new();
        for address in addresses {
            match *address {
                IpAddr::V4(address) => frames.extend(
                    [ArpOperations::Request, ArpOperations::Reply].map(|kind| Frame::Arp(arp(kind, mac, address))),
                ),
                IpAddr::V6(address) => frames.push(Frame::Na(neighbour_advertisement(mac, address, router))),
            }
        }
        Ok(Self { socket, frames })
    }

    /// Announces every address `count` times, the first ones of all before the second ones. Gives the number of frames
    /// sent, and the error that ended the burst. Allocates nothing.
    pub fn burst(&self, count: u8) -> (u64, Option<io::Error>) {
        let mut sent = 0;
        for _ in 0..count {
            for frame in &self.frames {
                match self.socket.send(frame.bytes()) {
                    Ok(_) => sent += 1,
                    Err(error) => return (sent, Some(error)),
                }
            }
        }
        (sent, None)
    }
}

impl Frame {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Arp(bytes) => bytes,
            Self::Na(bytes) => bytes,
        }
    }
}

/// A gratuitous ARP frame (RFC 826's fields, RFC 5227 §3 for the values).
#[must_use]
pub fn arp(operation: ArpOperation, mac: MacAddr, vip: Ipv4Addr) -> [u8; ARP_FRAME] {
    arp_frame(operation, (mac, vip), (MacAddr::broadcast(), vip))
}

/// An ARP frame to everyone.
fn arp_frame(operation: ArpOperation, sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> [u8; ARP_FRAME] {
    let mut bytes = [0; ARP_FRAME];
    let (ethernet_bytes, arp_bytes) = bytes.split_at_mut(ETHERNET);
    let mut ethernet = MutableEthernetPacket::new(ethernet_bytes).expect("the slice has the header's size");
    ethernet.set_destination(MacAddr::broadcast());
    ethernet.set_source(sender.0);
    ethernet.set_ethertype(EtherTypes::Arp);
    let mut arp = MutableArpPacket::new(arp_bytes).expect("28 bytes are an ARP packet for IPv4 on Ethernet");
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(operation);
    arp.set_sender_hw_addr(sender.0);
    arp.set_sender_proto_addr(sender.1);
    arp.set_target_hw_addr(target.0);
    arp.set_target_proto_addr(target.1);
    bytes
}

/// An unsolicited neighbour advertisement from `vip` for itself (RFC 4861 §7.2.6, RFC 9568 §6.4.2).
///
/// ```text
///  | type 136 | code 0 |     checksum    |
///  |R|S|O|           reserved            |
///  |        target: the VIP, 16 bytes    |
///  | option 2 | 1 (8 bytes) | link-layer address, 6 bytes |
/// ```
/// O (override) makes neighbours forget the former holder's hardware address. R is as in every other advertisement of this
/// host: neighbours drop a router that says that it is none.
#[must_use]
pub fn neighbour_advertisement(mac: MacAddr, vip: Ipv6Addr, router: bool) -> [u8; NA_FRAME] {
    const OVERRIDE: u8 = 0x20;
    const ROUTER: u8 = 0x80;
    let mut bytes = [0; NA_FRAME];
    let (headers, message) = bytes.split_at_mut(ETHERNET + IPV6);
    let (ethernet_bytes, ip) = headers.split_at_mut(ETHERNET);
    let mut ethernet = MutableEthernetPacket::new(ethernet_bytes).expect("the slice has the header's size");
    ethernet.set_destination(ALL_NODES_MAC);
    ethernet.set_source(mac);
    ethernet.set_ethertype(EtherTypes::Ipv6);
    // Traffic class CS6, as all that controls the network.
    ip[..4].copy_from_slice(&[0x6c, 0, 0, 0]);
    ip[4..6].copy_from_slice(&(ADVERTISEMENT as u16).to_be_bytes());
    ip[6] = IpNextHeaderProtocols::Icmpv6.0;
    // Anything less is discarded as forwarded (RFC 4861 §7.1.2).
    ip[7] = 255;
    ip[8..24].copy_from_slice(&vip.octets());
    ip[24..].copy_from_slice(&ALL_NODES.octets());
    message[0] = 136;
    message[4] = OVERRIDE | if router { ROUTER } else { 0 };
    message[8..24].copy_from_slice(&vip.octets());
    message[24..26].copy_from_slice(&[2, 1]);
    message[26..].copy_from_slice(&mac.octets());
    // The checksum is the message's second word of 16 bits.
    let checksum = ipv6_checksum(message, 1, &[], &vip, &ALL_NODES, IpNextHeaderProtocols::Icmpv6);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// Whether this host is a router on the interface, asked where a confined program can ask.
fn forwards_ipv6(interface: u32) -> io::Result<bool> {
    let mut request = Request::new(RTM_GETNETCONF, libc::NLM_F_ACK, &[libc::AF_INET6 as u8]);
    request.attribute(NETCONFA_IFINDEX, &interface.to_ne_bytes());
    let mut forwards = false;
    let asked = Netlink::open()?.ask(request, |message| {
        // `struct netconfmsg` is the family, padded.
        let settings = attributes(message.payload.get(4..).unwrap_or_default());
        forwards |= settings
            .filter(|(kind, _)| *kind == NETCONFA_FORWARDING)
            .any(|(_, value)| u32_at(value, 0).is_some_and(|forwarding| forwarding != 0));
    });
    // Where IPv6 is off there is nothing to ask about; adding the address will say so.
    Ok(asked.is_ok() && forwards)
}

/// `sockaddr_ll` (packet(7)) of an interface, and of what is to be received from it.
pub(crate) fn link_address(index: u32, protocol: u16) -> SockAddr {
    // SAFETY: the closure writes a whole sockaddr_ll, which sockaddr_storage has room and alignment for, and its length.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let mut link: libc::sockaddr_ll = std::mem::zeroed();
            link.sll_family = libc::AF_PACKET as libc::sa_family_t;
            link.sll_protocol = protocol.to_be();
            link.sll_ifindex = index.cast_signed();
            storage.cast::<libc::sockaddr_ll>().write(link);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }
    .expect("the closure does not fail");
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr(2, 0, 0, 0xaa, 0xbb, 0xcc);

    #[test]
    fn arp_frames_are_byte_for_byte_what_neighbours_expect() {
        let vip = Ipv4Addr::new(10, 90, 0, 100);
        let expected = |operation: u8| -> Vec<u8> {
            [
                &[0xff; 6][..],                                        // to everyone
                &[2, 0, 0, 0xaa, 0xbb, 0xcc],                          // from the host
                &[0x08, 0x06],                                         // ARP
                &[0, 1, 0x08, 0x00, 6, 4, 0, operation],               // Ethernet, IPv4, lengths, operation
                &[2, 0, 0, 0xaa, 0xbb, 0xcc, 10, 90, 0, 100],          // sender
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 10, 90, 0, 100], // target
            ]
            .concat()
        };
        assert_eq!(arp(ArpOperations::Request, MAC, vip).to_vec(), expected(1));
        assert_eq!(arp(ArpOperations::Reply, MAC, vip).to_vec(), expected(2));
    }

    #[test]
    fn neighbour_advertisements_are_byte_for_byte_what_neighbours_expect() {
        let vip = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100);
        let octets = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        let expected = |flags: u8, checksum: [u8; 2]| -> Vec<u8> {
            [
                &[0x33, 0x33, 0, 0, 0, 1][..],                        // to all nodes
                &[2, 0, 0, 0xaa, 0xbb, 0xcc],                         // from the host
                &[0x86, 0xdd],                                        // IPv6
                &[0x6c, 0, 0, 0, 0, 32, 58, 255],                     // length, ICMPv6, hop limit
                &octets,                                              // from the VIP
                &[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], // to ff02::1
                &[136, 0, checksum[0], checksum[1], flags, 0, 0, 0],  // neighbour advertisement
                &octets,                                              // for the VIP
                &[2, 1, 2, 0, 0, 0xaa, 0xbb, 0xcc],                   // which is at this address
            ]
            .concat()
        };
        // Checksums worked out by hand: pseudo-header and message sum to 0xffff.
        assert_eq!(neighbour_advertisement(MAC, vip, false).to_vec(), expected(0x20, [0x9c, 0x27]));
        assert_eq!(neighbour_advertisement(MAC, vip, true).to_vec(), expected(0xa0, [0x1c, 0x27]));
    }
}
