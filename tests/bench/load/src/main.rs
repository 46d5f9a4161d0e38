//! Load generator and outage probe. Every run is bounded in messages or in time and ends by itself.
//!
//! `flow` sends numbered messages from publishers to subscribers and counts what arrives, how often and in which order.
//! `probe` makes a fresh connection at an interval and reports the longest time without one.
//! `hold` stays connected and reports when its clients were closed and when they were back.

mod connection;
mod flow;
mod hold;
mod probe;
mod tls;

use clap::{Parser, Subcommand};

/// Load generator and outage probe
#[derive(Parser)]
#[command(name = "evermq-load", version)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send numbered messages and count what arrives
    Flow(flow::FlowArgs),
    /// Connect anew at an interval and report the longest time without success
    Probe(probe::ProbeArgs),
    /// Stay connected, reconnect at once, report the outages
    Hold(hold::HoldArgs),
}

fn main() -> anyhow::Result<()> {
    let line = Line::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = match line.command {
        Command::Flow(args) => serde_json::to_value(runtime.block_on(flow::run(args))?)?,
        Command::Probe(args) => serde_json::to_value(runtime.block_on(probe::run(args))?)?,
        Command::Hold(args) => serde_json::to_value(runtime.block_on(hold::run(args))?)?,
    };
    serde_json::to_writer(std::io::stdout().lock(), &result)?;
    Ok(())
}
