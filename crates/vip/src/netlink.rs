//! Questions to the kernel's rtnetlink, and its answers, as bytes.
//!
//! Written into fixed room and read where they lie: the real-time thread reads notices of links and addresses without
//! allocating, and an attribute that a later kernel has added or lengthened makes no message unreadable.
//!
//! ```text
//!  message    | length 32 | type 16 | flags 16 | sequence 32 | port 32 | fixed part of the type | attribute ... |
//!  attribute  | length 16 | type 16 | value, padded to a multiple of 4 |
//! ```
//! All in the machine's byte order; addresses are in the network's.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use netlink_sys::Socket;
use netlink_sys::constants::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// The kernel answers a request before `send` returns; waiting longer than this means that it never will.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Netlink messages of a dump come in pieces of at most 32 KiB.
pub(crate) const BUFFER: usize = 64 * 1024;
/// Every message and attribute starts at a multiple of this.
const ALIGNMENT: usize = 4;
const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// More than the longest request of this program, which makes a macvlan.
const LONGEST_REQUEST: usize = 512;
/// A dump during which the list changed may lack an entry, and is asked for again so often.
const ATTEMPTS: u8 = 4;

/// A request in the making.
#[derive(Debug)]
pub(crate) struct Request {
    bytes: [u8; LONGEST_REQUEST],
    length: usize,
}

impl Request {
    /// Of this type and with these flags; `fixed` is what every message of the type begins with.
    pub(crate) fn new(kind: u16, flags: libc::c_int, fixed: &[u8]) -> Self {
        let mut request = Self { bytes: [0; LONGEST_REQUEST], length: HEADER };
        request.bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        request.bytes[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
        request.append(fixed);
        request
    }

    /// Adds an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = (ATTRIBUTE_HEADER + value.len()) as u16;
        let ([a, b], [c, d]) = (length.to_ne_bytes(), kind.to_ne_bytes());
        self.append(&[a, b, c, d]);
        self.append(value);
        self
    }

    /// Adds an attribute that holds those that `fill` adds.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.length;
        self.attribute(kind, &[]);
        fill(self);
        let length = (self.length - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length = (self.length + bytes.len()).next_multiple_of(ALIGNMENT);
    }

    fn finish(&mut self, sequence: u32) -> &[u8] {
        self.bytes[..4].copy_from_slice(&(self.length as u32).to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes[..self.length]
    }
}

/// One message, as it lies in the buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    /// Its type.
    pub(crate) kind: u16,
    flags: u16,
    sequence: u32,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

/// The messages of one datagram, up to the first that does not fit into it.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<HEADER>()?;
        let length = u32_at(header, 0)? as usize;
        // One that claims to be shorter than its header has no payload, and is the last.
        let message = Message {
            kind: u16_at(header, 4)?,
            flags: u16_at(header, 6)?,
            sequence: u32_at(header, 8)?,
            payload: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes` with their types, up to the first that does not fit.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        // The upper two bits say that it is nested, or in the network's byte order.
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The number at `at`, in the machine's byte order.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

/// A connection for requests.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Box<[u8]>,
}

impl Netlink {
    /// Opens one.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        let timeout = TimeVal::milliseconds(ANSWER_TIMEOUT.as_millis() as i64);
        setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &timeout)?;
        // A list of one interface's addresses, where the kernel can make one, instead of the whole machine's.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER].into() })
    }

    /// Asks for a change; the request has `NLM_F_ACK`.
    pub(crate) fn change(&mut self, request: Request) -> Result<(), Errno> {
        self.ask(request, |_| {})
    }

    /// Sends a request that has `NLM_F_ACK` or `NLM_F_DUMP`, and gives each message of the answer to `each`. A list that
    /// changed while it was read is read again: `each` may meet an entry twice.
    pub(crate) fn ask(&mut self, mut request: Request, mut each: impl FnMut(Message<'_>)) -> Result<(), Errno> {
        for _ in 0..ATTEMPTS {
            self.sequence = self.sequence.wrapping_add(1);
            let bytes = request.finish(self.sequence);
            self.socket.send(bytes, 0).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
            if self.answer(&mut each)? == Answer::Whole {
                return Ok(());
            }
        }
        Err(Errno::EAGAIN)
    }

    fn answer(&mut self, each: &mut impl FnMut(Message<'_>)) -> Result<Answer, Errno> {
        let mut answer = Answer::Whole;
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                outcome => outcome?,
            };
            // An answer that came after its request had been given up is not this one's.
            for message in messages(&self.buffer[..length]).filter(|message| message.sequence == self.sequence) {
                if libc::c_int::from(message.flags) & libc::NLM_F_DUMP_INTR != 0 {
                    answer = Answer::Interrupted;
                }
                match libc::c_int::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(answer),
                    libc::NLMSG_ERROR => match u32_at(message.payload, 0).unwrap_or_default().cast_signed() {
                        0 => return Ok(answer),
                        code => return Err(Errno::from_raw(code.saturating_neg())),
                    },
                    _ => each(message),
                }
            }
        }
    }
}

/// Whether all of a list was read.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Whole,
    Interrupted,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let mut request = Request::new(16, libc::NLM_F_ACK, &[1, 2, 3, 4, 5]);
        request.attribute(3, b"eth0\0").nested(18, |inner| {
            inner.attribute(1, b"macvlan").attribute(2, &[7]);
        });
        let bytes = request.finish(9);
        let message = messages(bytes).next().unwrap();
        assert_eq!((message.kind, message.flags, message.sequence), (16, 5, 9));
        assert_eq!(message.payload[..8], [1, 2, 3, 4, 5, 0, 0, 0]);
        let all: Vec<_> = attributes(&message.payload[8..]).collect();
        assert_eq!(all[0], (3, &b"eth0\0"[..]));
        let inner: Vec<_> = attributes(all[1].1).collect();
        assert_eq!((all[1].0, inner), (18, vec![(1, &b"macvlan"[..]), (2, &[7][..])]));
        assert_eq!((all.len(), messages(bytes).count()), (2, 1));
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_end(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            for message in messages(&bytes) {
                prop_assert!(attributes(message.payload).count() <= bytes.len());
            }
            prop_assert!(attributes(&bytes).count() <= bytes.len());
        }
    }
}
