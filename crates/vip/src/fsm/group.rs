//! What a sync group asks of its members, and tells them; see [`crate::routers`].

use std::time::Instant;

use super::{Event, Fsm, Reason, State};

impl Fsm {
    /// Whether a sync group decides when this router becomes master.
    pub(crate) fn set_grouped(&mut self, grouped: bool, now: Instant) {
        if std::mem::replace(&mut self.grouped, grouped) && !grouped && self.wants() {
            self.take_over(now);
        }
    }

    /// Whether the master-down timer of this backup has run out: it would be master if it were alone.
    pub(crate) fn wants(&self) -> bool {
        self.state == State::Backup && self.timers.master_down.is_none()
    }

    /// Whether a master is heard that this backup leaves in its place.
    pub(crate) fn obeys(&self) -> bool {
        self.state == State::Backup && !self.wants() && self.heard.is_some_and(|heard| heard.obeyed)
    }

    /// Asks the quorum if need be. Gives whether nothing is missing.
    pub(crate) fn prepare_to_lead(&mut self, now: Instant) -> bool {
        if !self.is_permitted() {
            self.seek_permission();
            self.challenge(now);
        }
        self.is_permitted()
    }

    /// The group does not become master after all.
    pub(crate) fn stop_preparing(&mut self) {
        if self.state == State::Backup {
            self.yield_permission();
        }
    }

    /// The group becomes master, or is.
    pub(crate) fn handle_group_leads(&mut self, now: Instant) {
        self.feed(Event::GroupLeads, now);
    }

    /// Another member is master no more. A master hands over, or leaves at once.
    pub(crate) fn handle_group_leaves(&mut self, at_once: bool, now: Instant) {
        self.feed(Event::GroupLeaves { at_once }, now);
    }

    pub(super) fn lead_with_group(&mut self, now: Instant) {
        // A master that left may still have the address, whoever of the group noticed first.
        if !self.wants() && !matches!(self.waiting, Reason::MasterLeft { .. }) {
            self.waiting = Reason::Group;
        }
        self.timers.master_down = None;
        self.take_over(now);
    }
}
