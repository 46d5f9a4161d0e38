//! Who says which broker gives a message to a group.

use std::sync::Arc;

use evermq_bridge::{Directions, GroupId};
use evermq_mqtt::QoS;

use crate::mailbox::Wakes;
use crate::message::Shared;
use crate::share::cluster::Choice;
use crate::share::{Group, Membership, Taken};

/// Who says which broker gives messages to groups, and what came of that.
pub(super) enum Sharing<'a> {
    /// This broker does, if it has members: other brokers do not get them.
    Here,
    /// This broker, to which they were published, chooses.
    Choosing {
        /// This broker among the others.
        membership: &'a Membership,
        /// What it has chosen, for each message.
        directions: Vec<Option<Directions>>,
    },
    /// The broker that the message came from has chosen.
    Told {
        /// This broker.
        me: &'a str,
        /// What it has chosen.
        directions: Option<&'a Directions>,
        /// The groups among those that it has chosen this broker for that are known here.
        met: Vec<GroupId>,
        /// For whom this broker has nobody left, and who is to have the message instead.
        onward: Vec<Directions>,
    },
}

impl<'a> Sharing<'a> {
    pub(super) fn choosing(membership: &'a Membership) -> Self {
        Self::Choosing { membership, directions: Vec::new() }
    }

    /// What was chosen.
    pub(super) fn into_directions(self) -> Vec<Option<Directions>> {
        match self {
            Self::Choosing { directions, .. } => directions,
            Self::Here | Self::Told { .. } => Vec::new(),
        }
    }

    /// Whether the messages are for nobody but groups that are named.
    pub(super) fn is_for_groups_only(&self) -> bool {
        matches!(self, Self::Told { directions: Some(directions), .. } if directions.is_handed_over())
    }

    /// Gives the message at `index` to the group, if it is this broker that gives it.
    pub(super) fn deliver(
        &mut self,
        group: &Arc<Group>,
        (index, shared): (usize, &Arc<Shared>),
        wakes: &mut Wakes,
    ) -> Option<Taken> {
        match self {
            Self::Here => group.deliver(shared, None, wakes),
            Self::Choosing { membership, directions } => match membership.with_others() {
                None => group.deliver(shared, None, wakes),
                Some((_, me)) => choose(group, shared, me, slot(directions, index), wakes),
            },
            Self::Told { me, directions, met, onward } => {
                let origin = &shared.message().stamp.origin;
                let is_here = match directions.and_then(|directions| directions.broker_of(group.id())) {
                    Some(broker) => broker == *me,
                    None => directions.is_none_or(|told| !told.is_handed_over()) && group.is_first(me, origin),
                };
                if !is_here {
                    return None;
                }
                met.push(group.id());
                let taken = group.deliver(shared, None, wakes);
                if taken.is_none() {
                    onward.extend(next(group, shared.message().publish.qos, origin));
                }
                taken
            }
        }
    }
}

/// Where a message goes for a group of which nobody here takes it.
fn next(group: &Group, qos: QoS, origin: &str) -> Option<Directions> {
    match group.choose(qos, false) {
        Some(Choice::There(there)) => Some(there),
        // Whoever has chosen this broker may know more: this one may have been away.
        Some(Choice::Here) | None => (!group.has_members()).then(|| Directions::new(group.id(), origin)),
    }
}

fn choose(
    group: &Arc<Group>,
    shared: &Arc<Shared>,
    me: &str,
    directions: &mut Option<Directions>,
    wakes: &mut Wakes,
) -> Option<Taken> {
    let qos = shared.message().publish.qos;
    if directions.as_ref().is_some_and(Directions::is_full) {
        // The others find out among themselves who gives it to this one.
        return if group.is_elsewhere() { None } else { group.deliver(shared, None, wakes) };
    }
    let mut choice = group.choose(qos, true);
    let taken = matches!(choice, Some(Choice::Here)).then(|| group.deliver(shared, None, wakes)).flatten();
    if taken.is_none() && choice == Some(Choice::Here) {
        // Its members have just gone.
        choice = group.choose(qos, false);
    }
    let chosen = match choice {
        Some(Choice::There(there)) => there,
        // With nobody anywhere it is said too: whoever comes meanwhile comes too late for it.
        Some(Choice::Here) | None => group.here(me).clone(),
    };
    *directions = match directions {
        None => Some(chosen),
        Some(others) => others.and(&chosen).or_else(|| Some(others.clone())),
    };
    taken
}

fn slot(directions: &mut Vec<Option<Directions>>, index: usize) -> &mut Option<Directions> {
    if directions.len() <= index {
        directions.resize(index + 1, None);
    }
    &mut directions[index]
}
