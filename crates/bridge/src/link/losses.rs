//! Entries that the peer will never get: said once when it begins, counted when the peer knows of it.

use std::collections::VecDeque;

use super::{Action, Link, Loss, State};
use crate::frame::Range;

/// What a peer loses.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Entries for which a GAP was sent and not yet acknowledged.
    gaps: VecDeque<Range>,
    /// It has been said that the peer loses messages, and it has not gone on behind them yet.
    is_said: bool,
}

impl Losses {
    /// The peer begins to lose messages: what says so, unless it has been said.
    pub(super) fn begin(&mut self, loss: Loss) -> Option<Action> {
        (!std::mem::replace(&mut self.is_said, true)).then_some(Action::Losing(loss))
    }

    /// A GAP is on its way for each of these.
    pub(super) fn sent(&mut self, gaps: impl IntoIterator<Item = Range>) {
        self.gaps.extend(gaps);
    }

    /// The peer has applied everything up to there: gaps until then are final.
    pub(super) fn settle(&mut self, applied: u64) -> impl Iterator<Item = Action> {
        let settled = self.gaps.iter().take_while(|range| range.to <= applied).count();
        self.is_said &= settled == 0;
        self.gaps.drain(..settled).map(Action::Lost)
    }

    /// Gaps that the peer had not applied may begin earlier on a new connection, and are found anew.
    pub(super) fn forget_unsettled(&mut self) {
        self.gaps.clear();
    }
}

impl Link {
    /// A read found that the log begins at `first` only.
    pub(crate) fn handle_gone(&mut self, first: u64) {
        self.reading = false;
        if self.state == State::Streaming && first <= self.cursor.next() {
            // The peer has said meanwhile that it has what is gone.
            self.pump();
        } else if self.state == State::Streaming {
            let gap = Range { from: self.cursor.next(), to: first - 1 };
            self.actions.extend(self.losses.begin(Loss::LogFull));
            self.snapshot(Some(gap), "log no longer holds what the peer needs next");
        }
    }

    /// While the peer is away: the log begins at `first`.
    pub(crate) fn handle_log_start(&mut self, first: u64) {
        if first > self.cursor.acknowledged() + 1 {
            self.actions.extend(self.losses.begin(Loss::LogFull));
        }
    }
}
