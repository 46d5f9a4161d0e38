//! One host's part in the quorum: its vote, its claims, and what it knows of the others. Pure.
//!
//! Datagrams go in, with the time; datagrams and verdicts come out. [`crate::Member`] puts it onto a socket.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::claimant::{self, Answer, Ask, Claimant, Verdict};
use crate::counts::Counts;
use crate::membership::Settings;
use crate::message::{self, Body, Bytes, Discard, Header, Message, Refusal, Resource};
use crate::peer::{Freshness, Peer};
use crate::voter::{Vote, Voter};

/// How often the gateway is asked while nothing is claimed.
const IDLE_GATEWAY: Duration = Duration::from_secs(1);

/// One host.
#[derive(Debug)]
pub struct Node {
    pub(crate) settings: Settings,
    /// Grows with each start; other hosts tell this run's messages from an earlier one's by it.
    epoch: u64,
    counter: u64,
    /// What stamps count from.
    base: Instant,
    /// The latest time that the node was told.
    clock: Instant,
    /// By the place in the file; this host's own is not used.
    pub(crate) peers: Vec<Peer>,
    pub(crate) voter: Voter,
    pub(crate) claimants: Vec<Claimant>,
    /// The answer to the last datagram.
    answer: Option<Reply>,
    gateway: Gateway,
    pub(crate) counts: Counts,
}

/// A datagram to send.
#[derive(Debug, Clone, Copy)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// What.
    pub bytes: Bytes,
}

/// What the driver is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    /// Of which resource.
    pub resource: Resource,
    /// Granted: this host may hold it from here on. Otherwise it is lost: the address has to go at once, and the claim has
    /// ended; [`Node::handle_want`] starts another.
    pub granted: bool,
}

#[derive(Debug, Clone, Copy)]
struct Reply {
    to: usize,
    /// The epoch that the asker has: not always the one that is known.
    epoch: u64,
    body: Body,
    echo: u64,
    stamp: u64,
}

#[derive(Debug, Default)]
struct Gateway {
    due: Option<Instant>,
    ask: bool,
    heard: Option<Instant>,
}

impl Node {
    /// A host that has just started. `epoch` has to be above that of every earlier run: the wall clock in microseconds,
    /// as a rule. (Where it is not, because that clock went back, the other hosts say so, and the node corrects it.)
    #[must_use]
    pub fn new(settings: Settings, epoch: u64, now: Instant) -> Self {
        let gateway = Gateway { due: settings.gateway.map(|_| now), ..Gateway::default() };
        Self {
            epoch: epoch.max(1),
            counter: 0,
            base: now,
            clock: now,
            peers: vec![Peer::new(now); settings.hosts.len()],
            voter: Voter::new(settings.lease, now),
            claimants: Vec::new(),
            answer: None,
            gateway,
            counts: Counts::default(),
            settings,
        }
    }

    /// Makes room for a resource, so that claiming it allocates nothing.
    pub fn register(&mut self, resource: Resource) {
        self.claimant(resource);
    }

    /// This host wants a resource, or wants it no more and has let it go. A higher rank comes first where claims meet: the
    /// effective VRRP priority.
    pub fn handle_want(&mut self, resource: Resource, wanted: bool, rank: u8, now: Instant) {
        self.clock = now;
        let asks_gateway = wanted && self.gateway.due.is_some() && !self.claims_any();
        self.claimant(resource).handle_want(wanted, rank, now);
        if asks_gateway {
            self.gateway.due = Some(now);
            self.handle_gateway_timeout(now);
        }
        self.vote_for_own(now);
    }

    /// A datagram has arrived. `now` is not before its arrival: a voter that counts from too early lends too short.
    ///
    /// # Errors
    /// Why it was dropped; it is counted.
    pub fn handle_datagram(&mut self, datagram: &[u8], now: Instant) -> Result<(), Discard> {
        self.clock = now;
        let outcome = self.read(datagram, now);
        match outcome {
            Ok(()) => self.counts.received += 1,
            Err(discard) => self.counts.count_discarded(discard),
        }
        self.vote_for_own(now);
        outcome
    }

    /// The gateway has answered what was sent to it at `sent`.
    pub fn handle_gateway(&mut self, sent: Instant, now: Instant) {
        self.clock = now;
        self.gateway.heard = self.gateway.heard.max(Some(sent));
        self.claimants.iter_mut().for_each(|claimant| claimant.handle_gateway(sent, now));
        self.vote_for_own(now);
    }

    /// A deadline of [`Node::poll_timeout`] has passed. Datagrams that wait are to be handled first.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.clock = now;
        for (index, peer) in self.peers.iter_mut().enumerate() {
            if index != self.settings.own {
                peer.handle_timeout(now);
            }
        }
        self.claimants.iter_mut().for_each(|claimant| claimant.handle_timeout(now));
        self.handle_gateway_timeout(now);
        self.vote_for_own(now);
    }

    /// The file has changed. Hosts that stay keep what they granted; what is held stays held if enough of them are left.
    /// This host's name has to be the same.
    pub fn handle_settings(&mut self, settings: Settings, now: Instant) {
        self.clock = now;
        let before = std::mem::replace(&mut self.settings, settings);
        let compatible = self.settings.is_compatible(before.members) && before.is_compatible(self.settings.members);
        let places: Vec<Option<usize>> =
            self.settings.hosts.iter().map(|host| before.hosts.iter().position(|other| other.id == host.id)).collect();
        let peers = places.iter().map(|place| place.map_or_else(|| Peer::new(now), |place| self.peers[place].clone()));
        self.peers = peers.collect();
        self.answer = None;
        self.voter.handle_lease(self.settings.lease);
        self.gateway.due = self.settings.gateway.map(|_| now);
        let claims = self.claim_settings();
        self.claimants.iter_mut().for_each(|claimant| claimant.handle_settings(claims, &places, compatible, now));
        self.vote_for_own(now);
    }

    /// When [`Node::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = self.settings.own;
        let probes =
            self.peers.iter().enumerate().filter(|(index, _)| *index != own).map(|(_, peer)| peer.poll_timeout());
        probes.chain(self.claimants.iter().filter_map(Claimant::poll_timeout)).chain(self.gateway.due).min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let now = self.clock;
        if let Some(reply) = self.answer.take() {
            return Some(self.transmit(reply.to, reply.epoch, reply.body, (reply.echo, reply.stamp)));
        }
        let asked =
            self.claimants.iter_mut().find_map(|claimant| Some((claimant.resource(), claimant.poll_transmit()?)));
        let (to, body) = if let Some((resource, (voter, ask))) = asked {
            (voter, body_of(resource, ask))
        } else {
            let to = self.peers.iter().position(|peer| peer.probe)?;
            (to, Body::Probe)
        };
        // Any ask is as good as a probe.
        self.peers[to].probe = false;
        self.peers[to].handle_asked(self.settings.lease, now);
        let stamp = u64::try_from(now.saturating_duration_since(self.base).as_micros()).unwrap_or(u64::MAX);
        Some(self.transmit(to, self.peers[to].epoch, body, (0, stamp)))
    }

    /// Whether the gateway has to be asked; then what it answers goes to [`Node::handle_gateway`].
    pub fn poll_gateway(&mut self) -> bool {
        std::mem::take(&mut self.gateway.ask)
    }

    /// What the driver has to know.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.claimants.iter_mut().find_map(|claimant| {
            let granted = claimant.poll_action()? == Verdict::Granted;
            Some(Action { resource: claimant.resource(), granted })
        })
    }

    /// Whether a resource is this host's at `now`, even if no timeout was handled since it ran out.
    #[must_use]
    pub fn holds(&self, resource: Resource, now: Instant) -> bool {
        self.claimants.iter().any(|claimant| claimant.resource() == resource && claimant.holds(now))
    }

    /// Until when a resource is this host's, at least; none where it is not.
    #[must_use]
    pub fn lease_end(&self, resource: Resource) -> Option<Instant> {
        self.claimants.iter().find(|claimant| claimant.resource() == resource)?.lease_end()
    }

    /// Whether the gateway has answered within a lease, or twice its idle pace where that is longer.
    #[must_use]
    pub fn gateway_answers(&self, now: Instant) -> bool {
        let patience = self.settings.lease.max(IDLE_GATEWAY * 2);
        self.gateway.heard.is_some_and(|heard| now < heard + patience)
    }

    fn claims_any(&self) -> bool {
        self.claimants.iter().any(Claimant::is_wanted)
    }

    fn claimant(&mut self, resource: Resource) -> &mut Claimant {
        let index = self.claimants.iter().position(|claimant| claimant.resource() == resource).unwrap_or_else(|| {
            self.claimants.push(Claimant::new(resource, self.claim_settings(), self.clock));
            self.claimants.len() - 1
        });
        &mut self.claimants[index]
    }

    fn claim_settings(&self) -> claimant::Settings {
        claimant::Settings {
            voters: self.settings.hosts.len(),
            own: self.settings.own,
            lease: self.settings.lease,
            gateway: self.settings.gateway.is_some(),
            seed: self.settings.host().id.0,
        }
    }

    fn handle_gateway_timeout(&mut self, now: Instant) {
        if self.gateway.due.is_some_and(|due| due <= now) {
            self.gateway.ask = true;
            let pause = if self.claims_any() { self.settings.lease / 5 } else { IDLE_GATEWAY };
            self.gateway.due = Some(now + pause);
        }
    }

    /// Its own vote is asked without a network between. A claim that it ends asks once more, to give the vote back.
    fn vote_for_own(&mut self, now: Instant) {
        let own = self.settings.host().id;
        for claimant in &mut self.claimants {
            for _ in 0..3 {
                let Some(ask) = claimant.poll_own() else { break };
                let (resource, index) = (claimant.resource(), self.settings.own);
                match ask {
                    Ask::Request { claim, lease, .. } => {
                        let vote = self.voter.handle_request(resource, own, lease, now);
                        claimant.handle_answer(index, claim, Answer::Vote { vote, sent: now }, now);
                    }
                    Ask::Yield { claim } => {
                        self.voter.handle_yield(resource, own);
                        claimant.handle_answer(index, claim, Answer::Heard, now);
                    }
                }
            }
        }
    }

    fn read(&mut self, datagram: &[u8], now: Instant) -> Result<(), Discard> {
        let own = self.settings.host().id;
        let Message { header, body } = message::decode(datagram, self.settings.cluster, own, &self.settings.key)?;
        let from = self.settings.hosts.iter().position(|host| host.id == header.sender).ok_or(Discard::Stranger)?;
        if from == self.settings.own {
            return Err(Discard::Stranger);
        }
        let reply =
            |body| Some(Reply { to: from, epoch: header.epoch, body, echo: header.counter, stamp: header.stamp });
        match self.peers[from].handle_header(&header, self.epoch)? {
            Freshness::New { reacquainted } => {
                if reacquainted {
                    self.claimants.iter_mut().for_each(|claimant| claimant.handle_reacquainted(from, now));
                }
                self.answer = self.obey(from, &header, body, now).and_then(reply);
                Ok(())
            }
            Freshness::Unacquainted if body.is_answer() => Err(Discard::Old),
            Freshness::Unacquainted => {
                self.answer = reply(Body::Unacquainted);
                Ok(())
            }
            Freshness::Outdated(_) if body.is_answer() => Err(Discard::Old),
            Freshness::Outdated(known) => {
                self.answer = reply(Body::Outdated { known });
                Ok(())
            }
        }
    }

    /// Does what a new message says; what to answer.
    fn obey(&mut self, from: usize, header: &Header, body: Body, now: Instant) -> Option<Body> {
        let sender = header.sender;
        // Not later than it can have been, whatever the other side gives back.
        let sent = (self.base + Duration::from_micros(header.stamp)).min(now);
        if body.is_answer() {
            self.peers[from].handle_answered(sent, now);
        }
        let answer = |resource, claim, answer| Some((resource, claim, answer));
        let compatible = self.settings.is_compatible(header.members);
        let refused = |refusal, left| Answer::Vote { vote: Vote::Refused { refusal, left }, sent };
        let to_claim = match body {
            Body::Probe => return Some(Body::Heard { resource: Resource::new(false, 0), claim: 0 }),
            Body::Request { resource, claim, lease, .. } => {
                return Some(self.vote(resource, claim, lease, header, compatible, now));
            }
            Body::Yield { resource, claim } => {
                self.voter.handle_yield(resource, sender);
                return Some(Body::Heard { resource, claim });
            }
            Body::Heard { resource, claim } => answer(resource, claim, Answer::Heard),
            Body::Grant { resource, claim, lease } if compatible => {
                answer(resource, claim, Answer::Vote { vote: Vote::Granted { lease }, sent })
            }
            Body::Grant { resource, claim, .. } => {
                self.counts.membership += 1;
                answer(resource, claim, refused(Refusal::Membership, self.settings.lease))
            }
            Body::Refuse { resource, claim, refusal, left } => answer(resource, claim, refused(refusal, left)),
            // The header was what it had to say.
            Body::Unacquainted => None,
            Body::Outdated { known } => {
                if known >= self.epoch {
                    self.epoch = known.saturating_add(1);
                }
                None
            }
        };
        if let Some((resource, claim, answer)) = to_claim
            && let Some(claimant) = self.claimants.iter_mut().find(|claimant| claimant.resource() == resource)
        {
            claimant.handle_answer(from, claim, answer, now);
        }
        None
    }

    fn vote(
        &mut self,
        resource: Resource,
        claim: u32,
        lease: Duration,
        header: &Header,
        compatible: bool,
        now: Instant,
    ) -> Body {
        if !compatible {
            self.counts.membership += 1;
            return Body::Refuse { resource, claim, refusal: Refusal::Membership, left: self.settings.lease };
        }
        match self.voter.handle_request(resource, header.sender, lease, now) {
            Vote::Granted { lease } => Body::Grant { resource, claim, lease },
            Vote::Refused { refusal, left } => Body::Refuse { resource, claim, refusal, left },
        }
    }

    fn transmit(&mut self, to: usize, receiver_epoch: u64, body: Body, (echo, stamp): (u64, u64)) -> Transmit {
        self.counter += 1;
        let host = &self.settings.hosts[to];
        let header = Header {
            cluster: self.settings.cluster,
            sender: self.settings.host().id,
            receiver: host.id,
            epoch: self.epoch,
            counter: self.counter,
            receiver_epoch,
            members: self.settings.members,
            echo,
            stamp,
        };
        self.counts.sent += 1;
        Transmit { to: host.address, bytes: message::encode(&Message { header, body }, &self.settings.key) }
    }
}

fn body_of(resource: Resource, ask: Ask) -> Body {
    match ask {
        Ask::Request { claim, rank, lease } => Body::Request { resource, claim, rank, lease },
        Ask::Yield { claim } => Body::Yield { resource, claim },
    }
}
