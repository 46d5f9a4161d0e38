//! What this host's health amounts to, and why.

use std::fmt;

use super::{Effect, TrackState, names};

/// Priority of a host whose lb reaches no broker. Configured priorities start at 2.
pub const LAST_RESORT: u8 = 1;

/// Priority of the owner of the addresses (RFC 9568 §6.1): never adjusted.
pub const OWNER: u8 = 255;

/// How fit a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Must not hold the VIP.
    Fault,
    /// Holds it if nobody better does.
    Degraded,
    /// Fit.
    Full,
}

/// This host's standing, the same for all of its virtual routers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How fit it is.
    pub level: Level,
    /// Added to the configured priority while the level is full.
    pub adjustment: i16,
    /// Why.
    pub cause: Cause,
}

impl Standing {
    /// The standing of a host that has just started.
    pub const UNKNOWN: Self = Self { level: Level::Fault, adjustment: 0, cause: Cause::LbNotSeen };

    /// The standing in the elections of one virtual router whose configured priority is `base`.
    #[must_use]
    pub fn effective(&self, base: u8) -> Effective {
        let priority = match self.level {
            Level::Fault => None,
            Level::Degraded => Some(LAST_RESORT),
            // RFC 9568 §6.1: the owner's priority must be 255.
            Level::Full if base == OWNER => Some(OWNER),
            Level::Full => {
                let adjusted = i16::from(base).saturating_add(self.adjustment);
                // Neither the owner's priority nor that of the last resort can be reached by weights.
                let clamped = adjusted.clamp(i16::from(LAST_RESORT) + 1, i16::from(OWNER) - 1);
                Some(u8::try_from(clamped).unwrap_or(base))
            }
        };
        Effective { priority, cause: self.cause }
    }
}

/// This host's standing in the elections of one virtual router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effective {
    /// Priority to advertise; none where this host must not hold the VIP.
    pub priority: Option<u8>,
    /// Why.
    pub cause: Cause,
}

/// One of the tracks, by its place in the configuration. [`names::Names`] knows its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrackId(pub u16);

impl TrackId {
    pub(super) fn at(index: usize) -> Self {
        Self(u16::try_from(index).unwrap_or(u16::MAX))
    }
}

/// Why a host has the standing that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The lb has not been reached since this program started.
    LbNotSeen,
    /// The lb's socket refuses, is missing, or has ended.
    LbGone,
    /// The lb is connected and says nothing.
    LbSilent,
    /// The lb says that it is down.
    LbDown,
    /// The lb is back; the hold-down runs.
    LbHeldDown,
    /// The lb reaches no broker.
    LbDegraded,
    /// The lb is up and was unsteady before; a longer hold-down runs.
    LbUnsteady,
    /// The lb is up, and no track says otherwise.
    LbUp,
    /// A track has not been checked yet.
    TrackPending(TrackId),
    /// A track has failed.
    TrackFailed(TrackId),
    /// A track is good again; the hold-down runs.
    TrackHeldDown(TrackId),
    /// A file's number counts.
    TrackValue(TrackId),
    /// A track is good and adds to the priority.
    TrackGood(TrackId),
    /// The VIP's interface is down or gone.
    LinkDown,
    /// The VIP's interface is up again; the hold-down runs.
    LinkHeldDown,
    /// The kernel would not put an address up.
    AddressRefused,
}

/// A part of the standing, for logs and the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The lb.
    Lb {
        /// The level that it stands for.
        level: Level,
        /// Why.
        cause: Cause,
    },
    /// A track.
    Track {
        /// Which.
        id: TrackId,
        /// How it is.
        state: TrackState,
        /// What that does.
        effect: Effect,
    },
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fault => "fault",
            Self::Degraded => "degraded",
            Self::Full => "full",
        })
    }
}

impl fmt::Display for TrackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "track {}", u32::from(self.0) + 1)
    }
}

/// Without names: see [`names::Names::cause`].
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        names::write_cause(f, *self, &|id| id.to_string())
    }
}
