//! One virtual router's sockets and addresses on this host. Opened on the ordinary thread, used by the real-time one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evermq_config::VipConfig;
use evermq_config::roles::VipInstance;
use evermq_config::vip::{Adverts, VrrpVersion};

use super::DriverError;
use crate::address::{AddressError, Addresses};
use crate::announce::Announcer;
use crate::conflict::Conflicts;
use crate::counters::Counters;
use crate::fsm;
use crate::guard::wire::{Charge, Farewell, Written};
use crate::interface::Interface;
use crate::link::Links;
use crate::packet::{self, Identity, MAX_LENGTH};
use crate::report::Told;
use crate::socket::{Destinations, VrrpSocket};
use crate::track::{Effective, hold_down};

/// Beyond what peers wait for a master: for a busy machine to let the daemon take its turn.
const MARGIN: Duration = Duration::from_millis(10);

/// One virtual router on one host.
#[derive(Debug)]
pub struct Instance {
    /// As configured.
    pub router: VipInstance,
    /// The interface that it is on: advertisements are received there, and sent from there but with a virtual MAC.
    pub interface: Interface,
    /// The interface that carries its addresses: the same, or that of the virtual MAC.
    pub carrier: Interface,
    /// For its machine.
    pub settings: fsm::Settings,
    /// What it has sent, received and discarded.
    pub counters: Arc<Counters>,
    pub(super) identity: Identity,
    pub(super) vrrp: VrrpSocket,
    pub(super) announcer: Announcer,
    pub(super) conflicts: Conflicts,
    /// Announcements in a burst.
    pub(super) burst: u8,
    /// For the guard.
    pub(super) charge: Written,
    pub(super) told: Told,
    pub(super) link: Link,
    /// How long an interface that comes back must stay.
    pub(super) hold_down: Duration,
    /// Whether this program has put its addresses up.
    pub(super) held: bool,
    /// Its addresses could not be put up: nothing is claimed until it is master again.
    pub(super) mute: bool,
    /// It seeks the quorum's permission, or has it.
    pub(super) seeks: bool,
    /// What its machine was told last.
    pub(super) ranked: Option<Effective>,
    /// Whether an address of it may have been removed by someone else.
    pub(super) suspect: bool,
    /// The configuration has no such virtual router any more; it only hands over.
    pub(super) leaving: bool,
}

/// Whether its interface can carry anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    /// Up again, and not trusted yet.
    Settling {
        until: Instant,
    },
    /// It would not take the addresses.
    Refused {
        until: Instant,
    },
    Down,
    /// Removed. The sockets are of an interface that is no more.
    Gone,
    /// There again; the sockets are not yet.
    Returning,
}

impl Instance {
    /// Opens every socket of `router`, one of `config`'s, on `interface`; `carrier` is the interface of the virtual MAC.
    ///
    /// # Errors
    /// The interface's link-local address or a capability is missing.
    pub fn open(
        config: &VipConfig,
        router: &VipInstance,
        interface: Interface,
        carrier: Option<Interface>,
        counters: Arc<Counters>,
    ) -> Result<Self, DriverError> {
        let vip = &config.vip;
        let source = router.source.or(interface.link_local.map(IpAddr::V6));
        let source = source.ok_or_else(|| DriverError::NoLinkLocal { interface: interface.name.clone() })?;
        let refused = |source| DriverError::RawSocket { interface: interface.name.clone(), source };
        let destinations = match vip.adverts {
            Adverts::Multicast => Destinations::Group,
            Adverts::Unicast => Destinations::Peers(router.peers.clone()),
        };
        let identity = Identity {
            vrid: router.vrid,
            version: router.version,
            addresses: router.addresses.clone(),
            interval: vip.advert_interval,
            auth_pass: vip.auth_pass,
            checksum: vip.checksum,
        };
        let mut vrrp = VrrpSocket::open(&interface, source, destinations).map_err(refused)?;
        if let Some(carrier) = &carrier {
            vrrp.send_by(carrier).map_err(refused)?;
        }
        let carrier = carrier.unwrap_or_else(|| interface.clone());
        let announcer = Announcer::open(&carrier, &router.addresses).map_err(refused)?;
        let own: Vec<_> = [interface.mac, carrier.mac].into_iter().flatten().collect();
        let conflicts = Conflicts::open(&interface, &router.addresses, &own).map_err(refused)?;
        let settings = fsm::Settings {
            address: source,
            version: router.version,
            interval: vip.advert_interval,
            preempt: vip.preempt,
            preempt_delay: vip.preempt_delay,
            start_delay: vip.start_delay,
            garp_repeat_delay: vip.garp_repeat_delay,
            garp_refresh: vip.garp_refresh,
            // In the group there may be routers that the cluster file does not know.
            peers: vip.adverts == Adverts::Multicast || !router.peers.is_empty(),
            permission: config.quorum.is_some(),
        };
        let up = Links::open()?.state(&interface.name).ok().flatten().is_none_or(|state| state.up);
        Ok(Self {
            charge: Written::new(&charge(router, &carrier, &settings, &identity, &vrrp)),
            router: router.clone(),
            settings,
            counters,
            identity,
            vrrp,
            announcer,
            conflicts,
            carrier,
            burst: vip.garp_count,
            told: Told::default(),
            link: if up { Link::Up } else { Link::Down },
            hold_down: hold_down(vip.advert_interval),
            held: false,
            mute: false,
            seeks: false,
            ranked: None,
            suspect: false,
            leaving: false,
            interface,
        })
    }

    /// Puts all addresses up.
    pub(super) fn put_up(&mut self, addresses: &mut Addresses) -> Result<(), AddressError> {
        self.held = true;
        for address in &self.router.addresses {
            addresses.add(*address, self.router.prefix_length, self.carrier.index)?;
        }
        Ok(())
    }

    /// Takes all addresses away; the last error, if any, after all were tried.
    pub(super) fn take_down(&mut self, addresses: &mut Addresses) -> Result<(), AddressError> {
        self.held = false;
        let mut outcome = Ok(());
        for address in &self.router.addresses {
            if let Err(error) = addresses.remove(*address, self.carrier.index) {
                outcome = Err(error);
            }
        }
        outcome
    }

    /// Whether its sockets are those of an interface that there is.
    pub(super) fn is_reachable(&self) -> bool {
        !matches!(self.link, Link::Gone | Link::Returning)
    }

    /// When its interface has been up for long enough.
    pub(super) fn settles(&self) -> Option<Instant> {
        match self.link {
            Link::Settling { until } | Link::Refused { until } => Some(until),
            Link::Up | Link::Down | Link::Gone | Link::Returning => None,
        }
    }
}

/// How the guard leaves the addresses in the daemon's place.
fn charge(
    router: &VipInstance,
    carrier: &Interface,
    settings: &fsm::Settings,
    identity: &Identity,
    vrrp: &VrrpSocket,
) -> Charge {
    let skew = match router.version {
        // RFC 3768 §6.1: the skew is a part of a second, whatever the interval is.
        VrrpVersion::V2 => Duration::from_secs(1),
        VrrpVersion::V3 => settings.interval,
    };
    let farewells = vrrp.destinations().map(|to| {
        let mut message = [0; MAX_LENGTH];
        let length = packet::encode(identity, 0, settings.address, to, &mut message);
        Farewell { to, message: message[..length].to_vec() }
    });
    Charge {
        name: router.name.clone(),
        vrid: router.vrid.get(),
        addresses: router.addresses.clone(),
        interface: carrier.index,
        through: vrrp.through(),
        source: settings.address,
        farewells: farewells.collect(),
        linger: skew + MARGIN,
        bound: settings.interval * 3 + skew + MARGIN,
        peers: settings.peers,
    }
}
