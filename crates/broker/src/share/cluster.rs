//! Groups with members at several brokers: which broker gives a message to a group.
//!
//! The broker that a message is published to, its *origin*, chooses, once: when it puts the message into its log for the others. The
//! choice stands in the log with the message, so it is the same however often the message is sent, and whoever crashes.
//!
//! | is there | the message goes to |
//! |---|---|
//! | a member with a connection, here or at a linked broker | these brokers in turn, each as often as it has such members |
//! | none, but the message is of QoS 1 or 2 and there are sessions that wait for their clients | their brokers, likewise |
//! | none, but at a broker that is not linked there was one | that broker, when it is back |
//!
//! A broker that was chosen and finds that no member of the group is left to take the message hands it over to a broker that has some, or,
//! if it knows of none, back to the one that it came from; three times at most. If there is none anywhere there is no group any
//! more.
//!
//! Of groups that the origin does not know, because it has just started or the group has just come to be, it says nothing.
//! Then each broker that has members decides by what they have told each other: the one that has had them for longest gives the
//! message to the group. The origin itself had none, or it would have known.
//!
//! Pure but for [`Membership`].

use std::sync::{Arc, OnceLock, Weak};

use evermq_bridge::{Directions, GroupId, Members};
use evermq_mqtt::{QoS, Text};

use crate::backbone::Backbone;

/// Another broker with members of a group.
#[derive(Debug, Clone)]
pub struct Holder {
    /// Its name.
    pub broker: Arc<str>,
    /// Its members, at least one, as far as it has told.
    pub members: Members,
    /// Whether it is linked, both ways.
    pub is_linked: bool,
    /// That it gives a message to the group.
    pub directions: Directions,
}

/// Which broker gives a message to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This one.
    Here,
    /// Another one.
    There(Directions),
}

/// This broker among the others, if there may be any.
#[derive(Debug, Default)]
pub struct Membership(OnceLock<(Weak<dyn Backbone>, Arc<str>)>);

impl Membership {
    pub(super) fn begin(&self, backbone: Weak<dyn Backbone>, me: Arc<str>) {
        // A second call would be a defect of the broker; the first one stays.
        let _ = self.0.set((backbone, me));
    }

    /// The way to the others, and this broker's name.
    #[must_use]
    pub fn get(&self) -> Option<(Arc<dyn Backbone>, &str)> {
        let (backbone, me) = self.0.get()?;
        Some((backbone.upgrade()?, me))
    }

    /// The same if there are others now.
    #[must_use]
    pub fn with_others(&self) -> Option<(Arc<dyn Backbone>, &str)> {
        self.get().filter(|(backbone, _)| !backbone.is_alone())
    }

    /// The members of a group have changed.
    pub(super) fn tell(&self, filter: &Text) {
        if let Some((backbone, _)) = self.get() {
            backbone.group_changed(filter);
        }
    }
}

/// What a group is called in messages' directions: a hash that nobody can make two filters for.
pub(super) fn id_of(filter: &Text) -> GroupId {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, filter.as_str().as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&digest.as_ref()[..16]);
    GroupId(id)
}

/// Which broker gives a message to the group; `None` if there is nobody to take it. `turn` counts how often this was asked.
pub(super) fn choose(own: Members, others: &[Holder], qos: QoS, turn: impl FnOnce() -> usize) -> Option<Choice> {
    if others.is_empty() {
        return (own.all > 0).then_some(Choice::Here);
    }
    let is_kept = qos > QoS::AtMostOnce;
    let connected = |holder: &Holder| if holder.is_linked { holder.members.connected } else { 0 };
    let kept = |holder: &Holder| if holder.is_linked && is_kept { holder.members.all } else { 0 };
    let away = |holder: &Holder| if holder.is_linked { 0 } else { holder.members.all };
    let turn = turn();
    in_turn(own.connected, others, connected, turn)
        .or_else(|| in_turn(if is_kept { own.all } else { 0 }, others, kept, turn))
        .or_else(|| in_turn(0, others, away, turn))
}

fn in_turn(own: u32, others: &[Holder], weight: impl Fn(&Holder) -> u32, turn: usize) -> Option<Choice> {
    let total = u64::from(own) + others.iter().map(|holder| u64::from(weight(holder))).sum::<u64>();
    let mut turn = (turn as u64).checked_rem(total)?;
    if turn < u64::from(own) {
        return Some(Choice::Here);
    }
    turn -= u64::from(own);
    for holder in others {
        match turn.checked_sub(u64::from(weight(holder))) {
            Some(left) => turn = left,
            None => return Some(Choice::There(holder.directions.clone())),
        }
    }
    None
}

/// Whether the broker `me`, with these members, has had the group for longer than all others of which it can be said. All of
/// them that have told each other the same come to the same answer.
pub(super) fn is_first((own, me): (Members, &str), others: &[Holder], origin: &str) -> bool {
    let mut rivals = others.iter().filter(|holder| holder.is_linked && *holder.broker != *origin);
    own.all > 0 && rivals.all(|rival| (own.since, me) < (rival.members.since, &*rival.broker))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn members(connected: u32, all: u32) -> Members {
        Members { connected, all, since: 0 }
    }

    fn holder(broker: &str, members: Members, is_linked: bool) -> Holder {
        let directions = Directions::new(GroupId([1; 16]), broker);
        Holder { broker: broker.into(), members, is_linked, directions }
    }

    fn name(choice: Option<Choice>) -> String {
        match choice {
            None => "nobody".to_owned(),
            Some(Choice::Here) => "here".to_owned(),
            Some(Choice::There(directions)) => directions.broker_of(GroupId([1; 16])).unwrap().to_owned(),
        }
    }

    fn shares(own: Members, others: &[Holder], qos: QoS, turns: usize) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for turn in 0..turns {
            *shares.entry(name(choose(own, others, qos, || turn))).or_default() += 1;
        }
        shares
    }

    fn of<const N: usize>(shares: [(&str, usize); N]) -> BTreeMap<String, usize> {
        shares.into_iter().map(|(broker, count)| (broker.to_owned(), count)).collect()
    }

    #[test]
    fn every_connected_member_gets_the_same_share_wherever_it_is() {
        let others =
            [holder("b", members(3, 9), true), holder("c", members(0, 7), true), holder("d", members(2, 2), true)];
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            assert_eq!(shares(members(1, 5), &others, qos, 600), of([("here", 100), ("b", 300), ("d", 200)]));
        }
    }

    #[test]
    fn absent_members_come_next_and_brokers_that_are_away_last() {
        let absent = [holder("b", members(0, 3), true), holder("c", members(5, 5), false)];
        assert_eq!(shares(members(0, 1), &absent, QoS::AtLeastOnce, 40), of([("here", 10), ("b", 30)]));
        assert_eq!(shares(members(0, 1), &absent, QoS::AtMostOnce, 40), of([("c", 40)]), "nobody else would take it");
        assert_eq!(shares(Members::default(), &absent[1..], QoS::AtLeastOnce, 4), of([("c", 4)]));
        assert_eq!(shares(members(0, 1), &[], QoS::AtMostOnce, 4), of([("here", 4)]), "whose members decide");
        assert_eq!(shares(Members::default(), &[], QoS::AtLeastOnce, 4), of([("nobody", 4)]));
        assert_eq!(shares(Members::default(), &absent[..1], QoS::AtMostOnce, 4), of([("nobody", 4)]));
    }

    #[test]
    fn a_group_is_known_by_its_whole_filter() {
        let id = |filter: &str| id_of(&Text::new(filter).unwrap());
        assert_eq!(id("$share/g/t/#"), id("$share/g/t/#"));
        assert_ne!(id("$share/g/t/#"), id("$share/h/t/#"));
        // The first 16 bytes of SHA-256, so that brokers of all versions agree.
        assert_eq!(id("$share/g/t").0[..4], [47, 104, 131, 118]);
    }

    proptest! {
        /// Of brokers that know of each other exactly one takes a message that none was chosen for, and it is one that has had the
        /// group when the message was published, if there is one.
        #[test]
        fn one_of_those_that_know_each_other_is_the_first(
            since in prop::collection::btree_map("[a-e]", 0..6_u64, 1..5),
        ) {
            let have = |since| Members { connected: 0, all: 1, since };
            let first = |me: &str| {
                let others: Vec<_> = since.iter().filter(|(broker, _)| *broker != me).map(|(broker, since)| holder(broker, have(*since), true)).collect();
                is_first((have(since[me]), me), &others, "origin")
            };
            let all: Vec<_> = since.keys().filter(|broker| first(broker)).collect();
            prop_assert_eq!(all.len(), 1, "{:?}", since);
            prop_assert_eq!(since[all[0]], *since.values().min().unwrap());
        }
    }

    #[test]
    fn who_is_away_or_has_sent_the_message_is_nobodys_rival() {
        let have = |since| Members { connected: 0, all: 1, since };
        assert!(!is_first((have(5), "b"), &[holder("a", have(1), true)], "origin"));
        assert!(is_first((have(5), "b"), &[holder("a", have(1), false)], "origin"));
        assert!(is_first((have(5), "b"), &[holder("a", have(1), true)], "a"));
        assert!(!is_first((Members::default(), "b"), &[], "origin"), "it has none itself");
    }
}
