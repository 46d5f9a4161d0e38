//! Other rules and limits, for those who are here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use evermq_mqtt::ReasonCode;

use super::Broker;
use crate::bridges::identity::is_reserved;
use crate::session::Limits;

/// What other rules have led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AccessApplied {
    /// Clients that would not get in now.
    pub closed: usize,
    /// Messages that waited for clients that may not have them any more.
    pub withdrawn: usize,
}

impl Broker {
    /// Other bounds: of what clients have been told, for those who connect from now on; of queues and subscriptions, for
    /// everyone.
    pub fn set_limits(&self, limits: Limits) {
        let before = self.limits();
        before.budget.set_max(limits.budget.max());
        before.lasting.set_max(limits.lasting.max());
        let (budget, lasting) = (Arc::clone(&before.budget), Arc::clone(&before.lasting));
        let limits = Limits { budget, lasting, durability: before.durability.clone(), ..limits };
        self.limits.store(Arc::new(limits.clone()));
        // Many sessions share one set of bounds, and are to go on to do so.
        let mut made: HashMap<usize, Arc<Limits>> = HashMap::new();
        // Bridges' bounds are theirs.
        for mailbox in self.registry.all().into_iter().filter(|mailbox| !is_reserved(mailbox.client_id())) {
            let mut slot = mailbox.lock();
            let told = slot.session.limits();
            let now = made.entry(Arc::as_ptr(told).addr()).or_insert_with(|| Arc::new(limits.with_told(told)));
            let now = Arc::clone(now);
            slot.session.set_limits(now);
        }
    }

    /// Other rules are in force: every session gets its permits anew, what waits is asked about once more, and who would not
    /// get in now is closed.
    pub fn apply_access(&self, now: Instant) -> AccessApplied {
        let mut applied = AccessApplied::default();
        for mailbox in self.registry.all() {
            let mut login = None;
            self.update(&mailbox, now, |session| {
                login = session.login().cloned();
                let permits = match &login {
                    Some(login) => self.access.permits(login, mailbox.client_id()),
                    None => self.access.permits_of(session.user().map(AsRef::as_ref), mailbox.client_id()),
                };
                applied.withdrawn += session.set_permits(permits);
            });
            if let Some(objection) = login.and_then(|login| self.access.objection(&login)) {
                tracing::info!(client = %mailbox.client_id(), reason = objection, "client is closed: it would not get in now");
                mailbox.close(ReasonCode::NotAuthorized);
                applied.closed += 1;
            }
        }
        applied
    }
}
