//! Messages at a fixed rate over many connections, whether or not those before have come, and how long each takes from publisher to subscriber.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::link::{FarArgs, Reader, TargetArgs, Writer};
use crate::meter::{self, percentile};
use crate::receive::answer;
use crate::wire::{self, Message};

const WARM: Duration = Duration::from_millis(500);
/// Until the last message has come.
const REST: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct PacedArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    far: FarArgs,
    /// Payload bytes
    #[arg(long, default_value_t = 64, value_parser = wire::payload_size)]
    size: usize,
    /// Connections: half of them publish, each to one of the others
    #[arg(long, default_value_t = 100)]
    connections: u32,
    /// Messages in a second, over all connections
    #[arg(long, default_value_t = 20_000)]
    rate: u32,
    /// Quality of service, both ways
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    qos: u8,
    /// Seconds that count
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

type Times = Arc<Mutex<Vec<(Duration, Duration)>>>;

pub(crate) async fn run(args: PacedArgs) -> anyhow::Result<Value> {
    let target = args.target.target()?;
    let far = args.far.target(&target);
    let pairs = args.connections / 2;
    let (begin, times, mut tasks) = (Instant::now(), Times::default(), JoinSet::new());
    let mut writers = Vec::new();
    for number in 0..pairs {
        let topic = format!("paced/{}/{number}", std::process::id());
        let (reader, writer) = far.subscribe(&format!("paced-s{number}"), true, &topic, args.qos).await?;
        tasks.spawn(subscriber(reader, writer, begin, Arc::clone(&times)));
        let (reader, writer) = target.connect(&format!("paced-p{number}"), true).await?;
        tasks.spawn(ignore(reader));
        writers.push((topic, writer));
    }
    let total = WARM.as_secs_f64() + args.seconds;
    let (mut ticks, mut sent, start) = (interval(Duration::from_millis(1)), 0_u64, Instant::now());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut cpu, mut far_cpu, mut latest) = (None, None, Duration::ZERO);
    while start.elapsed().as_secs_f64() < total {
        let late = ticks.tick().await.into_std().elapsed();
        if start.elapsed() >= WARM {
            latest = latest.max(late);
            if cpu.is_none() {
                cpu = Some(meter::cpu(args.target.pid)?);
                far_cpu = args.far.cpu()?;
            }
        }
        let due = (start.elapsed().as_secs_f64() * f64::from(args.rate)) as u64;
        while sent < due {
            let index = (sent % u64::from(pairs)) as usize;
            let (topic, writer) = &mut writers[index];
            wire::publish(&mut writer.out, topic, args.qos << 1, 0, sent / u64::from(pairs), args.size);
            let at = writer.out.len() - 8;
            writer.out[at..].copy_from_slice(&(begin.elapsed().as_nanos() as u64).to_be_bytes());
            writer.flush().await?;
            sent += 1;
        }
    }
    let cpu = (meter::cpu(args.target.pid)? - cpu.context("too short")?).as_secs_f64();
    let far_cpu = args.far.cpu()?.zip(far_cpu).map(|(after, before)| (after - before).as_secs_f64());
    let end = Instant::now();
    while (times.lock().len() as u64) < sent && end.elapsed() < REST {
        sleep(Duration::from_millis(20)).await;
    }
    tasks.shutdown().await;
    let warm = start + WARM - begin;
    let times = std::mem::take(&mut *times.lock());
    let mut counted: Vec<_> = times.iter().filter(|(at, _)| *at >= warm).map(|(_, took)| *took).collect();
    counted.sort_unstable();
    Ok(json!({
        "p50_us": percentile(&counted, 0.5),
        "p99_us": percentile(&counted, 0.99),
        "max_us": percentile(&counted, 1.0),
        "cpu_us": cpu * 1e6 / counted.len().max(1) as f64,
        "to_cpu_us": far_cpu.map(|cpu| cpu * 1e6 / counted.len().max(1) as f64),
        "sent": sent,
        "lost": sent.saturating_sub(times.len() as u64),
        // How late this program itself was at worst.
        "late_us": latest.as_secs_f64() * 1e6,
    }))
}

async fn subscriber(mut reader: Reader, mut writer: Writer, begin: Instant, times: Times) -> anyhow::Result<()> {
    loop {
        let (out, mut found) = (&mut writer.out, Vec::new());
        reader
            .read(|first, body| {
                answer(out, first, body);
                if first >> 4 == wire::PUBLISH
                    && let Some(stamp) =
                        Message::read(first, body).and_then(|message| message.payload.last_chunk().copied())
                {
                    let at = Duration::from_nanos(u64::from_be_bytes(stamp));
                    found.push((at, begin.elapsed().saturating_sub(at)));
                }
            })
            .await?;
        times.lock().extend(found);
        writer.flush().await?;
    }
}

/// Acknowledgements of a publisher, which waits for none.
async fn ignore(mut reader: Reader) -> anyhow::Result<()> {
    loop {
        reader.read(|_, _| {}).await?;
    }
}
