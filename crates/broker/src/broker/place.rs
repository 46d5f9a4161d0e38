//! A place among the connections that the broker serves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Accepted, Broker};
use crate::cluster_topics::Seat;

/// A place among the connections that the broker serves; given back when dropped.
pub struct Place {
    pub(super) broker: Arc<Broker>,
    pub(super) seat: Option<Seat>,
}

impl Place {
    /// The client that has it, and the other end of its connection.
    pub fn seat(&mut self, peer: SocketAddr, client: &Accepted) {
        self.seat = self.broker.cluster.seat(peer, &client.mailbox, client.link);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(seat) = self.seat {
            self.broker.cluster.leave(seat);
        }
        self.broker.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
