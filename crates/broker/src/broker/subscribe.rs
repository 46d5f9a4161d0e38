//! Subscriptions of a session, entered where publishers look for them.

use std::sync::Arc;
use std::time::Instant;

use super::Broker;
use crate::mailbox::{Mailbox, Wakes};
use crate::session::Wanted;

impl Broker {
    /// Enters subscriptions, which cost less together, and brings the retained messages for them.
    pub fn subscribe(&self, mailbox: &Arc<Mailbox>, wanted: &[Wanted], now: Instant, wakes: &mut Wakes) {
        self.router.subscribe_all(mailbox, wanted.iter().map(|wanted| (&wanted.filter, wanted.subscription)));
        for Wanted { filter, subscription, .. } in wanted.iter().filter(|wanted| wanted.retained) {
            self.router.deliver_retained(mailbox, filter, *subscription, now, wakes);
        }
    }
}
