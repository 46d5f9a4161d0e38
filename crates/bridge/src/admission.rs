//! Connections to the peer port that have not yet proven to be a peer's: few, and none for long.
//!
//! Whoever can reach the port can open connections and say nothing. There are a few places; when all are taken, the oldest
//! connection gives way, one from an address that is no peer's before one from a peer's. So a flood from outside never keeps
//! a peer from its handshake.
//!
//! Pure.

use std::collections::VecDeque;

/// Connections in their handshake at one time: all peers of a large cluster at once, and memory of some 50 kB each.
pub(crate) const PLACES: usize = 32;

/// One connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StrangerId(u64);

/// The connections that are in their handshake.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    last_id: u64,
    /// Oldest first.
    strangers: VecDeque<Stranger>,
}

#[derive(Debug)]
struct Stranger {
    id: StrangerId,
    from_peer_address: bool,
}

impl Admission {
    /// A connection begins its handshake; another one may have to give way.
    pub(crate) fn enter(&mut self, from_peer_address: bool) -> (StrangerId, Option<StrangerId>) {
        let evicted = if self.strangers.len() >= PLACES { self.evict() } else { None };
        self.last_id += 1;
        let id = StrangerId(self.last_id);
        self.strangers.push_back(Stranger { id, from_peer_address });
        (id, evicted)
    }

    /// A connection has ended its handshake, one way or the other.
    pub(crate) fn leave(&mut self, id: StrangerId) {
        self.strangers.retain(|stranger| stranger.id != id);
    }

    fn evict(&mut self) -> Option<StrangerId> {
        let index = self.strangers.iter().position(|stranger| !stranger.from_peer_address).unwrap_or(0);
        self.strangers.remove(index).map(|stranger| stranger.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_outsider_gives_way() {
        let mut admission = Admission::default();
        let (peer, _) = admission.enter(true);
        let outsiders: Vec<_> = (1..PLACES).map(|_| admission.enter(false)).collect();
        assert!(outsiders.iter().all(|(_, evicted)| evicted.is_none()));
        let (_, evicted) = admission.enter(false);
        assert_eq!(evicted, Some(outsiders[0].0), "not the peer, although it was first");
        admission.leave(peer);
        assert_eq!(admission.enter(true).1, None, "a place is free");
    }

    #[test]
    fn among_peers_the_oldest_gives_way() {
        let mut admission = Admission::default();
        let peers: Vec<_> = (0..PLACES).map(|_| admission.enter(true).0).collect();
        assert_eq!(admission.enter(true).1, Some(peers[0]));
        assert_eq!(admission.enter(false).1, Some(peers[1]));
        assert_eq!(admission.strangers.len(), PLACES);
    }
}
