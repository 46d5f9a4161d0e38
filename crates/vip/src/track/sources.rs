//! Scripts, files, interfaces and processes: what each adds to the priority, or forbids.
//!
//! ```text
//!   weight       pending, failed      good          file that holds n
//!   0            fault                nothing       fault unless n = 0
//!   negative     weight               nothing       n * weight
//!   positive     nothing              weight        n * weight
//! ```
//!
//! An interface or a process that comes back is held down as the lb is (see `steady.rs`); a script is held by its own
//! `rise` and `fall`, and a file by whoever writes it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use evermq_config::vip::{Track, TrackWhat};

use super::steady::Steady;
use super::{Action, Cause, Level, TrackId};

/// The most that tracks can move a priority: from one end of the range to the other.
pub const LARGEST_ADJUSTMENT: i16 = 253;

/// What a check found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Pending,
    /// As it should be.
    Good,
    /// Not as it should be.
    Failed,
    /// The number in a file; 0 where there is none.
    Value(i32),
}

impl Verdict {
    /// The verdict on an interface that is up and running, or is not.
    #[must_use]
    pub fn of_interface(up: bool) -> Self {
        if up { Self::Good } else { Self::Failed }
    }
}

/// What one track does to the standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Adds this to the priority.
    Adjust(i16),
    /// Leaves this host only as the last resort.
    LastResort,
    /// Forbids this host to hold the VIP.
    Fault,
}

/// Where one track stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackState {
    /// Not checked since the program started; counts as failed.
    Pending,
    /// Came with a reload and is not checked yet; counts for nothing, as the host may be master.
    Added,
    /// Good.
    Good,
    /// Good again, and held down.
    HeldDown,
    /// Failed.
    Failed,
    /// A file's number.
    Value(i32),
}

/// Everything that is tracked beside the lb, made on the ordinary thread for [`super::Tracker`].
#[derive(Debug)]
pub struct Tracks {
    pub(super) sources: Vec<Source>,
    /// For each of them, its index before the reload.
    pub(super) before: Vec<Option<usize>>,
    /// What the driver has to do. It comes from here, so that the real-time thread does not allocate it.
    pub(super) actions: VecDeque<Action>,
}

impl Tracks {
    /// At the start of the program: all of them are pending.
    #[must_use]
    pub fn new(tracks: &[Track]) -> Self {
        Self::of(tracks, TrackState::Pending, vec![None; tracks.len()])
    }

    /// After a reload: a track whose name and object stay keeps its verdict, whatever its weight and its intervals are.
    #[must_use]
    pub fn reloaded(old: &[Track], new: &[Track]) -> Self {
        let same = |new: &Track| old.iter().position(|old| old.name == new.name && same_object(&old.what, &new.what));
        Self::of(new, TrackState::Added, new.iter().map(same).collect())
    }

    fn of(tracks: &[Track], state: TrackState, before: Vec<Option<usize>>) -> Self {
        Self {
            sources: tracks.iter().map(|track| Source::new(track, state)).collect(),
            before,
            // Between two drains: connect, each part, the whole; and as many again for an input that comes before the drain.
            actions: VecDeque::with_capacity(2 * (tracks.len() + 3)),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }
}

/// Whether two entries watch the same thing, so that a verdict on one holds for the other.
#[must_use]
pub fn same_object(a: &TrackWhat, b: &TrackWhat) -> bool {
    match (a, b) {
        (TrackWhat::Script(a), TrackWhat::Script(b)) => {
            (&a.command, &a.user, a.shell) == (&b.command, &b.user, b.shell)
        }
        (
            TrackWhat::Script(_) | TrackWhat::File { .. } | TrackWhat::Interface { .. } | TrackWhat::Process { .. },
            _,
        ) => a == b,
    }
}

/// One tracked thing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    weight: i16,
    /// Whether coming back is held down.
    held: bool,
    state: State,
    /// What was told last.
    pub(super) told: (TrackState, Effect),
}

#[derive(Debug, Clone, Copy)]
enum State {
    Pending,
    Added,
    Level(Steady),
    Value(i32),
}

impl Source {
    fn new(track: &Track, state: TrackState) -> Self {
        let held = match track.what {
            TrackWhat::Interface { .. } | TrackWhat::Process { .. } => true,
            TrackWhat::Script(_) | TrackWhat::File { .. } => false,
        };
        let (weight, added) = (track.weight, state == TrackState::Added);
        let state = if added { State::Added } else { State::Pending };
        let mut source = Self { weight, held, state, told: (TrackState::Pending, Effect::None) };
        source.told = source.shown();
        source
    }

    /// Goes on where the track of the same object was before a reload.
    pub(super) fn resume(&mut self, before: &Self) {
        self.state = before.state;
    }

    pub(super) fn handle(&mut self, verdict: Verdict, hold_down: Duration, now: Instant) {
        let heard = match verdict {
            Verdict::Pending => {
                self.state = State::Pending;
                return;
            }
            Verdict::Value(value) => {
                self.state = State::Value(value);
                return;
            }
            Verdict::Good => Level::Full,
            Verdict::Failed => Level::Fault,
        };
        match &mut self.state {
            State::Level(steady) if self.held => steady.hear(heard, hold_down, now),
            // The first verdict decides at once: there is nothing yet that it could flap with.
            State::Pending | State::Added | State::Value(_) | State::Level(_) => {
                self.state = State::Level(Steady::new(heard));
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, hold_down: Duration, now: Instant) {
        match &mut self.state {
            State::Level(steady) => steady.handle_timeout(hold_down, now),
            State::Pending | State::Added | State::Value(_) => {}
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Level(steady) => steady.poll_timeout(),
            State::Pending | State::Added | State::Value(_) => None,
        }
    }

    pub(super) fn shown(&self) -> (TrackState, Effect) {
        (self.state(), self.effect())
    }

    fn state(&self) -> TrackState {
        match &self.state {
            State::Pending => TrackState::Pending,
            State::Added => TrackState::Added,
            State::Value(value) => TrackState::Value(*value),
            State::Level(steady) if steady.on_trial() => TrackState::HeldDown,
            State::Level(steady) => match steady.level() {
                Level::Full => TrackState::Good,
                Level::Degraded | Level::Fault => TrackState::Failed,
            },
        }
    }

    pub(super) fn effect(&self) -> Effect {
        let level = match &self.state {
            State::Added => return Effect::None,
            State::Value(0) => return Effect::None,
            State::Value(_) if self.weight == 0 => return Effect::Fault,
            State::Value(value) => return multiplied(*value, self.weight),
            State::Pending => Level::Fault,
            State::Level(steady) => steady.level(),
        };
        match (level, self.weight) {
            (Level::Fault, 0) => Effect::Fault,
            (Level::Degraded, 0) => Effect::LastResort,
            (Level::Full, 0) => Effect::None,
            (Level::Fault | Level::Degraded, weight) if weight < 0 => Effect::Adjust(weight),
            (Level::Full, weight) if weight > 0 => Effect::Adjust(weight),
            (Level::Fault | Level::Degraded | Level::Full, _) => Effect::None,
        }
    }

    /// How much worse this makes the host than it could be, and why; nothing where it takes nothing away.
    pub(super) fn cost(&self, id: TrackId) -> Option<(u16, Cause)> {
        let cost = match (self.effect(), self.state()) {
            (Effect::Adjust(adjustment), _) if adjustment < 0 => adjustment.unsigned_abs(),
            // What would be added if it were good.
            (Effect::None, TrackState::Failed | TrackState::Pending | TrackState::HeldDown) => {
                self.weight.unsigned_abs()
            }
            (Effect::None | Effect::Adjust(_) | Effect::LastResort | Effect::Fault, _) => 0,
        };
        (cost > 0).then(|| (cost, self.cause(id)))
    }

    pub(super) fn cause(&self, id: TrackId) -> Cause {
        match self.state() {
            TrackState::Pending => Cause::TrackPending(id),
            TrackState::Failed => Cause::TrackFailed(id),
            TrackState::HeldDown => Cause::TrackHeldDown(id),
            TrackState::Value(_) => Cause::TrackValue(id),
            TrackState::Added | TrackState::Good => Cause::TrackGood(id),
        }
    }
}

fn multiplied(value: i32, weight: i16) -> Effect {
    let largest = i32::from(LARGEST_ADJUSTMENT);
    let product = value.saturating_mul(i32::from(weight)).clamp(-largest, largest);
    i16::try_from(product).map_or(Effect::None, Effect::Adjust)
}
