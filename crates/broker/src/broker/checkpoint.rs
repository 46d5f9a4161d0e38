//! What the store asks for before it deletes old files: everything that is still in them, written down again.
//!
//! Runs on a thread of the store, in slices. A message that gets another holder meanwhile is looked at then
//! ([`Journal::refresh`]), so it does not matter that sessions are not looked at all at once.

use std::sync::{Arc, Weak};

use evermq_store::{Live, SegmentId, Store};

use super::Broker;
use crate::journal::Journal;
use crate::mailbox::Mailbox;
use crate::message::Shared;

/// Messages that are written again between two looks at how much waits to be written.
const SLICE: usize = 256;

/// What lives in a broker.
#[derive(Debug)]
pub struct Checkpoint(Weak<Broker>);

impl Checkpoint {
    /// Of this broker, as long as it is there.
    #[must_use]
    pub fn new(broker: &Arc<Broker>) -> Self {
        Self(Arc::downgrade(broker))
    }
}

impl Live for Checkpoint {
    fn checkpoint(&self, before: SegmentId, store: &Store) -> bool {
        let Some(broker) = self.0.upgrade() else { return false };
        let Some(journal) = &broker.journal else { return false };
        broker
            .router
            .visit_retained(|slice| slice.iter().for_each(|retained| journal.refresh(retained)), || store.pace());
        // Sessions afterwards: a will that becomes due meanwhile is written down in a newer segment.
        journal.refresh_wills(before);
        broker.backbone.checkpoint(before);
        for mailbox in broker.all_sessions() {
            if mailbox.is_durable() {
                checkpoint_session(&mailbox, journal, before, store);
            }
        }
        // A session that is leaving was passed over, and the store is to have it until its messages have other holders.
        !journal.has_leaving()
    }
}

/// Its messages without its lock, then itself with it. What it has got in between is in newer segments.
fn checkpoint_session(mailbox: &Mailbox, journal: &Journal, before: SegmentId, store: &Store) {
    let is_old = |shared: &Arc<Shared>| shared.handle().is_some_and(|handle| handle.segment() < before);
    let old: Vec<Arc<Shared>> = {
        let slot = mailbox.lock();
        slot.session
            .kept_messages()
            .map(|delivery| &delivery.message)
            .filter(|shared| is_old(shared))
            .cloned()
            .collect()
    };
    for slice in old.chunks(SLICE) {
        slice.iter().for_each(|shared| journal.refresh(shared));
        store.pace();
    }
    mailbox.write_again(journal, before);
    store.pace();
}
