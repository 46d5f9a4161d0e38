//! Entries that the peer will never get: said once when it begins, counted when the peer knows of it.

use std::collections::VecDeque;

use super::{Action, Loss};
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
