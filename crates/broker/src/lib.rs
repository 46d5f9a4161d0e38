//! The MQTT broker: 3.1, 3.1.1 and 5.0 over mutual TLS, and over plain TCP where that is configured.
//!
//! | module | subject |
//! |---|---|
//! | [`session`] | ◆ one client: QoS, inflight, queue, will, expiry, takeover |
//! | [`subscriptions`] | ◆ which subscriptions a topic matches |
//! | [`retained`] | ◆ the last message of each topic |
//! | [`message`] | ◆ a message encoded once for many receivers |
//! | [`router`] | who gets a message |
//! | [`share`] | which member of a shared subscription gets it |
//! | [`journal`] | what of it outlives the process |
//! | [`mailbox`], [`registry`] | sessions as threads share them |
//! | [`broker`] | all of it put together: connect, publish, expire |
//! | [`backbone`] | the way to the other brokers |
//! | [`cluster_topics`] | what the lbs hear from this broker and may ask of it |
//! | [`auth`], [`admission`], [`listener`] | who gets in |
//! | [`gate`], [`join`], [`drain`] | whether anybody is let in yet, or any more |
//! | [`places`], [`rate`] | ◆ how many, and how fast |
//! | [`stream`], [`websocket`] | what carries MQTT |
//! | [`authentication`] | AUTH packets, for mechanisms that are offered |
//! | [`publisher`] | ◆ what other brokers know a client by |
//! | [`proxy`] | who is behind a load balancer |
//! | [`connection`] | socket and clock of one session |
//! | [`expiry`] | sessions without a connection |
//! | [`reload`] | the cluster file, read again |
//! | [`counters`], [`presence`] | figures, of all and of one client |
//! | [`sys`], [`metrics`] | what is shown of them: `$SYS`, Prometheus |
//! | [`control`], [`view`], [`trace`] | what operators ask for: who is there, what waits, one client's packets |
//! | [`driver`] | threads, start and stop |
//!
//! ◆ pure: neither I/O nor a clock of its own.

pub mod admission;
pub mod auth;
pub mod authentication;
pub mod backbone;
pub mod bridges;
pub mod broker;
pub mod cluster_topics;
pub mod connection;
pub mod control;
pub mod counters;
pub mod drain;
pub mod driver;
pub mod expiry;
pub mod gate;
pub mod join;
pub mod journal;
pub mod listener;
pub mod mailbox;
pub mod message;
pub mod metrics;
pub mod places;
pub mod presence;
pub mod proxy;
pub mod publisher;
pub mod rate;
pub mod registry;
pub mod reload;
pub mod retained;
pub mod router;
pub mod session;
pub mod share;
pub mod stream;
pub mod subscriptions;
pub mod sys;
pub mod trace;
pub mod trouble;
pub mod view;
pub mod websocket;

pub use driver::Driver;
use evermq_config::BrokerConfig;
use evermq_daemon::command::ConfigSource;

/// Runs the broker until SIGTERM or SIGINT; SIGHUP has it read `source` again.
///
/// # Errors
/// It could not start, or a part of it failed.
pub fn run(config: BrokerConfig, source: ConfigSource<BrokerConfig>) -> anyhow::Result<()> {
    let shutdown = evermq_daemon::shutdown::on_signal()?;
    Driver::start(&config)?.reloading(source).run(&shutdown)
}
