//! Does what the machines say.

use std::time::{Duration, Instant};

use super::instance::Link;
use super::{Driver, errno};
use crate::fsm::{Action, State, Transition};
use crate::report::{Trouble, What};
use crate::track::{Cause, Effective};

/// Until an address that the kernel has refused is tried again.
const RETRY: Duration = Duration::from_secs(1);

impl Driver {
    /// Drains the machines. A vote may be there at once: that of a host that is alone.
    pub(super) fn act(&mut self, now: Instant) {
        self.act_without_votes(now);
        self.heed(now);
        self.mind_guard();
    }

    pub(super) fn act_without_votes(&mut self, now: Instant) {
        while let Some((slot, action)) = self.routers.poll_action() {
            match action {
                Action::AddAddress => self.put_up(slot, now),
                Action::RemoveAddress => self.take_down(slot, now),
                Action::SendGarp => self.announce(slot, now),
                Action::SendAdvert { priority } => self.advertise(slot, priority, now),
                Action::Moved(transition) => self.moved(slot, transition),
                Action::Follows { master } => self.parts.reporter.report(slot, What::Follows(master)),
                Action::SeekPermission => self.seek(slot, true, now),
                Action::YieldPermission => self.seek(slot, false, now),
            }
        }
    }

    fn moved(&mut self, slot: usize, transition: Transition) {
        let master = transition.to == State::Master;
        if let Some(instance) = self.instances.get(slot).and_then(Option::as_deref).filter(|_| master) {
            instance.counters.master_transitions.count();
        }
        match &self.parts.takeover {
            Some(takeover) if master => takeover.announce(slot),
            Some(takeover) => takeover.lost(slot),
            None => {}
        }
        self.parts.reporter.report(slot, What::Moved(transition));
    }

    /// The guard hears of addresses before they are there, and forgets them after they have gone: killed in between, this
    /// program leaves nothing that nobody knows of.
    fn put_up(&mut self, slot: usize, now: Instant) {
        let Some(instance) = self.instances.get_mut(slot).and_then(Option::as_deref_mut) else { return };
        if let Some(guard) = self.parts.guard.as_deref_mut() {
            guard.held(slot);
        }
        let outcome = instance.put_up(&mut self.parts.addresses);
        instance.mute = outcome.is_err();
        if let Err(error) = outcome {
            // What could not be done must not be claimed: this host is unfit until it has another try.
            let trouble = Trouble::AddressNotAdded(errno(&error));
            self.parts.reporter.trouble(slot, &mut instance.told, trouble, now);
            if instance.link == Link::Up {
                instance.link = Link::Refused { until: now + RETRY };
            }
            self.rank(slot, now);
        }
    }

    fn take_down(&mut self, slot: usize, now: Instant) {
        let Some(instance) = self.instances.get_mut(slot).and_then(Option::as_deref_mut) else { return };
        if let Err(error) = instance.take_down(&mut self.parts.addresses) {
            let trouble = Trouble::AddressNotRemoved(errno(&error));
            self.parts.reporter.trouble(slot, &mut instance.told, trouble, now);
        }
        if let Some(guard) = self.parts.guard.as_deref_mut() {
            guard.released(slot);
        }
    }

    fn advertise(&mut self, slot: usize, priority: u8, now: Instant) {
        let Some(instance) = self.instances.get_mut(slot).and_then(Option::as_deref_mut) else { return };
        if instance.mute && priority > 0 {
            return;
        }
        let counters = &instance.counters;
        match instance.vrrp.send(&instance.identity, priority) {
            Ok(()) => {
                tracing::trace!(priority, "sent");
                counters.advertisement_sent.count();
                if priority == 0 {
                    counters.priority_zero_pkts_sent.count();
                }
            }
            Err(error) => {
                counters.send_errors.count();
                let trouble = Trouble::AdvertNotSent(error.raw_os_error().unwrap_or_default());
                self.parts.reporter.trouble(slot, &mut instance.told, trouble, now);
            }
        }
    }

    fn announce(&mut self, slot: usize, now: Instant) {
        let Some(instance) = self.instances.get_mut(slot).and_then(Option::as_deref_mut) else { return };
        if instance.mute {
            return;
        }
        let (sent, error) = instance.announcer.burst(instance.burst);
        instance.counters.garp_sent.add(sent);
        if let Some(error) = error {
            instance.counters.send_errors.count();
            let trouble = Trouble::GarpNotSent(error.raw_os_error().unwrap_or_default());
            self.parts.reporter.trouble(slot, &mut instance.told, trouble, now);
        }
    }

    /// Tells a virtual router's machine what the host's standing and its interface make of its priority.
    pub(super) fn rank(&mut self, slot: usize, now: Instant) {
        let Some(instance) = self.instances.get_mut(slot).and_then(Option::as_deref_mut) else { return };
        if instance.leaving || self.stopping {
            return;
        }
        let unfit = |cause| Effective { priority: None, cause };
        let effective = match instance.link {
            Link::Up => self.parts.tracker.standing().effective(instance.router.priority),
            Link::Settling { .. } => unfit(Cause::LinkHeldDown),
            Link::Refused { .. } => unfit(Cause::AddressRefused),
            Link::Down | Link::Gone | Link::Returning => unfit(Cause::LinkDown),
        };
        if instance.ranked != Some(effective) {
            instance.ranked = Some(effective);
            self.parts.reporter.report(slot, What::Effective(effective));
            self.routers.handle_effective(slot, effective, now);
        }
    }

    /// Lets go of virtual routers that had to leave, and have left.
    pub(super) fn retire(&mut self) {
        for slot in 0..self.instances.len() {
            let left = self.instances[slot].as_deref().is_some_and(|instance| instance.leaving && !instance.held);
            if left
                && !self.routers.lingers(slot)
                && let Some(instance) = self.instances[slot].take()
            {
                self.parts.reporter.report(slot, What::Retired(instance));
            }
        }
    }
}
