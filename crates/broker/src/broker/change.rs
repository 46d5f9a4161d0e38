//! Changes of sessions from elsewhere than their connections, and their end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use evermq_mqtt::ReasonCode;
use evermq_store::Position;

use super::Broker;
use crate::mailbox::{Closing, Mailbox, Wakes};
use crate::session::{Action, Returned, Session};

/// A session's change, and what it asks for.
pub(super) struct Changed {
    actions: VecDeque<Action>,
    wakes: Wakes,
    /// How far the store has to be before anybody may know.
    pub(super) recorded: Position,
}

impl Broker {
    /// Changes a session that has no connection, or is to lose it, does what it asks for, and remembers when it is due.
    pub fn update(&self, mailbox: &Arc<Mailbox>, now: Instant, change: impl FnOnce(&mut Session)) {
        let changed = self.change(mailbox, change);
        self.finish(mailbox, changed, now);
    }

    pub(super) fn change(&self, mailbox: &Mailbox, change: impl FnOnce(&mut Session)) -> Changed {
        let mut slot = mailbox.lock();
        // Taken before the lock is given back, as everywhere: actions never wait for whoever comes next.
        let mut actions = VecDeque::new();
        let mut wakes = Wakes::default();
        slot.session.swap_actions(&mut actions);
        mailbox.change(&mut slot, wakes.changes(), change);
        slot.session.swap_actions(&mut actions);
        if slot.session.link().is_none() {
            wakes.add(slot.waker.take());
            slot.presence = None;
        }
        Changed { actions, wakes, recorded: slot.recorded }
    }

    pub(super) fn finish(&self, mailbox: &Arc<Mailbox>, changed: Changed, now: Instant) {
        let Changed { actions, mut wakes, .. } = changed;
        wakes.wake();
        for action in actions {
            self.apply(mailbox, action, now, &mut wakes);
        }
        self.watch(mailbox);
    }

    /// Remembers when a session without a connection is due.
    pub fn watch(&self, mailbox: &Arc<Mailbox>) {
        if let Some(deadline) = mailbox.deadline() {
            self.expiry.watch(mailbox, deadline);
        }
    }

    /// Sessions whose will is due or that have expired.
    pub fn expire(&self, now: Instant) {
        for mailbox in self.expiry.due(now) {
            self.update(&mailbox, now, |session| {
                // It may have come back meanwhile; then its connection keeps its time.
                if session.link().is_none() {
                    session.handle_timeout(now);
                    self.counters.expired.fetch_add(u64::from(session.is_ended()), Ordering::Relaxed);
                }
            });
        }
    }

    /// An operator closes a client's connection, and ends its session too if `ends_session`. Whether there was anything of
    /// that to close or end.
    pub fn kick(&self, mailbox: &Arc<Mailbox>, text: Option<Box<str>>, ends_session: bool, now: Instant) -> bool {
        let (is_connected, is_over) = {
            let slot = mailbox.lock();
            (slot.session.link().is_some(), slot.session.is_ended())
        };
        if is_connected {
            mailbox.close(Closing { reason: ReasonCode::AdministrativeAction, text, ends_session });
        } else if ends_session && !is_over {
            self.end(mailbox, now);
        }
        is_connected || (ends_session && !is_over)
    }

    pub(super) fn end(&self, mailbox: &Arc<Mailbox>, now: Instant) {
        self.update(mailbox, now, |session| session.handle_end(now));
    }

    /// Ends the session in the place of which another one of the same client comes. What it gives back has other holders
    /// in the store before that one is there.
    pub(super) fn change_to_end(&self, mailbox: &Mailbox, now: Instant) -> Changed {
        let mut ended = self.change(mailbox, |session| session.handle_end(now));
        let (returned, actions) = ended.actions.into_iter().partition(|action| matches!(action, Action::GiveBack(_)));
        let returned: VecDeque<Action> = returned;
        ended.actions = actions;
        for action in returned {
            if let Action::GiveBack(returned) = action {
                self.give_back(mailbox, returned, &mut ended.wakes);
            }
        }
        ended.recorded = ended.recorded.max(ended.wakes.recorded());
        ended
    }

    /// Gives messages of shared subscriptions to other members; if the session is over, that is written down afterwards.
    pub(super) fn give_back(&self, mailbox: &Mailbox, Returned(deliveries): Returned, wakes: &mut Wakes) {
        let journal = self.journal.as_ref().filter(|journal| journal.is_leaving(mailbox.key()));
        wakes.give_from(journal.map(|_| mailbox.key()));
        self.router.give_back(mailbox, deliveries, wakes);
        wakes.give_from(None);
        if let Some(journal) = journal {
            wakes.rely_on(journal.record_left(mailbox.key()));
        }
    }
}
