//! A subscriber that does not read while very much is sent past it to one that does: what the broker keeps for it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::link::{TargetArgs, greet};
use crate::meter;
use crate::receive::{self, Progress};
use crate::wire;

const SIZE: usize = 64 * 1024;
/// Messages on the way to the subscriber that reads.
const WINDOW: u64 = 32;
/// Nothing has come for so long: it is lost.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct SlowArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Megabytes sent past it
    #[arg(long, default_value_t = 400)]
    megabytes: u64,
}

pub(crate) async fn run(args: SlowArgs) -> anyhow::Result<Value> {
    let target = args.target.target()?;
    let progress = Arc::new(Progress::default());
    let mut tasks = JoinSet::new();
    let (reader, writer) = target.subscribe("slow-reads", true, "slow/#", 0).await?;
    tasks.spawn(receive::run(reader, writer, Arc::clone(&progress)));
    let (_, mut publisher) = target.connect("slow-publishes", true).await?;
    // What the way itself needs is not the slow reader's.
    let mut sent = 0;
    while sent < 200 {
        send(&mut publisher, &mut sent, &progress).await?;
    }
    let before = meter::memory(args.target.pid)?;
    // Never read from again.
    let mut held = greet(target.stream(Some(16 * 1024)).await?, "slow-never-reads", true).await?;
    held.1.out.extend_from_slice(&wire::subscribe(&["slow/#".to_owned()], 0));
    held.1.flush().await?;
    sleep(Duration::from_millis(300)).await;
    let (begin, messages) = (Instant::now(), sent + args.megabytes * 1_000_000 / SIZE as u64);
    let mut most = before;
    while sent < messages {
        send(&mut publisher, &mut sent, &progress).await?;
        if sent % 64 == 0 {
            most = most.max(meter::memory(args.target.pid)?);
        }
    }
    let _ = timeout(PATIENCE, async {
        while progress.delivered.load(Relaxed) < sent {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let seconds = begin.elapsed().as_secs_f64();
    most = most.max(meter::memory(args.target.pid)?);
    drop(held);
    tasks.shutdown().await;
    Ok(json!({
        "more_bytes": most - before,
        "seconds": seconds,
        "lost": sent - progress.delivered.load(Relaxed),
    }))
}

async fn send(publisher: &mut crate::link::Writer, sent: &mut u64, progress: &Progress) -> anyhow::Result<()> {
    wire::publish(&mut publisher.out, "slow/x", 0, 0, *sent, SIZE);
    publisher.flush().await?;
    *sent += 1;
    let begin = Instant::now();
    while *sent - progress.delivered.load(Relaxed) > WINDOW {
        let _ = timeout(Duration::from_millis(5), progress.changed.notified()).await;
        anyhow::ensure!(begin.elapsed() < PATIENCE, "the reader got nothing for {PATIENCE:?}");
    }
    Ok(())
}
