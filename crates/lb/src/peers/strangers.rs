//! Connections to the peer port that have not yet proven to be another lb's: few, and none for long.
//!
//! When all places are taken, the oldest connection gives way, one from an address that is no peer's first: a flood from
//! outside does not keep a peer from its handshake.

use std::collections::VecDeque;

use tokio_util::sync::CancellationToken;

/// Handshakes at one time.
pub(crate) const PLACES: usize = 16;

/// The connections that are in their handshake, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    places: VecDeque<Place>,
    last: u64,
}

#[derive(Debug)]
struct Place {
    number: u64,
    from_peer_address: bool,
    evicted: CancellationToken,
}

impl Strangers {
    /// A connection begins its handshake; another one may have to give way. Gives its number, and what tells it that it has
    /// to give way itself.
    pub(crate) fn enter(&mut self, from_peer_address: bool) -> (u64, CancellationToken) {
        if self.places.len() >= PLACES {
            let oldest = self.places.iter().position(|place| !place.from_peer_address).unwrap_or(0);
            if let Some(place) = self.places.remove(oldest) {
                place.evicted.cancel();
            }
        }
        self.last += 1;
        let evicted = CancellationToken::new();
        self.places.push_back(Place { number: self.last, from_peer_address, evicted: evicted.clone() });
        (self.last, evicted)
    }

    /// A handshake has ended, one way or the other.
    pub(crate) fn leave(&mut self, number: u64) {
        self.places.retain(|place| place.number != number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_outsider_gives_way_and_without_outsiders_the_oldest() {
        let mut strangers = Strangers::default();
        let peer = strangers.enter(true);
        let outsiders: Vec<_> = (1..PLACES).map(|_| strangers.enter(false)).collect();
        let newest = strangers.enter(false);
        assert!(outsiders[0].1.is_cancelled() && !outsiders[1].1.is_cancelled() && !peer.1.is_cancelled());
        strangers.leave(newest.0);
        let peers: Vec<_> = (0..PLACES - 1).map(|_| strangers.enter(true)).collect();
        assert!(outsiders.iter().all(|(_, evicted)| evicted.is_cancelled()) && !peer.1.is_cancelled());
        strangers.enter(false);
        assert!(peer.1.is_cancelled() && !peers[0].1.is_cancelled());
        assert_eq!(strangers.places.len(), PLACES);
    }
}
