//! What this host's health makes of its priority: the local lb's, and that of everything else that is tracked. Pure: no
//! socket, no clock.
//!
//! ```text
//!   level      effective priority
//!   Full       as configured, adjusted by the weights of the tracks
//!   Degraded   1: last resort, so the VIP does not vanish when brokers are away everywhere
//!   Fault      none: this host must not hold the VIP
//! ```
//!
//! | module | subject |
//! |---|---|
//! | `standing` | the outcome: level, adjustment, cause |
//! | `lb` | the level that the local lb's health stands for |
//! | `sources` | scripts, files, interfaces and processes with their weights |
//! | `steady` | the hold-down of a level that comes back |
//! | [`check`] | when a script runs, and what its runs amount to |
//! | [`names`] | causes and states for people, on the ordinary thread |
//!
//! A track that has not been checked since the program started counts as failed: a host does not claim the VIP before its
//! checks have passed once. One that comes with a reload counts for nothing until it has been checked.

pub mod check;
mod lb;
pub mod names;
mod sources;
mod standing;
mod steady;

use std::time::{Duration, Instant};

use evermq_daemon::health::Health;

use self::lb::Lb;
pub use self::sources::{Effect, LARGEST_ADJUSTMENT, TrackState, Tracks, Verdict, same_object};
pub use self::standing::{Cause, Effective, LAST_RESORT, Level, OWNER, Part, Standing, TrackId};

/// Between two attempts to connect to an lb that is absent.
pub const RECONNECT: Duration = Duration::from_millis(20);

/// A fall this soon after a rise counts as flapping.
pub const FLAP_MEMORY: Duration = Duration::from_secs(10);

/// Longest hold before an unsteady host gets its configured priority back.
pub const LONGEST_HOLD: Duration = Duration::from_secs(5);

/// How long a better level must be kept before it counts: three advertisements, the time in which peers notice as well.
#[must_use]
pub fn hold_down(advert_interval: Duration) -> Duration {
    advert_interval * 3
}

/// What changes only with a reload.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// An lb that says nothing for this long is taken for dead.
    pub lb_timeout: Duration,
    /// See [`hold_down`].
    pub hold_down: Duration,
}

/// What the driver has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Connect to the lb, then call [`Tracker::handle_connected`] or [`Tracker::handle_lost`].
    Connect,
    /// A part of the standing has changed; the whole need not have.
    Part(Part),
    /// The standing, or its cause, is now this.
    Standing(Standing),
}

/// Combines everything that this host is judged by.
#[derive(Debug)]
pub struct Tracker {
    settings: Settings,
    lb: Lb,
    lb_told: (Level, Cause),
    tracks: Tracks,
    standing: Standing,
}

impl Tracker {
    /// A tracker that has not seen its lb, nor any verdict; the first action is to connect.
    #[must_use]
    pub fn new(settings: Settings, tracks: Tracks, now: Instant) -> Self {
        let lb = Lb::new(now);
        let mut tracker = Self { settings, lb_told: lb.standing(), lb, tracks, standing: Standing::UNKNOWN };
        tracker.push(Action::Connect);
        tracker
    }

    /// The standing as last given out.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The lb accepted the connection.
    pub fn handle_connected(&mut self, now: Instant) {
        self.lb.handle_connected(&self.settings, now);
        self.tell();
    }

    /// The lb refused, ended the stream, or broke the protocol.
    pub fn handle_lost(&mut self, now: Instant) {
        self.lb.handle_lost(&self.settings, now);
        self.tell();
    }

    /// The lb said how it is.
    pub fn handle_health(&mut self, health: Health, now: Instant) {
        self.lb.handle_health(health, &self.settings, now);
        self.tell();
    }

    /// A check has found something out about the track at `index`. One that does not exist is ignored: it was taken from the
    /// configuration while its check was under way.
    pub fn handle_track(&mut self, index: usize, verdict: Verdict, now: Instant) {
        if let Some(source) = self.tracks.sources.get_mut(index) {
            source.handle(verdict, self.settings.hold_down, now);
            self.tell();
        }
    }

    /// The configuration was reloaded. Gives the old tracks back, for a thread that may free memory.
    #[must_use = "freeing memory may take long; let the ordinary thread do it"]
    pub fn handle_settings(&mut self, settings: Settings, mut tracks: Tracks) -> Tracks {
        for (source, before) in tracks.sources.iter_mut().zip(&tracks.before) {
            if let Some(before) = before.and_then(|before| self.tracks.sources.get(before)) {
                source.resume(before);
            }
        }
        tracks.actions.extend(self.tracks.actions.drain(..));
        self.settings = settings;
        let old = std::mem::replace(&mut self.tracks, tracks);
        // Their places may have changed: whoever shows them starts anew.
        for index in 0..self.tracks.len() {
            self.tell_track(index, true);
        }
        self.tell();
        old
    }

    /// A deadline of [`Tracker::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.lb.handle_timeout(&self.settings, now) {
            self.push(Action::Connect);
        }
        for source in &mut self.tracks.sources {
            source.handle_timeout(self.settings.hold_down, now);
        }
        self.tell();
    }

    /// When [`Tracker::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let tracks = self.tracks.sources.iter().filter_map(sources::Source::poll_timeout);
        tracks.chain(self.lb.poll_timeout()).min()
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.tracks.actions.pop_front()
    }

    fn push(&mut self, action: Action) {
        self.tracks.actions.push_back(action);
    }

    /// Tells what has changed: the parts, then the whole.
    fn tell(&mut self) {
        let lb = self.lb.standing();
        if lb != self.lb_told {
            self.lb_told = lb;
            self.push(Action::Part(Part::Lb { level: lb.0, cause: lb.1 }));
        }
        for index in 0..self.tracks.len() {
            self.tell_track(index, false);
        }
        let standing = self.judge();
        if standing != self.standing {
            self.standing = standing;
            self.push(Action::Standing(standing));
        }
    }

    fn tell_track(&mut self, index: usize, always: bool) {
        let Some(source) = self.tracks.sources.get_mut(index) else { return };
        let shown = source.shown();
        if always || shown != source.told {
            source.told = shown;
            let (state, effect) = shown;
            self.push(Action::Part(Part::Track { id: TrackId::at(index), state, effect }));
        }
    }

    /// The whole. Its cause is what weighs most: a fault before the last resort before what lowers the priority most, and
    /// the lb before a track.
    fn judge(&self) -> Standing {
        let (mut level, mut cause) = self.lb.standing();
        let mut adjustment = 0_i16;
        let mut worst = None;
        let mut raised = None;
        for (index, source) in self.tracks.sources.iter().enumerate() {
            let id = TrackId::at(index);
            let forbids = match source.effect() {
                Effect::Fault => Level::Fault,
                Effect::LastResort => Level::Degraded,
                Effect::Adjust(by) => {
                    adjustment = adjustment.saturating_add(by);
                    if by > 0 {
                        raised = raised.or(Some(source.cause(id)));
                    }
                    Level::Full
                }
                Effect::None => Level::Full,
            };
            if forbids < level {
                (level, cause) = (forbids, source.cause(id));
            }
            let cost = source.cost(id);
            if cost.map(|(cost, _)| cost) > worst.map(|(cost, _)| cost) {
                worst = cost;
            }
        }
        if level == Level::Full {
            cause = worst.map(|(_, cause)| cause).or(raised).unwrap_or(cause);
        }
        let adjustment = adjustment.clamp(-LARGEST_ADJUSTMENT, LARGEST_ADJUSTMENT);
        Standing { level, adjustment, cause }
    }
}

#[cfg(test)]
mod tests;
