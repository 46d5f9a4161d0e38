//! Connections that do nothing once they stand, and what memory they take in the balancer.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::sleep;

use crate::echo::MESSAGE;
use crate::meter;
use crate::target::{Opened, TargetArgs};

/// Until a balancer has put away what it needed to begin with.
const SETTLE: Duration = Duration::from_millis(1500);
/// Connections before memory is looked at first.
const FIRST: usize = 16;

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Connections
    #[arg(long, default_value_t = 9_700)]
    count: usize,
}

pub(crate) async fn run(args: IdleArgs) -> anyhow::Result<Value> {
    let pid = args.target.pid.context("--pid is needed")?;
    // What the first connections make for good is not theirs.
    let first = busy_once(args.target.target()?.open_all(FIRST).await?).await?;
    sleep(SETTLE).await;
    let before = meter::memory(pid)?;
    let held = busy_once(args.target.target()?.open_all(args.count).await?).await?;
    sleep(SETTLE).await;
    let cpu = meter::cpu(pid)?;
    sleep(Duration::from_secs(1)).await;
    let idle_cpu = meter::cpu(pid)? - cpu;
    let after = meter::memory(pid)?;
    drop((first, held));
    Ok(json!({
        "bytes_each": (after as f64 - before as f64) / args.count as f64,
        "connections": args.count,
        "empty_bytes": before,
        "idle_cpu_share": idle_cpu.as_secs_f64(),
    }))
}

/// One message there and back on each, as MQTT clients that have subscribed.
async fn busy_once(mut opened: Vec<Opened>) -> anyhow::Result<Vec<Opened>> {
    let mut message = [7; MESSAGE];
    for Opened { stream, .. } in &mut opened {
        stream.write_all(&message).await?;
        stream.flush().await?;
        stream.read_exact(&mut message).await?;
    }
    Ok(opened)
}
