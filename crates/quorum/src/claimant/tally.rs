//! Whether the votes are enough, and until when.

use std::time::{Duration, Instant};

use super::Claimant;
use super::vote::Ballot;

impl Claimant {
    /// The voters whose grant counts at `now`, and those whose last answer was that another host holds the resource.
    #[must_use]
    pub fn votes(&self, now: Instant) -> (usize, usize) {
        let granted = self.ballots.iter().filter(|ballot| ballot.until.is_some_and(|until| until > now)).count();
        (granted, self.ballots.iter().filter(|ballot| ballot.refused).count())
    }

    /// Whether `voter`'s grant counts at `now`.
    #[must_use]
    pub fn has_vote(&self, voter: usize, now: Instant) -> bool {
        self.ballots.get(voter).and_then(|ballot| ballot.until).is_some_and(|until| until > now)
    }

    /// Until when the resource may be held by what was answered so far; perhaps a time that has passed.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.majority_until().max(self.gateway_grants_until()).max(self.former_until)
    }

    /// The latest time to which a majority has granted.
    fn majority_until(&self) -> Option<Instant> {
        let majority = self.settings.voters / 2 + 1;
        let grants = || self.ballots.iter().filter_map(|ballot| ballot.until);
        grants().filter(|until| grants().filter(|other| other >= until).count() >= majority).max()
    }

    /// Without a majority: the gateway answers, this host's own vote is granted, and nobody who can be reached has
    /// granted to another. Whoever takes over has to have every vote but those of the silent.
    fn gateway_grants_until(&self) -> Option<Instant> {
        let (gateway, own) = (self.gateway_until?, self.ballots[self.settings.own].until?);
        let holding = self.stage == super::Stage::Holding;
        let consents = |ballot: &Ballot| {
            let granted = ballot.until.is_some_and(|until| until > self.clock);
            granted || self.is_silent(ballot) || (holding && !ballot.refused)
        };
        (self.settings.gateway && self.ballots.iter().all(consents)).then(|| gateway.min(own))
    }

    /// So many have granted to others that the rest is no majority.
    pub(super) fn cannot_win(&self) -> bool {
        let refused = self.ballots.iter().filter(|ballot| ballot.refused && !self.is_silent(ballot)).count();
        self.settings.voters - refused < self.settings.voters / 2 + 1
    }

    /// When so many of those who refused are to be asked again that, with all others, they are a majority.
    pub(super) fn enough_are_free(&self) -> Option<Instant> {
        let frees = || self.ballots.iter().filter(|ballot| ballot.refused).filter_map(|ballot| ballot.due);
        let others = self.settings.voters - frees().count();
        let missing = (self.settings.voters / 2 + 1).saturating_sub(others).max(1);
        frees().filter(|free| frees().filter(|other| other <= free).count() >= missing).min()
    }

    /// How long a claim seeks a majority before it makes room for another.
    pub(super) fn patience(&self) -> Duration {
        // The gateway counts only when the silent are known to be silent.
        if self.settings.gateway { self.settings.lease } else { self.settings.lease / 2 }
    }

    /// A voter that was asked about ten times and has not answered once.
    fn is_silent(&self, ballot: &Ballot) -> bool {
        ballot.silent_since.is_some_and(|since| since + self.silence() <= self.clock)
    }

    fn silence(&self) -> Duration {
        self.settings.lease / 2
    }

    /// When the next voter counts as silent, where that matters.
    pub(super) fn next_silence(&self) -> Option<Instant> {
        let silences = self.ballots.iter().filter_map(|ballot| ballot.silent_since.map(|since| since + self.silence()));
        silences.filter(|at| self.settings.gateway && *at > self.clock).min()
    }
}
