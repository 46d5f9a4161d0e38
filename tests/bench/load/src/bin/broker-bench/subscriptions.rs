//! Very many subscriptions: memory for each, how fast they are taken, and what they cost the messages that go past them.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::flow::{self, FlowArgs};
use crate::idle;
use crate::meter;
use crate::wire;

/// Filters of one SUBSCRIBE.
const PACKET: usize = 100;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct SubscriptionsArgs {
    #[command(flatten)]
    flow: FlowArgs,
    /// Clients
    #[arg(long, default_value_t = 1_000)]
    clients: usize,
    /// Subscriptions of each, one in ten with a wildcard
    #[arg(long, default_value_t = 1_000)]
    each: usize,
}

pub(crate) async fn run(args: SubscriptionsArgs) -> anyhow::Result<Value> {
    let target = args.flow.target.target()?;
    let pid = args.flow.target.pid;
    let clients = idle::open(&target, "many", args.clients).await?;
    sleep(Duration::from_millis(500)).await;
    let (before, cpu, begin) = (meter::memory(pid)?, meter::cpu(pid)?, Instant::now());
    let (mut tasks, mut held) = (JoinSet::new(), Vec::new());
    for (client, (mut reader, mut writer)) in clients.into_iter().enumerate() {
        let each = args.each;
        tasks.spawn(async move {
            for from in (0..each).step_by(PACKET) {
                let filters: Vec<_> = (from..each.min(from + PACKET))
                    .map(|number| {
                        let tail = if number % 10 == 0 { "+" } else { "state" };
                        format!("many/{client}/sensor-{number}/{tail}")
                    })
                    .collect();
                writer.out.extend_from_slice(&wire::subscribe(&filters, 0));
                writer.flush().await?;
                timeout(PATIENCE, reader.expect(9)).await.context("no SUBACK in time")??;
            }
            anyhow::Ok((reader, writer))
        });
        while tasks.len() >= 16 {
            held.extend(tasks.join_next().await.transpose()?.transpose()?);
        }
    }
    while let Some(ended) = tasks.join_next().await {
        held.push(ended??);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let (cpu, count) = (meter::cpu(pid)? - cpu, args.clients * args.each);
    sleep(Duration::from_millis(500)).await;
    let memory = meter::memory(pid)?.saturating_sub(before);
    let past = flow::run(args.flow).await?;
    drop(held);
    Ok(json!({
        "subscriptions": count,
        "bytes_each": memory as f64 / count as f64,
        "memory": memory,
        "taken_per_second": count as f64 / seconds,
        "cpu_us": cpu.as_secs_f64() * 1e6 / count as f64,
        "past": past,
    }))
}
