//! Another configuration, and sockets that had to be opened again. Both are made on the ordinary thread; here they are put
//! in the place of what was, which goes back to be freed there.

use std::time::Instant;

use super::instance::{Instance, Link};
use super::links::TrackedLink;
use super::{Driver, errno};
use crate::address::{AddressError, Addresses};
use crate::guard::keeper::Line;
use crate::report::{Trouble, What};
use crate::routers::Plan;
use crate::takeover::Takeover;
use crate::track::{self, Tracks, Verdict};

/// What the control thread tells the real-time one.
#[derive(Debug)]
pub enum Letter {
    /// A check of the track at `index` has found something out.
    Verdict {
        /// The track.
        index: usize,
        /// What was found out.
        verdict: Verdict,
    },
    /// Another guard.
    Guard(Box<Line>),
    /// Another configuration.
    Change(Box<Change>),
    /// The interface was removed and is there again, and so are the sockets.
    Reopened {
        /// The virtual router.
        slot: usize,
        /// Its sockets.
        instance: Box<Instance>,
    },
}

/// Another configuration, ready to be put in force; and, when it is, what it replaced.
#[derive(Debug)]
pub struct Change {
    /// What becomes of each slot, in order; those beyond the present ones are added.
    pub steps: Vec<Step>,
    /// The tracks that are interfaces; what they were before once it is in force.
    pub tracked_links: Vec<TrackedLink>,
    /// For the judgement of the lb.
    pub tracker: track::Settings,
    /// Who votes; none where that has not changed.
    pub quorum: Option<Box<evermq_quorum::Settings>>,
    /// Whom to tell of a takeover; what did so before once it is in force. None where that has not changed.
    pub takeover: Option<Takeover>,
    /// What is tracked; what was tracked once it is in force.
    pub tracks: Option<Tracks>,
}

/// What becomes of a slot.
#[derive(Debug)]
pub enum Step {
    /// The virtual router goes on as this one.
    Keep(Box<Instance>),
    /// A virtual router begins in an empty slot.
    Begin(Option<Box<Instance>>),
    /// The virtual router hands over and goes.
    Leave,
    /// It is empty, or leaves already.
    Rest,
}

impl Driver {
    /// A virtual router begins. Slots come in order; one that is empty may be used again.
    pub(super) fn add(&mut self, slot: usize, instance: Box<Instance>) {
        match self.instances.get_mut(slot) {
            Some(empty) => *empty = Some(instance),
            None => self.instances.push(Some(instance)),
        }
        if let (Some(quorum), Some(Some(instance))) = (&mut self.parts.quorum, self.instances.get(slot)) {
            quorum.member.register(super::quorum::resource(instance));
        }
        self.charge_guard(slot);
    }

    pub(super) fn change(&mut self, mut change: Box<Change>, now: Instant) {
        if self.stopping {
            // The control thread hears no answer, and frees this when it ends.
            self.parts.reporter.report(0, What::Superseded(change));
            return;
        }
        for (slot, step) in change.steps.iter().enumerate() {
            if let (Step::Leave, Some(instance)) = (step, self.instances.get_mut(slot).and_then(Option::as_deref_mut)) {
                instance.leaving = true;
                self.routers.handle_shutdown(slot, now);
            }
        }
        // They say goodbye as they are known.
        self.act(now);
        let plans: Vec<Plan> = change.steps.iter().enumerate().map(|(slot, step)| self.plan(slot, step)).collect();
        self.settings = plans.iter().map(|plan| plan.settings).collect();
        self.routers.handle_plans(&plans, now);
        for (slot, step) in change.steps.iter_mut().enumerate() {
            match step {
                Step::Keep(new) => self.swap(slot, new, now),
                Step::Begin(new) => {
                    if let Some(new) = new.take() {
                        self.add(slot, new);
                    }
                }
                Step::Leave | Step::Rest => {}
            }
        }
        if let Some(tracks) = change.tracks.take() {
            change.tracks = Some(self.parts.tracker.handle_settings(change.tracker, tracks));
        }
        if let (Some(quorum), Some(settings)) = (&mut self.parts.quorum, change.quorum.take()) {
            // What it would refuse, the control thread has refused.
            change.quorum = quorum.member.handle_settings(*settings, now).err();
        }
        if let Some(takeover) = change.takeover.take() {
            change.takeover = self.parts.takeover.replace(takeover);
        }
        std::mem::swap(&mut self.parts.tracked_links, &mut change.tracked_links);
        // Before anything that the virtual routers do under it.
        self.parts.reporter.report(0, What::InForce(change));
        self.check_links(now);
        self.track(now);
        for slot in 0..self.instances.len() {
            self.rank(slot, now);
        }
        self.act(now);
    }

    pub(super) fn reopen(&mut self, slot: usize, mut new: Box<Instance>, now: Instant) {
        let waits = self.instances.get(slot).and_then(Option::as_deref).is_some_and(|old| old.link == Link::Returning);
        // It may have gone once more while its sockets were opened.
        let state = self.links.state(&new.interface.name).ok().flatten();
        if waits && !self.stopping {
            self.swap(slot, &mut new, now);
            if let Some(instance) = self.instances[slot].as_deref_mut() {
                instance.link = match state {
                    Some(state) if state.index == instance.interface.index && state.up => {
                        Link::Settling { until: now + instance.hold_down }
                    }
                    Some(state) if state.index == instance.interface.index => Link::Down,
                    Some(_) | None => Link::Gone,
                };
                self.routers.handle_settings(slot, instance.settings, now);
                self.settings[slot] = instance.settings;
            }
        }
        self.parts.reporter.report(slot, What::Freed(new));
    }

    fn plan(&self, slot: usize, step: &Step) -> Plan {
        let of = |instance: &Instance, keeps| Plan {
            settings: instance.settings,
            sync_group: instance.router.sync_group.clone(),
            keeps,
        };
        match step {
            Step::Keep(new) => of(new, Some(slot)),
            Step::Begin(Some(new)) => of(new, None),
            Step::Begin(None) | Step::Leave | Step::Rest => {
                Plan { settings: self.settings[slot], sync_group: None, keeps: Some(slot) }
            }
        }
    }

    /// Puts `new` in the place of a virtual router that goes on, which is `new` then.
    fn swap(&mut self, slot: usize, new: &mut Box<Instance>, now: Instant) {
        let Some(old) = self.instances.get_mut(slot).and_then(Option::as_mut) else { return };
        std::mem::swap(old, new);
        let (instance, before) = (old.as_mut(), new.as_mut());
        instance.counters.clone_from(&before.counters);
        std::mem::swap(&mut instance.told, &mut before.told);
        (instance.held, instance.mute, instance.leaving) = (before.held, before.mute, before.leaving);
        (instance.ranked, instance.seeks) = (before.ranked, before.seeks);
        if instance.interface.index == before.interface.index {
            instance.link = before.link;
        }
        if instance.held
            && let Err(error) = move_addresses(before, instance, &mut self.parts.addresses)
        {
            let trouble = Trouble::AddressNotAdded(errno(&error));
            self.parts.reporter.trouble(slot, &mut instance.told, trouble, now);
        }
        before.held = false;
        self.charge_guard(slot);
    }
}

/// Takes away what the new configuration does not have, puts up what the old one did not have, and leaves the rest alone.
fn move_addresses(before: &Instance, after: &Instance, addresses: &mut Addresses) -> Result<(), AddressError> {
    let places = |instance: &Instance| (instance.carrier.index, instance.router.prefix_length);
    let stays = places(before) == places(after);
    for address in before.router.addresses.iter().filter(|address| !stays || !after.router.addresses.contains(address))
    {
        addresses.remove(*address, before.carrier.index)?;
    }
    let mut added = false;
    for address in after.router.addresses.iter().filter(|address| !stays || !before.router.addresses.contains(address))
    {
        addresses.add(*address, after.router.prefix_length, after.carrier.index)?;
        added = true;
    }
    if added {
        let (sent, _) = after.announcer.burst(after.burst);
        after.counters.garp_sent.add(sent);
    }
    Ok(())
}
