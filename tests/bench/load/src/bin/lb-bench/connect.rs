//! New connections: connect, greet, get the greeting back, close.

use std::rc::Rc;
use std::time::Instant;

use anyhow::ensure;
use clap::Args;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use crate::meter;
use crate::target::{Target, TargetArgs};

#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Connections in all
    #[arg(long, default_value_t = 6000)]
    count: usize,
    /// Connections under way at once
    #[arg(long, default_value_t = 8)]
    at_once: usize,
}

pub(crate) async fn run(args: ConnectArgs) -> anyhow::Result<Value> {
    let target = Rc::new(args.target.target()?);
    // The first ones bring tickets to resume with, and whatever a balancer makes at first use.
    all(&target, 8 * args.at_once, args.at_once).await?;
    let before = args.target.pid.map(meter::cpu).transpose()?;
    let start = Instant::now();
    let resumed = all(&target, args.count, args.at_once).await?;
    let took = start.elapsed();
    let used = meter::since(args.target.pid, before)?;
    ensure!(resumed == 0 || resumed * 100 >= args.count * 99, "only {resumed} of {} were resumed", args.count);
    Ok(json!({
        "cpu_us": meter::micros_each(used, args.count),
        "per_second": args.count as f64 / took.as_secs_f64(),
        "resumed": resumed,
    }))
}

/// How many of them were resumed.
async fn all(target: &Rc<Target>, count: usize, at_once: usize) -> anyhow::Result<usize> {
    let mut tasks = JoinSet::new();
    for number in 0..at_once {
        let target = Rc::clone(target);
        tasks.spawn_local(async move {
            let mut resumed = 0;
            for _ in (number..count).step_by(at_once) {
                let mut opened = target.open().await?;
                resumed += usize::from(opened.resumed);
                opened.stream.shutdown().await?;
            }
            anyhow::Ok(resumed)
        });
    }
    let mut resumed = 0;
    while let Some(done) = tasks.join_next().await {
        resumed += done??;
    }
    Ok(resumed)
}
