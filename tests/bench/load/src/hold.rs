//! Clients that stay connected and reconnect at once when they are closed: when were they closed, when were they back?

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use evermq_mqtt::packet::{Packet, QoS};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::connection;
use crate::tls::{Connector, TlsArgs};

/// An attempt that has not succeeded by then has failed; the next one follows at once.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);
/// Pause after a failed attempt, so that a refusing host is not hammered.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    /// Where to connect
    #[arg(long)]
    connect: SocketAddr,
    #[command(flatten)]
    tls: TlsArgs,
    /// Clients
    #[arg(long, default_value_t = 20)]
    clients: u32,
    /// Milliseconds between a client's PINGREQs: who sends nothing learns nothing of a server that has gone
    #[arg(long, default_value_t = 200)]
    ping: u64,
    /// Milliseconds of the whole run, from when all are connected
    #[arg(long, default_value_t = 3_000)]
    duration: u64,
}

/// One client was closed and came back; in milliseconds of wall time, so that another process can tell its own times.
#[derive(Debug, Serialize)]
pub(crate) struct Outage {
    closed_ms: f64,
    /// None where it was not back by the end.
    back_ms: Option<f64>,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct HoldResult {
    clients: u32,
    outages: Vec<Outage>,
}

pub(crate) async fn run(args: HoldArgs) -> anyhow::Result<HoldResult> {
    let tls = args.tls.connector()?;
    let mut opened = Vec::new();
    for number in 0..args.clients {
        let id = format!("hold-{}-{number}", std::process::id());
        opened.push((open(args.connect, &tls, &id).await?, id));
    }
    // The caller waits for this line before it breaks anything.
    eprintln_ready();
    let end = Instant::now() + Duration::from_millis(args.duration);
    let mut clients = JoinSet::new();
    for (connection, id) in opened {
        let ping = Duration::from_millis(args.ping);
        clients.spawn(hold(args.connect, tls.clone(), id, connection, ping, end));
    }
    let mut outages = Vec::new();
    while let Some(ended) = clients.join_next().await {
        outages.extend(ended?);
    }
    Ok(HoldResult { clients: args.clients, outages })
}

#[expect(clippy::print_stderr, reason = "a line for the caller, beside the result on standard output")]
fn eprintln_ready() {
    eprintln!("ready");
}

type Connection = (connection::Sender, connection::Receiver);

async fn open(address: SocketAddr, tls: &Connector, id: &str) -> anyhow::Result<Connection> {
    let (mut sender, receiver) = connection::connect(address, tls, id).await?;
    sender.put(&connection::subscribe(&format!("hold/{id}"), QoS::AtLeastOnce)?)?;
    sender.flush().await?;
    Ok((sender, receiver))
}

/// Reads until the connection ends, and pings.
async fn stay((mut sender, mut receiver): Connection, ping: Duration) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(ping);
    loop {
        tokio::select! {
            packet = receiver.next() => if packet?.is_none() { return Ok(()); },
            _ = ticks.tick() => {
                sender.put(&Packet::PingReq)?;
                sender.flush().await?;
            }
        }
    }
}

async fn hold(
    address: SocketAddr,
    tls: Connector,
    id: String,
    connection: Connection,
    ping: Duration,
    end: Instant,
) -> Vec<Outage> {
    let mut outages = Vec::new();
    let mut current = Some(connection);
    loop {
        if let Some(connection) = current.take() {
            tokio::select! {
                () = sleep_until(end) => return outages,
                _ = stay(connection, ping) => {}
            }
            outages.push(Outage { closed_ms: wall(), back_ms: None });
        }
        if Instant::now() >= end {
            return outages;
        }
        match timeout(ATTEMPT_TIMEOUT, open(address, &tls, &id)).await {
            Ok(Ok(connection)) => {
                if let Some(outage) = outages.last_mut() {
                    outage.back_ms = Some(wall());
                }
                current = Some(connection);
            }
            Ok(Err(_)) | Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
}

fn wall() -> f64 {
    #[expect(clippy::disallowed_methods, reason = "compared with another process's times")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}
