//! The load balancer: TCP connections of MQTT clients, passed on to the brokers as they are.
//!
//! TLS passes through untouched. A broker is chosen for each new connection; whether it lives is known from one MQTT session
//! that stands to it all the time. When a broker goes down, its clients' connections are closed at once.
//!
//! | module | subject | |
//! |---|---|---|
//! | [`balance`] | which backend a new connection goes to | pure |
//! | [`backend`] | what one backend is good for, from its session and from refused connects | pure |
//! | [`ejection`] | how many backends may be left out at once because clients failed there | pure |
//! | [`health`] | the standing MQTT session to one backend; [`health::probing`]: probes again and again | pure |
//! | [`admission`] | how many connections there may be | pure |
//! | [`client_hello`] | what a client says first where TLS passes through | pure |
//! | [`connect_packet`] | what it says first where the lb sees MQTT | pure |
//! | [`routes`] | where it goes by what it said | pure |
//! | [`pulse`] | whether the workers still turn, and what that means for the VIP | pure |
//! | [`admin`] | what operators say of backends by hand, and how the lbs agree on it | pure |
//! | [`rebalance`] | how many connections to close where | pure |
//! | [`waiting`] | clients that wait for a backend, addresses in turn | pure |
//! | [`pacing`] | so many in a second, so many at once | atomics |
//! | [`pool`] | what all threads know of the backends | atomics |
//! | [`sources`] | what one client address may take | locks in shards |
//! | [`roster`] | which clients are connected to which lb, in case the VIP moves | pure |
//! | [`peers`] | what the lbs tell each other of that | I/O |
//! | [`engine`] | the workers: accepting, greeting, connecting, relaying | I/O |
//! | [`probe`] | drives [`health`] and [`backend`] | I/O |
//! | [`driver`] | start, health towards evermq-vip, drain | I/O |
//! | [`upgrade`] | another process of the program takes over | |
//! | [`restart`] | what comes before systemd stops the unit | I/O |
//! | [`access_log`] | a line for each connection that has ended | I/O |
//! | [`tally`] | figures of them | atomics |
//! | [`view`] | who is connected, as operators ask | pure |
//! | [`desk`] | what the parts of the control thread share | |
//! | [`control`] | what the control socket answers | I/O |
//! | [`metrics`] | the figures for Prometheus | I/O |
//! | [`mover`] | drives [`rebalance`] | I/O |
//! | [`reload`] | the cluster file, read again | I/O |
//! | [`tls`] | TLS that ends here, with clients and with brokers | |
//! | [`state`] | what the control socket shows | |

pub mod access_log;
pub mod admin;
pub mod admission;
pub mod backend;
pub mod balance;
pub mod client_hello;
pub mod connect_packet;
mod control;
mod desk;
mod driver;
pub mod ejection;
pub mod engine;
pub mod health;
mod metrics;
mod mover;
pub mod pacing;
pub mod peers;
pub mod pool;
mod probe;
pub mod pulse;
pub mod rebalance;
mod reload;
mod restart;
pub mod roster;
pub mod routes;
pub mod sources;
pub mod state;
mod tally;
pub mod tls;
pub mod upgrade;
mod view;
pub mod waiting;

pub use driver::{Drained, LoadBalancer, StartError};
use evermq_config::LbConfig;
use evermq_daemon::command::ConfigSource;

/// Options of `evermq-lb` beyond the common ones.
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// Where systemd restarts evermq-lb, have the process that runs leave its connections to the next one, and exit (for
    /// systemd's ExecStop)
    #[arg(long)]
    pub before_stop: bool,
}

/// Serves until SIGTERM or SIGINT, then drains. Where another process has started this one to succeed it, or has left it
/// something, takes over first.
///
/// # Errors
/// A certificate, the control socket or the address cannot be used, or a worker failed.
pub fn run(config: LbConfig, args: StopArgs, source: ConfigSource<LbConfig>) -> anyhow::Result<()> {
    if args.before_stop {
        return restart::before_stop(&config.control_socket);
    }
    let inherited = upgrade::program::inherited()?;
    let shutdown = evermq_daemon::shutdown::on_signal()?;
    let program = upgrade::program::Program::of_this_process()?;
    let met = match inherited {
        Some(channel) => Some(upgrade::taker::meet(channel)?),
        // It is there for the clients that come, whatever has become of those of the process before.
        None => upgrade::taker::find().unwrap_or_else(|error| {
            tracing::error!(%error, "what the process before has left is lost");
            None
        }),
    };
    let lb = match met {
        None => LoadBalancer::bind(config)?,
        Some((predecessor, mut sockets)) => {
            match LoadBalancer::bind_with(config, &mut sockets) {
                Ok(lb) => {
                    // Of addresses that the file has no more: systemd has them, too.
                    sockets.rest().into_iter().for_each(evermq_daemon::kept::add);
                    lb.succeeding(predecessor)
                }
                Err(error) => {
                    predecessor.refuse(&error.to_string());
                    return Err(error.into());
                }
            }
        }
    };
    lb.reloading(source).upgradable(program).serve(&shutdown)?;
    Ok(())
}
