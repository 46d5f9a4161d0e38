//! Messages from publishers to subscribers as fast as they go, with a bounded number of them on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::link::{FarArgs, Reader, Target, TargetArgs, Writer};
use crate::meter;
use crate::receive::{self, Progress};
use crate::wire;

/// Messages on the way at once, all publishers together: nothing need be dropped.
const WINDOW: u64 = 4000;
/// QoS 1 and 2 messages that one publisher leaves unacknowledged.
const UNACKNOWLEDGED: u64 = 100;
const BATCH: u64 = 50;
/// Before it counts.
const WARM: Duration = Duration::from_millis(400);
/// Without a message for so long, those that have not come are lost.
const REST: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Args)]
pub(crate) struct FlowArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    #[command(flatten)]
    pub(crate) far: FarArgs,
    /// Payload bytes
    #[arg(long, default_value_t = 64, value_parser = wire::payload_size)]
    pub(crate) size: usize,
    /// Publishers
    #[arg(long, default_value_t = 1)]
    pub(crate) publishers: u32,
    /// Subscribers, each of which gets every message
    #[arg(long, default_value_t = 1)]
    pub(crate) subscribers: u32,
    /// Quality of service, both ways
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: u8,
    /// Seconds that count
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Subscribers have persistent sessions
    #[arg(long)]
    pub(crate) persistent: bool,
    /// They are away while it counts, and come back for what waits
    #[arg(long, requires = "persistent")]
    pub(crate) offline: bool,
}

pub(crate) async fn run(args: FlowArgs) -> anyhow::Result<Value> {
    let target = args.target.target()?;
    let far = args.far.target(&target);
    let progress = Arc::new(Progress::default());
    let prefix = format!("bench/{}", std::process::id());
    let mut tasks = JoinSet::new();
    let names: Vec<_> = (0..args.subscribers).map(|number| format!("bench-s{number}-{}", std::process::id())).collect();
    for name in &names {
        let (reader, writer) = far.subscribe(name, !args.persistent, &format!("{prefix}/#"), args.qos).await?;
        if args.offline {
            writer.leave().await?;
        } else {
            tasks.spawn(receive::run(reader, writer, Arc::clone(&progress)));
        }
    }
    let mut publishers = JoinSet::new();
    for number in 0..args.publishers {
        let (reader, writer) = target.connect(&format!("bench-p{number}-{}", std::process::id()), true).await?;
        let publisher = Publisher { args: args.clone(), number, topic: format!("{prefix}/{number}"), writer };
        publishers.spawn(publisher.run(reader, Arc::clone(&progress)));
    }
    sleep(WARM).await;
    let counter = || if args.offline { progress.acknowledged.load(Relaxed) } else { progress.delivered.load(Relaxed) };
    let (cpu, far_cpu, count, acknowledged, begin) =
        (meter::cpu(args.target.pid)?, args.far.cpu()?, counter(), progress.acknowledged.load(Relaxed), Instant::now());
    sleep(Duration::from_secs_f64(args.seconds)).await;
    let (seconds, count, acknowledged, cpu) = (
        begin.elapsed().as_secs_f64(),
        counter() - count,
        progress.acknowledged.load(Relaxed) - acknowledged,
        (meter::cpu(args.target.pid)? - cpu).as_secs_f64(),
    );
    let far_cpu = args.far.cpu()?.zip(far_cpu).map(|(after, before)| (after - before).as_secs_f64());
    progress.stop.store(true, Relaxed);
    let failed = finish(&mut publishers).await;
    let memory = meter::memory(args.target.pid)?;
    let back = Instant::now();
    if args.offline {
        for name in &names {
            let (reader, writer) = far.connect(name, false).await?;
            tasks.spawn(receive::run(reader, writer, Arc::clone(&progress)));
        }
    }
    let expected = progress.sent.load(Relaxed) * u64::from(args.subscribers);
    let complete = delivered(&progress, expected, REST).await;
    let drained = back.elapsed().as_secs_f64();
    tasks.shutdown().await;
    if args.persistent {
        forget(&far, &names).await?;
    }
    let got = progress.delivered.load(Relaxed);
    Ok(json!({
        "per_second": count as f64 / seconds,
        "acknowledged_per_second": acknowledged as f64 / seconds,
        "per_cpu_second": count as f64 / cpu,
        "cpu_us": cpu * 1e6 / (count.max(1) as f64),
        "to_cpu_us": far_cpu.map(|cpu| cpu * 1e6 / (count.max(1) as f64)),
        "memory": memory,
        "sent": progress.sent.load(Relaxed),
        "lost": expected.saturating_sub(got),
        "missing": progress.missing.load(Relaxed),
        "repeated": progress.repeated.load(Relaxed),
        "complete": complete,
        "drained_per_second": if args.offline { Some(got as f64 / drained) } else { None },
        "failed": failed,
    }))
}

/// Waits for the publishers; the first error in words.
async fn finish(publishers: &mut JoinSet<anyhow::Result<()>>) -> Option<String> {
    let mut failed = None;
    let all = async {
        while let Some(ended) = publishers.join_next().await {
            if let Ok(Err(error)) = ended {
                failed = Some(format!("{error:#}"));
            }
        }
    };
    if timeout(REST, all).await.is_err() {
        publishers.shutdown().await;
        return Some("publishers got no acknowledgement".to_owned());
    }
    failed
}

/// Waits until so many have come, however long that takes, or none for `patience`; whether they have.
async fn delivered(progress: &Progress, expected: u64, patience: Duration) -> bool {
    let mut latest = (0, Instant::now());
    loop {
        let count = progress.delivered.load(Relaxed);
        if count >= expected {
            return true;
        }
        if count > latest.0 {
            latest = (count, Instant::now());
        } else if latest.1.elapsed() > patience {
            return false;
        }
        let _ = timeout(Duration::from_millis(50), progress.changed.notified()).await;
    }
}

/// Persistent sessions end with a clean one.
async fn forget(target: &Target, names: &[String]) -> anyhow::Result<()> {
    for name in names {
        let (_, writer) = target.connect(name, true).await?;
        writer.leave().await?;
    }
    Ok(())
}

struct Publisher {
    args: FlowArgs,
    number: u32,
    topic: String,
    writer: Writer,
}

impl Publisher {
    /// Sends until it is stopped, then waits for the acknowledgements.
    async fn run(self, reader: Reader, progress: Arc<Progress>) -> anyhow::Result<()> {
        let Self { args, number, topic, mut writer } = self;
        let window = Arc::new((AtomicU64::new(0), Notify::new()));
        let (released, mut releases) = tokio::sync::mpsc::unbounded_channel();
        let mut acks = JoinSet::new();
        acks.spawn(acknowledgements(reader, args.qos, Arc::clone(&window), released, Arc::clone(&progress)));
        let mut sent = 0;
        let unanswered = |sent: u64| if args.qos == 0 { 0 } else { sent - window.0.load(Relaxed) };
        let behind = || {
            let delivered = progress.delivered.load(Relaxed) / u64::from(args.subscribers);
            !args.offline && progress.sent.load(Relaxed).saturating_sub(delivered) >= WINDOW
        };
        while !progress.stop.load(Relaxed) {
            for _ in 0..BATCH {
                wire::publish(&mut writer.out, &topic, args.qos << 1, number, sent, args.size);
                sent += 1;
            }
            progress.sent.fetch_add(BATCH, Relaxed);
            writer.flush().await?;
            loop {
                let changed = progress.changed.notified();
                if !behind() || progress.stop.load(Relaxed) {
                    break;
                }
                let _ = timeout(Duration::from_millis(20), changed).await;
            }
            while unanswered(sent) > UNACKNOWLEDGED - BATCH {
                tokio::select! {
                    id = releases.recv() => release(&mut writer, id, &mut releases).await?,
                    () = window.1.notified() => {}
                    Some(ended) = acks.join_next() => ended??,
                }
            }
        }
        while unanswered(sent) > 0 {
            tokio::select! {
                id = releases.recv() => release(&mut writer, id, &mut releases).await?,
                () = window.1.notified() => {}
                Some(ended) = acks.join_next() => ended??,
            }
        }
        if args.qos == 0 {
            // Held open until all has come: a close must not overtake what the broker has not read.
            let expected = progress.sent.load(Relaxed) * u64::from(args.subscribers);
            delivered(&progress, expected, REST / 2).await;
        }
        Ok(())
    }
}

type Releases = tokio::sync::mpsc::UnboundedReceiver<[u8; 2]>;

/// PUBREL for each PUBREC that has come.
async fn release(writer: &mut Writer, first: Option<[u8; 2]>, more: &mut Releases) -> anyhow::Result<()> {
    let Some(id) = first else { anyhow::bail!("the connection has ended") };
    wire::ack(&mut writer.out, wire::PUBREL, id);
    while let Ok(id) = more.try_recv() {
        wire::ack(&mut writer.out, wire::PUBREL, id);
    }
    writer.flush().await
}

async fn acknowledgements(
    mut reader: Reader,
    qos: u8,
    window: Arc<(AtomicU64, Notify)>,
    released: tokio::sync::mpsc::UnboundedSender<[u8; 2]>,
    progress: Arc<Progress>,
) -> anyhow::Result<()> {
    let last = if qos == 2 { wire::PUBCOMP } else { wire::PUBACK };
    loop {
        let mut count = 0;
        reader
            .read(|first, body| match (first >> 4, body.first_chunk()) {
                (kind, _) if kind == last => count += 1,
                (wire::PUBREC, Some(id)) => drop(released.send(*id)),
                _ => {}
            })
            .await?;
        window.0.fetch_add(count, Relaxed);
        progress.acknowledged.fetch_add(count, Relaxed);
        if count > 0 {
            window.1.notify_one();
        }
    }
}
