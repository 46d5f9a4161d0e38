//! The end, in this order: nobody comes any more, clients go, the lbs go, sessions end.

use std::sync::atomic::Ordering;
use std::time::Instant;

use evermq_mqtt::ReasonCode;

use super::Broker;

impl Broker {
    /// Lets nobody in any more and tells every connection to close, but those of lbs: what the clients still send and get
    /// goes through them, and an lb closes all of it when its own session ends.
    pub fn close_all(&self, reason: ReasonCode) {
        self.stopping.store(true, Ordering::SeqCst);
        for mailbox in self.registry.all() {
            if !self.cluster.is_watching(&mailbox) {
                mailbox.close(reason);
            }
        }
    }

    /// Tells the lbs' connections to close.
    pub fn close_lbs(&self, reason: ReasonCode) {
        for mailbox in self.cluster.watching() {
            mailbox.close(reason);
        }
    }

    /// Ends the sessions that end with the broker, and their wills are due (§3.1.2.5). Those that the store keeps go on after
    /// the next start.
    pub fn end_all(&self, now: Instant) {
        for mailbox in self.registry.all() {
            if !mailbox.is_durable() {
                self.end(&mailbox, now);
            }
        }
    }
}
