//! What the daemon tells its guard, as datagrams on a socket pair (SOCK_SEQPACKET). The guard never answers.
//!
//! ```text
//!   | kind 8 | slot 16 | JSON of the kind, or nothing |
//!   kind: 1 setup, 2 charge (with the descriptors of its sockets), 3 held, 4 released
//! ```
//!
//! A slot is the place of a virtual router in the daemon.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, send, sendmsg,
    socketpair,
};
use serde::{Deserialize, Serialize};

/// Many times the longest charge: twenty IPv6 addresses in advertisements to each of a dozen peers.
const LONGEST: usize = 128 * 1024;
const HEAD: usize = 3;
const SETUP: u8 = 1;
const CHARGE: u8 = 2;
const HELD: u8 = 3;
const RELEASED: u8 = 4;

/// How the guard runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Under SCHED_RR with locked memory.
    pub realtime: bool,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
    /// Whether log lines are JSON.
    pub log_json: bool,
    /// The daemon's process.
    pub daemon: i32,
    /// Where it answers, and another one after it.
    pub control_socket: PathBuf,
}

/// How to leave the addresses of one virtual router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The virtual router's name, for the log.
    pub name: String,
    /// Its identifier, which the successor's advertisements carry.
    pub vrid: u8,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// The interface that carries them.
    pub interface: u32,
    /// The interface that advertisements go through.
    pub through: u32,
    /// The source of advertisements.
    pub source: IpAddr,
    /// Advertisements of priority 0, each with its destination.
    pub farewells: Vec<Farewell>,
    /// See [`super::machine::Duty`].
    pub linger: Duration,
    /// See [`super::machine::Duty`].
    pub bound: Duration,
    /// See [`super::machine::Duty`].
    pub peers: bool,
}

/// One advertisement, ready to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farewell {
    /// Its destination.
    pub to: IpAddr,
    /// The whole VRRP message.
    pub message: Vec<u8>,
}

/// The daemon's own sockets of a virtual router: whatever it has set or joined holds for the guard as well.
#[derive(Debug)]
pub struct Sockets {
    /// Receives advertisements.
    pub receive: OwnedFd,
    /// Sends them; as a rule the same one.
    pub send: OwnedFd,
}

/// What the daemon tells.
#[derive(Debug)]
pub enum Note {
    /// First of all.
    Setup(Setup),
    /// A virtual router that there is, or how it is now.
    Charge(usize, Charge, Sockets),
    /// Its addresses are up.
    Held(usize),
    /// Its addresses are taken away.
    Released(usize),
}

/// A charge as bytes, made on the ordinary thread.
#[derive(Debug)]
pub struct Written(Vec<u8>);

impl Written {
    /// Writes `charge`.
    #[must_use]
    pub fn new(charge: &Charge) -> Self {
        Self(with_head(CHARGE, 0, &serde_json::to_vec(charge).unwrap_or_default()))
    }
}

/// Both ends: the daemon's, which never blocks, and the guard's.
///
/// # Errors
/// No descriptor is left.
pub fn pair() -> io::Result<(Sender, OwnedFd)> {
    let (daemon, guard) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    Ok((Sender(daemon), guard))
}

/// The daemon's end.
#[derive(Debug)]
pub struct Sender(OwnedFd);

impl Sender {
    /// # Errors
    /// The guard is gone, or has not read for long.
    pub fn setup(&self, setup: &Setup) -> io::Result<()> {
        self.send(&with_head(SETUP, 0, &serde_json::to_vec(setup)?))
    }

    /// Tells of a virtual router, with the socket that receives its advertisements and the one that sends them.
    ///
    /// # Errors
    /// As for [`Sender::setup`].
    pub fn charge(&self, slot: usize, charge: &mut Written, sockets: [BorrowedFd<'_>; 2]) -> io::Result<()> {
        charge.0[1..HEAD].copy_from_slice(&slot_bytes(slot));
        let rights = sockets.map(|socket| socket.as_raw_fd());
        let rights = [ControlMessage::ScmRights(&rights)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg::<UnixAddr>(self.0.as_raw_fd(), &[IoSlice::new(&charge.0)], &rights, flags, None)?;
        Ok(())
    }

    /// # Errors
    /// As for [`Sender::setup`].
    pub fn held(&self, slot: usize) -> io::Result<()> {
        self.send(&short(HELD, slot))
    }

    /// # Errors
    /// As for [`Sender::setup`].
    pub fn released(&self, slot: usize) -> io::Result<()> {
        self.send(&short(RELEASED, slot))
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The guard's end.
#[derive(Debug)]
pub struct Receiver {
    socket: OwnedFd,
    buffer: Box<[u8]>,
}

/// What reading brought.
#[derive(Debug)]
pub enum Read {
    /// A note.
    Note(Note),
    /// Nothing more for now.
    Nothing,
    /// The daemon is gone.
    Gone,
}

impl Receiver {
    /// Reads from the guard's end of a pair.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, buffer: vec![0; LONGEST].into() }
    }

    /// The next note; waits for it if asked to.
    ///
    /// # Errors
    /// The socket is broken, or what came is no note.
    pub fn read(&mut self, wait: bool) -> io::Result<Read> {
        let mut control = cmsg_space!([RawFd; 2]);
        let mut parts = [IoSliceMut::new(&mut self.buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
        let (length, sockets) = loop {
            match recvmsg::<UnixAddr>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
                Ok(received) => {
                    let mut sockets = None;
                    for message in received.cmsgs()? {
                        if let ControlMessageOwned::ScmRights(descriptors) = message {
                            // SAFETY: the kernel has just made these descriptors for this process, and nobody else has them.
                            let mut owned = descriptors.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) });
                            sockets = owned.next().zip(owned.next()).map(|(receive, send)| Sockets { receive, send });
                        }
                    }
                    break (received.bytes, sockets);
                }
                Err(Errno::EAGAIN) => return Ok(Read::Nothing),
                // The daemon was killed with something unread in its own queue.
                Err(Errno::ECONNRESET) => return Ok(Read::Gone),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        if length == 0 {
            return Ok(Read::Gone);
        }
        read_note(&self.buffer[..length], sockets).map(Read::Note)
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn read_note(bytes: &[u8], sockets: Option<Sockets>) -> io::Result<Note> {
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "not a note of the daemon");
    let ([kind, low, high], body) = bytes.split_first_chunk::<HEAD>().ok_or_else(strange)?;
    let slot = usize::from(u16::from_le_bytes([*low, *high]));
    match *kind {
        SETUP => Ok(Note::Setup(serde_json::from_slice(body)?)),
        CHARGE => Ok(Note::Charge(slot, serde_json::from_slice(body)?, sockets.ok_or_else(strange)?)),
        HELD => Ok(Note::Held(slot)),
        RELEASED => Ok(Note::Released(slot)),
        _ => Err(strange()),
    }
}

fn with_head(kind: u8, slot: usize, body: &[u8]) -> Vec<u8> {
    [&short(kind, slot)[..], body].concat()
}

fn short(kind: u8, slot: usize) -> [u8; HEAD] {
    let [low, high] = slot_bytes(slot);
    [kind, low, high]
}

/// There are never 65,536 virtual routers: an interface has 255 identifiers for each family.
fn slot_bytes(slot: usize) -> [u8; 2] {
    u16::try_from(slot).unwrap_or(u16::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_arrive_in_order_with_their_descriptor_and_then_the_end() {
        let (sender, socket) = pair().unwrap();
        let mut receiver = Receiver::new(socket);
        assert!(matches!(receiver.read(false).unwrap(), Read::Nothing));
        let setup = Setup {
            realtime: true,
            log_level: "info".to_owned(),
            log_json: false,
            daemon: 7,
            control_socket: "/run/evermq/vip.sock".into(),
        };
        let charge = Charge {
            name: "vip".to_owned(),
            vrid: 51,
            addresses: vec!["10.0.0.100".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            interface: 3,
            through: 2,
            source: "10.0.0.1".parse().unwrap(),
            farewells: vec![Farewell { to: "10.0.0.2".parse().unwrap(), message: vec![0x31, 51, 0] }],
            linger: Duration::from_millis(30),
            bound: Duration::from_millis(75),
            peers: true,
        };
        sender.setup(&setup).unwrap();
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        sender.charge(259, &mut Written::new(&charge), [one.as_fd(), other.as_fd()]).unwrap();
        sender.held(259).unwrap();
        sender.released(1).unwrap();
        drop(sender);
        assert!(matches!(receiver.read(true).unwrap(), Read::Note(Note::Setup(read)) if read == setup));
        let Read::Note(Note::Charge(259, read, sockets)) = receiver.read(true).unwrap() else { panic!("a charge") };
        assert_eq!(read, charge);
        nix::unistd::write(&sockets.send, b"x").unwrap();
        assert_eq!(nix::unistd::read(&one, &mut [0; 2]).unwrap(), 1, "the second one is the second one");
        drop(sockets.receive);
        assert!(matches!(receiver.read(true).unwrap(), Read::Note(Note::Held(259))));
        assert!(matches!(receiver.read(true).unwrap(), Read::Note(Note::Released(1))));
        assert!(matches!(receiver.read(true).unwrap(), Read::Gone));
    }

    #[test]
    fn a_guard_that_does_not_read_costs_an_error_and_no_time() {
        let (sender, _guard) = pair().unwrap();
        let error = (0..100_000).find_map(|_| sender.held(0).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
