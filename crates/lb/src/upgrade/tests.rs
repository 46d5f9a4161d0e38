//! Both sides on a virtual clock: whatever fails at whatever step, each socket has exactly one owner.

#![expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::handover::{self, Handover, Outcome};
use super::takeover::{self, Takeover};

/// Connections that can be moved from the start, and one that can only be moved later.
const CONNECTIONS: usize = 6;
const LATE: usize = 5;
const AT_ONCE: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Hello,
    Offer,
    Ready,
    Refused(String),
    Begin,
    Began,
    Batch(u64, Vec<usize>),
    Took(u64),
    Settled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    KillOld(usize),
    KillNew(usize),
    /// The new process stands still from then on.
    FreezeNew(usize),
    /// It cannot serve.
    CannotPrepare,
}

/// Who reads and writes a socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Owners {
    old: bool,
    new: bool,
}

struct World {
    now: Instant,
    fault: Fault,
    steps: usize,
    old: Handover,
    new: Takeover,
    old_lives: bool,
    new_lives: bool,
    new_frozen: bool,
    to_old: VecDeque<Word>,
    to_new: VecDeque<Word>,
    listening: Owners,
    connections: [Owners; CONNECTIONS],
    late_is_ready: bool,
    /// The old process's copies.
    copies: BTreeMap<u64, Vec<usize>>,
    /// The new process's, before it serves them.
    received: BTreeMap<u64, Vec<usize>>,
    /// Batches that the new process has written a deed for.
    deeds: Vec<u64>,
    /// The new process had a deed for these when it ended.
    lost_with_new: Vec<usize>,
    offered: bool,
    settled: bool,
    outcome: Option<Outcome>,
    ended_with: Option<String>,
}

impl World {
    fn new(fault: Fault) -> Self {
        let now = Instant::now();
        Self {
            now,
            fault,
            steps: 0,
            old: Handover::new(now),
            new: Takeover::new(),
            old_lives: true,
            new_lives: true,
            new_frozen: false,
            to_old: VecDeque::new(),
            to_new: VecDeque::new(),
            listening: Owners { old: true, new: false },
            connections: [Owners { old: true, new: false }; CONNECTIONS],
            late_is_ready: false,
            copies: BTreeMap::new(),
            received: BTreeMap::new(),
            deeds: Vec::new(),
            lost_with_new: Vec::new(),
            offered: false,
            settled: false,
            outcome: None,
            ended_with: None,
        }
    }

    /// To the end; gives how many steps there were.
    fn run(&mut self) -> usize {
        for _ in 0..10_000 {
            self.strike();
            self.check();
            if !self.turn() {
                return self.steps;
            }
            self.steps += 1;
        }
        panic!("it never ends");
    }

    fn strike(&mut self) {
        match self.fault {
            Fault::KillOld(at) if at == self.steps => {
                self.old_lives = false;
                self.connections.iter_mut().for_each(|owners| owners.old = false);
                self.listening.old = false;
            }
            Fault::KillNew(at) if at == self.steps => self.kill_new(),
            Fault::FreezeNew(at) if at == self.steps => self.new_frozen = true,
            _ => {}
        }
    }

    fn kill_new(&mut self) {
        self.new_lives = false;
        self.listening.new = false;
        for (index, owners) in self.connections.iter_mut().enumerate() {
            if std::mem::take(&mut owners.new) {
                self.lost_with_new.push(index);
            }
        }
        // The deed was written, and nothing came of it.
        self.lost_with_new.extend(self.deeds.iter().filter_map(|batch| self.received.remove(batch)).flatten());
    }

    fn check(&self) {
        let twice = |owners: &Owners| owners.old && owners.new;
        assert!(!twice(&self.listening), "two listen at step {}: {:?}", self.steps, self.fault);
        assert!(!self.connections.iter().any(twice), "two relay at step {}: {:?}", self.steps, self.fault);
    }

    /// One thing that can happen, the new process first.
    fn turn(&mut self) -> bool {
        self.turn_new() || self.turn_old() || self.wait()
    }

    fn turn_new(&mut self) -> bool {
        if !self.new_lives || self.new_frozen {
            return false;
        }
        if let Some(action) = self.new.poll_action() {
            self.act_new(action);
            return true;
        }
        let event = match self.to_new.pop_front() {
            Some(Word::Offer) => takeover::Event::Offer,
            Some(Word::Begin) => takeover::Event::Begin,
            Some(Word::Batch(batch, connections)) => {
                self.received.insert(batch, connections);
                takeover::Event::Batch(batch)
            }
            Some(Word::Settled) => takeover::Event::Settled,
            Some(word) => takeover::Event::Strange(format!("{word:?}")),
            None if !self.old_lives && self.ended_with.is_none() => {
                self.ended_with = Some("the old one has ended".to_owned());
                takeover::Event::Lost
            }
            None => return false,
        };
        self.new.handle_event(event);
        true
    }

    fn act_new(&mut self, action: takeover::Action) {
        match action {
            takeover::Action::Greet => self.to_old.push_back(Word::Hello),
            takeover::Action::Prepare => {
                self.offered = true;
                let done = if self.fault == Fault::CannotPrepare { Err("no certificate".to_owned()) } else { Ok(()) };
                self.new.handle_event(takeover::Event::Prepared(done));
            }
            takeover::Action::Ready => self.to_old.push_back(Word::Ready),
            takeover::Action::Refuse(reason) => self.to_old.push_back(Word::Refused(reason)),
            takeover::Action::Began => self.to_old.push_back(Word::Began),
            takeover::Action::TakeCharge => self.listening.new = true,
            takeover::Action::Took(batch) => {
                self.deeds.push(batch);
                self.to_old.push_back(Word::Took(batch));
            }
            takeover::Action::Import(batch) => {
                for index in self.received.remove(&batch).unwrap() {
                    self.connections[index].new = true;
                }
            }
            takeover::Action::Settle | takeover::Action::Farewell => {}
            takeover::Action::Exit(_) => self.kill_new(),
        }
    }

    fn turn_old(&mut self) -> bool {
        if !self.old_lives || self.outcome.is_some() {
            return false;
        }
        if let Some(action) = self.old.poll_action() {
            self.act_old(action);
            return true;
        }
        let event = match self.to_old.pop_front() {
            Some(Word::Hello) => handover::Event::Hello,
            Some(Word::Ready) => handover::Event::Ready,
            Some(Word::Refused(reason)) => handover::Event::Refused(reason),
            Some(Word::Began) => handover::Event::Began,
            Some(Word::Took(batch)) => handover::Event::Took(batch),
            Some(word) => handover::Event::Strange(format!("{word:?}")),
            None if !self.new_lives => handover::Event::Lost,
            None => return false,
        };
        self.old.handle_event(event, self.now);
        true
    }

    fn act_old(&mut self, action: handover::Action) {
        match action {
            handover::Action::Offer => self.to_new.push_back(Word::Offer),
            handover::Action::Suspend => {
                self.listening.old = false;
                self.old.handle_event(handover::Event::Suspended, self.now);
            }
            handover::Action::Begin => self.to_new.push_back(Word::Begin),
            handover::Action::Export { batch } => {
                let late = self.late_is_ready;
                let own = |(index, owners): (usize, &mut Owners)| {
                    (owners.old && (late || index != LATE)).then(|| {
                        owners.old = false;
                        index
                    })
                };
                let moved: Vec<_> = self.connections.iter_mut().enumerate().filter_map(own).take(AT_ONCE).collect();
                let left = self.connections.iter().filter(|owners| owners.old).count();
                let event = handover::Event::Exported { moved: moved.len(), left };
                if !moved.is_empty() {
                    self.copies.insert(batch, moved.clone());
                    self.to_new.push_back(Word::Batch(batch, moved));
                }
                self.old.handle_event(event, self.now);
            }
            handover::Action::Release(batch) => assert!(self.copies.remove(&batch).is_some()),
            handover::Action::TakeBack(batch) => {
                for index in self.copies.remove(&batch).unwrap() {
                    self.connections[index].old = true;
                }
            }
            handover::Action::Settle => {
                self.settled = true;
                self.to_new.push_back(Word::Settled);
            }
            handover::Action::Kill => self.kill_new(),
            handover::Action::Resume => self.listening.old = true,
            handover::Action::End(outcome) => self.outcome = Some(outcome),
        }
    }

    fn wait(&mut self) -> bool {
        let Some(due) = self.old.poll_timeout().filter(|_| self.old_lives) else { return false };
        self.now = due;
        self.late_is_ready = self.settled;
        self.old.handle_timeout(due);
        true
    }

    fn owned_by(&self, pick: impl Fn(&Owners) -> bool) -> Vec<usize> {
        (0..CONNECTIONS).filter(|&index| pick(&self.connections[index])).collect()
    }
}

fn all() -> Vec<usize> {
    (0..CONNECTIONS).collect()
}

#[test]
fn everything_passes_on_where_nothing_fails() {
    let mut world = World::new(Fault::None);
    world.run();
    assert_eq!(world.outcome, Some(Outcome::Done));
    assert_eq!(world.listening, Owners { old: false, new: true });
    assert_eq!(world.owned_by(|owners| owners.new), all());
    assert!(world.copies.is_empty());
}

#[test]
fn a_new_process_that_cannot_serve_changes_nothing() {
    let mut world = World::new(Fault::CannotPrepare);
    world.run();
    assert_eq!(world.outcome, Some(Outcome::Failed("no certificate".to_owned())));
    assert_eq!(world.listening, Owners { old: true, new: false });
    assert_eq!(world.owned_by(|owners| owners.old), all());
}

/// The new process ends, or stands still, before any step: what it had no deed for lives on in the old one.
#[test]
fn whenever_the_new_process_fails_the_old_one_has_all_that_was_not_handed_over() {
    let steps = World::new(Fault::None).run();
    assert!(steps > 30, "{steps}");
    for fault in (0..steps).flat_map(|at| [Fault::KillNew(at), Fault::FreezeNew(at)]) {
        let mut world = World::new(fault);
        world.run();
        let frozen_at_the_end = world.new_lives && world.new_frozen;
        let mut accounted = world.owned_by(|owners| owners.old);
        accounted.extend(&world.lost_with_new);
        accounted.extend(world.owned_by(|owners| owners.new));
        // One that is in charge is not killed: what is on its way to it waits there.
        if frozen_at_the_end {
            assert!(world.settled, "{fault:?}");
            accounted.extend(world.copies.values().flatten());
            accounted.extend(world.deeds.iter().filter_map(|batch| world.received.get(batch)).flatten());
            accounted.sort_unstable();
            accounted.dedup();
        } else {
            assert!(world.copies.is_empty(), "{fault:?}");
        }
        accounted.sort_unstable();
        assert_eq!(accounted, all(), "{fault:?}");
        match world.outcome {
            Some(Outcome::Failed(_)) => assert!(world.listening.old && !world.settled, "{fault:?}"),
            Some(Outcome::Orphaned(_)) => assert!(world.settled && !world.listening.old, "{fault:?}"),
            Some(Outcome::Done) => assert!(world.settled, "{fault:?}"),
            None => assert!(frozen_at_the_end, "{fault:?}"),
        }
    }
}

/// The old process ends before any step: the new one serves with whatever it was given.
#[test]
fn whenever_the_old_process_ends_the_new_one_serves_with_what_it_has() {
    let steps = World::new(Fault::None).run();
    for at in 0..steps {
        let mut world = World::new(Fault::KillOld(at));
        world.run();
        assert_eq!(world.listening.new, world.offered, "at {at}");
        assert_eq!(world.new_lives, world.offered, "at {at}");
        assert!(world.received.is_empty(), "at {at}: what has come is served");
        for batch in world.copies.values().flatten() {
            assert!(world.connections[*batch].new, "at {at}: what was sent has come");
        }
    }
}

#[test]
fn a_process_that_is_out_of_step_is_ended_and_nothing_changes() {
    let words = [handover::Event::Began, handover::Event::Took(1), handover::Event::Strange("what".to_owned())];
    for word in words {
        let now = Instant::now();
        let mut old = Handover::new(now);
        old.handle_event(word.clone(), now);
        assert_eq!(old.poll_action(), Some(handover::Action::Kill), "{word:?}");
        assert_eq!(old.poll_action(), None);
        old.handle_event(handover::Event::Lost, now);
        let ended = old.poll_action();
        assert!(matches!(ended, Some(handover::Action::End(Outcome::Failed(_)))), "{word:?}: {ended:?}");
        assert_eq!((old.poll_action(), old.poll_timeout()), (None, None));
    }
    let mut new = Takeover::new();
    assert_eq!(new.poll_action(), Some(takeover::Action::Greet));
    new.handle_event(takeover::Event::Batch(1));
    assert!(matches!(new.poll_action(), Some(takeover::Action::Refuse(_))));
    assert!(matches!(new.poll_action(), Some(takeover::Action::Exit(_))));
    assert_eq!(new.poll_action(), None);
}
