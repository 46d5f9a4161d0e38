//! Who has a place at the endpoint, and who has to make room.
//!
//! | | at once | makes room |
//! |---|---|---|
//! | has not shown yet who it is, or is nobody who may see | [`MAX_STRANGERS`] | as soon as another one comes |
//! | may see without a certificate that says so (`anonymous_read`) | what the others leave | when all places are taken |
//! | has a certificate that may see | [`MAX_CONNECTIONS`] in all | never |
//!
//! The oldest of the address that has most of them goes first. So a newcomer is looked at at once, however many say nothing.
//!
//! Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use evermq_daemon::eviction::{Silent, victims};

use super::{MAX_CONNECTIONS, MAX_STRANGERS};

/// What is known of who is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing yet, or nothing that lets it see.
    Stranger,
    /// Everybody may see, and it has not said more.
    Anonymous,
    /// It has a certificate that may see.
    Named,
}

/// Connections by what their owner calls them.
#[derive(Debug)]
pub(super) struct Places<T> {
    taken: HashMap<T, Place>,
}

#[derive(Debug)]
struct Place {
    source: IpAddr,
    since: Instant,
    standing: Standing,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { taken: HashMap::new() }
    }
}

impl<T: Copy + Eq + Hash> Places<T> {
    /// Whether there is a place for one more, or somebody who makes room.
    pub(super) fn has_room(&self) -> bool {
        self.taken.len() < MAX_CONNECTIONS || self.taken.values().any(|place| place.standing != Standing::Named)
    }

    /// Takes a place for `name`. Whose connection has to end for it, if anybody's; that one has no place any more.
    pub(super) fn enter(&mut self, name: T, source: IpAddr, standing: Standing, now: Instant) -> Option<T> {
        let strangers = self.taken.values().filter(|place| place.standing == Standing::Stranger).count();
        let goes = if standing == Standing::Stranger && strangers >= MAX_STRANGERS {
            self.first_of(&[Standing::Stranger], now)
        } else if self.taken.len() >= MAX_CONNECTIONS {
            self.first_of(&[Standing::Stranger], now).or_else(|| self.first_of(&[Standing::Anonymous], now))
        } else {
            None
        };
        if let Some(goes) = goes {
            self.leave(goes);
        }
        self.taken.insert(name, Place { source, since: now, standing });
        goes
    }

    /// Gives the place back; where it came from, if it had one.
    pub(super) fn leave(&mut self, name: T) -> Option<IpAddr> {
        self.taken.remove(&name).map(|place| place.source)
    }

    fn first_of(&self, standings: &[Standing], now: Instant) -> Option<T> {
        let silent: Vec<_> = self
            .taken
            .iter()
            .filter(|(_, place)| standings.contains(&place.standing))
            .map(|(&name, place)| Silent { name, source: place.source, accepted: place.since })
            .collect();
        victims(&silent, self.taken.len(), Duration::ZERO, now).first().copied()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]

    use super::*;

    fn host(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    /// Places of which so many are taken, by number: names in this order.
    fn taken(by: &[(u8, Standing)], start: Instant) -> Places<usize> {
        let mut places = Places::default();
        for (name, (number, standing)) in by.iter().enumerate() {
            let now = start + Duration::from_millis(u64::try_from(name).unwrap());
            assert_eq!(places.enter(name, host(*number), *standing, now), None);
        }
        places
    }

    #[test]
    fn the_oldest_stranger_of_the_address_that_has_most_makes_room() {
        let now = Instant::now();
        let mut of = vec![(1, Standing::Named), (2, Standing::Stranger)];
        of.extend([(7, Standing::Stranger); MAX_STRANGERS - 1]);
        let mut places = taken(&of, now);
        let later = now + Duration::from_secs(1);
        assert_eq!(places.enter(100, host(3), Standing::Stranger, later), Some(2));
        assert_eq!(places.enter(101, host(7), Standing::Stranger, later), Some(3));
        assert_eq!(places.leave(3), None, "it has none any more");
        assert_eq!(places.leave(101), Some(host(7)));
        assert_eq!(places.enter(102, host(3), Standing::Stranger, later), None, "one has left");
    }

    #[test]
    fn who_is_named_stays_and_who_is_not_makes_room_for_all_others() {
        let now = Instant::now();
        let mut of = vec![(1, Standing::Anonymous); 2];
        of.extend([(2, Standing::Named); MAX_CONNECTIONS - 2]);
        let mut places = taken(&of, now);
        let later = now + Duration::from_secs(1);
        assert!(places.has_room());
        assert_eq!(places.enter(100, host(3), Standing::Stranger, later), Some(0));
        assert_eq!(places.leave(100), Some(host(3)));
        assert_eq!(places.enter(101, host(3), Standing::Named, later), None);
        assert_eq!(places.enter(102, host(3), Standing::Named, later), Some(1));
        assert!(!places.has_room(), "all are named");
    }

    #[test]
    fn whatever_comes_there_are_never_more_than_there_may_be() {
        let start = Instant::now();
        let mut places = Places::default();
        let mut seed = 1_u32;
        for step in 0..20_000_usize {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let now = start + Duration::from_millis(u64::try_from(step).unwrap());
            let number = (seed >> 24) as u8 % 9;
            match (seed >> 8) % 4 {
                0 => drop(places.leave(step.saturating_sub(usize::from(number)))),
                kind if places.has_room() => {
                    let standing = [Standing::Stranger, Standing::Anonymous, Standing::Named][kind as usize - 1];
                    let _ = places.enter(step, host(number), standing, now);
                }
                _ => drop(places.taken.keys().next().copied().and_then(|name| places.leave(name))),
            }
            let strangers = places.taken.values().filter(|place| place.standing == Standing::Stranger).count();
            assert!(strangers <= MAX_STRANGERS && places.taken.len() <= MAX_CONNECTIONS);
        }
    }
}
