//! Clients that connect all at once: TCP, mutual TLS, CONNECT, CONNACK. Each tries once, and waits for as long as it takes.
//!
//! One process cannot hold more sockets than its limit of open files; the caller starts several, which begin when their
//! standard input says so.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::target::{TargetArgs, connect_from, mqtt_connect};
use crate::{meter, say};

/// MQTT 3.1.1 §3.2: session not present, accepted.
const ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];

#[derive(Debug, Args)]
pub(crate) struct StormArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Clients
    #[arg(long, default_value_t = 10_000)]
    clients: u32,
    /// The first of the addresses that they come from
    #[arg(long, default_value = "127.0.100.1")]
    source: Ipv4Addr,
    /// How many addresses they come from
    #[arg(long, default_value_t = 50)]
    sources: u32,
    /// Seconds after which a client that is not back has failed
    #[arg(long, default_value_t = 120)]
    patience: u64,
    /// Milliseconds that a client stays once it is back; 0: until all are
    #[arg(long, default_value_t = 0)]
    stay: u64,
}

pub(crate) async fn run(args: StormArgs) -> anyhow::Result<Value> {
    let connector = args.target.connector()?.context("--ca, --cert and --key are needed")?;
    say("ready");
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..args.clients {
        let source = Ipv4Addr::from_bits(args.source.to_bits() + number % args.sources.max(1));
        let (connector, target) = (connector.clone(), args.target.clone());
        let (patience, stay) = (Duration::from_secs(args.patience), Duration::from_millis(args.stay));
        tasks.spawn_local(async move {
            let id = format!("{source}-{number}");
            let since = Instant::now();
            let back = timeout(patience, client(source, target, connector, id)).await;
            let at = Instant::now();
            let result = match back {
                Ok(Ok(stream)) => Ok((stream, at - since, at - start)),
                Ok(Err(error)) => Err(format!("{error:#}")),
                Err(_) => Err("out of patience".to_owned()),
            };
            if stay.is_zero() {
                return result.map(|(stream, wait, at)| (Some(stream), wait, at));
            }
            sleep(stay).await;
            result.map(|(_, wait, at)| (None, wait, at))
        });
    }
    let (mut waits, mut times, mut held, mut errors) = (Vec::new(), Vec::new(), Vec::new(), BTreeMap::new());
    while let Some(done) = tasks.join_next().await {
        match done? {
            Ok((stream, wait, at)) => {
                waits.push(wait);
                times.push(at);
                held.push(stream);
            }
            Err(error) => *errors.entry(error).or_insert(0) += 1,
        }
    }
    waits.sort_unstable();
    times.sort_unstable();
    let milliseconds = |sorted: &[Duration], share| meter::percentile(sorted, share) / 1e3;
    Ok(json!({
        "clients": args.clients,
        "back": waits.len(),
        "errors": errors,
        "wait_p50_ms": milliseconds(&waits, 0.5),
        "wait_p99_ms": milliseconds(&waits, 0.99),
        "wait_max_ms": milliseconds(&waits, 1.0),
        "all_back_ms": milliseconds(&times, 1.0),
        "waits_ms": waits.iter().map(|wait| wait.as_secs_f64() * 1e3).collect::<Vec<_>>(),
    }))
}

async fn client(
    source: Ipv4Addr,
    target: TargetArgs,
    connector: TlsConnector,
    id: String,
) -> anyhow::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let SocketAddr::V4(address) = target.address else { anyhow::bail!("an IPv4 address is needed") };
    let tcp = connect_from(SocketAddrV4::new(source, 0), address.into()).await.context("connect")?;
    let mut stream = connector.connect(target.server_name()?, tcp).await.context("TLS")?;
    stream.write_all(&mqtt_connect(&id)).await.context("CONNECT")?;
    stream.flush().await.context("CONNECT")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.context("CONNACK")?;
    ensure!(answer == ACCEPTED, "CONNACK {answer:?}");
    Ok(stream)
}
