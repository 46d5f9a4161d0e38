//! What comes in: advertisements, the lb's health, letters and signals.

use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::{Driver, Letter, Turn};
use crate::fsm::State;
use crate::lb_link::Read;
use crate::packet::{self, DecodeError};
use crate::report::{Trouble, What};
use crate::track;

/// Advertisements read before the other inputs get their turn: a flood must not silence our own.
const PACKETS_AT_ONCE: usize = 64;

impl Driver {
    pub(super) fn read_adverts(&mut self, slot: usize, now: Instant) {
        let Some(instance) = self.instances.get_mut(slot).and_then(Option::as_deref_mut) else { return };
        for _ in 0..PACKETS_AT_ONCE {
            let received = match instance.vrrp.receive(&mut self.packet) {
                Ok(Some(received)) => received,
                Ok(None) => return,
                Err(error) => {
                    let trouble = Trouble::Socket(error.raw_os_error().unwrap_or_default());
                    self.parts.reporter.trouble(slot, &mut instance.told, trouble, now);
                    return;
                }
            };
            let counters = &instance.counters;
            match packet::decode(&received, &instance.identity) {
                Ok(advert) => {
                    tracing::trace!(?advert, "received");
                    counters.advertisement_rcvd.count();
                    if advert.priority == 0 {
                        counters.priority_zero_pkts_rcvd.count();
                    }
                    if advert.interval != instance.identity.interval {
                        counters.interval_errors.count();
                        let trouble = Trouble::Interval { source: advert.source, interval: advert.interval };
                        self.parts.reporter.trouble(slot, &mut instance.told, trouble, now);
                    }
                    self.routers.handle_advert(slot, advert, now);
                }
                Err(error) => {
                    tracing::trace!(%error, "discarded");
                    counters.discarded(error).count();
                    // Other virtual routers of this network are no trouble.
                    if !matches!(error, DecodeError::Vrid(_)) {
                        let source = Some(received.source).filter(|source| !source.is_unspecified());
                        let trouble = Trouble::Discarded { source, error };
                        self.parts.reporter.trouble(slot, &mut instance.told, trouble, now);
                    }
                }
            }
        }
    }

    /// Who does not hold the addresses hears their holder, and thinks nothing of it.
    pub(super) fn read_claims(&mut self, slot: usize, now: Instant) {
        let Some(instance) = self.instances.get_mut(slot).and_then(Option::as_deref_mut) else { return };
        let master = self.routers.state(slot) == State::Master;
        let (told, reporter, counters) = (&mut instance.told, &mut self.parts.reporter, &instance.counters);
        let mut claimed = false;
        let read = instance.conflicts.read(|claim| {
            claimed = true;
            if master {
                counters.conflicts.count();
                let trouble = Trouble::Conflict { address: claim.address, mac: Some(claim.mac.octets()) };
                reporter.trouble(slot, told, trouble, now);
            }
        });
        if let Err(error) = read {
            let trouble = Trouble::Socket(error.raw_os_error().unwrap_or_default());
            reporter.trouble(slot, told, trouble, now);
        }
        if claimed && instance.held {
            self.routers.handle_conflict(slot, now);
        }
    }

    pub(super) fn read_lb(&mut self, now: Instant) {
        match self.lb.read() {
            Read::Health(health) => self.parts.tracker.handle_health(health, now),
            Read::Lost => self.parts.tracker.handle_lost(now),
            Read::Nothing => {}
        }
    }

    /// SIGHUP reloads, every other one ends.
    pub(super) fn read_signals(&mut self) -> Turn {
        while let Ok(Some(signal)) = self.parts.signals.read_signal() {
            if signal.ssi_signo != Signal::SIGHUP as u32 {
                return Turn::Last;
            }
            self.parts.reporter.report(0, What::ReloadAsked);
        }
        Turn::Another
    }

    pub(super) fn read_letters(&mut self, now: Instant) {
        self.parts.mailbox.clear();
        while let Some(letter) = self.parts.mailbox.take() {
            match letter {
                Letter::Verdict { index, verdict } => self.parts.tracker.handle_track(index, verdict, now),
                Letter::Guard(line) => self.take_guard(line),
                Letter::Change(change) => self.change(change, now),
                Letter::Reopened { slot, instance } => self.reopen(slot, instance, now),
            }
        }
    }

    /// The guard says nothing, so this is its end; or it does not read. The line is kept until there is another guard: one
    /// that still lives must not take this program for dead.
    pub(super) fn lose_guard(&mut self) {
        if !std::mem::replace(&mut self.guard_lost, true) {
            self.parts.reporter.report(0, What::GuardLost);
        }
    }

    /// Does what the tracker says.
    pub(super) fn track(&mut self, now: Instant) {
        while let Some(action) = self.parts.tracker.poll_action() {
            match action {
                track::Action::Connect => match self.lb.connect() {
                    Ok(()) => self.parts.tracker.handle_connected(now),
                    Err(error) => {
                        tracing::trace!(%error, "lb not reached");
                        if error.kind() == ErrorKind::PermissionDenied {
                            self.tell_forbidden(now);
                        }
                        self.parts.tracker.handle_lost(now);
                    }
                },
                track::Action::Part(part) => self.parts.reporter.report(0, What::Part(part)),
                track::Action::Standing(_) => {
                    for slot in 0..self.instances.len() {
                        self.rank(slot, now);
                    }
                }
            }
        }
    }

    fn tell_forbidden(&mut self, now: Instant) {
        if let Some(instance) = self.instances.iter_mut().flatten().next() {
            self.parts.reporter.trouble(0, &mut instance.told, Trouble::LbForbidden, now);
        }
    }

    fn take_guard(&mut self, line: Box<crate::guard::keeper::Line>) {
        self.guard_lost = false;
        if let Some(old) = self.parts.guard.replace(line) {
            self.parts.reporter.report(0, What::GuardReplaced(old));
        }
        for slot in 0..self.instances.len() {
            self.charge_guard(slot);
        }
    }

    /// Tells the guard how to leave a virtual router, and whether there is something to leave.
    pub(super) fn charge_guard(&mut self, slot: usize) {
        let Some(guard) = self.parts.guard.as_deref_mut() else { return };
        if let Some(instance) = self.instances.get_mut(slot).and_then(Option::as_deref_mut) {
            guard.charge(slot, &mut instance.charge, [instance.vrrp.as_fd(), instance.vrrp.sender()]);
            if instance.held {
                guard.held(slot);
            }
        }
        self.mind_guard();
    }

    /// A guard that was not told everything must not decide anything.
    pub(super) fn mind_guard(&mut self) {
        if self.parts.guard.as_deref().is_some_and(crate::guard::keeper::Line::is_broken) {
            self.lose_guard();
        }
    }
}
