//! Holds the cluster's virtual IP by VRRP version 3 over IPv4 (RFC 9568).
//!
//! | module | subject |
//! |---|---|
//! | [`fsm`] | who is master: the state machine, pure |
//! | [`track`] | what the local lb's health makes of this host's priority, pure |
//! | [`packet`] | advertisements to and from bytes |
//! | [`driver`] | the real-time thread: clock, sockets, and what the machines say |
//! | [`socket`], [`address`], [`garp`], [`interface`], [`lb_link`], [`realtime`] | the kernel's side, one subject each |
//! | [`report`], [`status`], [`control`] | what is logged and shown, on a thread of its own |
//! | [`counters`] | RFC 8347's counters |

pub mod address;
pub mod control;
pub mod counters;
pub mod driver;
pub mod fsm;
pub mod garp;
pub mod interface;
pub mod lb_link;
pub mod packet;
pub mod realtime;
pub mod report;
pub mod single;
pub mod socket;
pub mod status;
pub mod track;

use std::sync::Arc;
use std::time::SystemTime;

use evermq_config::VipConfig;
use evermq_daemon::control::ControlError;
use evermq_daemon::notify;

use crate::address::{AddressError, Addresses};
use crate::counters::Counters;
use crate::driver::{Driver, take_signals};
use crate::single::Single;
use crate::status::{Identity, Status};

/// Options of `evermq-vip` beyond the common ones.
#[derive(Debug, clap::Args)]
pub struct ReleaseArgs {
    /// Remove the VIP from this machine's interfaces, if it is there, and exit (for systemd's ExecStopPost)
    #[arg(long)]
    pub release: bool,
}

/// Runs the daemon until SIGTERM or SIGINT, or only removes the VIP.
///
/// # Errors
/// A capability, the interface or the control socket is missing, or the VIP could not be added.
pub fn run(config: VipConfig, args: &ReleaseArgs) -> anyhow::Result<()> {
    let config = Single::of(config)?;
    if args.release {
        release(&config)?;
        return Ok(());
    }
    // Before the stale VIP goes: if this program runs already, the VIP is not stale.
    let listener = evermq_daemon::control::bind(&config.control_socket);
    if let Err(error @ ControlError::InUse(_)) = listener {
        return Err(error.into());
    }
    let mut addresses = release(&config)?;
    let listener = listener?;
    let interface = interface::find(config.interface.as_deref(), config.address)?;
    // An address that is not there cannot be removed, but the kernel says first whether it would be permitted.
    addresses.remove(config.vip_address, interface.index)?;
    if interface.mac.is_none() {
        tracing::warn!(interface = interface.name, "no hardware address, so neighbours are not told by gratuitous ARP");
    }
    let signals = take_signals()?;
    let counters = Arc::new(Counters::default());
    let (reporter, reports) = report::channel(counters.clone())?;
    let status = Status::new(identity(&config, &interface.name), counters.clone(), wall_clock());
    let (realtime, vip) = (config.vip.realtime, config.vip_address);
    tracing::info!(%vip, interface = interface.name, vrid = %config.vrid, priority = config.priority, "started");
    let driver = Driver::open(config, interface, addresses, signals, reporter, counters)?;
    let control = control::start(listener, status, reports)?;
    realtime::wake_exactly();
    if realtime {
        let refused: Vec<_> = realtime::enter().iter().map(ToString::to_string).collect();
        if !refused.is_empty() {
            tracing::warn!("a busy machine may move the VIP: {}", refused.join("; "));
        }
    }
    notify::ready("waiting for the local lb");
    let outcome = driver.run();
    notify::stopping();
    control.join();
    Ok(outcome?)
}

/// Removes a VIP that a killed process left, from whatever interface has it.
fn release(config: &Single) -> Result<Addresses, AddressError> {
    let mut addresses = Addresses::open()?;
    for index in addresses.remove_everywhere(config.vip_address)? {
        tracing::warn!(vip = %config.vip_address, interface = interface::name(index), "removed a VIP that was left behind");
    }
    Ok(addresses)
}

fn identity(config: &Single, interface: &str) -> Identity {
    Identity {
        host: config.host.to_string(),
        address: config.address,
        vip: config.vip_address,
        interface: interface.to_owned(),
        priority: config.priority,
    }
}

#[expect(clippy::disallowed_methods, reason = "people read wall time in the state")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
