//! Another lb's list, as it tells it, kept when it can tell no more.

use std::time::{Duration, Instant};

use super::{Change, Connection, Roster};

/// How long the list of an lb that is away is kept: its clients have noticed by themselves then, and their ports are others'.
pub const KEPT: Duration = Duration::from_secs(600);
/// Numbers beyond `limit` that may be vacant, in all: each worker's highest is that of its busiest moment.
const VACANT: usize = 4096;

/// Workers of one lb: no machine has more cores.
const MAX_WORKERS: u16 = 1024;

/// The list of one other lb.
#[derive(Debug)]
pub struct Mirror {
    limit: usize,
    current: List,
    /// What is told since it connected, until that is a whole list.
    incoming: Option<List>,
    connected: bool,
    lost: Option<Instant>,
    not_kept: u64,
}

/// One part for each worker of the other lb.
#[derive(Debug, Default)]
struct List {
    parts: Vec<Part>,
    /// The part that is told anew.
    telling: Option<(usize, Roster)>,
}

#[derive(Debug, Default)]
struct Part {
    roster: Roster,
    whole: bool,
}

/// The other lb tells something that it cannot mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it tells of worker {0}, which it has not announced or not begun with")]
pub struct OutOfTurn(pub u16);

impl Mirror {
    /// Nothing is known yet; at most `limit` connections will be.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, current: List::default(), incoming: None, connected: false, lost: None, not_kept: 0 }
    }

    /// It has connected, and will tell the list of each of its workers. What it told before is kept until then: it may be
    /// gone again before it is through. Workers beyond all measure have no list.
    pub fn handle_connected(&mut self, workers: u16) {
        let parts = (0..workers.min(MAX_WORKERS)).map(|_| Part::default()).collect();
        self.incoming = Some(List { parts, telling: None });
        self.connected = true;
        self.lost = None;
    }

    /// It begins to tell the whole list of one worker.
    ///
    /// # Errors
    /// There is no such worker.
    pub fn handle_begin(&mut self, worker: u16) -> Result<(), OutOfTurn> {
        let list = self.telling();
        list.parts.get(usize::from(worker)).ok_or(OutOfTurn(worker))?;
        list.telling = Some((worker.into(), Roster::default()));
        Ok(())
    }

    /// It tells what has changed.
    ///
    /// # Errors
    /// The list of that worker has not been told yet.
    pub fn handle_changes(&mut self, worker: u16, changes: &[Change]) -> Result<(), OutOfTurn> {
        let limit = self.limit;
        let list = self.telling();
        // The list that is replaced is not counted: while it is told, there may be two of it.
        let mut room = Room::of(list, worker.into(), limit);
        let roster = match &mut list.telling {
            Some((telling, roster)) if *telling == usize::from(worker) => roster,
            _ => {
                let part = list.parts.get_mut(usize::from(worker)).filter(|part| part.whole);
                &mut part.ok_or(OutOfTurn(worker))?.roster
            }
        };
        let mut not_kept = 0;
        for change in changes {
            match *change {
                Change::Left(number) => {
                    room.entries += usize::from(roster.take(number).is_some());
                }
                Change::Joined(number, connection) => {
                    room.entries += usize::from(roster.take(number).is_some());
                    let kept = room.take(number, roster.slots()) && roster.put(number, connection);
                    not_kept += u64::from(!kept);
                }
            }
        }
        self.not_kept += not_kept;
        Ok(())
    }

    /// The list of that worker is whole.
    ///
    /// # Errors
    /// It was not begun.
    pub fn handle_end(&mut self, worker: u16) -> Result<(), OutOfTurn> {
        let list = self.telling();
        let (_, roster) = list.telling.take_if(|(part, _)| *part == usize::from(worker)).ok_or(OutOfTurn(worker))?;
        list.parts[usize::from(worker)] = Part { roster, whole: true };
        if list.parts.iter().all(|part| part.whole)
            && let Some(list) = self.incoming.take()
        {
            self.current = list;
        }
        Ok(())
    }

    /// It cannot tell any more. Its list is what it was.
    pub fn handle_lost(&mut self, now: Instant) {
        self.incoming = None;
        self.current.telling = None;
        self.connected = false;
        self.lost = Some(now);
    }

    /// Forgets what is too old.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.current = List::default();
            self.lost = None;
        }
    }

    /// When [`Mirror::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.lost.map(|lost| lost + KEPT)
    }

    /// Its connections, as far as they are known.
    pub fn connections(&self) -> impl Iterator<Item = Connection> {
        self.current.parts.iter().flat_map(|part| part.roster.iter().map(|(_, connection)| connection))
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.current.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers that memory is held for: more than there are connections, but never out of proportion.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.current.parts.iter().map(|part| part.roster.slots()).sum()
    }

    /// Whether it can tell.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.connected
    }

    /// Connections that were more than `limit`, since the start.
    #[must_use]
    pub const fn not_kept(&self) -> u64 {
        self.not_kept
    }

    /// The list that is being told.
    fn telling(&mut self) -> &mut List {
        self.incoming.as_mut().unwrap_or(&mut self.current)
    }
}

impl List {
    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.roster.len()).sum()
    }
}

/// What a list may still take.
struct Room {
    entries: usize,
    slots: usize,
}

impl Room {
    /// For `worker`, whose part may be one that is told anew.
    fn of(list: &List, worker: usize, limit: usize) -> Self {
        let anew = list.telling.as_ref().filter(|(part, _)| *part == worker).map(|(_, roster)| roster);
        let rosters = list.parts.iter().enumerate().map(|(index, part)| match anew {
            Some(roster) if index == worker => roster,
            _ => &part.roster,
        });
        let (entries, slots) = rosters.fold((0, 0), |sum, roster| (sum.0 + roster.len(), sum.1 + roster.slots()));
        Self { entries: limit.saturating_sub(entries), slots: (2 * limit + VACANT).saturating_sub(slots) }
    }

    /// Takes the room for one entry with this number in a list with that many slots; `false` if there is none.
    fn take(&mut self, number: u32, slots: usize) -> bool {
        let more = (number as usize + 1).saturating_sub(slots);
        let fits = self.entries > 0 && more <= self.slots;
        if fits {
            self.entries -= 1;
            self.slots -= more;
        }
        fits
    }
}
