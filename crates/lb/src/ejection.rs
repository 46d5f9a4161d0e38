//! How many backends of a group may be left out at once because clients failed there.
//!
//! Failures of clients are a hint, not proof: a storm, a fault of the lb's own network or a client that brings them about
//! would otherwise take away one backend after the other, and the load of all would fall on the last one.
//!
//! A backend may be ejected while
//! - the ejected ones, it included, are at most `max_ejected` percent of the group's backends, rounded down, and
//! - another backend of the group is up and not ejected. Those that are down, drain or are not ready do not count.

use std::collections::BTreeMap;

use crate::backend::Standing;

/// What is known of every backend, by a number that it keeps.
#[derive(Debug, Default)]
pub struct Ejections {
    max_percent: u8,
    members: BTreeMap<u64, Member>,
    next: u64,
}

#[derive(Debug)]
struct Member {
    group: Box<str>,
    standing: Standing,
}

impl Ejections {
    /// Nobody yet. `max_percent` is `[lb] max_ejected`.
    #[must_use]
    pub const fn new(max_percent: u8) -> Self {
        Self { max_percent, members: BTreeMap::new(), next: 0 }
    }

    /// Another bound from now on; who is ejected stays so for the time that has been set.
    pub const fn set_max_percent(&mut self, max_percent: u8) {
        self.max_percent = max_percent;
    }

    /// A backend has come; its number.
    pub fn enter(&mut self, group: &str, standing: Standing) -> u64 {
        self.next += 1;
        self.members.insert(self.next, Member { group: group.into(), standing });
        self.next
    }

    /// A backend's standing has changed.
    pub fn set(&mut self, id: u64, standing: Standing) {
        if let Some(member) = self.members.get_mut(&id) {
            member.standing = standing;
        }
    }

    /// A backend has gone.
    pub fn leave(&mut self, id: u64) {
        self.members.remove(&id);
    }

    /// Whether its group can do without this backend.
    #[must_use]
    pub fn may_eject(&self, id: u64) -> bool {
        let Some(member) = self.members.get(&id) else { return false };
        let others = || self.members.iter().filter(|(other, at)| **other != id && at.group == member.group);
        let size = 1 + others().count();
        let ejected = 1 + others().filter(|(_, other)| other.standing == Standing::Suspect).count();
        let is_bounded = ejected * 100 <= size * usize::from(self.max_percent);
        is_bounded && others().any(|(_, other)| other.standing == Standing::Up)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(max_percent: u8, standings: &[Standing]) -> Ejections {
        let mut ejections = Ejections::new(max_percent);
        for &standing in standings {
            ejections.enter("brokers", standing);
        }
        ejections
    }

    #[test]
    fn the_share_is_bounded_and_one_that_is_up_is_left() {
        use Standing::{Down, Draining, NotReady, Rejecting, Suspect, Unproven, Up};
        let cases: [(u8, &[Standing], bool); 16] = [
            (50, &[Up, Up], true),
            (50, &[Up, Suspect], false),
            (50, &[Up], false),
            (100, &[Up], false),
            (50, &[Up, Up, Up], true),
            (50, &[Up, Suspect, Up], false),
            (67, &[Up, Suspect, Up], true),
            (100, &[Up, Suspect, Up], true),
            (100, &[Up, Suspect, Suspect], false),
            (0, &[Up, Up, Up], false),
            (49, &[Up, Up], false),
            (50, &[Up, Down], false),
            (50, &[Up, Draining], false),
            (50, &[Up, NotReady], false),
            (50, &[Up, Unproven], false),
            (50, &[Up, Rejecting], false),
        ];
        for (max_percent, standings, expected) in cases {
            assert_eq!(group(max_percent, standings).may_eject(1), expected, "{max_percent} {standings:?}");
        }
    }

    #[test]
    fn groups_do_not_count_for_each_other() {
        let mut ejections = Ejections::new(50);
        let own = ejections.enter("brokers", Standing::Up);
        let foreign = ejections.enter("legacy", Standing::Up);
        assert!(!ejections.may_eject(own));
        let second = ejections.enter("brokers", Standing::Up);
        assert!(ejections.may_eject(own));
        assert!(!ejections.may_eject(foreign));
        ejections.leave(second);
        assert!(!ejections.may_eject(own));
        assert!(!ejections.may_eject(second));
    }

    #[test]
    fn a_new_bound_counts_at_once() {
        let mut ejections = group(0, &[Standing::Up, Standing::Up]);
        assert!(!ejections.may_eject(1));
        ejections.set_max_percent(50);
        assert!(ejections.may_eject(1));
    }

    proptest! {
        #[test]
        fn ejecting_whenever_allowed_never_goes_beyond_the_bound(
            max_percent in 0_u8..=100,
            size in 1_u64..12,
            steps in proptest::collection::vec((1_u64..12, any::<bool>()), 0..80),
        ) {
            let mut ejections = Ejections::new(max_percent);
            for _ in 0..size {
                ejections.enter("brokers", Standing::Up);
            }
            for (id, fails) in steps {
                if !fails {
                    ejections.set(id, Standing::Up);
                } else if ejections.may_eject(id) {
                    ejections.set(id, Standing::Suspect);
                }
                let ejected = ejections.members.values().filter(|member| member.standing == Standing::Suspect).count();
                let size = ejections.members.len();
                prop_assert!(ejected * 100 <= size * usize::from(max_percent));
                prop_assert!(ejected < size);
            }
        }
    }
}
