//! Shared subscriptions (§4.8.2): each message goes to one member of the group, wherever in the cluster its members are.
//!
//! A group stands in the subscription tree as one subscriber, also where all its members are at other brokers. The broker that a
//! message is published to chooses which one gives it to the group, and says so to all with the message; see [`cluster`]. How a
//! broker then chooses among its own members: see [`group`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use evermq_bridge::{Heard, Members};
use evermq_mqtt::{Text, TopicFilter};
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;

use crate::backbone::Backbone;
use crate::router::Subscriber;

pub mod cluster;
pub mod group;

pub use cluster::Membership;
pub use group::{Group, Room, ShareRef, Taken};

/// Keys of groups are above those of mailboxes, with which they share the tree.
const FIRST_KEY: u64 = 1 << 63;

/// All groups, by their whole filter. Locked when members come and go, never for a message.
#[derive(Debug, Default)]
pub struct Groups {
    known: Mutex<Known>,
    members: AtomicUsize,
    next_key: AtomicU64,
    membership: Arc<Membership>,
}

#[derive(Debug, Default)]
struct Known {
    by_filter: HashMap<Text, Arc<Group>>,
    /// Brokers that are linked, both ways.
    linked: BTreeSet<Arc<str>>,
    /// Groups that a broker had and has not named again since it began to name them all.
    doubtful: BTreeMap<Arc<str>, HashSet<Text>>,
}

/// What is to be done in the subscription tree, while nobody else changes the group.
#[derive(Debug)]
pub enum Tree<'a> {
    /// A new group is to be found.
    Found(&'a TopicFilter, u64, Arc<Group>),
    /// One that nobody is in any more is not.
    Gone(&'a TopicFilter, u64),
}

impl Groups {
    /// There may be other brokers, from now on.
    pub fn join_mesh(&self, backbone: Weak<dyn Backbone>, me: Arc<str>) {
        self.membership.begin(backbone, me);
    }

    /// This broker among the others.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Groups with members here, and their members in all.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let known = self.known.lock();
        let groups = known.by_filter.values().filter(|group| group.has_members()).count();
        (groups, self.members.load(Ordering::Relaxed))
    }

    /// Groups in the tree, and members here in all.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        let known = self.known.lock();
        (known.by_filter.len(), self.members.load(Ordering::Relaxed))
    }

    /// Enters or replaces a member. A group that had none here has them since `since`; see [`Members::since`].
    pub fn join(&self, filter: &TopicFilter, subscriber: Subscriber, since: u64, tree: impl FnOnce(Tree<'_>)) {
        let mut known = self.known.lock();
        let is_new = if let Some(group) = known.by_filter.get(filter.as_str()) {
            group.join(subscriber, since)
        } else {
            let group = self.found(filter);
            group.join(subscriber, since);
            known.by_filter.insert(filter.text().detached(), Arc::clone(&group));
            tree(Tree::Found(filter, group.key(), group));
            true
        };
        self.members.fetch_add(usize::from(is_new), Ordering::Relaxed);
    }

    /// Removes a member.
    pub fn leave(&self, filter: &TopicFilter, member: u64, tree: impl FnOnce(Tree<'_>)) {
        let mut known = self.known.lock();
        let Some(group) = known.by_filter.get(filter.as_str()) else { return };
        if group.leave(member) {
            self.members.fetch_sub(1, Ordering::Relaxed);
        }
        known.forget_if_empty(filter, tree);
    }

    /// The group of a filter, if it has members.
    #[must_use]
    pub fn get(&self, filter: &TopicFilter) -> Option<Arc<Group>> {
        self.known.lock().by_filter.get(filter.as_str()).cloned()
    }

    /// The filters of all groups with members here.
    #[must_use]
    pub fn filters(&self) -> Vec<Text> {
        let known = self.known.lock();
        let with_members = known.by_filter.iter().filter(|(_, group)| group.has_members());
        with_members.map(|(filter, _)| filter.clone()).collect()
    }

    /// A group's members here.
    #[must_use]
    pub fn members(&self, filter: &Text) -> Members {
        self.known.lock().by_filter.get(filter).map(|group| group.members()).unwrap_or_default()
    }

    /// Members with a connection, of all groups together, that another broker has told of.
    #[must_use]
    pub fn connected_at(&self, broker: &str) -> u64 {
        let known = self.known.lock();
        known.by_filter.values().map(|group| u64::from(group.members_at(broker).connected)).sum()
    }

    /// News of another broker's groups.
    pub fn heard(&self, broker: &Arc<str>, heard: Heard, mut tree: impl FnMut(Tree<'_>)) {
        let mut known = self.known.lock();
        match heard {
            Heard::Linked(is_linked) => {
                let has_changed = match is_linked {
                    true => known.linked.insert(Arc::clone(broker)),
                    false => known.linked.remove(broker),
                };
                if has_changed {
                    known.by_filter.values().for_each(|group| group.set_linked(broker, is_linked));
                }
            }
            Heard::Begin => {
                let has = known.by_filter.iter().filter(|(_, group)| group.members_at(broker).all > 0);
                let has = has.map(|(filter, _)| filter.clone()).collect();
                known.doubtful.insert(Arc::clone(broker), has);
            }
            Heard::Group { filter, members } => {
                if let Some(doubtful) = known.doubtful.get_mut(broker) {
                    doubtful.remove(&filter);
                }
                self.set(&mut known, broker, filter, members, &mut tree);
            }
            Heard::Complete => {
                for filter in known.doubtful.remove(broker).unwrap_or_default() {
                    self.set(&mut known, broker, filter, Members::default(), &mut tree);
                }
            }
        }
    }

    /// A group has these members at another broker.
    fn set(
        &self,
        known: &mut Known,
        broker: &Arc<str>,
        filter: Text,
        members: Members,
        tree: &mut impl FnMut(Tree<'_>),
    ) {
        let Some(filter) = TopicFilter::new(filter).ok().filter(|filter| filter.share().is_some()) else { return };
        let is_linked = known.linked.contains(broker);
        match known.by_filter.get(filter.as_str()) {
            Some(group) => {
                group.set_elsewhere(broker, members, is_linked);
                known.forget_if_empty(&filter, tree);
            }
            None if members.all == 0 => {}
            None => {
                let group = self.found(&filter);
                group.set_elsewhere(broker, members, is_linked);
                known.by_filter.insert(filter.text().clone(), Arc::clone(&group));
                tree(Tree::Found(&filter, group.key(), group));
            }
        }
    }

    fn found(&self, filter: &TopicFilter) -> Arc<Group> {
        let key = FIRST_KEY + self.next_key.fetch_add(1, Ordering::Relaxed);
        Group::new(key, filter.text().detached(), Arc::clone(&self.membership))
    }
}

impl Known {
    fn forget_if_empty(&mut self, filter: &TopicFilter, tree: impl FnOnce(Tree<'_>)) {
        let Some(group) = self.by_filter.get(filter.as_str()) else { return };
        if !group.has_members() && !group.is_elsewhere() {
            let key = group.key();
            self.by_filter.remove(filter.as_str());
            tree(Tree::Gone(filter, key));
        }
    }
}

#[cfg(test)]
mod tests;
