//! Clients that stay connected and reconnect at once when they are closed: when were they closed, when were they back?
//!
//! A server that hangs closes nothing: hence also the longest time that a client was without service, from the PINGREQ that was not
//! answered, or from the end of its connection, until it got an answer, here or on a new connection.
//!
//! With `--idle` they only listen, as a subscriber does between two messages: their keep alive is 60 s, so what they learn of a
//! server that has gone within a shorter run is what the network tells them.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use evermq_mqtt::packet::{Packet, QoS};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, sleep_until, timeout};

use crate::connection;
use crate::tls::{Connector, TlsArgs};

/// The first connections are made one by one; one that fails is made again until then.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Who has waited for that long at the end is not served; who has waited for less may have asked a moment ago.
const UNSERVED: Duration = Duration::from_secs(1);

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
    /// Send nothing at all once subscribed
    #[arg(long, conflicts_with = "ping")]
    idle: bool,
    /// Milliseconds after which an attempt to connect again has failed
    #[arg(long, default_value_t = 500)]
    attempt: u64,
    /// Milliseconds between a failed attempt and the next one: many clients that are refused keep the machine busy
    #[arg(long, default_value_t = 5)]
    retry: u64,
    /// Milliseconds of the whole run, from when all are connected
    #[arg(long, default_value_t = 3_000)]
    duration: u64,
}

/// One client was closed and came back; in milliseconds of wall time, so that another process can tell its own times.
#[derive(Debug, Serialize)]
pub(crate) struct Outage {
    /// Number of the client, from 0.
    client: u32,
    closed_ms: f64,
    /// Connected and subscribed again; none where it was not by the end.
    back_ms: Option<f64>,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct HoldResult {
    clients: u32,
    outages: Vec<Outage>,
    /// Longest time that a client was without service, in milliseconds. With `--idle`, of those that were closed.
    longest_unserved_ms: f64,
    /// Clients that were without service at the end, for at least a second.
    unserved_at_end: u32,
}

pub(crate) async fn run(args: HoldArgs) -> anyhow::Result<HoldResult> {
    let tls = args.tls.connector()?;
    let mut opened = Vec::new();
    for number in 0..args.clients {
        let id = format!("hold-{}-{number}", std::process::id());
        opened.push((open_patiently(args.connect, &tls, &id).await?, id));
    }
    // The caller waits for this line before it breaks anything.
    eprintln_ready();
    let end = Instant::now() + Duration::from_millis(args.duration);
    let mut clients = JoinSet::new();
    for (number, (connection, id)) in (0..).zip(opened) {
        let ping = (!args.idle).then_some(Duration::from_millis(args.ping));
        let [attempt, retry] = [args.attempt, args.retry].map(Duration::from_millis);
        let service = Service::default();
        let client = Client { number, address: args.connect, tls: tls.clone(), id, ping, attempt, retry, end, service };
        clients.spawn(client.hold(connection));
    }
    let mut result =
        HoldResult { clients: args.clients, outages: Vec::new(), longest_unserved_ms: 0.0, unserved_at_end: 0 };
    while let Some(ended) = clients.join_next().await {
        let (outages, service) = ended?;
        result.outages.extend(outages);
        let lasting = service.asked.map_or(Duration::ZERO, |since| end.saturating_duration_since(since));
        result.unserved_at_end += u32::from(lasting >= UNSERVED);
        result.longest_unserved_ms =
            result.longest_unserved_ms.max(service.longest.max(lasting).as_secs_f64() * 1_000.0);
    }
    Ok(result)
}

#[expect(clippy::print_stderr, reason = "a line for the caller, beside the result on standard output")]
fn eprintln_ready() {
    eprintln!("ready");
}

type Connection = (connection::Sender, connection::Receiver);

/// Opens the first time, when nothing has been broken yet: a failure is an accident, unless it stays.
async fn open_patiently(address: SocketAddr, tls: &Connector, id: &str) -> anyhow::Result<Connection> {
    let deadline = Instant::now() + OPEN_TIMEOUT;
    loop {
        match open(address, tls, id).await {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
            result => return result,
        }
    }
}

/// Connects and subscribes; both are acknowledged.
async fn open(address: SocketAddr, tls: &Connector, id: &str) -> anyhow::Result<Connection> {
    let (mut sender, mut receiver) = connection::connect(address, tls, id).await?;
    sender.put(&connection::subscribe(&format!("hold/{id}"), QoS::AtLeastOnce)?)?;
    sender.flush().await?;
    match receiver.next().await? {
        Some(Packet::SubAck(_)) => Ok((sender, receiver)),
        other => anyhow::bail!("no SUBACK but {other:?}"),
    }
}

struct Client {
    number: u32,
    address: SocketAddr,
    tls: Connector,
    id: String,
    /// None: it sends nothing.
    ping: Option<Duration>,
    attempt: Duration,
    retry: Duration,
    end: Instant,
    service: Service,
}

/// Since when a client waits.
#[derive(Debug, Default)]
struct Service {
    asked: Option<Instant>,
    longest: Duration,
}

impl Service {
    /// Asks, or is closed: what it waits for already counts from before.
    fn wanted(&mut self) {
        self.asked.get_or_insert_with(Instant::now);
    }

    /// Has an answer.
    fn given(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.longest = self.longest.max(asked.elapsed());
        }
    }
}

impl Client {
    async fn hold(mut self, connection: Connection) -> (Vec<Outage>, Service) {
        let mut outages = Vec::new();
        let mut current = Some(connection);
        loop {
            if let Some(connection) = current.take() {
                let end = self.end;
                tokio::select! {
                    () = sleep_until(end) => return (outages, self.service),
                    _ = self.stay(connection) => {}
                }
                self.service.wanted();
                outages.push(Outage { client: self.number, closed_ms: wall(), back_ms: None });
            }
            if Instant::now() >= self.end {
                return (outages, self.service);
            }
            match timeout(self.attempt, open(self.address, &self.tls, &self.id)).await {
                Ok(Ok(connection)) => {
                    self.service.given();
                    if let Some(outage) = outages.last_mut() {
                        outage.back_ms = Some(wall());
                    }
                    current = Some(connection);
                }
                Ok(Err(_)) | Err(_) => tokio::time::sleep(self.retry).await,
            }
        }
    }

    /// Reads until the connection ends, and pings.
    async fn stay(&mut self, (mut sender, mut receiver): Connection) -> anyhow::Result<()> {
        let mut ticks = self.ping.map(tokio::time::interval);
        loop {
            tokio::select! {
                packet = receiver.next() => match packet? {
                    Some(_) => self.service.given(),
                    None => return Ok(()),
                },
                () = tick(&mut ticks) => {
                    self.service.wanted();
                    sender.put(&Packet::PingReq)?;
                    sender.flush().await?;
                }
            }
        }
    }
}

/// The next tick; without an interval, never.
async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

fn wall() -> f64 {
    #[expect(clippy::disallowed_methods, reason = "compared with another process's times")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}
