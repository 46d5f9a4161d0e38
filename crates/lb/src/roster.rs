//! Client connections by number: what an lb knows of its own, and of every other lb's.
//!
//! When the VIP moves, the clients of the host that had it are not told by anybody: that host is gone, or does not have the
//! address any more. The host that has it needs their addresses and ports, and needs them when nobody can be asked. So each
//! lb keeps the others' lists up to date while all is well ([`Mirror`]), and each worker keeps its own ([`Own`]).
//!
//! A connection has a number, which its worker gives; a number says exactly which connection has gone, also where a client
//! comes back from the same port before its old connection has ended. An entry takes 8 bytes, with IPv6 24 more: the few
//! local addresses of a host are kept once.
//!
//! Pure.

mod mirror;
mod own;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use slab::Slab;

pub use mirror::{KEPT, Mirror, OutOfTurn};
pub use own::{Batch, Own};

/// Local addresses of one list: those of one host, with ports.
pub const MAX_LOCALS: usize = 256;
/// In [`Slot::local`]: nobody.
const VACANT: u16 = u16::MAX;

/// A client's connection: its address and port, and those that it has connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Connection {
    /// The client's.
    pub client: SocketAddr,
    /// This side's: the VIP, as a rule.
    pub local: SocketAddr,
}

/// What has become of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is this connection's.
    Joined(u32, Connection),
    /// It is nobody's.
    Left(u32),
}

/// A list of connections by number, for numbers that are given densely.
#[derive(Debug, Default)]
pub struct Roster {
    slots: Vec<Slot>,
    locals: Vec<SocketAddr>,
    /// Addresses that do not fit into a slot.
    wide: Slab<Ipv6Addr>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// An IPv4 address, or where in `wide` an IPv6 address is: the local address has the same family.
    client: u32,
    port: u16,
    /// Where in `locals`.
    local: u16,
}

impl Connection {
    /// `None` where the two are not of one family. An IPv4 address in the form of IPv6 (RFC 4291 §2.5.5.2), as a listener
    /// on `[::]` sees it, is the IPv4 address that it means.
    #[must_use]
    pub fn new(client: SocketAddr, local: SocketAddr) -> Option<Self> {
        let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let (client, local) = (plain(client), plain(local));
        (client.is_ipv4() == local.is_ipv4()).then_some(Self { client, local })
    }
}

impl Slot {
    const VACANT: Self = Self { client: 0, port: 0, local: VACANT };
}

impl Roster {
    /// Connections.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Numbers that memory is held for.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Gives `number` to `connection`, whoever had it before. Memory is held for every number up to this one: the caller
    /// bounds it. `false` if there are too many local addresses; then nobody has it.
    pub fn put(&mut self, number: u32, connection: Connection) -> bool {
        self.take(number);
        let Some(local) = self.local(connection.local) else { return false };
        let client = match connection.client.ip() {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(address) => u32::try_from(self.wide.insert(address)).expect("one for each number at most"),
        };
        let index = number as usize;
        if index >= self.slots.len() {
            self.slots.resize(index + 1, Slot::VACANT);
        }
        self.slots[index] = Slot { client, port: connection.client.port(), local };
        self.len += 1;
        true
    }

    /// Takes `number` back. Gives whose it was.
    pub fn take(&mut self, number: u32) -> Option<Connection> {
        let connection = self.get(number)?;
        let slot = std::mem::replace(&mut self.slots[number as usize], Slot::VACANT);
        if connection.local.is_ipv6() {
            self.wide.remove(slot.client as usize);
        }
        self.len -= 1;
        Some(connection)
    }

    /// Whose `number` is.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<Connection> {
        let slot = self.slots.get(number as usize)?;
        self.connection(slot)
    }

    /// Every number that is somebody's, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Connection)> {
        // Numbers are u32, so every index is one.
        (0..).zip(&self.slots).filter_map(|(number, slot)| Some((number, self.connection(slot)?)))
    }

    fn connection(&self, slot: &Slot) -> Option<Connection> {
        let local = *self.locals.get(usize::from(slot.local))?;
        let client = match local {
            SocketAddr::V4(_) => IpAddr::V4(slot.client.into()),
            SocketAddr::V6(_) => IpAddr::V6(*self.wide.get(slot.client as usize)?),
        };
        Some(Connection { client: SocketAddr::new(client, slot.port), local })
    }

    fn local(&mut self, local: SocketAddr) -> Option<u16> {
        let index = match self.locals.iter().position(|known| *known == local) {
            Some(index) => index,
            None if self.locals.len() < MAX_LOCALS => {
                self.locals.push(local);
                self.locals.len() - 1
            }
            None => return None,
        };
        u16::try_from(index).ok()
    }
}

#[cfg(test)]
mod tests;
