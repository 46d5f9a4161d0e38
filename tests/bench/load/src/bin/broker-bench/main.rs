//! Load for an MQTT broker, and what it costs the broker: the same for evermq-broker and its peers, MQTT 3.1.1.
//!
//! Messages carry their publisher and a number, so what is lost or repeated is counted. One line of JSON is printed. `tests/bench/broker` runs it.

#![expect(clippy::disallowed_methods, reason = "it measures time")]

mod backlog;
mod flow;
mod handshakes;
mod idle;
mod link;
#[path = "../lb-bench/meter.rs"]
#[expect(dead_code, reason = "shared with lb-bench, which uses all of it")]
mod meter;
mod paced;
mod receive;
mod retained;
mod slow;
mod subscriptions;
#[path = "../../tls.rs"]
mod tls;
mod wire;

use clap::{Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Load for an MQTT broker, and what it costs the broker
#[derive(Parser)]
#[command(name = "broker-bench", version)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Messages from publishers to subscribers as fast as they go
    Flow(flow::FlowArgs),
    /// Messages at a fixed rate, and how long each takes
    Paced(paced::PacedArgs),
    /// Connections that do nothing, and their memory
    Idle(idle::IdleArgs),
    /// Connect, CONNACK, close, again and again
    Handshakes(handshakes::HandshakesArgs),
    /// A subscriber that does not read, and one that does
    Slow(slow::SlowArgs),
    /// Very many retained messages: their memory, and wildcards over them
    Retained(retained::RetainedArgs),
    /// Very many subscriptions: their memory, and messages past them
    Subscriptions(subscriptions::SubscriptionsArgs),
    /// Messages for persistent sessions that are away
    Fill(backlog::FillArgs),
    /// One of these sessions comes back
    Drain(backlog::DrainArgs),
}

fn main() -> anyhow::Result<()> {
    let line = Line::parse();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        match line.command {
            Command::Flow(args) => flow::run(args).await,
            Command::Paced(args) => paced::run(args).await,
            Command::Idle(args) => idle::run(args).await,
            Command::Handshakes(args) => handshakes::run(args).await,
            Command::Slow(args) => slow::run(args).await,
            Command::Retained(args) => retained::run(args).await,
            Command::Subscriptions(args) => subscriptions::run(args).await,
            Command::Fill(args) => backlog::fill(args).await,
            Command::Drain(args) => backlog::drain(args).await,
        }
    })?;
    serde_json::to_writer(std::io::stdout().lock(), &result)?;
    Ok(())
}
