//! One host's vote: each resource is lent to one host at a time. Pure.
//!
//! A voter keeps a lease until it has run out or its holder yields it, and never takes it back. It has no timer: a lease
//! that has run out is no lease. One that has just started may have granted anything before, so it grants nothing for a
//! whole lease.

use std::time::{Duration, Instant};

use crate::membership::HostId;
use crate::message::{Refusal, Resource};

/// Resources with a lease at a time: every VRID of both families.
const MOST_LEASES: usize = 510;

/// One host's vote.
#[derive(Debug)]
pub struct Voter {
    lease: Duration,
    abstains_until: Instant,
    leases: Vec<Lease>,
}

/// What a voter has granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// What.
    pub resource: Resource,
    /// To whom.
    pub holder: HostId,
    /// Until when nobody else gets it.
    pub until: Instant,
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vote {
    /// Granted.
    Granted {
        /// For how long.
        lease: Duration,
    },
    /// Not granted.
    Refused {
        /// Why.
        refusal: Refusal,
        /// For how long at most.
        left: Duration,
    },
}

impl Voter {
    /// A voter that has just started, of hosts that ask for leases of `lease`.
    #[must_use]
    pub fn new(lease: Duration, now: Instant) -> Self {
        // Room for all at once: the vote of a real-time thread never allocates.
        Self { lease, abstains_until: now + lease, leases: Vec::with_capacity(MOST_LEASES) }
    }

    /// The file has another lease. What is granted stays granted; an abstention stays as long as it was.
    pub fn handle_lease(&mut self, lease: Duration) {
        self.lease = lease;
    }

    /// A host asks for a resource, or to keep it.
    pub fn handle_request(&mut self, resource: Resource, from: HostId, asked: Duration, now: Instant) -> Vote {
        if let Some(left) = self.abstains(now) {
            return Vote::Refused { refusal: Refusal::Abstains, left };
        }
        // The shorter of two files' leases, so that an abstention lasts as long as what was granted before it.
        let lease = asked.min(self.lease);
        let until = now + lease;
        self.leases.retain(|lease| lease.until > now);
        let full = self.leases.len() == MOST_LEASES;
        match self.leases.iter_mut().find(|lease| lease.resource == resource) {
            Some(held) if held.holder != from => {
                Vote::Refused { refusal: Refusal::Held, left: held.until.saturating_duration_since(now) }
            }
            Some(held) => {
                held.until = held.until.max(until);
                Vote::Granted { lease }
            }
            None if full => Vote::Refused { refusal: Refusal::Full, left: self.lease },
            None => {
                self.leases.push(Lease { resource, holder: from, until });
                Vote::Granted { lease }
            }
        }
    }

    /// A host lets a resource go.
    pub fn handle_yield(&mut self, resource: Resource, from: HostId) {
        self.leases.retain(|lease| lease.resource != resource || lease.holder != from);
    }

    /// For how long this voter grants nothing, if it does not.
    #[must_use]
    pub fn abstains(&self, now: Instant) -> Option<Duration> {
        Some(self.abstains_until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// What is granted, in the order in which it was granted first.
    pub fn leases(&self, now: Instant) -> impl Iterator<Item = &Lease> {
        self.leases.iter().filter(move |lease| lease.until > now)
    }
}

#[cfg(test)]
mod tests;
