//! Load for a TCP load balancer, and what it costs the balancer: the same for evermq-lb and its peers.
//!
//! Works on a balancer that passes TLS through begin with a real ClientHello, which the backend sends back like anything else; what
//! comes after it need not be TLS, because nobody between looks at it. With certificates the balancer ends TLS; then the first
//! bytes are an MQTT CONNECT. One line of JSON is printed. `tests/bench/lb` runs it.

#![expect(clippy::disallowed_methods, reason = "it measures time")]

mod backend;
mod bulk;
mod connect;
mod echo;
mod idle;
mod meter;
mod paced;
mod storm;
mod target;

use clap::{Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Load for a TCP load balancer, and what it costs the balancer
#[derive(Parser)]
#[command(name = "lb-bench", version)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send back whatever comes, after a PROXY protocol header if there is one
    Backend(backend::BackendArgs),
    /// Connect, greet, get the greeting back, close
    Connect(connect::ConnectArgs),
    /// 64 bytes there and back, again and again, as fast as it goes
    Echo(echo::EchoArgs),
    /// 64 bytes there and back at a fixed rate over all connections; times, stalls, lost connections
    Paced(paced::PacedArgs),
    /// Connections full of bytes from the backend
    Bulk(bulk::BulkArgs),
    /// Connections that do nothing, and their memory
    Idle(idle::IdleArgs),
    /// Clients that connect all at once (TCP, mutual TLS, CONNECT, CONNACK), and how long each waits
    Storm(storm::StormArgs),
}

fn main() -> anyhow::Result<()> {
    let line = Line::parse();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = tokio::task::LocalSet::new().block_on(&runtime, async {
        match line.command {
            Command::Backend(args) => backend::run(args).await,
            Command::Connect(args) => connect::run(args).await,
            Command::Echo(args) => echo::run(args).await,
            Command::Paced(args) => paced::run(args).await,
            Command::Bulk(args) => bulk::run(args).await,
            Command::Idle(args) => idle::run(args).await,
            Command::Storm(args) => storm::run(args).await,
        }
    })?;
    serde_json::to_writer(std::io::stdout().lock(), &result)?;
    Ok(())
}

/// A line for the caller, beside the result on standard output.
#[expect(clippy::print_stderr, reason = "a line for the caller, beside the result on standard output")]
fn say(line: &str) {
    eprintln!("{line}");
}
