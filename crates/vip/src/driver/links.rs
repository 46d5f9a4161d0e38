//! What happens to interfaces and addresses, and what that makes of the virtual routers on them.
//!
//! ```text
//!   Up --------- down ---------> Down                      no VIP, at once
//!   Down ------- up -----------> Settling -- hold-down --> Up
//!   any -------- removed ------> Gone
//!   Gone ------- name is back -> Returning                 the control thread opens sockets
//!   Returning -- sockets ------> Settling or Down
//!   Up --- address refused ----> Refused --- a second ---> Up
//! ```

use std::time::Instant;

use evermq_config::vip::{Track, TrackWhat};

use super::instance::{Instance, Link};
use super::{Driver, DriverError, is_among};
use crate::link::Event;
use crate::report::{LinkChange, Reporter, Trouble, What};
use crate::track::Verdict;

/// A track that is an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackedLink {
    /// The track's place in the configuration.
    pub track: usize,
    /// The interface's name.
    pub name: String,
}

impl TrackedLink {
    /// Those of `tracks` that are interfaces.
    #[must_use]
    pub fn of(tracks: &[Track]) -> Vec<Self> {
        let links = tracks.iter().enumerate().filter_map(|(track, one)| match &one.what {
            TrackWhat::Interface { name } => Some(Self { track, name: name.clone() }),
            TrackWhat::Script(_) | TrackWhat::File { .. } | TrackWhat::Process { .. } => None,
        });
        links.collect()
    }
}

impl Driver {
    /// Interfaces first: the kernel takes IPv6 addresses from one that is set down, which is nobody's doing.
    pub(super) fn read_watch(&mut self, now: Instant) -> Result<(), DriverError> {
        let (mut overrun, mut links) = (false, false);
        let (instances, reporter) = (&mut self.instances, &mut self.parts.reporter);
        let read = self.watch.read(|event| {
            for (slot, instance) in instances.iter_mut().enumerate() {
                let Some(instance) = instance.as_deref_mut() else { continue };
                take_event(instance, slot, event, reporter, now);
            }
            overrun |= event == Event::Overrun;
            links |= !matches!(event, Event::AddressRemoved { .. } | Event::AddressDadFailed { .. });
        });
        read.map_err(DriverError::Wait)?;
        if overrun {
            self.look(now);
        }
        if links {
            self.check_links(now);
        }
        for slot in 0..self.instances.len() {
            self.rank(slot, now);
        }
        self.act(now);
        for slot in 0..self.instances.len() {
            self.verify(slot, now);
        }
        Ok(())
    }

    /// How the tracked interfaces are. One that is not there is down.
    pub(super) fn check_links(&mut self, now: Instant) {
        for TrackedLink { track, name } in &self.parts.tracked_links {
            if let Ok(state) = self.links.state(name) {
                let up = state.is_some_and(|state| state.up);
                self.parts.tracker.handle_track(*track, Verdict::of_interface(up), now);
            }
        }
    }

    /// Interfaces that have been up for long enough, and refused addresses that have waited for long enough.
    pub(super) fn settle(&mut self, now: Instant) {
        for slot in 0..self.instances.len() {
            let Some(instance) = self.instances[slot].as_deref_mut() else { continue };
            if instance.settles().is_some_and(|until| until <= now) {
                instance.link = Link::Up;
                self.rank(slot, now);
            }
        }
    }

    /// Nothing is known yet, or the kernel had more to tell than there was room for: how is everything?
    pub(super) fn look(&mut self, now: Instant) {
        for (slot, instance) in self.instances.iter_mut().enumerate() {
            let Some(instance) = instance.as_deref_mut() else { continue };
            let reporter = &mut self.parts.reporter;
            let own = instance.interface.index;
            match self.links.state(&instance.interface.name) {
                Ok(Some(state)) if state.index == own => set_link(instance, slot, state.up, reporter, now),
                Ok(found) => {
                    lose_link(instance, slot, reporter);
                    if found.is_some() {
                        find_link(instance, slot, reporter);
                    }
                }
                // Nothing is known, so nothing is changed; the next notice of the kernel tells.
                Err(_) => {}
            }
            instance.suspect = true;
        }
    }

    /// The notice may be of our own removal in an earlier state: what counts is what is there now.
    fn verify(&mut self, slot: usize, now: Instant) {
        let Some(instance) = self.instances[slot].as_deref_mut() else { return };
        if !std::mem::take(&mut instance.suspect) || !instance.held {
            return;
        }
        let (addresses, index) = (&mut self.parts.addresses, instance.carrier.index);
        let lost = |address| matches!(addresses.holds(address, index), Ok(false));
        if !instance.router.addresses.iter().copied().any(lost) {
            return;
        }
        self.routers.handle_address_lost(slot, now);
        self.act(now);
        if let Some(instance) = self.instances[slot].as_deref().filter(|instance| instance.held && !instance.mute) {
            instance.counters.address_restored.count();
            self.parts.reporter.report(slot, What::AddressRestored);
        }
    }
}

fn take_event(instance: &mut Instance, slot: usize, event: Event<'_>, reporter: &mut Reporter, now: Instant) {
    let (own, carrier) = (instance.interface.index, instance.carrier.index);
    match event {
        Event::AddressRemoved { index, address } => {
            instance.suspect |= index == carrier && is_among(&instance.router.addresses, address);
        }
        Event::AddressDadFailed { index, address } => {
            if index == carrier && instance.held && is_among(&instance.router.addresses, address) {
                instance.counters.conflicts.count();
                let trouble = Trouble::Conflict { address, mac: None };
                reporter.trouble(slot, &mut instance.told, trouble, now);
            }
        }
        Event::Link { index, up } => {
            if index == own {
                set_link(instance, slot, up, reporter, now);
            }
        }
        Event::LinkGone { index } => {
            if index == own || index == carrier {
                lose_link(instance, slot, reporter);
            }
            if index == carrier && index != own {
                // Someone removed the interface of the virtual MAC alone.
                find_link(instance, slot, reporter);
            }
        }
        Event::LinkAppeared { name, .. } => {
            if name == instance.interface.name {
                find_link(instance, slot, reporter);
            }
        }
        Event::Overrun => {}
    }
}

fn set_link(instance: &mut Instance, slot: usize, up: bool, reporter: &mut Reporter, now: Instant) {
    match (instance.link, up) {
        (Link::Up | Link::Settling { .. } | Link::Refused { .. }, false) => {
            instance.link = Link::Down;
            reporter.report(slot, What::Link(LinkChange::Down));
        }
        (Link::Down, true) => {
            instance.link = Link::Settling { until: now + instance.hold_down };
            reporter.report(slot, What::Link(LinkChange::Up));
        }
        (Link::Up | Link::Settling { .. } | Link::Refused { .. }, true)
        | (Link::Down, false)
        // The index may have been given to another interface meanwhile.
        | (Link::Gone | Link::Returning, true | false) => {}
    }
}

fn lose_link(instance: &mut Instance, slot: usize, reporter: &mut Reporter) {
    if instance.is_reachable() {
        instance.link = Link::Gone;
        reporter.report(slot, What::Link(LinkChange::Gone));
    }
}

fn find_link(instance: &mut Instance, slot: usize, reporter: &mut Reporter) {
    if instance.link == Link::Gone {
        instance.link = Link::Returning;
        reporter.report(slot, What::Link(LinkChange::Back));
    }
}
