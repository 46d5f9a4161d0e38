//! Who has members of a shared subscription's group (§4.8.2): brokers tell each other, so that the one that a message is published
//! to can choose which of them gives it to the group.
//!
//! ```text
//!   a member comes, goes, connects ──▶ its broker ──GROUP: how many──▶ every other broker
//! ```
//!
//! Like a claim this is about now: it is sent between the messages and before those that wait, and never written down. A peer to which
//! a link comes up is told of all groups, and so is one for which more news wait than [`MAX_NEWS`]. How many members a group has is
//! looked up when it is sent, so what is sent last is what is so.
//!
//! Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use evermq_mqtt::Text;

/// Groups of which there is news for one peer. Beyond it, it is as little to tell it of all.
const MAX_NEWS: usize = 4096;

/// The members of a group at one broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Members {
    /// Those with a connection.
    pub connected: u32,
    /// All. Without any the broker does not have the group.
    pub all: u32,
    /// Since when it has had members without a break: hybrid clock time, 0 if that was before the broker was started.
    pub since: u64,
}

/// What is heard of another broker's groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Whether it is linked, both ways. What is known of its groups stays when it is not.
    Linked(bool),
    /// All its groups follow.
    Begin,
    /// A group's members there.
    Group {
        /// The topic filter, `$share/` and the group's name included.
        filter: Text,
        /// Its members.
        members: Members,
    },
    /// Those were all: others it does not have.
    Complete,
}

/// What the bridge asks of the broker about groups. Calls come from the bridge's thread and must not block.
pub trait Groups: Send + Sync + 'static {
    /// The topic filters of all groups with members here.
    fn filters(&self) -> Vec<Text>;

    /// The members here of the group with that topic filter.
    fn members(&self, filter: &Text) -> Members;

    /// Members with a connection, of all groups together, that another broker has told of.
    fn connected_at(&self, broker: &str) -> u64;

    /// News of another broker's.
    fn heard(&self, broker: &Arc<str>, heard: Heard);
}

/// What is to be sent next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// All groups there are now.
    All,
    /// One, with the members that it has now.
    One(Text),
}

/// What one peer is still to be told.
///
/// ```text
///          link is up           all is told
///   Away ─────────────▶ All ─────────────────▶ News
///     ▲                  │  ▲ more than MAX_NEWS  │
///     └──────────────────┴──┴─────────────────────┘ link is down
/// ```
#[derive(Debug, Default)]
pub(crate) enum Outbox {
    /// There is nobody to tell.
    #[default]
    Away,
    /// All groups.
    All,
    /// Of these there is news.
    News(BTreeSet<Text>),
}

impl Outbox {
    /// A link to the peer is up, and it understands.
    pub(crate) fn handle_up(&mut self) {
        *self = Self::All;
    }

    /// The link is down.
    pub(crate) fn handle_down(&mut self) {
        *self = Self::Away;
    }

    /// The members of a group have changed, and [`Groups::members`] says so. Whether there is something to be sent now and was
    /// not before.
    pub(crate) fn handle_change(&mut self, filter: &Text) -> bool {
        match self {
            Self::Away | Self::All => false,
            Self::News(news) if news.contains(filter) => false,
            Self::News(news) if news.len() >= MAX_NEWS => {
                *self = Self::All;
                false
            }
            Self::News(news) => {
                news.insert(filter.clone());
                news.len() == 1
            }
        }
    }

    /// What is to be sent next, if anything.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        match self {
            Self::Away => None,
            Self::All => {
                *self = Self::News(BTreeSet::new());
                Some(Action::All)
            }
            Self::News(news) => news.pop_first().map(Action::One),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(number: usize) -> Text {
        Text::new(&format!("$share/g{number:05}/t")).unwrap()
    }

    fn actions(outbox: &mut Outbox) -> Vec<Action> {
        std::iter::from_fn(|| outbox.poll_action()).collect()
    }

    #[test]
    fn a_peer_hears_of_all_first_and_then_of_what_changes_once() {
        let mut outbox = Outbox::default();
        assert!(!outbox.handle_change(&filter(1)), "there is nobody to tell");
        assert_eq!(actions(&mut outbox), []);
        outbox.handle_up();
        assert!(!outbox.handle_change(&filter(1)), "it is one of all");
        assert_eq!(actions(&mut outbox), [Action::All]);
        assert!(outbox.handle_change(&filter(2)), "whoever sends sleeps");
        assert!(!outbox.handle_change(&filter(1)), "whoever sends is awake");
        assert!(!outbox.handle_change(&filter(2)), "it is told already");
        assert_eq!(actions(&mut outbox), [Action::One(filter(1)), Action::One(filter(2))]);
        assert!(outbox.handle_change(&filter(2)));
        outbox.handle_down();
        assert_eq!(actions(&mut outbox), []);
        outbox.handle_up();
        assert_eq!(actions(&mut outbox), [Action::All]);
    }

    #[test]
    fn news_are_bounded() {
        let mut outbox = Outbox::default();
        outbox.handle_up();
        actions(&mut outbox);
        for number in 0..=MAX_NEWS {
            outbox.handle_change(&filter(number));
        }
        assert_eq!(actions(&mut outbox), [Action::All]);
    }

    proptest! {
        /// Whoever carries out all actions knows what is so in the end, whatever came in between.
        #[test]
        fn the_peer_knows_in_the_end(steps in prop::collection::vec((0..4_u8, 0..6_usize, 0..9_u32), 0..80)) {
            let (mut here, mut there) = ([0; 6], [9; 6]);
            let mut outbox = Outbox::default();
            let mut is_up = false;
            let told = |outbox: &mut Outbox, here: &[u32; 6], there: &mut [u32; 6], most: usize| {
                for _ in 0..most {
                    match outbox.poll_action() {
                        Some(Action::All) => *there = *here,
                        Some(Action::One(of)) => {
                            let index = (0..6).find(|index| filter(*index) == of).unwrap();
                            there[index] = here[index];
                        }
                        None => break,
                    }
                }
            };
            for (step, group, count) in steps {
                match step {
                    0 => {
                        outbox.handle_up();
                        is_up = true;
                    }
                    1 => {
                        outbox.handle_down();
                        is_up = false;
                    }
                    2 => {
                        here[group] = count;
                        outbox.handle_change(&filter(group));
                    }
                    _ => told(&mut outbox, &here, &mut there, group),
                }
            }
            if is_up {
                told(&mut outbox, &here, &mut there, usize::MAX);
                prop_assert_eq!(here, there);
            }
        }
    }
}
