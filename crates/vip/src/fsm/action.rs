//! What the state machine says: the states, what the driver has to do, and why a state changed.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::track::Cause;

/// Where the virtual router stands on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Takes no part: no timer, no address.
    Initialize,
    /// Watches the master.
    Backup,
    /// Holds the VIP and says so. RFC 9568: Active.
    Master,
}

/// What the driver has to do, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Put all addresses of the virtual router on the interface.
    AddAddress,
    /// Take all of them from the interface.
    RemoveAddress,
    /// Announce all of them: one burst of gratuitous ARP, or of unsolicited neighbour advertisements, for each.
    SendGarp,
    /// Send an advertisement with this priority.
    SendAdvert {
        /// 0 says that this host leaves.
        priority: u8,
    },
    /// The state has changed. Comes after the actions of the change.
    Moved(Transition),
    /// Another host is heard as master.
    Follows {
        /// Its address.
        master: IpAddr,
    },
    /// Ask the quorum for permission to be master, again and again until it is given, and keep it from then on. Each change
    /// is told by `handle_permission`.
    SeekPermission,
    /// Give the permission back, or stop asking for it.
    YieldPermission,
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// Why.
    pub reason: Reason,
}

/// Why the state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The effective priority changed.
    Health(Cause),
    /// No master was ever heard.
    NoMaster,
    /// The master's advertisements stopped.
    MasterSilent {
        /// The master that was.
        master: IpAddr,
        /// How long nothing had been heard of it.
        silent: Duration,
    },
    /// The master sent priority 0.
    MasterLeft {
        /// The master that was.
        master: IpAddr,
    },
    /// The master has a lower rank.
    Preempted {
        /// The master that was.
        master: IpAddr,
        /// Its priority.
        priority: u8,
    },
    /// Another master has a higher rank.
    Outranked {
        /// The other master.
        master: IpAddr,
        /// Its priority.
        priority: u8,
    },
    /// This program did not run for so long that another host may be master.
    Paused {
        /// Time since the last advertisement.
        silent: Duration,
    },
    /// The quorum's permission ended, or did not come in time.
    PermissionLost,
    /// The other members of the sync group moved, for their own reasons.
    Group,
    /// The program was told to stop.
    Shutdown,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Initialize => "initialize",
            Self::Backup => "backup",
            Self::Master => "master",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Health(cause) => fmt::Display::fmt(cause, f),
            Self::NoMaster => f.write_str("no master was heard"),
            Self::MasterSilent { master, .. } => write!(f, "master {master} fell silent"),
            Self::MasterLeft { master } => write!(f, "master {master} left"),
            Self::Preempted { master, priority } => write!(f, "master {master} has only priority {priority}"),
            Self::Outranked { master, priority } => write!(f, "master {master} has priority {priority}"),
            Self::Paused { silent } => {
                write!(f, "this program did not run for {} ms, another host may be master", silent.as_millis())
            }
            Self::PermissionLost => f.write_str("most of the cluster is out of reach"),
            Self::Group => f.write_str("its sync group moved"),
            Self::Shutdown => f.write_str("told to stop"),
        }
    }
}
