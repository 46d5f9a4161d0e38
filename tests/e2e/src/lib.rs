//! The whole stack in a lab of its own, and what tests and benchmarks do with it.
//!
//! | module | subject |
//! |---|---|
//! | [`lab`] | one lab for one test: up, faults, commands in its hosts, down when dropped |
//! | [`client`] | mosquitto's clients, paho-mqtt, openssl and the load generator in the lab's client host |
//! | [`wait`] | conditions with a deadline |

pub mod client;
pub mod lab;
pub mod wait;

pub use lab::Lab;

/// Where clients connect.
pub const VIP: &str = "198.18.0.10";
/// Its port.
pub const PORT: &str = "9000";
