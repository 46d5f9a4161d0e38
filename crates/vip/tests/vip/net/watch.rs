//! When an address came to a namespace, and when it went: told by the kernel, to the microsecond.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_sys::constants::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{MsgFlags, recv};

use super::{SOON, enter};

pub(crate) struct AddressWatch {
    log: Arc<Log>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Log {
    changes: Mutex<Vec<(Instant, bool)>>,
    changed: Condvar,
    stop: AtomicBool,
}

impl AddressWatch {
    pub(crate) fn start(namespace: &str, address: IpAddr) -> Self {
        let log = Arc::<Log>::default();
        let (shared, namespace) = (log.clone(), namespace.to_owned());
        let (ready, listens) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            enter(&namespace);
            let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
            socket.bind(&SocketAddr::new(0, (libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32)).unwrap();
            ready.send(()).unwrap();
            follow(&socket, address, &shared);
        });
        listens.recv().unwrap();
        Self { log, thread: Some(thread) }
    }

    /// Whether the address is there.
    pub(crate) fn held(&self) -> bool {
        self.log.changes.lock().unwrap().last().is_some_and(|(_, held)| *held)
    }

    /// Waits until the address is there, or is not. Gives when that came to be.
    pub(crate) fn wait(&self, held: bool) -> Instant {
        let changes = self.log.changes.lock().unwrap();
        let is = |changes: &Vec<(Instant, bool)>| changes.last().is_some_and(|(_, now)| *now) == held;
        let (changes, timeout) = self.log.changed.wait_timeout_while(changes, SOON, |changes| !is(changes)).unwrap();
        assert!(!timeout.timed_out(), "waited {SOON:?} for the address to be {}", if held { "there" } else { "gone" });
        changes.last().map_or_else(Instant::now, |(at, _)| *at)
    }

    /// How often it came or went.
    pub(crate) fn changes(&self) -> usize {
        self.log.changes.lock().unwrap().len()
    }

    pub(crate) fn stop(&mut self) {
        self.log.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn follow(socket: &Socket, address: IpAddr, log: &Log) {
    let mut buffer = vec![0; 64 * 1024];
    while !log.stop.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, 50_u16).unwrap() == 0 {
            continue;
        }
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        let now = Instant::now();
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&buffer[..length]).unwrap();
        let change = match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(new)) if is(&new, address) => true,
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(gone)) if is(&gone, address) => false,
            _ => continue,
        };
        log.changes.lock().unwrap().push((now, change));
        log.changed.notify_all();
    }
}

fn is(message: &AddressMessage, address: IpAddr) -> bool {
    // IPv6 has no local address beside the address.
    let own = [AddressAttribute::Local(address), AddressAttribute::Address(address)];
    own.iter().any(|own| message.attributes.contains(own))
}

/// Waits until one host alone has had the address for the whole of `time`, and nothing has moved in it. Whoever looks at two
/// hosts one after the other while the address moves may see it on both, or on none.
pub(crate) fn settled(what: &str, time: Duration, hosts: [&AddressWatch; 2]) {
    let deadline = Instant::now() + SOON;
    let view = || hosts.map(|host| (host.changes(), host.held()));
    let (mut last, mut since) = (view(), Instant::now());
    while since.elapsed() < time || last[0].1 == last[1].1 {
        assert!(Instant::now() < deadline, "waited {SOON:?} for this to settle: {what}: {last:?}");
        std::thread::park_timeout(Duration::from_millis(5));
        let now = view();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

/// Asserts that `condition` holds for the whole of `time`.
pub(crate) fn stays(what: &str, time: Duration, condition: impl Fn() -> bool) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        assert!(condition(), "{what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
