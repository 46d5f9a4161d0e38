//! What happens to interfaces and addresses, told by the kernel as it happens.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_sys::constants::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use pnet_base::MacAddr;

use crate::address::{AddressError, Found};
use crate::netlink::{BUFFER, Message, Netlink, Request, attributes, messages, u32_at};

/// `struct ifinfomsg`: family, padding, type, index, flags, mask of the flags that changed.
const FIXED: usize = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_EXT_MASK: u16 = 29;
/// `RTEXT_FILTER_SKIP_STATS`: hundreds of bytes that nobody here reads.
const SKIP_STATS: u32 = 1 << 3;
/// Room for a few thousand notices: those of a machine with many containers must not push out ours.
const QUEUE: usize = 1024 * 1024;
/// Datagrams read before the other inputs get their turn.
const READS: usize = 64;

/// What the kernel told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// An address went from an interface, whoever took it. IPv6 ones go by themselves when their interface is set down.
    AddressRemoved {
        /// Where it was.
        index: u32,
        /// Which.
        address: IpAddr,
    },
    /// The kernel holds an address for another host's, and does not answer for it.
    AddressDadFailed {
        /// Where it is.
        index: u32,
        /// Which.
        address: IpAddr,
    },
    /// How an interface is. Comes with every change of it, not only with those between up and down.
    Link {
        /// Which.
        index: u32,
        /// Whether it is set up and has a carrier.
        up: bool,
    },
    /// An interface is gone.
    LinkGone {
        /// Which it was.
        index: u32,
    },
    /// An interface has this name; it may be a new one, a renamed one, or one known for long.
    LinkAppeared {
        /// Its index.
        index: u32,
        /// Its name.
        name: &'a str,
    },
    /// There was more to tell than the socket could hold: anything may have happened.
    Overrun,
}

/// Tells what happens to this machine's interfaces and addresses.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
    buffer: Box<[u8]>,
}

impl Watch {
    /// Watches from now on.
    ///
    /// # Errors
    /// The kernel refuses a netlink socket.
    pub fn open() -> Result<Self, AddressError> {
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            // Beyond the machine's limit with CAP_NET_ADMIN; without it, no address could be added either.
            if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &QUEUE).is_err() {
                setsockopt(&socket.as_fd(), sockopt::RcvBuf, &QUEUE)?;
            }
            socket.bind(&SocketAddr::new(0, groups as u32))?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        Ok(Self { socket: open().map_err(AddressError::Open)?, buffer: vec![0; BUFFER].into() })
    }

    /// Gives what waits to `each`, in order, without waiting; a flood in several calls. Allocates nothing.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn read(&mut self, mut each: impl FnMut(Event<'_>)) -> io::Result<()> {
        for _ in 0..READS {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => messages(&self.buffer[..length]).for_each(|message| tell(message, &mut each)),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::ENOBUFS) => each(Event::Overrun),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn tell(message: Message<'_>, each: &mut impl FnMut(Event<'_>)) {
    match message.kind {
        libc::RTM_DELADDR => {
            if let Some(Found { address, index, .. }) = Found::read(message) {
                each(Event::AddressRemoved { index, address });
            }
        }
        libc::RTM_NEWADDR => {
            if let Some(found) = Found::read(message).filter(|found| found.duplicate()) {
                each(Event::AddressDadFailed { index: found.index, address: found.address });
            }
        }
        libc::RTM_NEWLINK => {
            if let Some(link) = Link::read(message) {
                if let Some(name) = link.name {
                    each(Event::LinkAppeared { index: link.index, name });
                }
                each(Event::Link { index: link.index, up: link.up });
            }
        }
        libc::RTM_DELLINK => {
            if let Some(link) = Link::read(message) {
                each(Event::LinkGone { index: link.index });
            }
        }
        _ => {}
    }
}

/// How an interface is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkState {
    /// Its index, another one after it was removed and made again.
    pub index: u32,
    /// Whether it is set up and has a carrier.
    pub up: bool,
    /// Its hardware address; none where there is no ARP.
    pub mac: Option<MacAddr>,
}

/// Asks how interfaces are.
#[derive(Debug)]
pub struct Links {
    netlink: Netlink,
}

impl Links {
    /// Opens the netlink socket.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn open() -> Result<Self, AddressError> {
        Netlink::open().map(|netlink| Self { netlink }).map_err(AddressError::Open)
    }

    /// The interface that has this name; none if there is none. Allocates nothing.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn state(&mut self, name: &str) -> io::Result<Option<LinkState>> {
        let mut terminated = [0; libc::IFNAMSIZ];
        // Where there is no room for the terminator, no interface can have the name.
        let Some(room) = terminated[..libc::IFNAMSIZ - 1].get_mut(..name.len()).filter(|room| !room.is_empty()) else {
            return Ok(None);
        };
        room.copy_from_slice(name.as_bytes());
        let mut request = Request::new(libc::RTM_GETLINK, libc::NLM_F_ACK, &[0; FIXED]);
        request.attribute(IFLA_IFNAME, &terminated[..=name.len()]);
        request.attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
        let mut state = None;
        let asked = self.netlink.ask(request, |message| {
            if let Some(Link { index, up, mac, .. }) = Link::read(message) {
                state = Some(LinkState { index, up, mac });
            }
        });
        match asked {
            Ok(()) => Ok(state),
            Err(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// A string as the kernel writes it, with a zero behind it.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    value.split(|byte| *byte == 0).next().and_then(|text| str::from_utf8(text).ok())
}

/// An interface that the kernel tells of.
struct Link<'a> {
    index: u32,
    up: bool,
    name: Option<&'a str>,
    mac: Option<MacAddr>,
}

impl<'a> Link<'a> {
    fn read(message: Message<'a>) -> Option<Self> {
        let (fixed, rest) = message.payload.split_first_chunk::<FIXED>()?;
        // A bridge tells of its ports by the same types: one that leaves the bridge is not gone.
        if libc::c_int::from(fixed[0]) != libc::AF_UNSPEC {
            return None;
        }
        let up = (libc::IFF_UP | libc::IFF_RUNNING) as u32;
        let mut link = Self { index: u32_at(fixed, 4)?, up: u32_at(fixed, 8)? & up == up, name: None, mac: None };
        for (kind, value) in attributes(rest) {
            match kind {
                IFLA_IFNAME => link.name = text(value),
                IFLA_ADDRESS => {
                    let octets = <[u8; 6]>::try_from(value).ok();
                    link.mac = octets.map(MacAddr::from).filter(|mac| *mac != MacAddr::zero());
                }
                _ => {}
            }
        }
        Some(link)
    }
}
