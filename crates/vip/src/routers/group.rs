//! A sync group: brings its members into one state after every input.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Member;
use crate::fsm::{Settings, State};
use crate::track::{Effective, LAST_RESORT};

/// A group that is outranked this soon after it became master has lost a race: in advertisement intervals, and at least.
const CALM_INTERVALS: u32 = 64;
const CALM: Duration = Duration::from_secs(1);

/// What the wait of a group that loses races grows to, in advertisement intervals, before an address takes its share of it.
const LONGEST_WAIT: u32 = 16;

#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) members: Vec<usize>,
    /// Advertisement interval and address of the first member.
    interval: Duration,
    address: IpAddr,
    /// When it last became master.
    led_at: Option<Instant>,
    /// When it was last outranked.
    lost_at: Option<Instant>,
    /// Races lost in a row.
    races: u32,
    /// It does not become master before.
    wait: Option<Instant>,
}

/// What the input was that may have ended a member's mastership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeftBy {
    Advert,
    Quorum,
    Other,
}

/// What a group makes of its members' health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// One is unfit or of last resort, and so are all.
    Sunk(Effective),
    /// One was not judged yet.
    NotYetKnown,
    /// Each has its own rank.
    Fit,
}

impl Group {
    pub(super) fn new(name: &str, first: Settings, before: Option<&Self>) -> Self {
        Self {
            name: name.to_owned(),
            members: Vec::new(),
            interval: first.interval,
            address: first.address,
            led_at: before.and_then(|before| before.led_at),
            lost_at: before.and_then(|before| before.lost_at),
            races: before.map_or(0, |before| before.races),
            wait: before.and_then(|before| before.wait),
        }
    }

    /// How the group lets this member stand. One that was judged before does not wait for another that has just joined.
    pub(super) fn standing(&self, members: &[Member], member: usize) -> Option<Standing> {
        let known = self.members.iter().filter_map(|index| members[*index].effective);
        let worst = known.min_by_key(|effective| effective.priority)?;
        if worst.priority <= Some(LAST_RESORT) {
            return Some(Standing::Sunk(worst));
        }
        let unknown = self.members.iter().any(|index| members[*index].effective.is_none());
        Some(if unknown && members[member].told.is_none() { Standing::NotYetKnown } else { Standing::Fit })
    }

    /// A member that wants to lead may have to wait for the group's own timer.
    pub(super) fn poll_timeout(&self, members: &[Member]) -> Option<Instant> {
        self.wait.filter(|_| self.is_willing(members))
    }

    pub(super) fn settle(&mut self, members: &mut [Member], left_by: LeftBy, now: Instant) {
        let leads = self.members.iter().any(|index| members[*index].is_master());
        let led = self.members.iter().any(|index| members[*index].led);
        let left = self.members.iter().any(|index| members[*index].led && !members[*index].is_master());
        // Not one that left: one that joined, and cannot follow.
        let apart = leads && self.members.iter().any(|index| members[*index].fsm.obeys());
        if left || apart {
            self.leave(members, left_by, now);
        } else if leads {
            self.complete(members, now);
        } else if self.is_willing(members) {
            self.lead(members, now);
        } else {
            for index in &self.members {
                members[*index].fsm.stop_preparing();
            }
        }
        if led && left_by == LeftBy::Advert && !self.members.iter().any(|index| members[*index].is_master()) {
            self.lose(now);
        }
        for index in &self.members {
            members[*index].led = members[*index].is_master();
        }
    }

    /// Whether no member is master, one wants to be, and every one may.
    fn is_willing(&self, members: &[Member]) -> bool {
        let all_may = self.members.iter().all(|index| {
            let fsm = &members[*index].fsm;
            fsm.state() == State::Backup && !fsm.obeys()
        });
        all_may && self.members.iter().any(|index| members[*index].fsm.wants())
    }

    fn lead(&mut self, members: &mut [Member], now: Instant) {
        if self.wait.is_some_and(|wait| now < wait) {
            return;
        }
        self.wait = None;
        // One after the other, in the order that all hosts have from one file: two that each hold what the other needs would
        // both wait for ever.
        let ready = self.members.iter().all(|index| members[*index].fsm.prepare_to_lead(now));
        if ready {
            self.led_at = Some(now);
            self.complete(members, now);
        }
    }

    /// All members that are not master become it, at once or as soon as the quorum permits.
    fn complete(&self, members: &mut [Member], now: Instant) {
        for index in &self.members {
            if !members[*index].is_master() {
                members[*index].fsm.handle_group_leads(now);
            }
        }
    }

    fn leave(&self, members: &mut [Member], left_by: LeftBy, now: Instant) {
        // Where the quorum is lost no address must stay for a successor's sake.
        let at_once = left_by == LeftBy::Quorum;
        for index in &self.members {
            members[*index].fsm.handle_group_leaves(at_once, now);
        }
    }

    /// A better master was met.
    fn lose(&mut self, now: Instant) {
        let calm = CALM.max(self.interval * CALM_INTERVALS);
        let lately = |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) < calm);
        self.races = match (lately(self.led_at), lately(self.lost_at)) {
            (true, true) => self.races.saturating_add(1),
            (true, false) => 1,
            (false, _) => 0,
        };
        self.lost_at = Some(now);
        // Whoever loses once has met a better master. One that loses again may have met its own mirror image.
        self.wait = (self.races > 1).then(|| {
            let most = 1_u32.checked_shl(self.races - 1).map_or(LONGEST_WAIT, |most| most.min(LONGEST_WAIT));
            now + self.interval * 4 + self.interval * most * share(self.address) / 256
        });
    }
}

/// A number below 256 for each address, far apart for neighbouring ones.
fn share(address: IpAddr) -> u32 {
    let mix = |octets: &[u8]| octets.iter().fold(0_u8, |mixed, octet| mixed.wrapping_mul(31).wrapping_add(*octet));
    let mixed = match address {
        IpAddr::V4(address) => mix(&address.octets()),
        IpAddr::V6(address) => mix(&address.octets()),
    };
    mixed.reverse_bits().into()
}
