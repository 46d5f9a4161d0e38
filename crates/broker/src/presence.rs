//! One connected client, as others see it: where it comes from, and what has gone over its connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::auth::Client;
use crate::counters::Traffic;

/// What is known of a client when it has got in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its own address; none behind a Unix socket.
    pub address: Option<SocketAddr>,
    /// The listener's name.
    pub listener: Arc<str>,
    /// Version of its TLS, such as `TLSv1.3`.
    pub tls: Option<Box<str>>,
    /// It asked for a session without a past.
    pub clean_start: bool,
}

/// A connected client. Its connection writes, nobody else does, but for the wish to follow it.
#[derive(Debug)]
pub struct Presence {
    /// Where it comes from.
    pub facts: Facts,
    /// When it got in.
    pub since: Instant,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    messages_in: AtomicU64,
    messages_out: AtomicU64,
    traced: AtomicBool,
}

/// What has gone over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gone {
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to it.
    pub bytes_out: u64,
    /// PUBLISH packets from it.
    pub messages_in: u64,
    /// PUBLISH packets to it.
    pub messages_out: u64,
}

impl Facts {
    /// Those of a client that has got in.
    #[must_use]
    pub fn of(client: &Client, clean_start: bool) -> Self {
        let address = (!client.is_unix).then_some(client.address);
        Self { address, listener: Arc::clone(&client.listener), tls: client.tls.clone(), clean_start }
    }
}

impl Presence {
    /// A client that got in.
    #[must_use]
    pub fn new(facts: Facts, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            facts,
            since: now,
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            messages_in: AtomicU64::new(0),
            messages_out: AtomicU64::new(0),
            traced: AtomicBool::new(false),
        })
    }

    /// Adds what the connection has done; only the connection itself calls this.
    pub fn add(&self, traffic: &Traffic) {
        let add = |counter: &AtomicU64, more: u64| {
            if more > 0 {
                counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
            }
        };
        add(&self.bytes_in, traffic.bytes_in);
        add(&self.bytes_out, traffic.bytes_out);
        add(&self.messages_in, traffic.publishes_in.iter().sum());
        add(&self.messages_out, traffic.publishes_out.iter().sum());
    }

    /// What has gone over the connection until now.
    #[must_use]
    pub fn gone(&self) -> Gone {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Gone {
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
            messages_in: read(&self.messages_in),
            messages_out: read(&self.messages_out),
        }
    }

    /// Whether somebody follows this client's packets.
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.traced.load(Ordering::Relaxed)
    }

    /// Somebody does, or nobody any more.
    pub fn set_traced(&self, traced: bool) {
        self.traced.store(traced, Ordering::Relaxed);
    }
}
