//! What a member shows of itself: who votes, who can be reached, who has which lease.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use evermq_config::HostName;
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::claimant::Stage;
use crate::counts::Counts;
use crate::message::Resource;
use crate::node::Node;

/// Everything that a member shows. [`State::update`] fills it again and again without allocating, unless a claim was added.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// How long a vote holds.
    pub lease: Duration,
    /// How many votes win.
    pub majority: usize,
    /// The gateway that counts where there is no majority, and whether it answers.
    pub gateway: Option<(Ipv4Addr, bool)>,
    /// For how long this host does not vote yet.
    pub abstains: Option<Duration>,
    /// Every host that votes, in the file's order.
    pub hosts: Vec<HostState>,
    /// What this host claims or has claimed.
    pub claims: Vec<ClaimState>,
    /// What this host has granted.
    pub leases: Vec<LeaseState>,
    /// Counters.
    pub counts: Counts,
}

/// A host that votes.
#[derive(Debug, Clone)]
pub struct HostState {
    /// Its name.
    pub name: HostName,
    /// Where its heartbeats go to.
    pub address: SocketAddr,
    /// Whether it is this host.
    pub own: bool,
    /// Whether it answers: nothing is unanswered for a lease or longer.
    pub reachable: bool,
    /// Time since its last answer.
    pub heard: Option<Duration>,
    /// How long its last answer took.
    pub round_trip: Duration,
}

/// A claim of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimState {
    /// On what.
    pub resource: Resource,
    /// Where it stands.
    pub stage: Stage,
    /// Whether the resource is this host's.
    pub held: bool,
    /// How many votes it has.
    pub granted: usize,
    /// How many hosts said that another has it.
    pub refused: usize,
}

/// A lease that this host has granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseState {
    /// On what.
    pub resource: Resource,
    /// To whom: a place in [`State::hosts`]; none for a host that has left the file since.
    pub holder: Option<usize>,
    /// For how long it cannot go to another.
    pub left: Duration,
}

impl State {
    /// How many hosts can be reached, this one included.
    #[must_use]
    pub fn reachable(&self) -> usize {
        self.hosts.iter().filter(|host| host.reachable).count()
    }

    /// Shows `node` as it is at `now`.
    pub fn update(&mut self, node: &Node, now: Instant) {
        let settings = &node.settings;
        let same = self.hosts.iter().map(|host| &host.name).eq(settings.hosts.iter().map(|host| &host.name));
        if !same {
            self.hosts = settings.hosts.iter().map(|host| HostState::new(host.name.clone(), host.address)).collect();
            self.leases.reserve(settings.hosts.len());
        }
        self.lease = settings.lease;
        self.majority = settings.majority();
        self.gateway = settings.gateway.map(|address| (address, node.gateway_answers(now)));
        self.abstains = node.voter.abstains(now);
        for (index, host) in self.hosts.iter_mut().enumerate() {
            let peer = &node.peers[index];
            host.own = index == settings.own;
            host.address = settings.hosts[index].address;
            host.reachable = host.own || peer.is_reachable(settings.lease, now);
            host.heard = peer.heard.map(|heard| now.saturating_duration_since(heard));
            host.round_trip = peer.round_trip;
        }
        self.claims.clear();
        self.claims.extend(node.claimants.iter().map(|claimant| {
            let (granted, refused) = claimant.votes(now);
            let (resource, stage) = (claimant.resource(), claimant.stage());
            ClaimState { resource, stage, held: claimant.holds(now), granted, refused }
        }));
        self.leases.clear();
        self.leases.extend(node.voter.leases(now).map(|lease| LeaseState {
            resource: lease.resource,
            holder: settings.hosts.iter().position(|host| host.id == lease.holder),
            left: lease.until.saturating_duration_since(now),
        }));
        self.counts = node.counts;
    }
}

impl HostState {
    fn new(name: HostName, address: SocketAddr) -> Self {
        Self { name, address, own: false, reachable: false, heard: None, round_trip: Duration::ZERO }
    }
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut state = serializer.serialize_struct("State", 9)?;
        state.serialize_field("lease_ms", &self.lease.as_millis())?;
        state.serialize_field("majority", &self.majority)?;
        state.serialize_field("reachable", &self.reachable())?;
        let gateway = self.gateway.map(|(address, answers)| GatewayShown { address, answers });
        state.serialize_field("gateway", &gateway)?;
        state.serialize_field("abstains_ms", &self.abstains.map(|left| left.as_millis()))?;
        state.serialize_field("hosts", &self.hosts)?;
        state.serialize_field("claims", &self.claims)?;
        let leases: Vec<LeaseShown<'_>> = self.leases.iter().map(|lease| self.shown(lease)).collect();
        state.serialize_field("granted", &leases)?;
        state.serialize_field("counters", &self.counts)?;
        state.end()
    }
}

impl State {
    fn shown(&self, lease: &LeaseState) -> LeaseShown<'_> {
        LeaseShown {
            resource: lease.resource,
            holder: lease.holder.and_then(|holder| self.hosts.get(holder)).map(|host| host.name.as_str()),
            left_ms: lease.left.as_millis(),
        }
    }
}

#[derive(Serialize)]
struct GatewayShown {
    address: Ipv4Addr,
    answers: bool,
}

#[derive(Serialize)]
struct LeaseShown<'a> {
    #[serde(flatten)]
    resource: Resource,
    holder: Option<&'a str>,
    left_ms: u128,
}

impl Serialize for HostState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut host = serializer.serialize_struct("HostState", 6)?;
        host.serialize_field("name", self.name.as_str())?;
        host.serialize_field("address", &self.address)?;
        host.serialize_field("own", &self.own)?;
        host.serialize_field("reachable", &self.reachable)?;
        host.serialize_field("last_heard_ms", &self.heard.map(|heard| heard.as_millis()))?;
        host.serialize_field("round_trip_us", &self.heard.map(|_| self.round_trip.as_micros()))?;
        host.end()
    }
}

impl Serialize for ClaimState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stage = match self.stage {
            Stage::Idle => "idle",
            Stage::Seeking { .. } => "seeking",
            Stage::Holding => "holding",
            Stage::Waiting { .. } => "waiting",
        };
        let mut claim = serializer.serialize_struct("ClaimState", 6)?;
        claim.serialize_field("family", self.resource.family())?;
        claim.serialize_field("vrid", &self.resource.vrid())?;
        claim.serialize_field("stage", stage)?;
        claim.serialize_field("held", &self.held)?;
        claim.serialize_field("granted", &self.granted)?;
        claim.serialize_field("refused", &self.refused)?;
        claim.end()
    }
}

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut resource = serializer.serialize_struct("Resource", 2)?;
        resource.serialize_field("family", self.family())?;
        resource.serialize_field("vrid", &self.vrid())?;
        resource.end()
    }
}
