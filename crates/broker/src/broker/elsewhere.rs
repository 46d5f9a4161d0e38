//! Clients that connect to another broker: for them the cluster is one server (§3.1.4), so what they had here ends.
//!
//! | the client has here | it resumes there | it starts clean there |
//! |---|---|---|
//! | a connection | it is closed with 0x8E | likewise, and its session ends |
//! | a session without one | it stays, for when the client comes back | it ends |
//!
//! A session stays at its broker: what waits in it is had there. Its will goes out as if the client had connected here: at once
//! if it asks for no delay, and otherwise not, because the client goes on (`[MQTT-3.1.3-9]`), unless its session has ended.
//!
//! The lbs of the cluster connect to every broker under one identifier, and are left out. An identifier belongs to
//! its user here: another user's claim to it ends nothing.

use std::sync::{Arc, Weak};
use std::time::Instant;

use evermq_bridge::{Claim, Clients, Stamp, Standing};
use evermq_mqtt::ReasonCode;

use super::Broker;
use crate::bridges::identity::is_reserved;
use crate::connection::clock;
use crate::mailbox::{Closing, Mailbox, Slot};
use crate::session::Session;

/// What the other brokers are told of a broker's clients, and what they tell of theirs.
pub(super) struct Elsewhere(Weak<Broker>);

impl Elsewhere {
    pub(super) fn new(broker: &Arc<Broker>) -> Self {
        Self(Arc::downgrade(broker))
    }
}

impl Clients for Elsewhere {
    fn connected(&self) -> Vec<Claim> {
        let Some(broker) = self.0.upgrade() else { return Vec::new() };
        let me = broker.backbone.next_stamp().origin;
        let claim = |mailbox: Arc<Mailbox>| {
            let slot = mailbox.lock();
            let is_client = slot.session.link().is_some() && !slot.session.is_lb();
            match slot.standing {
                Standing::Since(time) if is_client => {
                    Some(claim_of(&mailbox, &slot, Stamp { time, origin: Arc::clone(&me) }, false))
                }
                Standing::Since(_) | Standing::Coming | Standing::Unknown => None,
            }
        };
        (0..).map_while(|index| broker.registry.shard_at(index)).flatten().filter_map(claim).collect()
    }

    fn claimed(&self, claim: &Claim, me: &str) -> bool {
        self.0.upgrade().is_some_and(|broker| broker.claimed(claim, me, clock()))
    }
}

impl Broker {
    /// The client behind `slot` has connected here just now, and can be found from now on: what the other brokers are to be
    /// told when the lock is given back.
    pub(crate) fn stand(&self, mailbox: &Mailbox, slot: &mut Slot, clean_start: bool) -> Option<Claim> {
        if slot.session.is_lb() || is_reserved(mailbox.client_id()) {
            return None;
        }
        // Under the lock: a claim that is newer finds the connection, one that has not found it is older.
        let stamp = self.backbone.next_stamp();
        slot.standing = Standing::Since(stamp.time);
        // Also where there is no other broker: one may join, and is told of everybody who is connected then.
        (!self.backbone.is_alone()).then(|| claim_of(mailbox, slot, stamp, clean_start))
    }

    /// A client has connected to another broker; `me` is this one. Whether something ended here for that.
    fn claimed(&self, claim: &Claim, me: &str, now: Instant) -> bool {
        let Some(mailbox) = self.registry.get(&claim.client_id) else { return false };
        let mut slot = mailbox.lock();
        let session = &slot.session;
        let is_its_users = session.user().map(AsRef::as_ref) == claim.user.as_deref();
        if session.is_ended() || session.is_lb() || !is_its_users || !claim.is_newer_than(slot.standing, me) {
            return false;
        }
        let is_connected = session.link().is_some();
        tracing::debug!(
            client = %claim.client_id, broker = &*claim.stamp.origin, is_connected, claim.clean_start,
            "client has connected to another broker"
        );
        if is_connected {
            if !claim.clean_start {
                mailbox.change(&mut slot, &mut Vec::new(), Session::handle_moved);
            }
            let closing = Closing { reason: ReasonCode::SessionTakenOver, text: None, ends_session: claim.clean_start };
            Mailbox::close_slot(slot, closing);
            return true;
        }
        drop(slot);
        self.update(&mailbox, now, |session| match (session.link(), claim.clean_start) {
            // It has come back meanwhile.
            (Some(_), _) => {}
            (None, true) => session.handle_end(now),
            (None, false) => session.handle_moved(),
        });
        claim.clean_start
    }
}

fn claim_of(mailbox: &Mailbox, slot: &Slot, stamp: Stamp, clean_start: bool) -> Claim {
    Claim { client_id: mailbox.client_id().clone(), user: slot.session.user().cloned(), stamp, clean_start }
}

#[cfg(test)]
mod tests;
