//! What the state machine is told: its settings, and everything that can happen to it.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::track::Cause;

/// What does not change while the program runs.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// This host's primary address, which breaks ties.
    pub address: Ipv4Addr,
    /// Advertisement_Interval.
    pub interval: Duration,
    /// Preempt_Mode.
    pub preempt: bool,
    /// A second burst of gratuitous ARP this long after the takeover; zero for none.
    pub garp_repeat_delay: Duration,
    /// Whether another router could take over. Without one the address has nobody to wait for when this host leaves.
    pub peers: bool,
}

/// What an advertisement that passed every check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advert {
    /// The sender's primary address.
    pub source: Ipv4Addr,
    /// The sender's priority; 0 when it leaves.
    pub priority: u8,
    /// Max Advertise Interval.
    pub interval: Duration,
}

/// All that can happen to a virtual router.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Fit { priority: u8, cause: Cause },
    Unfit { cause: Cause },
    Advert(Advert),
    MasterDownTimer,
    AdverTimer,
    GarpTimer,
    OverlapTimer,
    ReleaseTimer,
    Paused { silent: Duration },
    AddressLost,
    Shutdown,
}
