//! Exchanges that stay open while very many later ones come and go: out of the ring, which would have to reach back to them.

use std::collections::BTreeMap;

use evermq_mqtt::PacketId;

use super::Exchange;

/// They, in the order in which they were begun.
#[derive(Debug, Default)]
pub(super) struct Left {
    by_age: BTreeMap<u64, (PacketId, Exchange)>,
    ages: BTreeMap<PacketId, u64>,
    next: u64,
    /// Up to here all went out on the present connection.
    resent: u64,
}

impl Left {
    /// Takes the oldest exchange of the ring.
    pub(super) fn push(&mut self, id: PacketId, exchange: Exchange) {
        self.by_age.insert(self.next, (id, exchange));
        self.ages.insert(id, self.next);
        self.next += 1;
    }

    pub(super) fn contains(&self, id: PacketId) -> bool {
        self.ages.contains_key(&id)
    }

    pub(super) fn get(&mut self, id: PacketId) -> Option<&mut Exchange> {
        self.by_age.get_mut(self.ages.get(&id)?).map(|(_, exchange)| exchange)
    }

    pub(super) fn remove(&mut self, id: PacketId) -> Option<Exchange> {
        self.by_age.remove(&self.ages.remove(&id)?).map(|(_, exchange)| exchange)
    }

    /// All are to be sent again.
    pub(super) fn restart(&mut self) {
        self.iter_mut().for_each(|exchange| exchange.sent = false);
        self.resent = 0;
    }

    /// The oldest one that was not yet sent again.
    pub(super) fn next_resend(&mut self) -> Option<(PacketId, &mut Exchange)> {
        let unsent = self.by_age.range(self.resent..).find(|(_, (_, exchange))| !exchange.sent);
        self.resent = unsent.map_or(self.next, |(age, _)| *age);
        self.by_age.get_mut(&self.resent).map(|(id, exchange)| (*id, exchange))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PacketId, &Exchange)> {
        self.by_age.values().map(|(id, exchange)| (*id, exchange))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Exchange> {
        self.by_age.values_mut().map(|(_, exchange)| exchange)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }
}
