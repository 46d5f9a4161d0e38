//! Causes and tracks for people. The real-time thread knows tracks by number; here, on the ordinary thread, they get their
//! names.

use std::fmt;

use evermq_config::vip::{Track, TrackWhat};
use serde::Serialize;

use super::{Cause, Effect, Level, Part, TrackId, TrackState, same_object};
use crate::fsm::Reason;

/// The names of the tracks.
#[derive(Debug, Clone, Default)]
pub struct Names(Vec<String>);

impl Names {
    /// The names of `tracks`.
    #[must_use]
    pub fn new(tracks: &[Track]) -> Self {
        Self(tracks.iter().map(|track| track.name.clone()).collect())
    }

    /// `cause` in words.
    #[must_use]
    pub fn cause(&self, cause: Cause) -> String {
        Named { cause, names: self }.to_string()
    }

    /// `reason` in words.
    #[must_use]
    pub fn reason(&self, reason: Reason) -> String {
        if let Reason::Health(cause) = reason { self.cause(cause) } else { reason.to_string() }
    }

    fn track(&self, id: TrackId) -> String {
        self.0.get(usize::from(id.0)).map_or_else(|| id.to_string(), |name| format!("track \"{name}\""))
    }
}

struct Named<'a> {
    cause: Cause,
    names: &'a Names,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_cause(f, self.cause, &|id| self.names.track(id))
    }
}

pub(super) fn write_cause(f: &mut fmt::Formatter<'_>, cause: Cause, track: &dyn Fn(TrackId) -> String) -> fmt::Result {
    f.write_str(match cause {
        Cause::LbNotSeen => "the local lb has not been reached yet",
        Cause::LbGone => "the local lb is gone",
        Cause::LbSilent => "the local lb is silent",
        Cause::LbDown => "the local lb reports that it is down",
        Cause::LbHeldDown => "the local lb is back, hold-down",
        Cause::LbDegraded => "the local lb reaches no broker",
        Cause::LbUnsteady => "the local lb is up and was not before, hold-down",
        Cause::LbUp => "the local lb is up",
        Cause::TrackPending(id) => return write!(f, "{} has not been checked yet", track(id)),
        Cause::TrackFailed(id) => return write!(f, "{} has failed", track(id)),
        Cause::TrackHeldDown(id) => return write!(f, "{} is good again, hold-down", track(id)),
        Cause::TrackValue(id) => return write!(f, "{} has its number", track(id)),
        Cause::TrackGood(id) => return write!(f, "{} is good", track(id)),
        Cause::LinkDown => "the interface of the VIP is down",
        Cause::LinkHeldDown => "the interface of the VIP is up again, hold-down",
        Cause::AddressRefused => "the kernel refuses the VIP",
    })
}

/// Everything that the standing is made of, as the state shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// The level that the lb stands for: `fault`, `degraded` or `full`.
    pub lb: &'static str,
    /// Why.
    pub lb_reason: String,
    /// Each track.
    pub tracks: Vec<ShownTrack>,
}

/// One track, as the state shows it.
#[derive(Debug, Clone, Serialize)]
pub struct ShownTrack {
    /// Its name.
    pub name: String,
    /// `script`, `file`, `interface` or `process`.
    pub kind: &'static str,
    /// As configured.
    pub weight: i16,
    /// `pending`, `good`, `failed`, `held down`, or a file's number.
    pub state: String,
    /// `fault`, `last resort`, or what is added to the priority; none where it changes nothing.
    pub effect: Option<String>,
    #[serde(skip)]
    raw: TrackState,
    #[serde(skip)]
    what: TrackWhat,
}

/// A change of a track, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The track's name.
    pub name: String,
    /// Its state before.
    pub from: String,
    /// Its state after.
    pub to: String,
    /// What that does to the priority.
    pub effect: Option<String>,
}

impl Shown {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(tracks: &[Track]) -> Self {
        let tracks = tracks.iter().map(|track| ShownTrack {
            name: track.name.clone(),
            kind: kind(&track.what),
            weight: track.weight,
            state: written(TrackState::Pending),
            effect: None,
            raw: TrackState::Pending,
            what: track.what.clone(),
        });
        Self { lb: level(Level::Fault), lb_reason: Cause::LbNotSeen.to_string(), tracks: tracks.collect() }
    }

    /// After a reload: what stays keeps its state until the tracker tells it again.
    #[must_use]
    pub fn reloaded(&self, tracks: &[Track]) -> Self {
        let mut fresh = Self::new(tracks);
        for (shown, track) in fresh.tracks.iter_mut().zip(tracks) {
            if let Some(before) = self.find(track) {
                (shown.state, shown.effect, shown.raw) = (before.state.clone(), before.effect.clone(), before.raw);
            }
        }
        Self { lb: self.lb, lb_reason: self.lb_reason.clone(), ..fresh }
    }

    /// Takes a part in; says what to log if it is a track whose state has changed.
    pub fn apply(&mut self, part: Part) -> Option<Change> {
        match part {
            Part::Lb { level: to, cause } => {
                self.lb = level(to);
                self.lb_reason = cause.to_string();
                None
            }
            Part::Track { id, state, effect } => {
                let track = self.tracks.get_mut(usize::from(id.0))?;
                let to = written(state);
                let from = std::mem::replace(&mut track.state, to.clone());
                track.raw = state;
                track.effect = effected(effect);
                (from != to).then(|| Change { name: track.name.clone(), from, to, effect: track.effect.clone() })
            }
        }
    }

    /// Where this track stands, for [`crate::checks::Checks::new`] after a reload; none if it is a new one, or one whose
    /// object is another.
    #[must_use]
    pub fn state(&self, track: &Track) -> Option<TrackState> {
        self.find(track).map(|track| track.raw)
    }

    fn find(&self, track: &Track) -> Option<&ShownTrack> {
        self.tracks.iter().find(|shown| shown.name == track.name && same_object(&shown.what, &track.what))
    }
}

fn kind(what: &TrackWhat) -> &'static str {
    match what {
        TrackWhat::Script(_) => "script",
        TrackWhat::File { .. } => "file",
        TrackWhat::Interface { .. } => "interface",
        TrackWhat::Process { .. } => "process",
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Fault => "fault",
        Level::Degraded => "degraded",
        Level::Full => "full",
    }
}

fn written(state: TrackState) -> String {
    match state {
        TrackState::Pending | TrackState::Added => "pending".to_owned(),
        TrackState::Good => "good".to_owned(),
        TrackState::HeldDown => "held down".to_owned(),
        TrackState::Failed => "failed".to_owned(),
        TrackState::Value(value) => value.to_string(),
    }
}

fn effected(effect: Effect) -> Option<String> {
    match effect {
        Effect::None => None,
        Effect::Adjust(by) => Some(format!("{by:+}")),
        Effect::LastResort => Some("last resort".to_owned()),
        Effect::Fault => Some("fault".to_owned()),
    }
}
