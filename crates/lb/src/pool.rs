//! What all threads know of the backends: atomics only, so that nobody waits for anybody.
//!
//! The control thread writes a backend's standing; workers read it for each new connection. The one thing that a worker
//! writes there itself is `Suspect` after a refused connect, so that the next client does not wait for the control thread.
//! A reload makes a new pool, which shares the members that stay, so their connections, turns and places are counted on.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evermq_config::BackendConfig;
use evermq_config::lb::{Balance, Handshakes, Lb};
use tokio::sync::Notify;

use crate::backend::Standing;
use crate::balance::rendezvous;
use crate::balance::{self, Balancer, Load, Request};
use crate::pacing::{BURST, Epoch, Places, Rate, steady};

mod lease;
mod member;

pub use crate::balance::Admin;
pub use lease::Lease;
use member::Settings;
pub use member::{Member, Report};

/// Who waits looks again after about this: often enough for a smooth flow, and each look places several of a storm.
pub const LOOK: Duration = Duration::from_millis(5);

/// What the pool takes from `[lb]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    /// `balance`.
    pub balance: Balance,
    /// Bounds for new connections.
    pub handshakes: Handshakes,
    /// `slow_start`.
    pub slow_start: Duration,
}

impl PoolSettings {
    /// Those of `[lb]`.
    #[must_use]
    pub const fn of(lb: &Lb) -> Self {
        Self { balance: lb.balance, handshakes: lb.handshakes, slow_start: lb.health.slow_start }
    }
}

/// A group of backends; the same for the same name in each pool that comes of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(u32);

/// Which of a backend's addresses is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressKind {
    /// For MQTT over TLS.
    Tls,
    /// For plain MQTT.
    Plain,
}

/// Who wants a backend.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Of this group.
    pub group: GroupId,
    /// The client's address.
    pub source: IpAddr,
    /// The MQTT client identifier, where it is known.
    pub client_id: Option<&'a [u8]>,
    /// Indices of backends that have refused this client.
    pub tried: &'a [usize],
    /// Where to.
    pub kind: AddressKind,
}

/// Where a client goes.
#[derive(Debug)]
pub enum Choice {
    /// To this backend.
    Go(Lease),
    /// Nowhere yet: each that would do is at one of its bounds.
    Wait(Lane),
    /// Nowhere: there is none that would do.
    Nobody,
}

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Anyone of the group that has such an address.
    Group {
        /// The group.
        group: GroupId,
        /// The address.
        kind: AddressKind,
        /// But for those that have refused the client: it waits apart, for others need not wait until there is room with
        /// the rest.
        again: bool,
    },
    /// The member with this [`Member::id`], to which the client's address or identifier leads.
    Member(u32),
}

/// All backends, in the file's order.
#[derive(Debug)]
pub struct Pool {
    members: Box<[Arc<Member>]>,
    configs: Box<[BackendConfig]>,
    groups: Box<[Group]>,
    settings: PoolSettings,
    shared: Arc<Shared>,
    /// For `random_two`: a Weyl sequence from a random start.
    random: AtomicU64,
}

#[derive(Debug)]
struct Group {
    name: Box<str>,
    /// Indices of its members.
    members: Box<[usize]>,
    balancer: Balancer,
}

/// What all members have in common, also those of the pools to come.
#[derive(Debug)]
struct Shared {
    epoch: Epoch,
    /// New connections to all backends together.
    rate: Rate,
    /// Handshakes under way with all backends together.
    handshakes: Places,
    /// Told when a standing has changed.
    changed: Notify,
    /// The next member's [`Member::id`].
    next_id: AtomicU64,
}

impl Pool {
    /// Backends of which nothing is known.
    #[must_use]
    pub fn new(backends: &[BackendConfig], settings: &PoolSettings, now: Instant) -> Self {
        let shared = Arc::new(Shared {
            epoch: Epoch::new(now),
            rate: Rate::new(settings.handshakes.rate.map(steady), BURST),
            handshakes: Places::new(settings.handshakes.concurrent),
            changed: Notify::new(),
            next_id: AtomicU64::new(0),
        });
        let kept = Settings::new(settings);
        let members = backends.iter().map(|backend| Arc::new(Member::new(backend, kept, &shared, false)));
        Self::of(members.collect(), backends, Vec::new(), settings, shared)
    }

    /// The pool after a reload, and the members that are no longer there.
    ///
    /// A member stays if its name and its addresses do; bounds hold for it from now on. A weight that was set by hand
    /// stays until the file gives another one. Groups keep their identity.
    #[must_use]
    pub fn renewed(&self, backends: &[BackendConfig], settings: &PoolSettings) -> (Self, Vec<Arc<Member>>) {
        let shared = Arc::clone(&self.shared);
        shared.rate.set(settings.handshakes.rate.map(steady), BURST);
        shared.handshakes.set_limit(settings.handshakes.concurrent);
        let kept = Settings::new(settings);
        let member = |backend: &BackendConfig| {
            let old = self.members.iter().zip(&self.configs).find(|(member, _)| member.is(backend));
            old.map_or_else(
                || Arc::new(Member::new(backend, kept, &shared, true)),
                |(member, config)| {
                    member.renew(config, backend, kept);
                    Arc::clone(member)
                },
            )
        };
        let members: Box<[_]> = backends.iter().map(member).collect();
        let stays = |member: &&Arc<Member>| members.iter().any(|other| Arc::ptr_eq(member, other));
        let gone = self.members.iter().filter(|member| !stays(member)).cloned().collect();
        let names = self.groups.iter().map(|group| group.name.clone()).collect();
        (Self::of(members, backends, names, settings, shared), gone)
    }

    fn of(
        members: Box<[Arc<Member>]>,
        backends: &[BackendConfig],
        mut names: Vec<Box<str>>,
        settings: &PoolSettings,
        shared: Arc<Shared>,
    ) -> Self {
        for backend in backends {
            if !names.iter().any(|name| **name == *backend.group) {
                names.push(backend.group.as_str().into());
            }
        }
        let group = |name: Box<str>| {
            let of_group = backends.iter().enumerate().filter(|(_, backend)| *backend.group == *name);
            let members: Box<[usize]> = of_group.map(|(index, _)| index).collect();
            Group { balancer: Balancer::new(settings.balance, members.len()), name, members }
        };
        Self {
            members,
            configs: backends.into(),
            groups: names.into_iter().map(group).collect(),
            settings: *settings,
            shared,
            random: AtomicU64::new(RandomState::new().build_hasher().finish()),
        }
    }

    /// The backends, in the file's order.
    #[must_use]
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// What the file says of a backend.
    #[must_use]
    pub fn config(&self, index: usize) -> &BackendConfig {
        &self.configs[index]
    }

    /// What the pool was made with.
    #[must_use]
    pub const fn settings(&self) -> &PoolSettings {
        &self.settings
    }

    /// The group of that name, if a backend is, or was, of it.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<GroupId> {
        let index = self.groups.iter().position(|group| *group.name == *name)?;
        u32::try_from(index).ok().map(GroupId)
    }

    /// Indices of a group's backends.
    #[must_use]
    pub fn group_members(&self, group: GroupId) -> &[usize] {
        self.groups.get(group.0 as usize).map_or(&[], |group| &group.members)
    }

    /// Whether the session to any backend stands.
    #[must_use]
    pub fn any_up(&self) -> bool {
        self.members.iter().any(|member| member.standing().has_session())
    }

    /// Waits until a standing has changed since the last call.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Chooses a backend, and takes there all that a new connection needs: its place, a place for the handshake, and one of
    /// the rate.
    #[must_use]
    pub fn choose(&self, wanted: &Wanted<'_>, now: Instant) -> Choice {
        self.choose_behind(wanted, now, |_| false)
    }

    /// [`Self::choose`] for a newcomer, who has to wait behind those that wait in a lane already.
    #[must_use]
    pub fn choose_behind(&self, wanted: &Wanted<'_>, now: Instant, has_waiters: impl Fn(Lane) -> bool) -> Choice {
        let Some(group) = self.groups.get(wanted.group.0 as usize) else { return Choice::Nobody };
        let at = self.shared.epoch.nanos(now);
        let request = Request { key: key(wanted), random: self.random() };
        // Once more only if a backend goes down in this instant, which it can do but once for each of them.
        loop {
            let mut loads = self.loads(group, wanted, at);
            if !balance::narrow(&mut loads) {
                return Choice::Nobody;
            }
            let lane = Lane::Group { group: wanted.group, kind: wanted.kind, again: !wanted.tried.is_empty() };
            if has_waiters(lane) {
                return Choice::Wait(lane);
            }
            group.balancer.begin(&mut loads);
            if let Ok(choice) = self.take_one((group, lane), &mut loads, request, at, &has_waiters) {
                return choice;
            }
        }
    }

    fn take_one(
        &self,
        (group, of_group): (&Group, Lane),
        loads: &mut [Load],
        request: Request,
        at: u64,
        has_waiters: impl Fn(Lane) -> bool,
    ) -> Result<Choice, WentDown> {
        while let Some(position) = group.balancer.choose(loads, request) {
            let index = group.members[position];
            let member = &self.members[index];
            // It may have gone down since; then the generation may be the next one, under which this connection would be
            // left alone.
            let generation = member.generation();
            let seen = &loads[position];
            let went_down = member.standing().rank().is_none() && seen.standing.rank().is_some();
            if went_down || member.admin() != seen.admin {
                return Err(WentDown);
            }
            let lane = Lane::Member(member.id());
            if group.balancer.is_consistent() && has_waiters(lane) {
                return Ok(Choice::Wait(lane));
            }
            match member.take(at) {
                Ok(()) => {
                    group.balancer.settle(loads, position);
                    return Ok(Choice::Go(Lease::new(member, index, generation)));
                }
                Err(Full::Rate | Full::Handshakes) if group.balancer.is_consistent() => {
                    return Ok(Choice::Wait(lane));
                }
                Err(Full::Rate | Full::Handshakes | Full::Connections) => loads[position].open = false,
            }
        }
        Ok(Choice::Wait(of_group))
    }

    fn loads(&self, group: &Group, wanted: &Wanted<'_>, at: u64) -> Vec<Load> {
        let load = |&index: &usize| {
            let member = &self.members[index];
            let open = !wanted.tried.contains(&index) && member.address_for(wanted.kind).is_some();
            member.load(self.configs[index].backup, open, at)
        };
        group.members.iter().map(load).collect()
    }

    /// When it makes sense for who waits in `lane` to try again: after about [`LOOK`] at the earliest.
    ///
    /// Not to the point, or else the same worker would be the first each time and leave nothing to the others.
    #[must_use]
    pub fn retry_at(&self, lane: Lane, now: Instant) -> Instant {
        let at = self.shared.epoch.nanos(now);
        let of_lane = |member: &&Arc<Member>| match lane {
            Lane::Group { kind, .. } => member.standing().rank().is_some() && member.address_for(kind).is_some(),
            Lane::Member(id) => member.id() == id,
        };
        let ready = match lane {
            Lane::Group { group, .. } => self.group_members(group).iter().map(|&index| &self.members[index]).collect(),
            Lane::Member(_) => self.members.iter().collect::<Vec<_>>(),
        };
        let ready = ready.into_iter().filter(of_lane).map(|member| member.ready_at(at)).min().unwrap_or(at);
        let ready = self.shared.epoch.instant(ready.max(self.shared.rate.ready_at(at)));
        let apart = LOOK.mul_f64((self.random() >> 32) as f64 / (1_u64 << 32) as f64);
        ready.max(now + LOOK / 2) + apart
    }

    /// A place for a connection that an older process made to the backend of that name.
    #[must_use]
    pub fn adopt(&self, name: &str) -> Option<Lease> {
        let index = self.members.iter().position(|member| member.name() == name)?;
        let member = &self.members[index];
        let generation = member.generation();
        member.take_over();
        Some(Lease::adopted(member, index, generation))
    }

    /// Makes a new standing known. With `Down`, all connections made until now are to be closed.
    pub fn set_standing(&self, index: usize, standing: Standing, now: Instant) {
        self.members[index].set_standing(standing, now);
    }

    /// A splitmix64 step over a shared counter.
    fn random(&self) -> u64 {
        let mut z = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// A backend went down, or was taken out, between the look and the choice.
#[derive(Debug)]
struct WentDown;

/// Which bound a backend is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    /// New connections in a second, to it or to all.
    Rate,
    /// Handshakes at once, with it or with all.
    Handshakes,
    /// `max_connections`.
    Connections,
}

fn key(wanted: &Wanted<'_>) -> u64 {
    wanted.client_id.map_or_else(|| rendezvous::address_key(wanted.source), rendezvous::key)
}

#[cfg(test)]
pub(crate) mod tests;
