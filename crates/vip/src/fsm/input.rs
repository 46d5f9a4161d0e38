//! What the state machine is told: its settings, and everything that can happen to it.

use std::net::IpAddr;
use std::time::Duration;

use evermq_config::vip::VrrpVersion;

use crate::track::Cause;

/// How the virtual router is to behave. A reload may change it; see [`super::Fsm::handle_settings`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// This host's primary address, which breaks ties: of IPv6 its link-local one (RFC 9568 §6.1).
    pub address: IpAddr,
    /// Whose arithmetic of intervals and skews holds.
    pub version: VrrpVersion,
    /// Advertisement_Interval.
    pub interval: Duration,
    /// Preempt_Mode.
    pub preempt: bool,
    /// How long a better router waits before it takes the VIP from a lower one that serves it.
    pub preempt_delay: Duration,
    /// How long the virtual router takes no part after the machine was built.
    pub start_delay: Duration,
    /// A second announcement this long after the takeover; zero for none.
    pub garp_repeat_delay: Duration,
    /// From one announcement of a master to the next; zero for none.
    pub garp_refresh: Duration,
    /// Whether another router could take over. Without one the address has nobody to wait for when this host leaves.
    pub peers: bool,
    /// Whether a master needs the permission of the quorum.
    pub permission: bool,
}

/// What an advertisement that passed every check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advert {
    /// The sender's primary address.
    pub source: IpAddr,
    /// The sender's priority; 0 when it leaves.
    pub priority: u8,
    /// Max Advertise Interval.
    pub interval: Duration,
}

/// All that can happen to a virtual router.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Fit {
        priority: u8,
        cause: Cause,
    },
    Unfit {
        cause: Cause,
    },
    Advert(Advert),
    StartTimer,
    MasterDownTimer,
    AdverTimer,
    AnnounceTimer,
    ReleaseTimer,
    PermissionTimer,
    Paused {
        silent: Duration,
    },
    AddressLost,
    Conflict,
    Granted,
    Denied,
    /// The sync group becomes master.
    GroupLeads,
    /// Another member of the sync group is master no more.
    GroupLeaves {
        at_once: bool,
    },
    Shutdown,
}
