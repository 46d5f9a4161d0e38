//! All virtual routers of one host, with their sync groups. Pure: no socket, no clock.
//!
//! Each router has an index, by which it is fed and by which it says what is to be done. The members of a *sync group* are
//! master together or not at all:
//!
//! | what happens to one member | what the group does |
//! |---|---|
//! | it is unfit, or of last resort | all of it counts as that, and hands over |
//! | it hears a better master, lost its permission, or was stopped | those that are master hand over as well |
//! | its master-down timer runs out | all become master at once, if every member may; else it waits |
//!
//! A member *may* unless it hears a master that it would leave in its place, and once it is permitted (see
//! [`crate::fsm`]). So a group neither takes over nor gives way by halves, and a member whose network is cut off from the
//! others' waits for its group instead of dragging it into a race that it loses again. Permissions are sought one after
//! the other, in the order of the members: hosts of one cluster file have the same, so no two of them can each hold what the
//! other one needs.
//!
//! One race is left: two groups whose members are ranked the other way round on each network, say because equal priorities
//! leave it to the addresses. Each takes over and is outranked on one network, at the same time, again and again. A group
//! that is outranked soon after it became master therefore waits before it tries again, longer from time to time, and by an
//! amount that its first member's address decides; so one of the two comes first, and the other then hears a better master.
//!
//! Without groups this is a list of machines and nothing more. Nothing is allocated but where routers come and go.

mod group;

use std::time::Instant;

use self::group::{Group, LeftBy, Standing};
use crate::fsm::{Action, Advert, Fsm, Settings, State};
use crate::track::Effective;

/// A virtual router to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How it is to behave.
    pub settings: Settings,
    /// The name of its sync group.
    pub sync_group: Option<String>,
    /// The index of the router that goes on as this one; none for one that begins.
    pub keeps: Option<usize>,
}

/// The virtual routers of one host.
#[derive(Debug)]
pub struct Routers {
    members: Vec<Member>,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Member {
    fsm: Fsm,
    /// Its own standing, whatever its group's; none before the first word on it.
    effective: Option<Effective>,
    /// What its machine was told.
    told: Option<Effective>,
    group: Option<usize>,
    /// It was master when its group was looked at last.
    led: bool,
    /// Shut down: its health moves nothing any more.
    stopped: bool,
}

impl Routers {
    /// Routers in Initialize, in the order of `plans`.
    #[must_use]
    pub fn new(plans: &[Plan], now: Instant) -> Self {
        let mut routers = Self { members: Vec::new(), groups: Vec::new() };
        routers.handle_plans(plans, now);
        routers
    }

    /// The routers are these from now on, in this order.
    ///
    /// One that is kept stays in its state, as far as its sync group allows, and still says what it has to say. One that is
    /// not kept is dropped with its unsaid actions, so it has to be shut down before and drained. The effective priority of
    /// one that begins has to be told; a router that joins a group whose members are master becomes master at once if it may.
    pub fn handle_plans(&mut self, plans: &[Plan], now: Instant) {
        let mut old: Vec<_> = self.members.drain(..).map(Some).collect();
        let old_groups = std::mem::take(&mut self.groups);
        for plan in plans {
            let kept = plan.keeps.and_then(|index| old.get_mut(index)?.take());
            let mut member = kept.unwrap_or_else(|| Member::new(plan.settings, now));
            member.fsm.handle_settings(plan.settings, now);
            member.group = plan.sync_group.as_deref().map(|name| self.group_named(name, &old_groups, plan.settings));
            self.members.push(member);
        }
        for (index, member) in self.members.iter_mut().enumerate() {
            member.fsm.set_grouped(member.group.is_some(), now);
            if let Some(group) = member.group {
                self.groups[group].members.push(index);
            }
        }
        for index in 0..self.members.len() {
            self.tell(index, now);
        }
        self.settle_all(now);
    }

    /// How many routers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no router.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The state of a router.
    ///
    /// # Panics
    /// There is no router of this index.
    #[must_use]
    pub fn state(&self, index: usize) -> State {
        self.members[index].fsm.state()
    }

    /// Whether a router still has its addresses though it is master no more.
    ///
    /// # Panics
    /// There is no router of this index.
    #[must_use]
    pub fn lingers(&self, index: usize) -> bool {
        self.members[index].fsm.lingers()
    }

    /// Whether any router lingers. A program that stops waits for the end of it.
    #[must_use]
    pub fn any_lingers(&self) -> bool {
        self.members.iter().any(|member| member.fsm.lingers())
    }

    /// The effective priority of a router changed.
    ///
    /// # Panics
    /// There is no router of this index; so for all inputs.
    pub fn handle_effective(&mut self, index: usize, effective: Effective, now: Instant) {
        let member = &mut self.members[index];
        if member.stopped {
            return;
        }
        member.effective = Some(effective);
        match self.members[index].group {
            None => self.tell(index, now),
            Some(group) => {
                for position in 0..self.groups[group].members.len() {
                    self.tell(self.groups[group].members[position], now);
                }
                self.settle(group, LeftBy::Other, now);
            }
        }
    }

    /// An advertisement for a router arrived and passed every check.
    pub fn handle_advert(&mut self, index: usize, advert: Advert, now: Instant) {
        self.members[index].fsm.handle_advert(advert, now);
        self.settle_of(index, LeftBy::Advert, now);
    }

    /// Someone removed an address of a router from the interface.
    pub fn handle_address_lost(&mut self, index: usize, now: Instant) {
        self.members[index].fsm.handle_address_lost(now);
        self.settle_of(index, LeftBy::Other, now);
    }

    /// Someone else's claim of an address of a router was seen on the wire; see [`Fsm::handle_conflict`].
    pub fn handle_conflict(&mut self, index: usize, now: Instant) {
        self.members[index].fsm.handle_conflict(now);
        self.settle_of(index, LeftBy::Other, now);
    }

    /// The quorum gives its permission for a router, or takes it back.
    pub fn handle_permission(&mut self, index: usize, granted: bool, now: Instant) {
        self.members[index].fsm.handle_permission(granted, now);
        self.settle_of(index, LeftBy::Quorum, now);
    }

    /// A router behaves in another way from now on; see [`Fsm::handle_settings`].
    pub fn handle_settings(&mut self, index: usize, settings: Settings, now: Instant) {
        self.members[index].fsm.handle_settings(settings, now);
        self.settle_of(index, LeftBy::Other, now);
    }

    /// A router has to stop, alone: it leaves its group before. A program that stops says so to each.
    pub fn handle_shutdown(&mut self, index: usize, now: Instant) {
        let member = &mut self.members[index];
        if let Some(group) = member.group.take() {
            self.groups[group].members.retain(|member| *member != index);
        }
        member.stopped = true;
        member.fsm.handle_shutdown(now);
        member.fsm.set_grouped(false, now);
        self.settle_all(now);
    }

    /// A deadline of [`Routers::poll_timeout`] has passed. Adverts that wait in sockets must be handled first.
    pub fn handle_timeout(&mut self, now: Instant) {
        for index in 0..self.members.len() {
            let fsm = &mut self.members[index].fsm;
            if fsm.poll_timeout().is_some_and(|due| due <= now) {
                fsm.handle_timeout(now);
            }
        }
        self.settle_all(now);
    }

    /// When [`Routers::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let machines = self.members.iter().filter_map(|member| member.fsm.poll_timeout()).min();
        let groups = self.groups.iter().filter_map(|group| group.poll_timeout(&self.members)).min();
        [machines, groups].into_iter().flatten().min()
    }

    /// The next thing to do, and for which router: in order for each router, and its routers in theirs.
    pub fn poll_action(&mut self) -> Option<(usize, Action)> {
        self.members.iter_mut().enumerate().find_map(|(index, member)| Some((index, member.fsm.poll_action()?)))
    }

    /// The group of this name, with what it remembers.
    fn group_named(&mut self, name: &str, old: &[Group], settings: Settings) -> usize {
        if let Some(index) = self.groups.iter().position(|group| group.name == name) {
            return index;
        }
        let before = old.iter().find(|group| group.name == name);
        self.groups.push(Group::new(name, settings, before));
        self.groups.len() - 1
    }

    /// Tells a router's machine its standing, which is no better than its group's.
    fn tell(&mut self, index: usize, now: Instant) {
        let Some(own) = self.members[index].effective else { return };
        let worst = self.members[index].group.and_then(|group| self.groups[group].standing(&self.members, index));
        let effective = match worst {
            Some(Standing::Sunk(effective)) => effective,
            // A group begins together.
            Some(Standing::NotYetKnown) => return,
            Some(Standing::Fit) | None => own,
        };
        let member = &mut self.members[index];
        if member.told != Some(effective) {
            member.told = Some(effective);
            member.fsm.handle_effective(effective, now);
        }
    }

    fn settle_of(&mut self, index: usize, left_by: LeftBy, now: Instant) {
        if let Some(group) = self.members[index].group {
            self.settle(group, left_by, now);
        }
    }

    fn settle_all(&mut self, now: Instant) {
        for group in 0..self.groups.len() {
            self.settle(group, LeftBy::Other, now);
        }
    }

    fn settle(&mut self, group: usize, left_by: LeftBy, now: Instant) {
        self.groups[group].settle(&mut self.members, left_by, now);
    }
}

impl Member {
    fn new(settings: Settings, now: Instant) -> Self {
        let fsm = Fsm::new(settings, now);
        Self { fsm, effective: None, told: None, group: None, led: false, stopped: false }
    }

    fn is_master(&self) -> bool {
        self.fsm.state() == State::Master
    }
}

#[cfg(test)]
mod tests;
