//! The broker with real sockets, against a client that says exactly what a test wants and against clients of others.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod certs;
mod client;
mod cluster_topics;
mod hostile;
mod limits;
mod mesh;
mod messages;
mod mosquitto;
mod paho;
mod proxy;
mod quorum;
mod retained;
mod running;
mod sessions;
mod shutdown;
mod tls;
mod wills;
