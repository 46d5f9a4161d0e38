//! Gratuitous ARP: tells neighbours and switches which host holds the VIP now.
//!
//! Both forms are sent, because some devices learn from one only: a request for the VIP by the VIP (the RFC's own form,
//! RFC 9568 §6.4.2) and an unasked reply. Sender and target protocol address are the VIP in both.

use std::io;
use std::net::Ipv4Addr;

use nix::libc;
use pnet_base::MacAddr;
use pnet_packet::arp::{ArpHardwareTypes, ArpOperation, ArpOperations, MutableArpPacket};
use pnet_packet::ethernet::{EtherTypes, MutableEthernetPacket};
use socket2::{Domain, SockAddr, Socket, Type};

/// Bytes of a frame before the network card pads it.
pub const FRAME: usize = 14 + 28;

/// Sends gratuitous ARP for one address on one interface.
#[derive(Debug)]
pub struct Garp {
    socket: Socket,
    frames: [[u8; FRAME]; 2],
}

impl Garp {
    /// A sender on the interface with this index and hardware address.
    ///
    /// # Errors
    /// The kernel refuses a packet socket: `CAP_NET_RAW` is missing.
    pub fn open(index: u32, mac: MacAddr, vip: Ipv4Addr) -> io::Result<Self> {
        // Protocol 0: this socket never receives anything.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&link_address(index))?;
        let frames = [ArpOperations::Request, ArpOperations::Reply].map(|operation| frame(operation, mac, vip));
        Ok(Self { socket, frames })
    }

    /// Sends `count` pairs of request and reply. Gives the number of frames sent, and the error that ended the burst.
    pub fn burst(&self, count: u8) -> (u64, Option<io::Error>) {
        let mut sent = 0;
        for _ in 0..count {
            for frame in &self.frames {
                match self.socket.send(frame) {
                    Ok(_) => sent += 1,
                    Err(error) => return (sent, Some(error)),
                }
            }
        }
        (sent, None)
    }
}

/// A gratuitous ARP frame (RFC 826's fields, RFC 5227 §3 for the values).
#[must_use]
pub fn frame(operation: ArpOperation, mac: MacAddr, vip: Ipv4Addr) -> [u8; FRAME] {
    let mut bytes = [0; FRAME];
    let (ethernet_bytes, arp_bytes) = bytes.split_at_mut(MutableEthernetPacket::minimum_packet_size());
    let mut ethernet = MutableEthernetPacket::new(ethernet_bytes).expect("the slice has the header's size");
    ethernet.set_destination(MacAddr::broadcast());
    ethernet.set_source(mac);
    ethernet.set_ethertype(EtherTypes::Arp);
    let mut arp = MutableArpPacket::new(arp_bytes).expect("28 bytes are an ARP packet for IPv4 on Ethernet");
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(operation);
    arp.set_sender_hw_addr(mac);
    arp.set_sender_proto_addr(vip);
    arp.set_target_hw_addr(MacAddr::broadcast());
    arp.set_target_proto_addr(vip);
    bytes
}

/// `sockaddr_ll` (packet(7)) of an interface.
fn link_address(index: u32) -> SockAddr {
    // SAFETY: the closure writes a whole sockaddr_ll, which sockaddr_storage has room and alignment for, and its length.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let mut link: libc::sockaddr_ll = std::mem::zeroed();
            link.sll_family = libc::AF_PACKET as libc::sa_family_t;
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

    #[test]
    fn frames_are_byte_for_byte_what_neighbours_expect() {
        let mac = MacAddr::new(2, 0, 0, 0xaa, 0xbb, 0xcc);
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
        assert_eq!(frame(ArpOperations::Request, mac, vip).to_vec(), expected(1));
        assert_eq!(frame(ArpOperations::Reply, mac, vip).to_vec(), expected(2));
    }
}
