//! Holds the cluster's virtual IPs by VRRP version 3 (RFC 9568) or 2 (RFC 3768).
//!
//! | module | subject |
//! |---|---|
//! | [`fsm`] | who is master: the state machine of one virtual router, pure |
//! | [`routers`] | all virtual routers of a host and their sync groups, pure |
//! | [`track`] | what the local lb's health and everything else that is tracked make of this host's priority, pure |
//! | [`packet`] | advertisements to and from bytes |
//! | [`driver`] | the real-time thread: clock, sockets, and what the machines say |
//! | [`socket`], [`address`], [`link`], [`announce`], [`conflict`], [`interface`], [`virtual_mac`], [`accept`], [`lb_link`], [`realtime`] | the kernel's side, one subject each |
//! | [`opener`] | what virtual routers need of the kernel, opened and closed on the ordinary thread |
//! | [`report`], [`mailbox`] | between the real-time thread and the ordinary one |
//! | [`control`], [`status`], [`metrics`], [`reload`] | the ordinary thread: what is logged and shown, and the cluster file |
//! | [`checks`] | runs the scripts, and watches the files and processes, that are tracked |
//! | [`programs`] | runs the notify programs |
//! | [`program`], [`account`] | one run of such a program, and whom it runs as |
//! | [`tickle`] | how clients are told that the VIP has moved: the segment and the pace, pure |
//! | [`takeover`] | the thread that tells them |
//! | [`privileges`] | what the program gives up after its start |
//! | [`guard`] | the second process that sees the daemon killed or frozen |
//! | [`idle`] | `mode = "none"` |
//! | [`counters`] | RFC 8347's counters |

pub mod accept;
pub mod account;
pub mod address;
pub mod announce;
mod bpf;
pub mod checks;
pub mod conflict;
pub mod control;
pub mod counters;
pub mod driver;
pub mod fsm;
pub mod guard;
pub mod idle;
pub mod interface;
pub mod lb_link;
pub mod link;
pub mod mailbox;
pub mod metrics;
mod netlink;
mod notices;
pub mod opener;
pub mod packet;
mod pidfd;
pub mod privileges;
pub mod program;
pub mod programs;
pub mod realtime;
pub mod reload;
pub mod report;
pub mod routers;
pub mod socket;
mod start;
pub mod status;
pub mod takeover;
pub mod tickle;
pub mod track;
pub mod virtual_mac;

use std::time::{Instant, SystemTime};

use evermq_config::VipConfig;
use evermq_config::vip::VipMode;
use evermq_daemon::command::ConfigSource;
use evermq_daemon::control::ControlError;

use crate::address::{AddressError, Addresses};

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
/// A capability, the interface or the control socket is missing.
pub fn run(config: VipConfig, args: ReleaseArgs, source: ConfigSource<VipConfig>) -> anyhow::Result<()> {
    if args.release {
        release(&config)?;
        return Ok(());
    }
    // Before the stale VIP goes: if this program runs already, the VIP is not stale.
    let listener = evermq_daemon::control::bind(&config.control_socket);
    if let Err(error @ ControlError::InUse(_)) = listener {
        return Err(error.into());
    }
    if config.vip.mode == VipMode::None {
        return idle::run(&config, listener?, source.path());
    }
    let addresses = release(&config)?;
    start::run(config, source, listener?, addresses)
}

/// Removes VIPs that a killed process left, from whatever interface has them.
fn release(config: &VipConfig) -> Result<Addresses, AddressError> {
    let mut addresses = Addresses::open()?;
    for vip in config.instances.iter().flat_map(|router| &router.addresses) {
        for index in addresses.remove_everywhere(*vip)? {
            tracing::warn!(%vip, interface = interface::name(index), "removed a VIP that was left behind");
        }
    }
    // Behind the addresses, which another host has taken by now.
    opener::remove_stale(config);
    Ok(addresses)
}

#[expect(clippy::disallowed_methods, reason = "people read wall time in the state")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[expect(clippy::disallowed_methods, reason = "the machines count from the start of the program")]
fn clock() -> Instant {
    Instant::now()
}
