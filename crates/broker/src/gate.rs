//! Whether clients are let in at all: not before this broker has what its cluster has, and not while it is drained.
//!
//! The lbs hear it from [`crate::cluster_topics`]; the gate is for those who come all the same, at once or from elsewhere.

use tokio::sync::watch;

/// The gate.
#[derive(Debug)]
pub struct Gate {
    /// Why clients have to wait, if they have to.
    closed: watch::Sender<Option<String>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { closed: watch::Sender::new(None) }
    }
}

impl Gate {
    /// Clients wait from now on, for this reason.
    pub fn close(&self, reason: String) {
        self.closed.send_replace(Some(reason));
    }

    /// Clients are let in from now on.
    pub fn open(&self) {
        self.closed.send_replace(None);
    }

    /// Why clients have to wait, if they have to.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.closed.borrow().clone()
    }

    /// Waits until clients are let in. Cancel-safe.
    pub async fn opened(&self) {
        if self.closed.borrow().is_none() {
            return;
        }
        let mut closed = self.closed.subscribe();
        // The sender is this gate's own.
        let _ = closed.wait_for(Option::is_none).await;
    }
}
