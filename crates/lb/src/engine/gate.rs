//! The limit of connections that all workers share, and who waits for room under it.

use std::sync::Arc;
use std::time::Instant;

use super::inbox::{Inbox, Order};
use crate::admission::{Admission, Entry};

/// The gate.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) admission: Admission,
    workers: Box<[Arc<Inbox>]>,
}

impl Gate {
    pub(crate) fn new(limit: usize, workers: impl IntoIterator<Item = Arc<Inbox>>) -> Self {
        Self { admission: Admission::new(limit), workers: workers.into_iter().collect() }
    }

    /// Takes a place, if there is one; [`Gate::leave`] is owed.
    pub(crate) fn try_enter(&self, now: Instant) -> bool {
        match self.admission.enter(now) {
            Entry::Admitted { announce_full } => {
                if announce_full {
                    tracing::warn!(
                        max_connections = self.admission.limit(),
                        "connection limit reached: more clients wait in the kernel's queue"
                    );
                }
                true
            }
            Entry::Full => false,
        }
    }

    /// Takes a place whether there is one or not; [`Gate::leave`] is owed.
    pub(crate) fn enter_anyway(&self) {
        self.admission.enter_anyway();
    }

    /// Asks for [`Order::Room`], and the other workers to make some; `false` if there is room by now.
    pub(crate) fn wait(&self, worker: usize) -> bool {
        self.admission.wait();
        if !self.admission.is_full() {
            return false;
        }
        for (index, inbox) in self.workers.iter().enumerate() {
            if index != worker {
                inbox.post(Order::MakeRoom);
            }
        }
        true
    }

    /// Gives a place back.
    pub(crate) fn leave(&self) {
        let exit = self.admission.leave();
        if exit.wake {
            self.workers.iter().for_each(|inbox| inbox.post(Order::Room));
        }
        if exit.announce_calm {
            tracing::info!(connections = self.admission.current(), "below the connection limit again");
        }
    }
}
