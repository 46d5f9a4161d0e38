//! Whether the gateway answers: ICMP echo (RFC 792). Not authenticated: whoever is on its way can answer for it.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, Protocol, Socket, Type};

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
/// Header, token, stamp.
const LENGTH: usize = 24;
/// The longest IPv4 header and an answer.
const LARGEST: usize = 60 + LENGTH;
/// Answers read in one turn: a flood must not keep the others waiting.
const AT_ONCE: usize = 16;

/// A socket for echo requests to one address.
#[derive(Debug)]
pub(crate) struct Gateway {
    socket: Socket,
    /// Raw sockets receive the IP header too.
    raw: bool,
    /// Tells this program's requests from others'.
    token: u64,
    base: Instant,
    sequence: u16,
}

impl Gateway {
    /// Opens a datagram socket for ICMP where `net.ipv4.ping_group_range` permits it, otherwise a raw one.
    pub(crate) fn open(address: Ipv4Addr, token: u64, now: Instant) -> io::Result<Self> {
        let open = |kind| Socket::new(Domain::IPV4, kind, Some(Protocol::ICMPV4));
        let (socket, raw) = match open(Type::DGRAM) {
            Ok(socket) => (socket, false),
            Err(_) => (open(Type::RAW)?, true),
        };
        socket.set_nonblocking(true)?;
        // Only this address's answers. Where it cannot be reached at all, sending says so each time.
        socket.connect(&SocketAddrV4::new(address, 0).into())?;
        Ok(Self { socket, raw, token, base: now, sequence: 0 })
    }

    /// Asks, at `now`.
    pub(crate) fn ask(&mut self, now: Instant) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let stamp = u64::try_from(now.saturating_duration_since(self.base).as_micros()).unwrap_or(u64::MAX);
        let message = request(self.sequence, self.token, stamp);
        self.socket.send(&message).map(|_| ())
    }

    /// When the latest request that has been answered was sent; none if no answer waits.
    pub(crate) fn receive(&self) -> Option<Instant> {
        let mut latest = None;
        for _ in 0..AT_ONCE {
            let mut buffer = [0; LARGEST];
            let length = match recv(std::os::fd::AsRawFd::as_raw_fd(&self.socket), &mut buffer, MsgFlags::MSG_DONTWAIT)
            {
                Ok(length) => length,
                // An ICMP error about an earlier request: no answer, and gone by having been read.
                Err(Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::ECONNREFUSED) => continue,
                Err(_) => break,
            };
            let message = if self.raw { after_ip_header(&buffer[..length]) } else { Some(&buffer[..length]) };
            let stamp = message.and_then(|message| reply(message, self.token));
            latest = latest.max(stamp.map(|stamp| self.base + Duration::from_micros(stamp)));
        }
        latest
    }
}

impl AsFd for Gateway {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn request(sequence: u16, token: u64, stamp: u64) -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    message[0] = ECHO_REQUEST;
    // A datagram socket sets an identifier of its own; the token tells for both.
    message[4..6].copy_from_slice(&token.to_be_bytes()[6..]);
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    message[8..16].copy_from_slice(&token.to_be_bytes());
    message[16..].copy_from_slice(&stamp.to_be_bytes());
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The stamp of an answer to this program.
fn reply(message: &[u8], token: u64) -> Option<u64> {
    let message: &[u8; LENGTH] = message.try_into().ok()?;
    let [kind, code, _, _, _, _, _, _, rest @ ..] = message;
    let (theirs, stamp) = rest.split_first_chunk::<8>()?;
    let stamp = u64::from_be_bytes(stamp.try_into().ok()?);
    (*kind == ECHO_REPLY && *code == 0 && u64::from_be_bytes(*theirs) == token).then_some(stamp)
}

fn after_ip_header(packet: &[u8]) -> Option<&[u8]> {
    packet.get(usize::from(packet.first()? & 0x0f) * 4..)
}

/// RFC 1071.
fn checksum(message: &[u8; LENGTH]) -> u16 {
    let (words, _) = message.as_chunks::<2>();
    let sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    #[test]
    fn the_checksum_of_a_request_is_right() {
        let message = request(7, 0x1234_5678_9abc_def0, 42);
        assert_eq!(checksum(&message), 0, "the sum over a message with its checksum");
    }

    #[test]
    fn only_answers_to_this_program_count() {
        let mut message = request(7, 99, 42);
        assert_eq!(reply(&message, 99), None, "a request is no answer");
        message[0] = ECHO_REPLY;
        assert_eq!(reply(&message, 99), Some(42));
        assert_eq!(reply(&message, 98), None);
        assert_eq!(reply(&message[..23], 99), None);
        let mut packet = vec![0x46; 24];
        packet.extend(message);
        assert_eq!(after_ip_header(&packet).and_then(|message| reply(message, 99)), Some(42));
        assert_eq!(after_ip_header(&[0x4f, 0]), None);
        assert_eq!(after_ip_header(&[]), None);
    }

    #[test]
    #[ignore = "needs CAP_NET_RAW, or a net.ipv4.ping_group_range that has this user's group"]
    fn loopback_answers() {
        let start = Instant::now();
        let mut gateway = Gateway::open(Ipv4Addr::LOCALHOST, 5, start).unwrap();
        gateway.ask(start + Duration::from_millis(3)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(sent) = gateway.receive() {
                assert_eq!(sent, start + Duration::from_millis(3));
                return;
            }
            assert!(Instant::now() < deadline, "no answer");
            let mut fds = [PollFd::new(gateway.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(100u8)).unwrap();
        }
    }
}
