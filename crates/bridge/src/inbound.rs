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
//! There is one [`Inbound`] for each origin, and all connections of that origin go through it, so an older connection cannot
//! deliver after a newer one has begun: its link is no longer the current one. What was applied is remembered for each instance
//! of the origin, so that a connection of an instance that has ended, however late it is accepted, disturbs nothing.
//!
//! Pure: bytes and delivery are with the driver, [`crate::incoming`], which carries out all actions before it lets anybody
//! else at the machine.

use std::collections::VecDeque;
use std::time::Instant;

use crate::frame::{Entry, Frame, Hello, MINOR, Range, Retained, VERSIONS, Welcome};
use crate::link::{DEAD_AFTER, PING_INTERVAL};

/// Instances of an origin that are remembered: an older one has been replaced this many times.
const INSTANCES: usize = 8;

/// One connection of the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkId(u64);

/// What the driver of the current link shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send a frame.
    Send(Frame),
    /// Give a message to the broker.
    Deliver(Entry),
    /// Give a retained message of a snapshot to the broker.
    ApplyRetained(Retained),
    /// This broker will never get these messages: count them.
    Missed(Range),
    /// A message came again and was dropped: count it.
    Duplicate,
    /// Close the connection, after what was sent.
    Close,
    /// The link has changed.
    Changed(Change),
}

/// From one state to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// The state before, for logs.
    pub(crate) from: &'static str,
    /// The state after.
    pub(crate) to: &'static str,
    /// Why.
    pub(crate) reason: String,
    /// Whether the origin does not keep to the protocol.
    pub(crate) violated: bool,
}

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
    /// `None` until a snapshot was complete.
    applied: Option<u64>,
}

#[derive(Debug)]
struct Linked {
    id: LinkId,
    dead_at: Instant,
    /// The next unasked sign of life, if bytes come in until then.
    pong_at: Instant,
    /// Whether anything came in since the last frame that was sent.
    fed: bool,
    ack_due: bool,
}

impl Inbound {
    /// Nothing is known. `instance` is the epoch of this broker's own log, `max_body` the largest body to take.
    pub(crate) fn new(instance: u64, max_body: u32) -> Self {
        Self { instance, max_body, instances: VecDeque::new(), link: None, last_id: 0, actions: VecDeque::new() }
    }

    /// Whether the origin is connected.
    pub(crate) fn is_linked(&self) -> bool {
        self.link.is_some()
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
        self.last_id += 1;
        let id = LinkId(self.last_id);
        let replaced = self.link.is_some();
        self.link =
            Some(Linked { id, dead_at: now + DEAD_AFTER, pong_at: now + PING_INTERVAL, fed: false, ack_due: false });
        let resume = self.select_instance(hello.instance);
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

    /// A frame came from the origin.
    pub(crate) fn handle_frame(&mut self, frame: Frame) {
        let (Some(link), Some(instance)) = (&mut self.link, self.instances.back_mut()) else { return };
        match frame {
            Frame::Entry(entry) => match instance.applied {
                Some(applied) if entry.seq == applied + 1 => {
                    instance.applied = Some(entry.seq);
                    link.ack_due = true;
                    self.actions.push_back(Action::Deliver(entry));
                }
                Some(applied) if entry.seq <= applied => {
                    link.ack_due = true;
                    self.actions.push_back(Action::Duplicate);
                }
                Some(applied) => self.violated(&format!("entry {} came after {applied}", entry.seq)),
                None => self.violated("an entry came before the snapshot was complete"),
            },
            Frame::Gap(range) => self.pass(range, true),
            Frame::Skip(range) => self.pass(range, false),
            Frame::Retained(retained) => self.actions.push_back(Action::ApplyRetained(retained)),
            Frame::SnapshotEnd { base } => match instance.applied {
                None => instance.applied = Some(base),
                Some(applied) if applied == base => {}
                Some(applied) => self.violated(&format!("a snapshot ends at {base} after entry {applied}")),
            },
            Frame::Ping => self.send(Frame::Pong),
            Frame::Bye => self.down("it stops".into(), false),
            Frame::Error { text } => self.down(format!("it says that this broker {text}"), true),
            Frame::Hello(_) | Frame::Welcome(_) | Frame::Ack { .. } | Frame::Pong => {
                self.violated("a frame came that has no place here");
            }
        }
    }

    /// All frames that came in one read were handled: one acknowledgement for all of them.
    pub(crate) fn handle_read_end(&mut self) {
        let (Some(link), Some(instance)) = (&mut self.link, self.instances.back()) else { return };
        if let Some(seq) = instance.applied.filter(|_| std::mem::take(&mut link.ack_due)) {
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

    /// This broker stops.
    pub(crate) fn handle_shutdown(&mut self) {
        if self.link.is_some() {
            self.handle_read_end();
            self.send(Frame::Bye);
            self.down("shutdown".into(), false);
        }
    }

    /// Makes the instance the last one, and tells what was applied of it.
    fn select_instance(&mut self, epoch: u64) -> Option<u64> {
        let known = self.instances.iter().position(|instance| instance.epoch == epoch);
        let instance =
            known.and_then(|index| self.instances.remove(index)).unwrap_or(Instance { epoch, applied: None });
        let applied = instance.applied;
        self.instances.push_back(instance);
        if self.instances.len() > INSTANCES {
            self.instances.pop_front();
        }
        applied
    }

    /// Entries that do not come.
    fn pass(&mut self, range: Range, missed: bool) {
        let (Some(link), Some(instance)) = (&mut self.link, self.instances.back_mut()) else { return };
        match instance.applied {
            Some(applied) if range.from <= applied + 1 => {
                link.ack_due = true;
                if range.to > applied {
                    instance.applied = Some(range.to);
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
        if self.link.take().is_some() {
            self.actions.push_back(Action::Close);
            self.actions.push_back(Action::Changed(Change { from: UP, to: DOWN, reason, violated }));
        }
    }
}

#[cfg(test)]
mod tests;
