//! Messages that wait for their turn: first in, first out, bounded by number and by bytes: of topics, payloads and properties.
//!
//! QoS 0 stands in a line of its own, so that the oldest of it can make room, and so that it need not wait behind QoS 1
//! and 2 while the client's Receive Maximum is used up (§4.9). Numbers keep the common order otherwise.

use std::collections::VecDeque;
use std::sync::Arc;

use evermq_bridge::Hold;
use evermq_mqtt::QoS;

use super::budget::{Budget, Share};
use crate::message::{Delivery, Origin};

/// Read buffers that waiting messages may keep alive besides what they need themselves: some megabytes. Messages that came
/// together share a buffer and cost nothing more; one that would keep yet another buffer gets bytes of its own instead.
const MAX_BUFFERS: usize = 64;
/// A read buffer is about this large, so messages less than this apart are in the same one.
const PAGES: u32 = 16;
/// A message of so many bytes has a buffer of its own, with little else in it.
const ALONE: usize = 60 * 1024;
/// Messages that are asked for together.
pub const AHEAD: usize = 32;
/// Of memory.
const PAGE: usize = 4096;
/// Buffers that are being filled at the same time: one for each worker, and some are always just full.
const RECENT: usize = 4;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It waits.
    Queued,
    /// It waits; this many older ones of QoS 0 were dropped to make room.
    Displaced(usize),
    /// There was no room in this queue.
    Refused,
    /// There was no room in all of them together.
    Exhausted,
}

/// Bounds of one queue.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Messages.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Retained messages that a SUBSCRIBE brought, which count apart.
    pub retained: usize,
}

/// The queue of one session.
#[derive(Debug)]
pub struct Queue {
    budget: Arc<Budget>,
    share: Share,
    unacknowledged: VecDeque<Waiting>,
    acknowledged: VecDeque<Waiting>,
    next: u64,
    /// Of those that count against the bounds.
    messages: usize,
    bytes: usize,
    /// Retained messages, which do not.
    retained: usize,
    /// Buffers that waiting messages keep alive, roughly.
    buffers: usize,
    /// Pages in the latest of them; the lowest bits of their numbers are enough to tell them apart.
    recent: [u32; RECENT],
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    retained: bool,
    /// The first one of its buffer.
    opens_buffer: bool,
    /// Noted here: to ask the message means to wait for memory that another thread has written.
    weight: usize,
    delivery: Delivery,
}

impl Queue {
    /// An empty queue that takes its room from `budget`.
    #[must_use]
    pub fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            share: Share::default(),
            unacknowledged: VecDeque::new(),
            acknowledged: VecDeque::new(),
            next: 0,
            messages: 0,
            bytes: 0,
            retained: 0,
            buffers: 0,
            recent: [0; RECENT],
        }
    }

    /// Appends `delivery`. Where there is no room the oldest of QoS 0 go; if that is not enough, the new one is refused.
    pub fn push(&mut self, delivery: Delivery, bounds: Bounds) -> Pushed {
        let bytes = delivery.message.weight();
        let mut displaced = 0;
        while self.messages >= bounds.messages || self.bytes.saturating_add(bytes) > bounds.bytes {
            if bytes > bounds.bytes || !self.drop_oldest_qos0() {
                return Pushed::Refused;
            }
            displaced += 1;
        }
        let is_spare = delivery.qos == QoS::AtMostOnce;
        while !self.budget.cover(&mut self.share, self.bytes + bytes, is_spare) {
            if !self.drop_oldest_qos0() {
                return Pushed::Exhausted;
            }
            displaced += 1;
        }
        self.messages += 1;
        self.bytes += bytes;
        self.append(delivery, false);
        if displaced == 0 { Pushed::Queued } else { Pushed::Displaced(displaced) }
    }

    /// Appends what was there before the broker stopped, whatever the bounds are now.
    pub fn restore(&mut self, delivery: Delivery) {
        self.messages += 1;
        self.bytes += delivery.message.weight();
        self.budget.force(&mut self.share, self.bytes);
        self.append(delivery, false);
    }

    /// Appends a retained message that the client has just asked for. What it asked for counts apart: a wildcard may
    /// well match more than is let wait for a client that does not read.
    pub fn push_retained(&mut self, delivery: Delivery, bounds: Bounds) -> Pushed {
        if self.retained >= bounds.retained {
            return Pushed::Refused;
        }
        self.retained += 1;
        self.append(delivery, true);
        Pushed::Queued
    }

    /// The next message; only of QoS 0 unless `acknowledged`.
    pub fn pop(&mut self, acknowledged: bool) -> Option<Delivery> {
        let first = |line: &VecDeque<Waiting>| line.front().map_or(u64::MAX, |waiting| waiting.number);
        let acknowledged = acknowledged && self.may_go();
        let line = if acknowledged && first(&self.acknowledged) < first(&self.unacknowledged) {
            &mut self.acknowledged
        } else {
            &mut self.unacknowledged
        };
        let waiting = line.pop_front()?;
        self.forget(&waiting);
        Some(waiting.delivery)
    }

    /// Touches the messages that come next. As a rule other threads have written them; asked for all at once, they come from
    /// there in the time of one. To be called for every [`AHEAD`] messages that are popped.
    pub fn look_ahead(&self) {
        let touch = |sum: usize, waiting: &Waiting| sum ^ waiting.delivery.message.touch();
        let all = self.acknowledged.iter().take(AHEAD).chain(self.unacknowledged.iter().take(AHEAD));
        std::hint::black_box(all.fold(0, touch));
    }

    /// Drops every message of QoS 0: an absent client gets none.
    pub fn clear_qos0(&mut self) {
        while let Some(waiting) = self.unacknowledged.pop_front() {
            self.forget(&waiting);
        }
        self.unacknowledged.shrink_to_fit();
        if self.bytes == 0 {
            self.budget.give_back(&mut self.share);
        }
    }

    /// The messages of QoS 1 and 2, in their order.
    pub fn acknowledged(&self) -> impl Iterator<Item = &Delivery> {
        self.acknowledged.iter().map(|waiting| &waiting.delivery)
    }

    /// The same, to be changed in what is neither its message nor its QoS.
    pub fn acknowledged_mut(&mut self) -> impl Iterator<Item = &mut Delivery> {
        self.acknowledged.iter_mut().map(|waiting| &mut waiting.delivery)
    }

    /// Replaces each waiting message by a copy with bytes of its own.
    pub fn detach(&mut self) {
        for waiting in &mut self.acknowledged {
            waiting.delivery.message = waiting.delivery.message.detached();
            waiting.opens_buffer = false;
        }
        self.buffers = self.unacknowledged.iter().filter(|waiting| waiting.opens_buffer).count();
    }

    /// Takes out the messages of QoS 1 and 2 that came through a shared subscription, in their order.
    pub fn take_shared(&mut self) -> Vec<Delivery> {
        let (shared, own): (VecDeque<_>, _) =
            std::mem::take(&mut self.acknowledged).into_iter().partition(|waiting| waiting.delivery.share.is_some());
        self.acknowledged = own;
        shared
            .into_iter()
            .map(|waiting| {
                self.forget(&waiting);
                waiting.delivery
            })
            .collect()
    }

    /// Takes out what is not `wanted`, first of QoS 0, then of QoS 1 and 2, each in its order.
    pub fn take_unwanted(&mut self, wanted: impl Fn(&Delivery) -> bool) -> Vec<Delivery> {
        let is_wanted = |waiting: &Waiting| wanted(&waiting.delivery);
        let mut unwanted = Vec::new();
        for line in [&mut self.unacknowledged, &mut self.acknowledged] {
            // As a rule there is nothing to move.
            if line.iter().all(is_wanted) {
                continue;
            }
            let (kept, taken): (VecDeque<_>, VecDeque<_>) = std::mem::take(line).into_iter().partition(is_wanted);
            *line = kept;
            unwanted.extend(taken);
        }
        unwanted
            .into_iter()
            .map(|waiting| {
                self.forget(&waiting);
                waiting.delivery
            })
            .collect()
    }

    /// Whether `delivery` can be appended without dropping anything.
    #[must_use]
    pub fn has_room(&self, delivery: &Delivery, bounds: Bounds) -> bool {
        let bytes = self.bytes.saturating_add(delivery.message.weight());
        self.messages < bounds.messages && bytes <= bounds.bytes
    }

    /// Waiting messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages + self.retained
    }

    /// Bytes of those that count against the bounds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether more than half of the room is taken.
    #[must_use]
    pub fn is_congested(&self, bounds: Bounds) -> bool {
        self.messages > bounds.messages / 2 || self.bytes > bounds.bytes / 2
    }

    /// Whether a message could be popped.
    #[must_use]
    pub fn has(&self, acknowledged: bool) -> bool {
        self.has_waiting(acknowledged && self.may_go())
    }

    /// The same, even if it may not go before a moment has passed.
    #[must_use]
    pub fn has_waiting(&self, acknowledged: bool) -> bool {
        !self.unacknowledged.is_empty() || (acknowledged && !self.acknowledged.is_empty())
    }

    /// Whether the first one of QoS 1 or 2 may be sent: in a moment, if its sender's session has still to note it.
    fn may_go(&self) -> bool {
        let is_going =
            |waiting: &Waiting| waiting.delivery.qos < QoS::ExactlyOnce || waiting.delivery.message.is_complete();
        self.acknowledged.front().is_none_or(is_going)
    }

    /// What may keep the first one of QoS 1 or 2 from being sent for a moment.
    #[must_use]
    pub fn hold(&self) -> Option<&Arc<Hold>> {
        let delivery = &self.acknowledged.front()?.delivery;
        delivery.message.origin().map(Origin::hold).filter(|_| delivery.qos == QoS::ExactlyOnce)
    }

    /// The message of QoS 1 or 2 that came last.
    #[cfg(test)]
    pub(super) fn last(&self) -> Option<&Delivery> {
        self.acknowledged.back().map(|waiting| &waiting.delivery)
    }

    fn append(&mut self, mut delivery: Delivery, retained: bool) {
        let weight = delivery.message.weight();
        let mut opens_buffer = self.opens_buffer(&delivery);
        if opens_buffer && self.buffers >= MAX_BUFFERS {
            delivery.message = delivery.message.detached();
            opens_buffer = false;
        }
        self.buffers += usize::from(opens_buffer);
        let number = self.next;
        self.next += 1;
        let line = if delivery.qos == QoS::AtMostOnce { &mut self.unacknowledged } else { &mut self.acknowledged };
        line.push_back(Waiting { number, retained, opens_buffer, weight, delivery });
    }

    fn drop_oldest_qos0(&mut self) -> bool {
        let Some(index) = self.unacknowledged.iter().position(|waiting| !waiting.retained) else { return false };
        let Some(waiting) = self.unacknowledged.remove(index) else { return false };
        self.forget(&waiting);
        true
    }

    /// Whether the message is in another buffer than the latest ones, as far as addresses tell.
    fn opens_buffer(&mut self, delivery: &Delivery) -> bool {
        // One that fills a buffer alone counts with its own bytes.
        if delivery.message.payload_len() >= ALONE {
            return false;
        }
        #[expect(clippy::cast_possible_truncation, reason = "only roughly, see `recent`")]
        let page = (delivery.message.address() / PAGE) as u32;
        if let Some(same) = self.recent.iter_mut().find(|recent| recent.abs_diff(page) < PAGES) {
            *same = page;
            return false;
        }
        self.recent.rotate_right(1);
        self.recent[0] = page;
        true
    }

    fn forget(&mut self, waiting: &Waiting) {
        self.buffers -= usize::from(waiting.opens_buffer);
        if waiting.retained {
            self.retained -= 1;
        } else {
            self.messages -= 1;
            self.bytes -= waiting.weight;
            self.budget.relax(&mut self.share, self.bytes);
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.budget.give_back(&mut self.share);
    }
}

#[cfg(test)]
mod tests;
