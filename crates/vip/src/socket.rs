//! The raw socket for VRRP: sends and receives IP protocol 112 on one interface, over IPv4 or IPv6.
//!
//! Each virtual router has its own. The kernel gives every one of them the advertisements of all virtual routers of the
//! link: a filter would keep those away, but `vrid-errors` would count nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recv, recvmsg, setsockopt, sockopt};
use socket2::{Domain, InterfaceIndexOrAddress, MsgHdr, Protocol, SockAddr, Socket, Type};

use crate::interface::Interface;
use crate::packet::{self, GROUP_V4, GROUP_V6, Identity, MAX_LENGTH, PROTOCOL, Received, TTL};

/// DSCP CS6, network control (RFC 4594 §3.1), as routers mark it.
const TOS_CS6: u32 = 0xc0;
/// `TC_PRIO_CONTROL`: the queue of the kernel that goes first.
const PRIORITY_CONTROL: u32 = 7;
/// Longer than any advertisement that could hold our address list.
const LARGEST_PACKET: usize = 1500;
/// Room for the control messages with destination and hop limit.
const CONTROL: usize = 128;

/// Where this host's advertisements go.
#[derive(Debug, Clone)]
pub enum Destinations {
    /// To 224.0.0.18 or ff02::12.
    Group,
    /// To each of these routers.
    Peers(Vec<IpAddr>),
}

/// An open VRRP socket.
#[derive(Debug)]
pub struct VrrpSocket {
    socket: Socket,
    /// Where advertisements leave by another interface than that on which they are received.
    sender: Option<Socket>,
    from: IpAddr,
    /// A control message that says the same to the kernel. Not by bind: a bound socket of IPv4 receives nothing that was
    /// sent to the group.
    from_control: Vec<u8>,
    to: Vec<(IpAddr, SockAddr)>,
    through: u32,
}

impl VrrpSocket {
    /// Opens the socket on `interface`; advertisements carry `source`, this host's address. Its family is the socket's.
    ///
    /// # Errors
    /// The kernel refuses: `CAP_NET_RAW` is missing, or the interface is gone.
    pub fn open(interface: &Interface, source: IpAddr, destinations: Destinations) -> io::Result<Self> {
        let socket = bare(interface, source)?;
        if source.is_ipv6() {
            // An unbound one receives what was sent to a group that another socket has joined. At the start of the machine
            // the address may not have passed its detection: it may be bound, but not yet sent from.
            socket.set_freebind_v6(true)?;
            socket.bind(&socket_address(source, interface.index))?;
            socket.set_freebind_v6(false)?;
        }
        let to = match destinations {
            Destinations::Group => vec![join(&socket, interface, source)?],
            Destinations::Peers(peers) => peers,
        };
        let to = to.into_iter().map(|to| (to, socket_address(to, interface.index))).collect();
        let from_control = source_control(source, interface.index);
        Ok(Self { socket, sender: None, from: source, from_control, to, through: interface.index })
    }

    /// Advertisements to the group leave by `interface`, a virtual MAC's, from there on (RFC 9568 §7.2); they are received
    /// as before.
    ///
    /// To peers nothing changes: the kernel would ask for their hardware addresses from the virtual MAC in this host's
    /// name, and they would send to it what is for this host.
    ///
    /// # Errors
    /// The kernel refuses a second socket.
    pub fn send_by(&mut self, interface: &Interface) -> io::Result<()> {
        if !self.to.iter().all(|(to, _)| to.is_multicast()) {
            return Ok(());
        }
        let sender = bare(interface, self.from)?;
        if self.from.is_ipv6() {
            // The source is an address of another interface.
            sender.set_freebind_v6(true)?;
        }
        sender.set_recv_buffer_size(0)?;
        self.to = self.to.iter().map(|(to, _)| (*to, socket_address(*to, interface.index))).collect();
        self.from_control = source_control(self.from, interface.index);
        self.through = interface.index;
        self.sender = Some(sender);
        Ok(())
    }

    /// Where advertisements go.
    pub fn destinations(&self) -> impl Iterator<Item = IpAddr> {
        self.to.iter().map(|(to, _)| *to)
    }

    /// The socket that sends them.
    #[must_use]
    pub fn sender(&self) -> BorrowedFd<'_> {
        self.sender.as_ref().unwrap_or(&self.socket).as_fd()
    }

    /// Index of the interface that they leave by.
    #[must_use]
    pub fn through(&self) -> u32 {
        self.through
    }

    /// Sends one advertisement to every destination; the last error, if any, after all were tried. Allocates nothing.
    ///
    /// # Errors
    /// The kernel would not send to one of them.
    pub fn send(&self, identity: &Identity, priority: u8) -> io::Result<()> {
        let socket = self.sender.as_ref().unwrap_or(&self.socket);
        let mut message = [0; MAX_LENGTH];
        let mut outcome = Ok(());
        for (to, address) in &self.to {
            let length = packet::encode(identity, priority, self.from, *to, &mut message);
            let buffers = [io::IoSlice::new(&message[..length])];
            let header = MsgHdr::new().with_addr(address).with_buffers(&buffers).with_control(&self.from_control);
            if let Err(error) = socket.sendmsg(&header, libc::MSG_DONTWAIT) {
                outcome = Err(error);
            }
        }
        outcome
    }

    /// The next message that waits, with what its IP header said; none when there is no more. Allocates nothing.
    ///
    /// # Errors
    /// The kernel reports an error of the socket, such as the interface going down.
    pub fn receive<'a>(&self, buffer: &'a mut Buffer) -> io::Result<Option<Received<'a>>> {
        let received = match self.from {
            IpAddr::V4(_) => self.receive_v4(buffer),
            IpAddr::V6(_) => self.receive_v6(buffer),
        };
        match received {
            Ok(received) => Ok(Some(received)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn receive_v4<'a>(&self, buffer: &'a mut Buffer) -> Result<Received<'a>, Errno> {
        let length = recv(self.socket.as_raw_fd(), &mut buffer.packet, MsgFlags::MSG_DONTWAIT)?;
        // A packet that is longer than the buffer is passed on as a message without anything in it, to be counted.
        Ok(packet::split_ipv4(&buffer.packet[..length]).unwrap_or(Received {
            source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            destination: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            ttl: TTL,
            message: &[],
        }))
    }

    /// The kernel keeps the header of IPv6, and tells what stood in it beside the message.
    fn receive_v6<'a>(&self, buffer: &'a mut Buffer) -> Result<Received<'a>, Errno> {
        let mut parts = [io::IoSliceMut::new(&mut buffer.packet)];
        let fd = self.socket.as_raw_fd();
        let answer = recvmsg::<SockaddrIn6>(fd, &mut parts, Some(&mut buffer.control.0), MsgFlags::MSG_DONTWAIT)?;
        // What is missing stands for a message that was forwarded, and is discarded as such.
        let (mut destination, mut ttl) = (Ipv6Addr::UNSPECIFIED, 0);
        for control in answer.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv6PacketInfo(info) => destination = info.ipi6_addr.s6_addr.into(),
                ControlMessageOwned::Ipv6HopLimit(limit) => ttl = u8::try_from(limit).unwrap_or(0),
                _ => {}
            }
        }
        let source = answer.address.map_or(Ipv6Addr::UNSPECIFIED, |address| address.ip());
        let length = answer.bytes;
        Ok(Received { source: source.into(), destination: destination.into(), ttl, message: &buffer.packet[..length] })
    }
}

impl AsFd for VrrpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Room for one packet.
#[derive(Debug)]
pub struct Buffer {
    packet: [u8; LARGEST_PACKET],
    control: Control,
}

/// The kernel writes structures into it.
#[derive(Debug)]
#[repr(align(8))]
struct Control([u8; CONTROL]);

impl Default for Buffer {
    fn default() -> Self {
        Self { packet: [0; LARGEST_PACKET], control: Control([0; CONTROL]) }
    }
}

/// A socket of the source's family on the interface, in no group.
fn bare(interface: &Interface, source: IpAddr) -> io::Result<Socket> {
    let domain = if source.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(PROTOCOL))))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.name.as_bytes()))?;
    socket.set_priority(PRIORITY_CONTROL)?;
    match source {
        IpAddr::V4(_) => {
            socket.set_ttl_v4(u32::from(TTL))?;
            socket.set_multicast_ttl_v4(u32::from(TTL))?;
            socket.set_multicast_loop_v4(false)?;
            socket.set_tos_v4(TOS_CS6)?;
            // Only the groups that this socket joined: another program's membership is not ours.
            socket.set_multicast_all_v4(false)?;
        }
        IpAddr::V6(_) => {
            socket.set_unicast_hops_v6(u32::from(TTL))?;
            socket.set_multicast_hops_v6(u32::from(TTL))?;
            socket.set_multicast_loop_v6(false)?;
            socket.set_tclass_v6(TOS_CS6)?;
            socket.set_multicast_all_v6(false)?;
            socket.set_recv_hoplimit_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
    }
    Ok(socket)
}

/// Joins the group of VRRP routers, and gives it.
fn join(socket: &Socket, interface: &Interface, source: IpAddr) -> io::Result<IpAddr> {
    match source {
        IpAddr::V4(_) => {
            socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(interface.index))?;
            Ok(GROUP_V4.into())
        }
        IpAddr::V6(_) => {
            socket.join_multicast_v6(&GROUP_V6, interface.index)?;
            Ok(GROUP_V6.into())
        }
    }
}

/// The kernel ignores the interface for addresses that are known beyond the link.
fn socket_address(address: IpAddr, interface: u32) -> SockAddr {
    match address {
        IpAddr::V4(_) => SocketAddr::new(address, 0).into(),
        IpAddr::V6(address) => SocketAddrV6::new(address, 0, 0, interface).into(),
    }
}

/// `IP_PKTINFO` or `IPV6_PKTINFO`: the source and the interface of a message.
fn source_control(source: IpAddr, interface: u32) -> Vec<u8> {
    match source {
        IpAddr::V4(source) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: interface.cast_signed(),
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(source).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            control(libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        IpAddr::V6(source) => {
            let address = libc::in6_addr { s6_addr: source.octets() };
            control(
                libc::IPPROTO_IPV6,
                libc::IPV6_PKTINFO,
                libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: interface },
            )
        }
    }
}

/// One control message for sendmsg. `data` is one of the kernel's own structures, without padding.
fn control<T: Copy>(level: libc::c_int, kind: libc::c_int, data: T) -> Vec<u8> {
    let size = size_of::<T>() as libc::c_uint;
    // SAFETY: CMSG_SPACE and CMSG_LEN only count.
    let (space, length, start) = unsafe { (libc::CMSG_SPACE(size), libc::CMSG_LEN(size), libc::CMSG_LEN(0)) };
    let mut bytes = vec![0; space as usize];
    // SAFETY: a cmsghdr of zeros is valid.
    let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
    header.cmsg_len = length as _;
    header.cmsg_level = level;
    header.cmsg_type = kind;
    // SAFETY: `bytes` has room for the header at 0 and for the data at CMSG_LEN(0), as CMSG_SPACE counts it.
    unsafe {
        bytes.as_mut_ptr().cast::<libc::cmsghdr>().write_unaligned(header);
        bytes.as_mut_ptr().add(start as usize).cast::<T>().write_unaligned(data);
    }
    bytes
}
