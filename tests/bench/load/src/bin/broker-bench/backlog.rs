//! Messages for persistent sessions that are away, and one of these that comes back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::link::{Target, TargetArgs, halves};
use crate::meter;
use crate::receive::answer;
use crate::wire::{self, Message};

const PAYLOAD: usize = 64;
const PUBLISHERS: u32 = 4;
const UNACKNOWLEDGED: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct FillArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Sessions
    #[arg(long, default_value_t = 100)]
    sessions: u32,
    /// Messages of QoS 1 for each
    #[arg(long, default_value_t = 10_000)]
    each: u32,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Which session comes back
    #[arg(long, default_value_t = 0)]
    session: u32,
    /// Messages that wait for it
    #[arg(long, default_value_t = 10_000)]
    each: u32,
}

pub(crate) async fn fill(args: FillArgs) -> anyhow::Result<Value> {
    let target = args.target.target()?;
    for session in 0..args.sessions {
        let (_, writer) =
            target.subscribe(&format!("backlog-{session}"), false, &format!("backlog/{session}"), 1).await?;
        writer.leave().await?;
    }
    let (before, begin, mut tasks) = (meter::memory(args.target.pid)?, Instant::now(), JoinSet::new());
    for publisher in 0..PUBLISHERS {
        tasks.spawn(publish(target.clone(), publisher, args.sessions, args.each));
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let count = u64::from(args.sessions) * u64::from(args.each);
    let memory = meter::memory(args.target.pid)?.saturating_sub(before);
    Ok(json!({
        "messages": count,
        "per_second": count as f64 / begin.elapsed().as_secs_f64(),
        "memory": memory,
        "bytes_each": memory as f64 / count as f64,
    }))
}

async fn publish(target: Target, publisher: u32, sessions: u32, each: u32) -> anyhow::Result<()> {
    let (mut reader, mut writer) = target.connect(&format!("backlog-p{publisher}"), true).await?;
    let (mut sent, mut acknowledged) = (0, 0);
    for number in 0..u64::from(each) {
        for session in (publisher..sessions).step_by(PUBLISHERS as usize) {
            wire::publish(&mut writer.out, &format!("backlog/{session}"), 0x02, session, number, PAYLOAD);
            // Packet identifiers are made from the message's number; here they must differ between sessions too.
            let at = writer.out.len() - PAYLOAD - 2;
            writer.out[at..at + 2].copy_from_slice(&((sent % 65_535) as u16 + 1).to_be_bytes());
            sent += 1;
            while sent - acknowledged >= UNACKNOWLEDGED {
                writer.flush().await?;
                let read = reader.read(|first, _| acknowledged += u64::from(first >> 4 == wire::PUBACK));
                timeout(PATIENCE, read).await.context("no PUBACK in time")??;
            }
        }
    }
    writer.flush().await?;
    while acknowledged < sent {
        let read = reader.read(|first, _| acknowledged += u64::from(first >> 4 == wire::PUBACK));
        timeout(PATIENCE, read).await.context("no PUBACK in time")??;
    }
    Ok(())
}

pub(crate) async fn drain(args: DrainArgs) -> anyhow::Result<Value> {
    let target = args.target.target()?;
    let begin = Instant::now();
    let mut link = halves(target.stream(None).await?);
    link.1.out = wire::connect(&format!("backlog-{}", args.session), false);
    link.1.flush().await?;
    let (mut present, mut next, mut repeated) = (None, 0, 0_u64);
    while next < u64::from(args.each) {
        let out = &mut link.1.out;
        let read = link.0.read(|first, body| {
            answer(out, first, body);
            match first >> 4 {
                2 => present = body.first().map(|flags| flags & 1 == 1),
                wire::PUBLISH => match Message::read(first, body).and_then(|message| message.numbers()) {
                    Some((_, number)) if number == next => next += 1,
                    _ => repeated += 1,
                },
                _ => {}
            }
        });
        if timeout(PATIENCE / 6, read).await.is_err() {
            break;
        }
        link.1.flush().await?;
    }
    ensure!(present.is_some(), "no CONNACK");
    Ok(json!({
        "session_present": present,
        "received": next,
        "lost": u64::from(args.each) - next,
        "out_of_order": repeated,
        "seconds": begin.elapsed().as_secs_f64(),
    }))
}
