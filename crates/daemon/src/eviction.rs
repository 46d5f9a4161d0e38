//! Who has to go when every place is taken, by strangers that say nothing above all.
//!
//! Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A client of an address that holds most places may be silent for this long once the limit is reached.
const SHORT: Duration = Duration::from_secs(1);
/// Found at one time at most, so that the search is not done for each client that comes.
const MOST: usize = 256;

/// A client that has not said what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silent<T> {
    /// What its owner calls it.
    pub name: T,
    /// Where it comes from.
    pub source: IpAddr,
    /// When it came.
    pub accepted: Instant,
}

/// How long a client may be silent that is one of `own` of its address, among `all` connections, before it has to make room.
/// Clients of a storm speak late, being many on few cores, and must not lose their place for that; an address that holds most
/// places with silence is no such client.
fn patience(own: usize, all: usize, greeting_timeout: Duration) -> Duration {
    let long = greeting_timeout / 2;
    if own * 2 > all { SHORT.min(long) } else { long }
}

/// The oldest of the address that has most of them, in the order in which they are to go; half of that address's at most, so
/// that those of the next one are compared anew. `all`: connections, silent or not.
#[must_use]
pub fn victims<T: Copy>(silent: &[Silent<T>], all: usize, greeting_timeout: Duration, now: Instant) -> Vec<T> {
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    for one in silent {
        *counts.entry(one.source).or_default() += 1;
    }
    // Addresses are ordered, so that equals are chosen the same way each time.
    let Some((source, count)) = counts.into_iter().max_by_key(|&(source, count)| (count, source)) else {
        return Vec::new();
    };
    let patience = patience(count, all, greeting_timeout);
    let is_due = |one: &&Silent<T>| now.saturating_duration_since(one.accepted) >= patience;
    let mut own: Vec<_> = silent.iter().filter(|one| one.source == source).filter(is_due).collect();
    own.sort_by_key(|one| one.accepted);
    own.into_iter().take(count.div_ceil(2).min(MOST)).map(|one| one.name).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// Clients of these hosts that came so many seconds after `start`, looked at after `now` seconds.
    fn victims_at(now: u64, of: &[(u8, u64)], all: usize) -> Vec<usize> {
        let start = Instant::now();
        let one = |(name, &(host, at)): (usize, &(u8, u64))| Silent {
            name,
            source: IpAddr::from([10, 0, 0, host]),
            accepted: start + Duration::from_secs(at),
        };
        let silent: Vec<_> = of.iter().enumerate().map(one).collect();
        victims(&silent, all, TIMEOUT, start + Duration::from_secs(now))
    }

    #[test]
    fn the_oldest_of_the_address_that_has_most_go_first() {
        assert_eq!(victims_at(100, &[], 10), Vec::<usize>::new());
        assert_eq!(victims_at(100, &[(1, 5)], 10), [0]);
        assert_eq!(victims_at(100, &[(1, 1), (2, 9), (3, 2), (2, 7), (2, 8)], 10), [3, 4]);
        let many: Vec<_> = (0..2000).map(|at| (7, at)).collect();
        assert_eq!(victims_at(9000, &many, 2000).len(), MOST);
    }

    #[test]
    fn who_holds_most_places_with_silence_goes_soon_and_who_is_one_of_a_storm_does_not() {
        let flood = vec![(7, 0); 60];
        assert_eq!(victims_at(1, &flood, 100).len(), 30);
        assert_eq!(victims_at(0, &flood, 100), Vec::<usize>::new(), "not before a second");
        let storm: Vec<_> = (0..100_u8).map(|host| (host, 0)).collect();
        assert_eq!(victims_at(4, &storm, 100), Vec::<usize>::new());
        assert_eq!(victims_at(5, &storm, 100).len(), 1, "half of greeting_timeout");
    }
}
