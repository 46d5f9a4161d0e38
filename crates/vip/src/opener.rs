//! Opens what virtual routers need of the kernel, on the ordinary thread: their sockets, the interface of a virtual MAC, and
//! the table that keeps packets to the VIP out. All of it goes with this value.

use std::net::IpAddr;
use std::sync::Arc;

use evermq_config::roles::VipInstance;
use evermq_config::{VipConfig, Vrid};

use crate::accept::{self, AcceptError, AcceptFilter};
use crate::counters::{Counters, TickleCounters};
use crate::driver::{DriverError, Instance};
use crate::interface::{self, Interface};
use crate::link::Links;
use crate::takeover::{Takeover, TakeoverError};
use crate::track::OWNER;
use crate::virtual_mac::VirtualMacs;

/// What is open beyond the sockets, which the instances have themselves.
#[derive(Debug, Default)]
pub struct Opener {
    macs: Option<VirtualMacs>,
    carriers: Vec<Carrier>,
    filter: Option<AcceptFilter>,
    filtered: Vec<IpAddr>,
}

/// The interface of a virtual MAC.
#[derive(Debug)]
struct Carrier {
    vrid: Vrid,
    ipv6: bool,
    /// Index of the interface that it stands on.
    base: u32,
    interface: Interface,
}

impl Opener {
    /// Opens the sockets of `router`, one of `config`'s.
    ///
    /// # Errors
    /// The interface, its link-local address, a capability or a feature of the kernel is missing.
    pub fn open(
        &mut self,
        config: &VipConfig,
        router: &VipInstance,
        counters: Arc<Counters>,
    ) -> Result<Instance, DriverError> {
        let base = interface::find(router.interface.as_deref(), config.address.into())?;
        let carrier = if config.vip.virtual_mac { Some(self.carrier(&base, router)?) } else { None };
        Instance::open(config, router, base, carrier, counters)
    }

    /// Removes what was made for a virtual router that has gone.
    pub fn close(&mut self, router: &VipInstance) {
        let ipv6 = is_ipv6(router);
        self.carriers.retain(|carrier| (carrier.vrid, carrier.ipv6) != (router.vrid, ipv6));
        if let Some(macs) = &mut self.macs
            && let Err(error) = macs.remove(router.vrid, ipv6)
        {
            tracing::warn!(instance = %router.name, %error, "the interface of the virtual MAC stays behind");
        }
    }

    /// Keeps packets to the VIPs out where `accept = false`.
    ///
    /// # Errors
    /// See [`AcceptError`].
    pub fn filter(&mut self, config: &VipConfig) -> Result<(), AcceptError> {
        // RFC 9568 §6.1: the owner takes them whatever the mode is.
        let kept_out = config.instances.iter().filter(|router| !config.vip.accept && router.priority != OWNER);
        let kept_out: Vec<IpAddr> = kept_out.flat_map(|router| router.addresses.iter().copied()).collect();
        if kept_out != self.filtered {
            self.filter = if kept_out.is_empty() { None } else { Some(AcceptFilter::install(&kept_out)?) };
            self.filtered = kept_out;
        }
        Ok(())
    }

    /// One that is there already stays: the virtual router may be master.
    fn carrier(&mut self, base: &Interface, router: &VipInstance) -> Result<Interface, DriverError> {
        let ipv6 = is_ipv6(router);
        let same = |carrier: &&Carrier| (carrier.vrid, carrier.ipv6) == (router.vrid, ipv6);
        if let Some(carrier) = self.carriers.iter().find(same).filter(|carrier| carrier.base == base.index)
            && let Ok(Some(state)) = Links::open()?.state(&carrier.interface.name)
            && state.index == carrier.interface.index
        {
            return Ok(Interface { link_local: base.link_local, ..carrier.interface.clone() });
        }
        let macs = match &mut self.macs {
            Some(macs) => macs,
            none => none.insert(VirtualMacs::open()?),
        };
        let created = macs.create(base, router.vrid, ipv6)?;
        for unset in created.unset {
            tracing::warn!(instance = %router.name, "{unset}");
        }
        let interface = created.interface;
        self.carriers.retain(|carrier| (carrier.vrid, carrier.ipv6) != (router.vrid, ipv6));
        self.carriers.push(Carrier { vrid: router.vrid, ipv6, base: base.index, interface: interface.clone() });
        Ok(interface)
    }
}

/// The thread that tells clients of takeovers, for virtual routers in these slots; none where that is switched off.
///
/// # Errors
/// A capability is missing, or there is no thread.
pub fn takeover(
    config: &VipConfig,
    slots: &[Option<&VipInstance>],
    counters: &Arc<TickleCounters>,
) -> Result<Option<Takeover>, TakeoverError> {
    let addresses = slots.iter().map(|router| router.map(|router| router.addresses.clone()).unwrap_or_default());
    let start = || Takeover::start(&config.lb_socket, addresses.collect(), counters.clone());
    config.vip.tickle.then(start).transpose()
}

/// Removes what a killed process left beside the addresses.
pub fn remove_stale(config: &VipConfig) {
    if let Err(error) = accept::remove_stale() {
        tracing::warn!(%error, "packets to the VIP may still be kept out, as by an evermq-vip that was killed");
    }
    let Ok(mut macs) = VirtualMacs::open() else { return };
    for router in &config.instances {
        // What is in the way of a virtual MAC is told when one is made.
        if let Ok(true) = macs.remove(router.vrid, is_ipv6(router)) {
            tracing::warn!(instance = %router.name, "removed the interface of a virtual MAC that was left behind");
        }
    }
}

fn is_ipv6(router: &VipInstance) -> bool {
    router.addresses.first().is_some_and(IpAddr::is_ipv6)
}
