//! The votes of the other hosts: what the virtual routers seek, and what they are given.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Instant;

use evermq_quorum::{Action, Member, Resource, State};

use super::{Driver, Instance};

/// This host's part in the quorum.
#[derive(Debug)]
pub struct Quorum {
    /// Votes and claims.
    pub member: Member,
    /// What is shown. Its reader keeps it for the time of a copy; this thread leaves an update out rather than wait.
    pub shown: Arc<Mutex<State>>,
}

/// What a virtual router claims.
#[must_use]
pub(super) fn resource(instance: &Instance) -> Resource {
    let ipv6 = instance.router.addresses.first().is_some_and(IpAddr::is_ipv6);
    Resource::new(ipv6, instance.router.vrid.get())
}

impl Driver {
    /// What came in and what is due, in this order: after a pause the answers that wait are what was missed.
    pub(super) fn vote(&mut self, readable: bool, now: Instant) {
        let Some(quorum) = &mut self.parts.quorum else { return };
        if readable {
            quorum.member.handle_readable();
        }
        let due = quorum.member.poll_timeout().is_some_and(|due| due <= now);
        if due {
            quorum.member.handle_timeout(now);
        }
        if readable || due {
            self.heed(now);
            self.show_quorum(now);
        }
    }

    /// A virtual router wants to be master, or wants it no more.
    pub(super) fn seek(&mut self, slot: usize, sought: bool, now: Instant) {
        let Some(instance) = self.instances.get_mut(slot).and_then(Option::as_deref_mut) else { return };
        instance.seeks = sought;
        let rank = instance.ranked.and_then(|effective| effective.priority).unwrap_or(0);
        if let Some(quorum) = &mut self.parts.quorum {
            quorum.member.want(resource(instance), sought, rank, now);
        }
    }

    /// When the first lease of what is held ends.
    pub(super) fn lease_end(&self) -> Option<Instant> {
        let quorum = self.parts.quorum.as_ref()?;
        let held = self.instances.iter().flatten().filter(|instance| instance.held);
        held.filter_map(|instance| quorum.member.lease_end(resource(instance))).min()
    }

    /// Passes on what was granted and lost. A claim that is lost has ended: whoever still seeks claims anew.
    pub(super) fn heed(&mut self, now: Instant) {
        while let Some(Action { resource: meant, granted }) = self.poll_vote() {
            let of = |instance: &Option<Box<Instance>>| instance.as_deref().is_some_and(|one| resource(one) == meant);
            let Some(slot) = self.instances.iter().position(of) else { continue };
            self.routers.handle_permission(slot, granted, now);
            self.act_without_votes(now);
            if !granted && self.instances[slot].as_deref().is_some_and(|instance| instance.seeks) {
                self.seek(slot, true, now);
            }
        }
    }

    fn poll_vote(&mut self) -> Option<Action> {
        self.parts.quorum.as_mut()?.member.poll_action()
    }

    fn show_quorum(&self, now: Instant) {
        let Some(quorum) = &self.parts.quorum else { return };
        match quorum.shown.try_lock() {
            Ok(mut shown) => quorum.member.update_state(&mut shown, now),
            Err(TryLockError::Poisoned(poisoned)) => quorum.member.update_state(&mut poisoned.into_inner(), now),
            Err(TryLockError::WouldBlock) => {}
        }
    }
}
