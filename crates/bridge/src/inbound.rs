//! What comes from one origin: each of its entries once, in its order, whatever happens to the connections.
//!
//! ```text
//!              HELLO                        entry applied + 1: deliver, applied goes up by one
//!   no link ─────────▶ linked to instance   entry up to applied: seen before, drop
//!      ▲                 │        │ ▲       entry beyond applied + 1: break the connection off
//!      │ lost, silent    │        └─┘       GAP, SKIP: applied goes to its end
//!      └─────────────────┘ HELLO on a newer connection replaces the link
//! ```
//!
//! What was applied is written down before it is acknowledged, so the origin keeps it until this broker does. Messages of QoS 0
//! are acknowledged without that: nobody was promised that they outlive a crash.
//!
//! There is one [`Inbound`] for each origin, and all connections of that origin go through it, so an older connection cannot
//! deliver after a newer one has begun: its link is no longer the current one. What was applied is remembered for each instance
//! of the origin, so that a connection of an instance that has ended, however late it is accepted, disturbs nothing.
//!
//! Pure: bytes and delivery are with the driver, [`crate::incoming`], which carries out all actions before it lets anybody
//! else at the machine.

mod action;

use std::collections::VecDeque;
use std::time::Instant;

pub(crate) use self::action::{Action, Change};
use crate::frame::{Directed, Frame, Group, Hello, MINOR, Range, VERSIONS, Welcome};
use crate::groups::Heard;
use crate::link::{DEAD_AFTER, PING_INTERVAL};

/// Instances of an origin that are remembered: an older one has been replaced this many times.
const INSTANCES: usize = 8;

/// One connection of the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkId(u64);

const DOWN: &str = "no link";
const UP: &str = "linked";

/// Everything known about one origin.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// Epoch of this broker's own log.
    instance: u64,
    max_body: u32,
    /// The most recently linked instance last.
    instances: VecDeque<Instance>,
    link: Option<Linked>,
    last_id: u64,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Instance {
    epoch: u64,
    /// What was given to the broker; `None` until a snapshot was complete.
    applied: Option<u64>,
    /// What the origin may forget: a crash does not take it back.
    settled: Option<u64>,
    /// More was applied than was written down, and it must be.
    is_due: bool,
    /// Records that are on their way to the disk.
    recording: usize,
}

#[derive(Debug)]
struct Linked {
    id: LinkId,
    dead_at: Instant,
    /// The next unasked sign of life, if bytes come in until then.
    pong_at: Instant,
    /// Whether anything came in since the last frame that was sent.
    fed: bool,
    /// What the origin knows to be settled.
    acknowledged: Option<u64>,
    /// The newest entry that it had when it connected, if it said so.
    last: Option<u64>,
    /// Where an entry that has not come yet is to go.
    directed: Option<Directed>,
}

impl Inbound {
    /// Nothing is known. `instance` is the epoch of this broker's own log, `max_body` the largest body to take.
    pub(crate) fn new(instance: u64, max_body: u32) -> Self {
        Self { instance, max_body, instances: VecDeque::new(), link: None, last_id: 0, actions: VecDeque::new() }
    }

    /// What was known when the process began: epochs of the origin and what was applied of each, the latest last. `instance`
    /// is the epoch that this broker's own log has.
    pub(crate) fn recover(&mut self, instance: u64, applied: impl IntoIterator<Item = (u64, u64)>) {
        self.instance = instance;
        self.instances.extend(applied.into_iter().map(|(epoch, seq)| Instance {
            applied: Some(seq),
            settled: Some(seq),
            ..Instance::new(epoch)
        }));
        while self.instances.len() > INSTANCES {
            self.instances.pop_front();
        }
    }

    /// What was applied of each epoch of the origin.
    pub(crate) fn applied(&self) -> impl Iterator<Item = (u64, u64)> {
        self.instances.iter().filter_map(|instance| Some((instance.epoch, instance.applied?)))
    }

    /// Whether the origin is connected.
    pub(crate) fn is_linked(&self) -> bool {
        self.link.is_some()
    }

    /// Whether everything has come that the origin had when it connected.
    pub(crate) fn is_filled(&self) -> bool {
        let (Some(link), Some(instance)) = (&self.link, self.instances.back()) else { return false };
        instance.applied.is_some_and(|applied| link.last.is_none_or(|last| applied >= last))
    }

    /// Whether `id` is the current link. The driver of one that is not must end without another word to the machine.
    pub(crate) fn is_current(&self, id: LinkId) -> bool {
        self.link.as_ref().is_some_and(|link| link.id == id)
    }

    /// What to do next, if anything.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Inbound::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.link.as_ref().map(|link| if link.fed { link.dead_at.min(link.pong_at) } else { link.dead_at })
    }

    /// The origin, whose identity is proven, begins a connection. It replaces any older one.
    pub(crate) fn handle_hello(&mut self, hello: &Hello, now: Instant) -> LinkId {
        self.record();
        self.last_id += 1;
        let id = LinkId(self.last_id);
        let replaced = self.link.is_some();
        self.link = Some(Linked {
            id,
            dead_at: now + DEAD_AFTER,
            pong_at: now + PING_INTERVAL,
            fed: false,
            acknowledged: None,
            last: hello.last,
            directed: None,
        });
        let resume = self.select_instance(hello.instance);
        if let Some(link) = &mut self.link {
            link.acknowledged = resume;
        }
        self.actions.push_back(Action::Send(Frame::Welcome(Welcome {
            version: hello.newest.min(VERSIONS.1),
            minor: MINOR,
            instance: self.instance,
            resume,
            max_body: self.max_body,
        })));
        let reason = match resume {
            Some(seq) => format!("it goes on after message {seq}"),
            None => "it is new".to_owned(),
        };
        let (from, reason) = if replaced { (UP, format!("a newer connection, {reason}")) } else { (DOWN, reason) };
        self.actions.push_back(Action::Changed(Change { from, to: UP, reason, violated: false }));
        id
    }

    /// Bytes came from the origin: it lives.
    pub(crate) fn handle_bytes(&mut self, now: Instant) {
        if let Some(link) = &mut self.link {
            link.dead_at = now + DEAD_AFTER;
            link.fed = true;
        }
    }

    /// The driver does not read for the moment: what is there may be read later, and the origin shall not take the silence
    /// for death.
    pub(crate) fn handle_paused(&mut self, now: Instant) {
        if let Some(link) = &mut self.link {
            link.dead_at = now + DEAD_AFTER;
        }
        self.send(Frame::Pong);
    }

    /// A frame came from the origin.
    pub(crate) fn handle_frame(&mut self, frame: Frame) {
        let (Some(link), Some(instance)) = (&mut self.link, self.instances.back_mut()) else { return };
        match frame {
            Frame::Entry(entry) => match instance.applied {
                Some(applied) if entry.head.seq == applied + 1 => {
                    instance.applied = Some(entry.head.seq);
                    instance.is_due |= entry.is_kept();
                    let directed = link.directed.take().filter(|directed| directed.seq == entry.head.seq);
                    let directions = directed.map(|directed| directed.directions);
                    self.actions.push_back(Action::Deliver { epoch: instance.epoch, entry, directions });
                }
                Some(applied) if entry.head.seq <= applied => {
                    self.actions.push_back(Action::Duplicate);
                }
                Some(applied) => self.violated(&format!("entry {} came after {applied}", entry.head.seq)),
                None => self.violated("an entry came before the snapshot was complete"),
            },
            Frame::Gap(range) => self.pass(range, true),
            Frame::Skip(range) => self.pass(range, false),
            Frame::Retained(retained) => self.actions.push_back(Action::ApplyRetained(retained)),
            Frame::SnapshotEnd { base } => match instance.applied {
                None => {
                    instance.applied = Some(base);
                    instance.is_due = true;
                }
                // It was applied when the one before was complete, and that was not on the disk yet.
                Some(applied) if base <= applied => {}
                Some(applied) => self.violated(&format!("a snapshot ends at {base} after entry {applied}")),
            },
            Frame::Directed(directed) => link.directed = Some(directed),
            Frame::Claim(claim) => self.actions.push_back(Action::Claimed(claim)),
            Frame::Group(Group { filter, members }) => {
                self.actions.push_back(Action::Heard(Heard::Group { filter, members }));
            }
            Frame::Groups { is_complete } => {
                self.actions.push_back(Action::Heard(if is_complete { Heard::Complete } else { Heard::Begin }));
            }
            Frame::Ping => self.send(Frame::Pong),
            Frame::Bye => self.down("it stops".into(), false),
            Frame::Error { text } => self.down(format!("it says that this broker {text}"), true),
            Frame::Hello(_) | Frame::Welcome(_) | Frame::Ack { .. } | Frame::Pong => {
                self.violated("a frame came that has no place here");
            }
        }
    }

    /// All frames that came in one read were handled: one record and one acknowledgement for all of them.
    pub(crate) fn handle_read_end(&mut self) {
        self.record();
        self.acknowledge();
    }

    /// What an [`Action::Record`] asked for is on the disk.
    pub(crate) fn handle_recorded(&mut self, epoch: u64, seq: u64) {
        let Some(instance) = self.instances.iter_mut().find(|instance| instance.epoch == epoch) else { return };
        instance.recording = instance.recording.saturating_sub(1);
        instance.settled = instance.settled.max(Some(seq));
        self.acknowledge();
    }

    /// Has what was applied written down, if it must be.
    fn record(&mut self) {
        let Some(instance) = self.instances.back_mut() else { return };
        if let (true, Some(seq)) = (std::mem::take(&mut instance.is_due), instance.applied) {
            instance.recording += 1;
            self.actions.push_back(Action::Record { epoch: instance.epoch, seq });
        }
    }

    /// Tells the origin what it may forget. Messages of QoS 0 that came since the last record need none.
    fn acknowledge(&mut self) {
        let (Some(link), Some(instance)) = (&mut self.link, self.instances.back_mut()) else { return };
        if let Some(seq) = instance.settle().filter(|seq| link.acknowledged < Some(*seq)) {
            link.acknowledged = Some(seq);
            self.send(Frame::Ack { seq });
        }
    }

    /// The time of [`Inbound::poll_timeout`] has come.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let Some(link) = &mut self.link else { return };
        if link.dead_at <= now {
            self.down(format!("it is silent for {} s", DEAD_AFTER.as_secs()), false);
        } else if link.pong_at <= now {
            link.pong_at = now + PING_INTERVAL;
            if link.fed {
                // One long frame is on its way: the origin shall not take the silence for death.
                self.send(Frame::Pong);
            }
        }
    }

    /// The connection is broken; `violated` if by what came over it.
    pub(crate) fn handle_lost(&mut self, reason: String, violated: bool) {
        if violated {
            self.violated(&reason);
        } else {
            self.down(reason, false);
        }
    }

    /// This broker stops, or parts with the origin.
    pub(crate) fn handle_shutdown(&mut self, reason: &str) {
        if self.link.is_some() {
            self.handle_read_end();
            self.send(Frame::Bye);
            self.down(reason.into(), false);
        }
    }

    /// Makes the instance the last one, and tells what is settled of it: what was applied and is not on the disk yet comes
    /// again and is dropped, so the origin keeps it until it is.
    fn select_instance(&mut self, epoch: u64) -> Option<u64> {
        let known = self.instances.iter().position(|instance| instance.epoch == epoch);
        let mut instance = known.and_then(|index| self.instances.remove(index)).unwrap_or_else(|| Instance::new(epoch));
        let settled = instance.settle();
        self.instances.push_back(instance);
        if self.instances.len() > INSTANCES {
            self.instances.pop_front();
        }
        settled
    }

    /// Entries that do not come.
    fn pass(&mut self, range: Range, missed: bool) {
        let (Some(_), Some(instance)) = (&self.link, self.instances.back_mut()) else { return };
        match instance.applied {
            Some(applied) if range.from <= applied + 1 => {
                if range.to > applied {
                    instance.applied = Some(range.to);
                    instance.is_due = true;
                    if missed {
                        self.actions.push_back(Action::Missed(Range { from: applied + 1, to: range.to }));
                    }
                }
            }
            Some(applied) => self.violated(&format!("a gap from {} came after entry {applied}", range.from)),
            None => self.violated("a gap came before the snapshot was complete"),
        }
    }

    fn violated(&mut self, text: &str) {
        self.send(Frame::Error { text: format!("does not keep to the protocol: {text}") });
        self.down(format!("it does not keep to the protocol: {text}"), true);
    }

    fn send(&mut self, frame: Frame) {
        if let Some(link) = &mut self.link {
            link.fed = false;
            self.actions.push_back(Action::Send(frame));
        }
    }

    fn down(&mut self, reason: String, violated: bool) {
        // What came before it was broken has been given to the broker.
        self.record();
        if self.link.take().is_some() {
            self.actions.push_back(Action::Close);
            self.actions.push_back(Action::Changed(Change { from: UP, to: DOWN, reason, violated }));
        }
    }
}

impl Instance {
    fn new(epoch: u64) -> Self {
        Self { epoch, applied: None, settled: None, is_due: false, recording: 0 }
    }

    /// What the origin may forget.
    fn settle(&mut self) -> Option<u64> {
        if self.recording == 0 && !self.is_due {
            self.settled = self.applied;
        }
        self.settled
    }
}

#[cfg(test)]
mod tests;
