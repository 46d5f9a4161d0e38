//! The buffers of one worker's thread, which its connections use in turn.

use std::cell::RefCell;
use std::collections::VecDeque;

use bytes::BytesMut;
use evermq_mqtt::{Packet, Publish};

use super::perform::Answer;
use crate::counters::Tally;
use crate::mailbox::Wakes;
use crate::session::{Action, Transmit};

/// Bytes that one read may bring.
pub(super) const READ: usize = 64 * 1024;
/// Below this much room a new buffer is taken; the old one stays alive in the messages that were read into it.
pub(super) const MIN_ROOM: usize = 8 * 1024;
/// The start of a packet up to this size is copied, so that it does not keep a buffer alive.
pub(super) const KEEP: usize = 4 * 1024;
/// A buffer that grew beyond this for a large message is not kept.
const MAX_OUTPUT: usize = 1024 * 1024;

/// Empty between turns, but for their capacity.
#[derive(Default)]
pub(super) struct Buffers {
    pub(super) input: BytesMut,
    pub(super) output: BytesMut,
    pub(super) packets: Vec<Packet>,
    pub(super) actions: VecDeque<Action>,
    pub(super) transmits: Vec<Transmit>,
    pub(super) run: Vec<Publish>,
    pub(super) answers: Vec<Answer>,
    pub(super) wakes: Wakes,
    pub(super) tally: Tally,
}

impl Buffers {
    /// What a connection has left that failed or panicked is for no other one.
    fn forget(&mut self) {
        self.output.clear();
        self.packets.clear();
        self.actions.clear();
        self.transmits.clear();
        self.run.clear();
        self.answers.clear();
    }
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Lends the thread's buffers.
pub(super) fn with<R>(turn: impl FnOnce(&mut Buffers) -> R) -> R {
    BUFFERS.with_borrow_mut(|buffers| {
        buffers.forget();
        let result = turn(buffers);
        if buffers.output.capacity() > MAX_OUTPUT {
            buffers.output = BytesMut::new();
        }
        result
    })
}
