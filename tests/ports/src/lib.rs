//! Ports for tests that must name one before the program that listens on it has begun, or begin it again where it was.
//!
//! A port that the kernel chose and that was let go is anybody's: the next connection out of any program may leave from it.
//! These lie below those from which the kernel chooses, come once in a process, and begin elsewhere in each.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Whence ports come: above those of services, below `net.ipv4.ip_local_port_range` as Linux has it.
const FIRST: u16 = 10_000;
const COUNT: u16 = 22_000;

/// An address on loopback that is free, TCP and UDP, and stays so.
///
/// # Panics
/// All ports are in use.
#[must_use]
pub fn free_address() -> SocketAddr {
    free_on([IpAddr::V4(Ipv4Addr::LOCALHOST)])[0]
}

/// Its port alone.
///
/// # Panics
/// All ports are in use.
#[must_use]
pub fn free_port() -> u16 {
    free_address().port()
}

/// The same port on each of these addresses.
///
/// # Panics
/// No port is free on all of them.
#[must_use]
pub fn free_on<const N: usize>(hosts: [IpAddr; N]) -> [SocketAddr; N] {
    (0..COUNT)
        .map(|_| next())
        .map(|port| hosts.map(|host| SocketAddr::new(host, port)))
        .find(|addresses: &[SocketAddr; N]| addresses.iter().all(is_free))
        .expect("a free port between 10000 and 32000")
}

fn next() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that run beside each other have numbers near each other: 61 ports for each, until they come round.
    let start = std::process::id() % u32::from(COUNT) * 61;
    let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
    FIRST + ((start + step) % u32::from(COUNT)) as u16
}

fn is_free(address: &SocketAddr) -> bool {
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn none_comes_twice() {
        let ports: BTreeSet<_> = (0..100).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 100);
    }

    #[test]
    fn none_is_one_that_the_kernel_gives_to_others() {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let lowest: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        assert!(FIRST + COUNT <= lowest, "net.ipv4.ip_local_port_range begins at {lowest}");
    }

    #[test]
    fn one_in_use_is_passed_over() {
        let held = TcpListener::bind(free_address()).unwrap();
        let address = held.local_addr().unwrap();
        assert!(!is_free(&address));
    }

    #[test]
    fn hosts_have_the_same_port() {
        let hosts = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)].map(IpAddr::V4);
        let [one, two] = free_on(hosts);
        assert_eq!(one.port(), two.port());
        assert_eq!([one.ip(), two.ip()], hosts);
    }
}
