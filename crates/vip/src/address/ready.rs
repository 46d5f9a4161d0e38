//! Waits until the kernel takes packets for an IPv6 address.
//!
//! It answers the request to add one before its own thread has joined the group of neighbour discovery and made the local
//! route. Until then a client that was told of the address too early would be answered that there is no route.

use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use netlink_sys::constants::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::time::TimeSpec;

use crate::netlink::{Netlink, Request};

/// One wait of this length at most, at a takeover: it takes some 50 us where the machine is not very busy, and where it is,
/// our advertisements are worth more.
const PATIENCE: Duration = Duration::from_millis(5);
/// So many changes of other routes are looked at meanwhile.
const NOTICES: usize = 64;
/// `struct rtmsg`: family, lengths of destination and source, and more that a question leaves out; the type in an answer.
const FIXED: usize = 12;
const TYPE: usize = 7;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;

/// Tells when routes change, from when it was opened.
pub(super) struct Routes(Socket);

impl Routes {
    /// Opens it, before the address is added.
    pub(super) fn watch() -> std::io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, libc::RTMGRP_IPV6_ROUTE as u32))?;
        Ok(Self(socket))
    }

    /// Returns when `address` has its local route on the interface, or after [`PATIENCE`]: the address is there, and the
    /// kernel ends its work on it in its own time.
    pub(super) fn wait_for(&self, netlink: &mut Netlink, address: Ipv6Addr, interface: u32) {
        let mut notice = [0; 1];
        for _ in 0..NOTICES {
            if is_local(netlink, address, interface) {
                return;
            }
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match ppoll(&mut fds, Some(TimeSpec::from(PATIENCE)), None) {
                Ok(0) => return,
                // What it says does not matter, nor that it is cut off.
                Ok(_) => drop(recv(self.0.as_raw_fd(), &mut notice, MsgFlags::MSG_DONTWAIT)),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

fn is_local(netlink: &mut Netlink, address: Ipv6Addr, interface: u32) -> bool {
    let mut fixed = [0; FIXED];
    fixed[..2].copy_from_slice(&[libc::AF_INET6 as u8, 128]);
    let mut request = Request::new(libc::RTM_GETROUTE, libc::NLM_F_ACK, &fixed);
    request.attribute(RTA_DST, &address.octets()).attribute(RTA_OIF, &interface.to_ne_bytes());
    let mut local = false;
    let asked = netlink.ask(request, |message| {
        local |= message.kind == libc::RTM_NEWROUTE && message.payload.get(TYPE) == Some(&libc::RTN_LOCAL);
    });
    asked.is_ok() && local
}
