//! The MQTT broker: 3.1, 3.1.1 and 5.0 over mutual TLS, and over plain TCP where that is configured.
//!
//! | module | subject |
//! |---|---|
//! | [`session`] | ◆ one client: QoS, inflight, queue, will, expiry, takeover |
//! | [`subscriptions`] | ◆ which subscriptions a topic matches |
//! | [`retained`] | ◆ the last message of each topic |
//! | [`message`] | ◆ a message encoded once for many receivers |
//! | [`router`] | who gets a message |
//! | [`mailbox`], [`registry`] | sessions as threads share them |
//! | [`broker`] | all of it put together: connect, publish, expire |
//! | [`backbone`] | the way to the other brokers |
//! | [`cluster_topics`] | what the lbs hear from this broker and may ask of it |
//! | [`auth`], [`admission`], [`listener`] | who gets in |
//! | [`proxy`] | who is behind a load balancer |
//! | [`connection`] | socket and clock of one session |
//! | [`expiry`] | sessions without a connection |
//! | [`counters`], [`driver`] | figures, threads, start and stop |
//!
//! ◆ pure: neither I/O nor a clock of its own.

pub mod admission;
pub mod auth;
pub mod backbone;
pub mod broker;
pub mod cluster_topics;
pub mod connection;
pub mod counters;
pub mod driver;
pub mod expiry;
pub mod listener;
pub mod mailbox;
pub mod message;
pub mod proxy;
pub mod registry;
pub mod retained;
pub mod router;
pub mod session;
pub mod subscriptions;

pub use driver::Driver;

/// Runs the broker until SIGTERM or SIGINT.
///
/// # Errors
/// It could not start, or a part of it failed.
pub fn run(config: evermq_config::BrokerConfig) -> anyhow::Result<()> {
    let shutdown = evermq_daemon::shutdown::on_signal()?;
    Driver::start(&config)?.run(&shutdown)
}
