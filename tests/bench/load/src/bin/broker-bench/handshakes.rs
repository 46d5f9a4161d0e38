//! Connect, with mutual TLS if there are certificates, CONNECT, CONNACK, close: what one costs the broker.

use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::link::TargetArgs;
use crate::meter;

/// Clients at once.
const AT_ONCE: usize = 8;

#[derive(Debug, Args)]
pub(crate) struct HandshakesArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Connections
    #[arg(long, default_value_t = 1_500)]
    count: usize,
}

pub(crate) async fn run(args: HandshakesArgs) -> anyhow::Result<Value> {
    let target = args.target.target()?;
    let (cpu, begin, mut tasks) = (meter::cpu(args.target.pid)?, Instant::now(), JoinSet::new());
    for client in 0..AT_ONCE {
        let (target, count) = (target.clone(), args.count / AT_ONCE);
        tasks.spawn(async move {
            for number in 0..count {
                let (_, writer) = target.connect(&format!("hand-{client}-{number}"), true).await?;
                writer.leave().await?;
            }
            anyhow::Ok(count)
        });
    }
    let mut done = 0;
    while let Some(ended) = tasks.join_next().await {
        done += ended??;
    }
    let used = meter::cpu(args.target.pid)? - cpu;
    Ok(json!({
        "cpu_us": meter::micros_each(Some(used), done),
        "per_cpu_second": done as f64 / used.as_secs_f64(),
        "per_second": done as f64 / begin.elapsed().as_secs_f64(),
        "connections": done,
    }))
}
