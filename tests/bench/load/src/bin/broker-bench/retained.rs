//! Very many retained messages: memory for each, and how long wildcards over them take.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::link::{Target, TargetArgs};
use crate::meter;
use crate::wire;

const PAYLOAD: usize = 64;
const PUBLISHERS: u32 = 4;
const UNACKNOWLEDGED: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct RetainedArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Topics: a number with an integer cube root, three levels of which are the topic
    #[arg(long, default_value_t = 100)]
    side: u32,
}

pub(crate) async fn run(args: RetainedArgs) -> anyhow::Result<Value> {
    let target = args.target.target()?;
    drop(target.connect("retained-warm", true).await?);
    let (before, cpu, begin) = (meter::memory(args.target.pid)?, meter::cpu(args.target.pid)?, Instant::now());
    let mut tasks = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        tasks.spawn(publish(target.clone(), publisher, args.side));
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let (seconds, count) = (begin.elapsed().as_secs_f64(), u64::from(args.side).pow(3));
    let cpu = meter::cpu(args.target.pid)? - cpu;
    let memory = meter::memory(args.target.pid)?.saturating_sub(before);
    let side = u64::from(args.side);
    let (one, some, many) = (
        wildcard(&target, "retained/+/1/1", side).await?,
        wildcard(&target, "retained/1/+/1", side).await?,
        wildcard(&target, "retained/1/#", side * side).await?,
    );
    Ok(json!({
        "messages": count,
        "bytes_each": memory as f64 / count as f64,
        "memory": memory,
        "published_per_second": count as f64 / seconds,
        "cpu_us": cpu.as_secs_f64() * 1e6 / count as f64,
        "first_level_ms": one,
        "middle_level_ms": some,
        "subtree_ms": many,
    }))
}

/// A share of the topics, at QoS 1.
async fn publish(target: Target, publisher: u32, side: u32) -> anyhow::Result<()> {
    let (mut reader, mut writer) = target.connect(&format!("retained-p{publisher}"), true).await?;
    let (mut sent, mut acknowledged) = (0, 0);
    for number in (publisher..side.pow(3)).step_by(PUBLISHERS as usize) {
        let topic = format!("retained/{}/{}/{}", number / side / side, number / side % side, number % side);
        wire::publish(&mut writer.out, &topic, 0x03, publisher, sent, PAYLOAD);
        sent += 1;
        while sent - acknowledged >= UNACKNOWLEDGED {
            writer.flush().await?;
            let read = reader.read(|first, _| acknowledged += u64::from(first >> 4 == wire::PUBACK));
            timeout(PATIENCE, read).await.context("no PUBACK in time")??;
        }
    }
    writer.flush().await?;
    while acknowledged < sent {
        let read = reader.read(|first, _| acknowledged += u64::from(first >> 4 == wire::PUBACK));
        timeout(PATIENCE, read).await.context("no PUBACK in time")??;
    }
    Ok(())
}

/// Milliseconds from SUBSCRIBE until the last of `expected` messages, and until SUBACK.
async fn wildcard(target: &Target, filter: &str, expected: u64) -> anyhow::Result<f64> {
    let (mut reader, mut writer) = target.connect("retained-s", true).await?;
    writer.out.extend_from_slice(&wire::subscribe(&[filter.to_owned()], 0));
    let (begin, mut found, mut acknowledged) = (Instant::now(), 0, false);
    writer.flush().await?;
    while found < expected || !acknowledged {
        let read = reader.read(|first, _| match first >> 4 {
            wire::PUBLISH => found += 1,
            9 => acknowledged = true,
            _ => {}
        });
        timeout(PATIENCE, read).await.with_context(|| format!("{filter}: {found} of {expected}"))??;
    }
    ensure!(found == expected, "{filter}: {found} of {expected}");
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}
