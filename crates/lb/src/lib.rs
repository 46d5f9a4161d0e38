//! The load balancer: TCP connections of MQTT clients, passed on to the brokers as they are.
//!
//! TLS passes through untouched. A broker is chosen for each new connection; whether it lives is known from one MQTT session
//! that stands to it all the time. When a broker goes down, its clients' connections are closed at once.
//!
//! | module | subject | |
//! |---|---|---|
//! | [`balance`] | which backend a new connection goes to | pure |
//! | [`backend`] | what one backend is good for, from its session and from refused connects | pure |
//! | [`health`] | the standing MQTT session to one backend | pure |
//! | [`admission`] | how many connections there may be | pure |
//! | [`pulse`] | whether the workers still turn, and what that means for the VIP | pure |
//! | [`pool`] | what all threads know of the backends | atomics |
//! | [`registry`] | a worker's connections by backend | |
//! | [`roster`] | which clients are connected to which lb, in case the VIP moves | pure |
//! | [`peers`] | what the lbs tell each other of that | I/O |
//! | [`worker`] | one thread: its listener, its connections | I/O |
//! | [`listener`] | accepting | I/O |
//! | [`connection`] | one client: a backend for it, then the relay | I/O |
//! | [`relay`] | bytes both ways | I/O |
//! | [`probe`] | drives [`health`] and [`backend`] | I/O |
//! | [`driver`] | start, health towards evermq-vip, drain | I/O |
//! | [`state`] | what the control socket shows | |

pub mod admission;
pub mod backend;
pub mod balance;
mod connection;
mod driver;
pub mod health;
mod listener;
mod peers;
pub mod pool;
mod probe;
pub mod pulse;
mod registry;
mod relay;
pub mod roster;
pub mod state;
mod worker;

pub use driver::{Drained, LoadBalancer, StartError};
use evermq_config::LbConfig;

/// Serves until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// A certificate, the control socket or the address cannot be used, or a worker failed.
pub fn run(config: LbConfig) -> anyhow::Result<()> {
    let shutdown = evermq_daemon::shutdown::on_signal()?;
    LoadBalancer::bind(config)?.serve(&shutdown)?;
    Ok(())
}
