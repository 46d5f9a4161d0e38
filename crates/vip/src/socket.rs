//! The raw socket for VRRP: sends and receives IP protocol 112 on one interface.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, recv, sendmsg};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use crate::interface::Interface;
use crate::packet::{self, GROUP, Identity, PROTOCOL, TTL};

/// DSCP CS6, network control (RFC 4594 §3.1), as routers mark it.
const TOS_CS6: u32 = 0xc0;
/// `TC_PRIO_CONTROL`: the queue of the kernel that goes first.
const PRIORITY_CONTROL: u32 = 7;
/// Longer than any advertisement that could hold our address list.
const LARGEST_PACKET: usize = 1500;

/// Where this host's advertisements go.
#[derive(Debug, Clone)]
pub enum Destinations {
    /// To 224.0.0.18.
    Group,
    /// To each of these routers.
    Peers(Vec<Ipv4Addr>),
}

/// An open VRRP socket.
#[derive(Debug)]
pub struct VrrpSocket {
    socket: Socket,
    source: libc::in_pktinfo,
    from: Ipv4Addr,
    to: Vec<Ipv4Addr>,
}

impl VrrpSocket {
    /// Opens the socket on `interface`; advertisements carry `source`, this host's address.
    ///
    /// # Errors
    /// The kernel refuses: `CAP_NET_RAW` is missing, or the interface is gone.
    pub fn open(interface: &Interface, source: Ipv4Addr, destinations: Destinations) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(PROTOCOL))))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.name.as_bytes()))?;
        socket.set_ttl_v4(u32::from(TTL))?;
        socket.set_tos_v4(TOS_CS6)?;
        socket.set_priority(PRIORITY_CONTROL)?;
        // Only the groups that this socket joined: another program's membership is not ours.
        socket.set_multicast_all_v4(false)?;
        let to = match destinations {
            Destinations::Group => {
                socket.set_multicast_ttl_v4(u32::from(TTL))?;
                socket.set_multicast_loop_v4(false)?;
                socket.join_multicast_v4_n(&GROUP, &InterfaceIndexOrAddress::Index(interface.index))?;
                vec![GROUP]
            }
            Destinations::Peers(peers) => peers,
        };
        // Not by bind: a bound raw socket receives nothing that was sent to the group.
        let source_info = libc::in_pktinfo {
            ipi_ifindex: interface.index.cast_signed(),
            ipi_spec_dst: libc::in_addr { s_addr: u32::from(source).to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        Ok(Self { socket, source: source_info, from: source, to })
    }

    /// Sends one advertisement to every destination; the last error, if any, after all were tried.
    ///
    /// # Errors
    /// The kernel would not send to one of them.
    pub fn send(&self, identity: &Identity, priority: u8) -> io::Result<()> {
        let mut outcome = Ok(());
        for to in &self.to {
            let message = packet::encode(identity, priority, self.from, *to);
            let sent = sendmsg(
                self.socket.as_raw_fd(),
                &[io::IoSlice::new(&message)],
                &[ControlMessage::Ipv4PacketInfo(&self.source)],
                MsgFlags::MSG_DONTWAIT,
                Some(&SockaddrIn::from(std::net::SocketAddrV4::new(*to, 0))),
            );
            if let Err(error) = sent {
                outcome = Err(error.into());
            }
        }
        outcome
    }

    /// The next packet that waits, as a whole IPv4 packet; none when there is no more.
    ///
    /// # Errors
    /// The kernel reports an error of the socket, such as the interface going down.
    pub fn receive<'a>(&self, buffer: &'a mut Buffer) -> io::Result<Option<&'a [u8]>> {
        match recv(self.socket.as_raw_fd(), &mut buffer.0, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => Ok(Some(&buffer.0[..length])),
            Err(Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for VrrpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Room for one packet.
#[derive(Debug)]
pub struct Buffer([u8; LARGEST_PACKET]);

impl Default for Buffer {
    fn default() -> Self {
        Self([0; LARGEST_PACKET])
    }
}
