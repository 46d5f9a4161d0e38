//! Telling a client that the host it is connected to has lost the VIP: the segment that does it, and ([`pacer`]) how many of
//! them at a time.
//!
//! The client's kernel believes a reset only with the sequence number that it expects, which nobody knows but the client and
//! the host that is gone. So the client is asked: it gets an ACK whose sequence number is far outside its window, and answers
//! with one that has the numbers it expects (RFC 9293 §3.10.7.4: an unacceptable segment is answered with an acknowledgment).
//! That answer goes to the VIP, and so to the new host, whose kernel knows of no such connection and resets it with just
//! these numbers (RFC 9293 §3.5.2). Samba's CTDB calls this a tickle ACK.
//!
//! What has to be so on the way:
//! - Linux answers one such segment in 500 ms for each connection (`net.ipv4.tcp_invalid_ratelimit`): hence more than that
//!   between the two rounds.
//! - The segment has no timestamp (RFC 7323 §3.2 would have one on a connection that agreed on them). Linux looks for an old
//!   timestamp only where there is one, then at the sequence number.
//! - Firewalls that follow connections know nothing of this one. On the lb hosts, rules that accept what is established and
//!   new connections to the lb's port (also with SYN only), and drop what is invalid, do no harm: the segment that goes out
//!   begins a connection for them, and the answer belongs to it. With `nf_conntrack_tcp_loose = 0` they must let out TCP from
//!   the VIP and let in TCP to it also where it is invalid. Where invalid packets are dropped before clients, or a router
//!   translates their addresses, an old duplicate passes on Linux from 6.2 on, which is what one segment of [`STALE`] is to
//!   everyone; elsewhere with `nf_conntrack_tcp_be_liberal = 1`. A client that is not reached finds out as it would without this.
//! - A client that is not there any more, or has come back from another port, is not harmed: its kernel answers with a reset
//!   that concerns nobody, or not at all. One that has come back from the same port has a connection to this host: its answer
//!   is an ordinary duplicate ACK there.
//!
//! Pure.

pub mod pacer;

use std::net::{IpAddr, SocketAddr};

/// Both headers of IPv6.
pub const LONGEST: usize = 40 + TCP;
/// A TCP header without options.
const TCP: usize = 20;
/// Of the IP headers.
const PROTOCOL_TCP: u8 = 6;
/// As of any packet of this host.
const HOP_LIMIT: u8 = 64;
/// Never looked at: the segment's sequence number comes first.
const WINDOW: u16 = 1024;

/// A client's connection to the VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Connection {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The VIP and its port.
    pub vip: SocketAddr,
}

/// Numbers of a segment that its receiver cannot take for one of its connection's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale {
    sequence: u32,
    acknowledgment: u32,
}

/// What one client is sent: each number once on either side of what the client expects, whatever that is. At most one of the
/// two is within its window, which is less than 2^30 wide (RFC 7323 §2.3). And of the four, one has both numbers in the past:
/// that one passes where connections are followed strictly (Linux from 6.2 on lets an old duplicate pass), the others are
/// invalid there. The client answers the first that comes.
pub const STALE: [Stale; 4] = [stale(0, 0), stale(HALF, HALF), stale(0, HALF), stale(HALF, 0)];
/// Of the space of sequence numbers.
const HALF: u32 = 1 << 31;

const fn stale(sequence: u32, acknowledgment: u32) -> Stale {
    Stale { sequence, acknowledgment }
}

/// Writes the whole packet into `buffer`. Gives its length; none where the two addresses are not of one family.
pub fn encode(connection: &Connection, stale: Stale, buffer: &mut [u8; LONGEST]) -> Option<usize> {
    let Connection { client, vip } = connection;
    let mut segment = segment(vip.port(), client.port(), stale);
    let length = match (vip.ip(), client.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let (from, to) = (from.octets(), to.octets());
            let sum = checksum([&from[..], &to, &[0, PROTOCOL_TCP], &length16(TCP), &segment]);
            segment[16..18].copy_from_slice(&sum.to_be_bytes());
            // RFC 791 §3.1: version and length, service, total length, identification, do not fragment, TTL, protocol.
            let mut header = [0; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&length16(20 + TCP));
            header[6] = 0x40;
            header[8..10].copy_from_slice(&[HOP_LIMIT, PROTOCOL_TCP]);
            header[12..16].copy_from_slice(&from);
            header[16..20].copy_from_slice(&to);
            let sum = checksum([&header[..]]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            buffer[..20].copy_from_slice(&header);
            20
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let (from, to) = (from.octets(), to.octets());
            // RFC 8200 §8.1: the length takes four bytes, and so do three zeros and the protocol.
            let sum = checksum([&from[..], &to, &[0, 0], &length16(TCP), &[0, 0, 0, PROTOCOL_TCP], &segment]);
            segment[16..18].copy_from_slice(&sum.to_be_bytes());
            // RFC 8200 §3: version, class and flow, payload length, next header, hop limit.
            buffer[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, TCP as u8, PROTOCOL_TCP, HOP_LIMIT]);
            buffer[8..24].copy_from_slice(&from);
            buffer[24..40].copy_from_slice(&to);
            40
        }
        _ => return None,
    };
    buffer[length..length + TCP].copy_from_slice(&segment);
    Some(length + TCP)
}

/// RFC 9293 §3.1, with a checksum of zero.
fn segment(from: u16, to: u16, stale: Stale) -> [u8; TCP] {
    let mut segment = [0; TCP];
    segment[..2].copy_from_slice(&from.to_be_bytes());
    segment[2..4].copy_from_slice(&to.to_be_bytes());
    segment[4..8].copy_from_slice(&stale.sequence.to_be_bytes());
    segment[8..12].copy_from_slice(&stale.acknowledgment.to_be_bytes());
    // Five words of header; ACK.
    segment[12..14].copy_from_slice(&[0x50, 0x10]);
    segment[14..16].copy_from_slice(&WINDOW.to_be_bytes());
    segment
}

const fn length16(length: usize) -> [u8; 2] {
    (length as u16).to_be_bytes()
}

/// RFC 1071; each part has an even length.
fn checksum<const N: usize>(parts: [&[u8]; N]) -> u16 {
    let words =
        parts.iter().flat_map(|part| part.chunks_exact(2)).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use pnet_packet::Packet as _;
    use pnet_packet::ipv4::{self, Ipv4Packet};
    use pnet_packet::ipv6::Ipv6Packet;
    use pnet_packet::tcp::{self, TcpFlags, TcpPacket};
    use proptest::prelude::*;

    use super::*;

    fn packet(client: &str, vip: &str, stale: Stale) -> Vec<u8> {
        let connection = Connection { client: client.parse().unwrap(), vip: vip.parse().unwrap() };
        let mut buffer = [0; LONGEST];
        let length = encode(&connection, stale, &mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    #[test]
    fn packets_are_byte_for_byte_what_kernels_expect() {
        // tcpdump reads "Flags [.], cksum 0xd764 (correct), seq 0, ack 0, win 1024, length 0".
        let expected = [
            &[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6][..],
            &[0x25, 0xd0, 10, 77, 0, 100, 10, 77, 0, 3],
            &[0x23, 0x28, 0x9c, 0x47],
            &[0, 0, 0, 0, 0, 0, 0, 0],
            &[0x50, 0x10, 4, 0],
            &[0xd7, 0x64, 0, 0],
        ];
        assert_eq!(packet("10.77.0.3:40007", "10.77.0.100:9000", STALE[0]), expected.concat());
        // "Flags [.], cksum 0x0ff0 (correct), seq 2147483648, ack 0, win 1024, length 0"
        let expected = [
            &[0x60, 0, 0, 0, 0, 20, 6, 64][..],
            &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0],
            &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3],
            &[0x23, 0x28, 0x9c, 0x47],
            &[0x80, 0, 0, 0, 0, 0, 0, 0],
            &[0x50, 0x10, 4, 0],
            &[0x0f, 0xf0, 0, 0],
        ];
        assert_eq!(packet("[2001:db8::3]:40007", "[2001:db8::100]:9000", STALE[3]), expected.concat());
    }

    proptest! {
        #[test]
        fn whatever_a_client_expects_one_segment_is_old_in_both_numbers(sequence: u32, acknowledgment: u32) {
            let is_old = |number: u32, expected: u32| (1..=HALF).contains(&expected.wrapping_sub(number));
            let old = STALE.iter().filter(|stale| is_old(stale.sequence, sequence) && is_old(stale.acknowledgment, acknowledgment));
            prop_assert!(old.count() >= 1);
            let in_window = |stale: &&Stale| stale.sequence.wrapping_sub(sequence) < 1 << 30;
            prop_assert!(STALE.iter().filter(in_window).count() <= 2, "the others are answered");
        }
    }

    #[test]
    fn addresses_of_two_families_make_no_packet() {
        let mixed = Connection { client: "10.0.0.1:1".parse().unwrap(), vip: "[2001:db8::1]:9000".parse().unwrap() };
        assert_eq!(encode(&mixed, STALE[0], &mut [0; LONGEST]), None);
    }

    fn check_segment(segment: &TcpPacket<'_>, ports: (u16, u16)) {
        assert_eq!((segment.get_source(), segment.get_destination()), ports);
        assert_eq!((segment.get_flags(), segment.get_data_offset()), (TcpFlags::ACK, 5));
        assert!(segment.payload().is_empty());
    }

    proptest! {
        #[test]
        fn another_implementation_reads_the_same_and_finds_the_checksums_right(
            client in any::<[u8; 4]>(), vip in any::<[u8; 4]>(), wide_client in any::<[u8; 16]>(), wide_vip in any::<[u8; 16]>(),
            ports in any::<(u16, u16)>(), which in 0..4_usize,
        ) {
            let mut buffer = [0; LONGEST];
            let connection = Connection { client: (client, ports.1).into(), vip: (vip, ports.0).into() };
            prop_assert_eq!(encode(&connection, STALE[which], &mut buffer), Some(40));
            let ip = Ipv4Packet::new(&buffer[..40]).unwrap();
            prop_assert_eq!(ip.get_checksum(), ipv4::checksum(&ip));
            prop_assert_eq!((ip.get_source().octets(), ip.get_destination().octets()), (vip, client));
            let segment = TcpPacket::new(ip.payload()).unwrap();
            check_segment(&segment, ports);
            prop_assert_eq!(segment.get_checksum(), tcp::ipv4_checksum(&segment, &vip.into(), &client.into()));

            let connection = Connection { client: (wide_client, ports.1).into(), vip: (wide_vip, ports.0).into() };
            prop_assert_eq!(encode(&connection, STALE[which], &mut buffer), Some(60));
            let ip = Ipv6Packet::new(&buffer).unwrap();
            prop_assert_eq!((ip.get_source().octets(), ip.get_destination().octets()), (wide_vip, wide_client));
            prop_assert_eq!((ip.get_version(), ip.get_payload_length(), ip.get_hop_limit()), (6, 20, 64));
            let segment = TcpPacket::new(ip.payload()).unwrap();
            check_segment(&segment, ports);
            prop_assert_eq!(segment.get_checksum(), tcp::ipv6_checksum(&segment, &wide_vip.into(), &wide_client.into()));
        }
    }
}
