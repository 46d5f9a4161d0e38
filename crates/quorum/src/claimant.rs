//! One host's claim on one resource. Pure.
//!
//! ```text
//!               want                        a majority grants
//!     +------+ -------> +---------+ ----------------------------> +---------+
//!     | Idle |          | Seeking |                               | Holding |
//!     +------+ <------- +---------+                               +---------+
//!        ^ ^    want no   |     ^                                      |
//!        | |       cannot |     | its turn has come                    |
//!        | |          win v     |                                      |
//!        | |            +---------+                                    |
//!        | +----------- | Waiting |                                    |
//!        |   want no    +---------+                                    |
//!        +-------------------------------------------------------------+
//!                no majority any more (the claim ends), want no
//! ```
//!
//! - Each host's grant counts from when the granted request was **sent**, and for 19/20 of the lease; the voter counts from
//!   when it **received** it, and for all of it. So a holder has let go before the votes that made it one are free.
//! - A grant counts only for the claim that it was asked for: claims are numbered, and a new one starts with no vote.
//! - A vote is asked for again after a fifth of the lease; while no answer comes, after a twentieth: with 30 % loss in each
//!   direction, one vote in 100,000 leases is lost.
//! - A claim that too many refuse, or that has no majority after half a lease, gives back what it got and waits: until
//!   enough of the leases in its way run out (but asks again after a fifth of a lease), and, if it had got a part of the votes (so that another claim may have the rest),
//!   longer for a lower rank.
//! - A claim that was lost gives the votes back only a twentieth of the lease later: the driver is to remove the address
//!   first.

mod tally;
mod vote;

use std::time::{Duration, Instant};

use self::vote::Ballot;
use crate::message::{Refusal, Resource};
use crate::voter::Vote;

/// One claim.
#[derive(Debug)]
pub struct Claimant {
    resource: Resource,
    settings: Settings,
    stage: Stage,
    /// Numbers the claims; answers to another one do not count.
    claim: u32,
    rank: u8,
    /// Claims in a row that ended with a part of the votes.
    collisions: u32,
    ballots: Vec<Ballot>,
    /// Until when the gateway's last answer counts.
    gateway_until: Option<Instant>,
    /// Until when the votes of the hosts before a change of the file are enough.
    former_until: Option<Instant>,
    action: Option<Verdict>,
    /// The latest time that the claim was told.
    clock: Instant,
}

/// What a claim works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How many hosts vote.
    pub voters: usize,
    /// This host's place among them.
    pub own: usize,
    /// How long a vote holds.
    pub lease: Duration,
    /// Whether the gateway counts where there is no majority.
    pub gateway: bool,
    /// Differs between hosts: claims that keep colliding wait for different times.
    pub seed: u64,
}

/// Where the claim stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Not wanted.
    Idle,
    /// Votes are asked for.
    Seeking {
        /// Since when.
        since: Instant,
    },
    /// The votes are there.
    Holding,
    /// Could not win; asks again later.
    Waiting {
        /// When.
        until: Instant,
    },
}

/// What the driver is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The resource is this host's, until [`Verdict::Lost`].
    Granted,
    /// The resource is no more this host's, and the claim has ended: the address has to go at once.
    Lost,
}

/// What has to be said to a voter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// A request.
    Request {
        /// This claim's number.
        claim: u32,
        /// Its rank.
        rank: u8,
        /// For how long.
        lease: Duration,
    },
    /// A yield.
    Yield {
        /// The number of the claim that ends.
        claim: u32,
    },
}

/// What a voter answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// To a request.
    Vote {
        /// What.
        vote: Vote,
        /// When the request was sent.
        sent: Instant,
    },
    /// To a yield.
    Heard,
}

impl Claimant {
    /// A resource that is not wanted yet.
    #[must_use]
    pub fn new(resource: Resource, settings: Settings, now: Instant) -> Self {
        Self {
            resource,
            settings,
            stage: Stage::Idle,
            claim: 0,
            rank: 0,
            collisions: 0,
            ballots: vec![Ballot::default(); settings.voters],
            gateway_until: None,
            former_until: None,
            action: None,
            clock: now,
        }
    }

    /// What is claimed.
    #[must_use]
    pub fn resource(&self) -> Resource {
        self.resource
    }

    /// Where the claim stands.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether votes are asked for or used.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.stage != Stage::Idle
    }

    /// The driver wants the resource, with a rank, or wants it no more and has let it go. What is wanted already stays as
    /// it is, but for its rank.
    pub fn handle_want(&mut self, wanted: bool, rank: u8, now: Instant) {
        self.clock = now;
        self.rank = rank;
        match (wanted, self.stage) {
            (true, Stage::Idle) => {
                self.collisions = 0;
                self.gateway_until = None;
                self.ballots.iter_mut().for_each(Ballot::forget);
                self.begin(now);
            }
            (true, Stage::Seeking { .. } | Stage::Holding | Stage::Waiting { .. }) | (false, Stage::Idle) => {}
            (false, Stage::Seeking { .. } | Stage::Holding | Stage::Waiting { .. }) => {
                self.action = None;
                self.end(Stage::Idle, now, now);
            }
        }
    }

    /// A voter has answered an ask of the claim `claim`.
    pub fn handle_answer(&mut self, voter: usize, claim: u32, answer: Answer, now: Instant) {
        self.clock = now;
        let asking = matches!(self.stage, Stage::Seeking { .. } | Stage::Holding);
        let settings = self.settings;
        let Some(ballot) = self.ballots.get_mut(voter).filter(|_| claim == self.claim) else { return };
        match answer {
            Answer::Heard if !asking => ballot.yielded(),
            Answer::Vote { vote: Vote::Granted { lease }, sent } if asking => {
                let counts = lease.min(settings.lease);
                ballot.granted(sent + (counts - counts / MARGIN), now + settings.renewal());
            }
            Answer::Vote { vote: Vote::Refused { refusal, left }, .. } if asking => {
                let again = left.clamp(SOONEST, settings.renewal().max(SOONEST));
                ballot.refused(refusal == Refusal::Held, left > settings.lease / 2, now + again);
            }
            // Late: the claim has ended, or stands again.
            Answer::Heard | Answer::Vote { .. } => {}
        }
        self.evaluate(now);
    }

    /// A voter has to be asked again at once: it could not read what it was asked last.
    pub fn handle_reacquainted(&mut self, voter: usize, now: Instant) {
        self.clock = now;
        if let Some(ballot) = self.ballots.get_mut(voter) {
            ballot.hasten(now);
        }
    }

    /// The gateway has answered what was sent to it at `sent`.
    pub fn handle_gateway(&mut self, sent: Instant, now: Instant) {
        self.clock = now;
        let until = sent + (self.settings.lease - self.settings.lease / MARGIN);
        self.gateway_until = self.gateway_until.max(Some(until));
        self.evaluate(now);
    }

    /// The file has changed: the voter at each place was at another one before, or is new. Grants stay, and count if they
    /// are still enough. Where the two files may vote together (`compatible`), what was enough is so until it runs out:
    /// the votes of the hosts that are new come in that time.
    pub fn handle_settings(&mut self, settings: Settings, places: &[Option<usize>], compatible: bool, now: Instant) {
        self.clock = now;
        self.former_until = self.held_until().filter(|_| compatible && self.stage == Stage::Holding);
        self.settings = settings;
        let before = std::mem::take(&mut self.ballots);
        let kept = |place: &Option<usize>| place.and_then(|place| before.get(place)).cloned();
        self.ballots = places.iter().map(|place| kept(place).unwrap_or_default()).collect();
        if matches!(self.stage, Stage::Seeking { .. } | Stage::Holding) {
            for ballot in &mut self.ballots {
                ballot.due.get_or_insert(now);
            }
        }
        self.evaluate(now);
    }

    /// A deadline of [`Claimant::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.clock = now;
        self.evaluate(now);
        if let Stage::Waiting { until } = self.stage
            && until <= now
        {
            self.begin(now);
        }
        self.ask_what_is_due(now);
    }

    /// When [`Claimant::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let stage = match self.stage {
            Stage::Idle => None,
            Stage::Seeking { since } => Some(
                self.next_silence().map_or(since + self.patience(), |silence| silence.min(since + self.patience())),
            ),
            // Without votes: at once.
            Stage::Holding => self.held_until().or(Some(self.clock)),
            Stage::Waiting { until } => Some(until),
        };
        self.ballots.iter().filter_map(|ballot| ballot.due).chain(stage).min()
    }

    /// The next thing to say, and to which voter.
    pub fn poll_transmit(&mut self) -> Option<(usize, Ask)> {
        self.ballots.iter_mut().enumerate().find_map(|(voter, ballot)| Some((voter, ballot.ask.take()?)))
    }

    /// What this host's own voter has to be asked.
    pub fn poll_own(&mut self) -> Option<Ask> {
        self.ballots[self.settings.own].ask.take()
    }

    /// What the driver has to know.
    pub fn poll_action(&mut self) -> Option<Verdict> {
        self.action.take()
    }

    /// Whether the resource is this host's at `now`, without waiting for a timeout to say it.
    #[must_use]
    pub fn holds(&self, now: Instant) -> bool {
        self.stage == Stage::Holding && self.held_until().is_some_and(|until| until > now)
    }

    /// Until when it is, at least.
    #[must_use]
    pub fn lease_end(&self) -> Option<Instant> {
        self.held_until().filter(|_| self.stage == Stage::Holding)
    }

    /// Takes a new number and asks every voter.
    fn begin(&mut self, now: Instant) {
        self.claim = self.claim.wrapping_add(1);
        self.stage = Stage::Seeking { since: now };
        self.ballots.iter_mut().for_each(|ballot| ballot.open(now));
        self.ask_what_is_due(now);
    }

    /// Asks for no more votes, and gives back, from `at` on, what was granted or may have been.
    fn end(&mut self, next: Stage, at: Instant, now: Instant) {
        self.stage = next;
        self.former_until = None;
        self.ballots.iter_mut().for_each(|ballot| ballot.close(at));
        self.ask_what_is_due(now);
    }

    fn evaluate(&mut self, now: Instant) {
        let held = self.held_until().is_some_and(|until| until > now);
        match self.stage {
            Stage::Seeking { since } => {
                if held {
                    self.stage = Stage::Holding;
                    self.collisions = 0;
                    self.action = Some(Verdict::Granted);
                } else if self.cannot_win() || since + self.patience() <= now {
                    self.back_off(now);
                }
            }
            Stage::Holding if !held => {
                self.action = Some(Verdict::Lost);
                self.end(Stage::Idle, now + self.settings.lease / MARGIN, now);
            }
            Stage::Idle | Stage::Holding | Stage::Waiting { .. } => {}
        }
    }

    fn back_off(&mut self, now: Instant) {
        let lease = self.settings.lease;
        let low = 256 - u32::from(self.rank);
        // As VRRP's skew time: the higher rank comes first.
        let mut wait = lease / MARGIN * low / 256;
        // The leases of a dead holder run out one after the other, which is no collision.
        let split = self.ballots.iter().any(|ballot| ballot.until.is_some())
            && self.ballots.iter().all(|ballot| !ballot.refused || ballot.lately);
        if split {
            self.collisions = self.collisions.saturating_add(1);
            wait += lease / 4 * low / 256 + self.jitter();
        }
        let free = self.enough_are_free().map_or(now, |free| free.max(now));
        self.end(Stage::Waiting { until: free + wait }, now, now);
    }

    /// Nothing the first time; then up to a half lease, another time for each host and turn.
    fn jitter(&self) -> Duration {
        let most = match self.collisions {
            0 | 1 => Duration::ZERO,
            2 => self.settings.lease / 4,
            _ => self.settings.lease / 2,
        };
        // The mixing step of SplitMix64.
        let mut mixed = self.settings.seed.wrapping_add(u64::from(self.claim).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let part = u32::try_from((mixed ^ mixed >> 31) & 0xff).unwrap_or_default();
        most * part / 256
    }

    fn ask_what_is_due(&mut self, now: Instant) {
        let asking = matches!(self.stage, Stage::Seeking { .. } | Stage::Holding);
        let (claim, rank, settings) = (self.claim, self.rank, self.settings);
        for ballot in self.ballots.iter_mut().filter(|ballot| ballot.due.is_some_and(|due| due <= now)) {
            if asking {
                ballot.request(Ask::Request { claim, rank, lease: settings.lease }, &settings, now);
            } else {
                ballot.give_back(Ask::Yield { claim }, &settings, now);
            }
        }
    }
}

/// The part of a lease that a holder leaves unused, one in so many: for clocks that run apart (a hundredth each, twenty times
/// what NTP slews at most), and for the driver to wake up and remove the address.
const MARGIN: u32 = 20;
/// Nobody is asked again sooner.
const SOONEST: Duration = Duration::from_millis(1);

impl Settings {
    /// Time from an answer to the next request.
    fn renewal(&self) -> Duration {
        self.lease / 5
    }

    /// Time from an ask to its repetition.
    fn repetition(&self) -> Duration {
        self.lease / 20
    }
}

#[cfg(test)]
mod tests;
