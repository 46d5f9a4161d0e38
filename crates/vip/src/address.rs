//! The VIP on the interface: added, removed, found and watched by rtnetlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeader, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::constants::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// The kernel answers a request before `send` returns; waiting longer than this means that it never will.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Netlink messages of a dump come in pieces of at most 32 KiB.
const BUFFER: usize = 64 * 1024;
/// Every netlink message starts at a multiple of this.
const ALIGNMENT: usize = 4;

/// Why the VIP could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// `CAP_NET_ADMIN` is missing.
    #[error(
        "not permitted to change addresses; run evermq-vip as root or with CAP_NET_ADMIN \
         (systemd: AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW; containers: --cap-add NET_ADMIN --cap-add NET_RAW)"
    )]
    NotPermitted,
    /// The kernel refused.
    #[error("cannot {doing} {address}: {source}")]
    Refused {
        /// Add, remove or look for.
        doing: &'static str,
        /// The VIP.
        address: Ipv4Addr,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Changes and lists this machine's IPv4 addresses.
#[derive(Debug)]
pub struct Addresses {
    socket: Socket,
    sequence: u32,
    buffer: Box<[u8]>,
}

impl Addresses {
    /// Opens the netlink socket.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn open() -> Result<Self, AddressError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            let timeout = TimeVal::milliseconds(ANSWER_TIMEOUT.as_millis() as i64);
            setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &timeout)?;
            Ok(socket)
        };
        let socket = open().map_err(AddressError::Open)?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER].into() })
    }

    /// Puts `address` on the interface; one that is there already stays.
    ///
    /// # Errors
    /// Not permitted, or the interface is gone.
    pub fn add(&mut self, address: Ipv4Addr, prefix_length: u8, interface: u32) -> Result<(), AddressError> {
        let mut message = message(address, prefix_length, interface);
        // No route to the prefix through the VIP: the host's own traffic keeps the host's own address. No label: the
        // old tools show none either.
        message.attributes.push(AddressAttribute::Address(IpAddr::V4(address)));
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
        self.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(|error| refused("add", address, error))
    }

    /// Takes `address` from the interface. Gives whether it was there.
    ///
    /// # Errors
    /// Not permitted.
    pub fn remove(&mut self, address: Ipv4Addr, interface: u32) -> Result<bool, AddressError> {
        match self.change(RouteNetlinkMessage::DelAddress(message(address, 32, interface)), 0) {
            Ok(()) => Ok(true),
            Err(Errno::EADDRNOTAVAIL | Errno::ENODEV) => Ok(false),
            Err(error) => Err(refused("remove", address, error)),
        }
    }

    /// Takes `address` from every interface that has it. Gives the indices of those that had.
    ///
    /// # Errors
    /// Not permitted.
    pub fn remove_everywhere(&mut self, address: Ipv4Addr) -> Result<Vec<u32>, AddressError> {
        let interfaces = self.holders(address)?;
        for interface in &interfaces {
            self.remove(address, *interface)?;
        }
        Ok(interfaces)
    }

    /// Indices of the interfaces that have `address`.
    ///
    /// # Errors
    /// The kernel does not list addresses.
    pub fn holders(&mut self, address: Ipv4Addr) -> Result<Vec<u32>, AddressError> {
        self.dump(address).map_err(|error| refused("look for", address, error))
    }

    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Errno> {
        let sequence = self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            for answer in messages(&self.buffer[..length]) {
                // An answer that came after its request had been given up is not this one's.
                if let (header, NetlinkPayload::Error(error)) = answer.into_parts()
                    && header.sequence_number == sequence
                {
                    return error.code.map_or(Ok(()), |code| Err(Errno::from_raw(code.get().saturating_neg())));
                }
            }
        }
    }

    fn dump(&mut self, address: Ipv4Addr) -> Result<Vec<u32>, Errno> {
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet;
        let sequence = self.send(RouteNetlinkMessage::GetAddress(request), NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut interfaces = Vec::new();
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            for answer in messages(&self.buffer[..length]) {
                let (header, payload) = answer.into_parts();
                if header.sequence_number != sequence {
                    continue;
                }
                match payload {
                    NetlinkPayload::Done(_) => return Ok(interfaces),
                    NetlinkPayload::Error(error) => return Err(Errno::from_raw(error.raw_code().saturating_neg())),
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(found))
                        if local(&found) == Some(address) =>
                    {
                        interfaces.push(found.header.index);
                    }
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<u32, Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        Ok(self.sequence)
    }
}

/// Tells when someone takes an address away.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
    address: Ipv4Addr,
    buffer: Box<[u8]>,
}

impl Watch {
    /// Watches `address` from now on.
    ///
    /// # Errors
    /// The kernel refuses a netlink socket.
    pub fn open(address: Ipv4Addr) -> Result<Self, AddressError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, libc::RTMGRP_IPV4_IFADDR as u32))?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        Ok(Self { socket: open().map_err(AddressError::Open)?, address, buffer: vec![0; BUFFER].into() })
    }

    /// Reads what waits. True if the address was removed from some interface, by anyone; or if the kernel had more to tell
    /// than the socket could hold, so that it may have been.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn removed(&mut self) -> io::Result<bool> {
        let mut removed = false;
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    removed |= messages(&self.buffer[..length]).any(|message| {
                        matches!(message.payload, NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(gone))
                            if local(&gone) == Some(self.address))
                    });
                }
                Err(Errno::EAGAIN) => return Ok(removed),
                Err(Errno::ENOBUFS) => removed = true,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn message(address: Ipv4Addr, prefix_length: u8, interface: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header = AddressHeader {
        family: AddressFamily::Inet,
        prefix_len: prefix_length,
        flags: AddressHeaderFlags::empty(),
        scope: AddressScope::Universe,
        index: interface,
    };
    message.attributes = vec![AddressAttribute::Local(IpAddr::V4(address))];
    message
}

fn local(message: &AddressMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })
}

/// The messages of one datagram, up to the first that does not parse.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = NetlinkMessage<RouteNetlinkMessage>> {
    std::iter::from_fn(move || {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).ok()?;
        let length = (message.header.length as usize).next_multiple_of(ALIGNMENT);
        bytes = bytes.get(length..).unwrap_or_default();
        Some(message)
    })
}

fn refused(doing: &'static str, address: Ipv4Addr, error: Errno) -> AddressError {
    match error {
        Errno::EPERM | Errno::EACCES => AddressError::NotPermitted,
        error => AddressError::Refused { doing, address, source: error.into() },
    }
}
