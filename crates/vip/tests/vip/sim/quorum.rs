//! The permission to be master, as a quorum of all hosts gives it: to one host at a time, for all its virtual routers, and only
//! to one that reaches most hosts. It is taken away in the moment in which a host does not reach them any more, or is frozen,
//! though a frozen host learns it last.

use super::*;

/// Where a router stands with the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    Nothing,
    Asking,
    Answered,
}

impl Sim {
    pub(super) fn vote(&mut self) {
        if !self.scene.permission {
            return;
        }
        let count = self.hosts.len();
        for index in 0..count {
            if self.hosts[index].permitted {
                let asks = self.hosts[index].seats.iter().any(|seat| seat.asks != Asks::Nothing);
                if !asks || !self.has_majority(index) {
                    self.hosts[index].permitted = false;
                    self.revoke(index);
                }
            }
        }
        if !self.hosts.iter().any(|host| host.permitted) {
            let asks = |index: &usize| self.hosts[*index].seats.iter().any(|seat| seat.asks != Asks::Nothing);
            let next = (0..count).find(|index| !self.hosts[*index].frozen && self.has_majority(*index) && asks(index));
            if let Some(index) = next {
                self.hosts[index].permitted = true;
            }
        }
        if let Some(index) = self.hosts.iter().position(|host| host.permitted) {
            self.answer(index, Asks::Asking, Asks::Answered);
        }
    }

    pub(super) fn revoke(&mut self, index: usize) {
        self.answer(index, Asks::Answered, Asks::Asking);
    }

    fn answer(&mut self, index: usize, from: Asks, to: Asks) {
        let now = self.now;
        for router in 0..self.scene.routers() {
            if self.hosts[index].seats[router].asks == from
                && let Some(daemon) = self.running(index)
            {
                daemon.routers.handle_permission(router, to == Asks::Answered, now);
                self.hosts[index].seats[router].asks = to;
                self.drain(index);
                self.end_if_done(index);
            }
        }
    }

    /// Votes of crashed and frozen daemons count: other programs of those hosts give them.
    fn has_majority(&self, index: usize) -> bool {
        let count = self.hosts.len();
        2 * (0..count).filter(|other| self.reach(index, *other)).count() > count
    }
}
