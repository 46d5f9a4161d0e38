//! Connections that do nothing once they stand, and what memory they take in the broker.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::link::{Reader, Target, TargetArgs, Writer};
use crate::meter;

/// Until a broker has put away what it needed to begin with.
const SETTLE: Duration = Duration::from_millis(1500);
/// Connections before memory is looked at first: what they make for good is not theirs.
const FIRST: usize = 32;
/// Connections being opened at once.
const AT_ONCE: usize = 16;

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Connections
    #[arg(long, default_value_t = 10_000)]
    count: usize,
}

pub(crate) async fn run(args: IdleArgs) -> anyhow::Result<Value> {
    let target = args.target.target()?;
    let first = open(&target, "warm", FIRST).await?;
    sleep(SETTLE).await;
    let before = meter::memory(args.target.pid)?;
    let held = open(&target, "idle", args.count).await?;
    sleep(SETTLE).await;
    let after = meter::memory(args.target.pid)?;
    let cpu = meter::cpu(args.target.pid)?;
    sleep(Duration::from_secs(1)).await;
    let idle_cpu = meter::cpu(args.target.pid)? - cpu;
    drop((first, held));
    Ok(json!({
        "bytes_each": (after as f64 - before as f64) / args.count as f64,
        "connections": args.count,
        "empty_bytes": before,
        "idle_cpu_share": idle_cpu.as_secs_f64(),
    }))
}

/// Opens `count` connections, some at a time.
pub(crate) async fn open(target: &Target, name: &str, count: usize) -> anyhow::Result<Vec<(Reader, Writer)>> {
    let (mut tasks, mut opened) = (JoinSet::new(), Vec::with_capacity(count));
    for number in 0..count {
        if number >= AT_ONCE {
            opened.push(tasks.join_next().await.context("some are under way")???);
        }
        let (target, id) = (target.clone(), format!("{name}-{number}"));
        tasks.spawn(async move { target.connect(&id, true).await });
    }
    while let Some(done) = tasks.join_next().await {
        opened.push(done??);
    }
    Ok(opened)
}
