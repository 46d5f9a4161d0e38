//! A fresh TCP connection, TLS handshake, CONNECT and CONNACK at an interval: how long did none succeed?

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::connection;
use crate::tls::TlsArgs;

/// Attempts under way at once: more say that nothing answers, and would only load the machine.
const MAX_ATTEMPTS: usize = 400;
/// An attempt that has not succeeded by then has failed.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// Where to connect
    #[arg(long)]
    connect: SocketAddr,
    #[command(flatten)]
    tls: TlsArgs,
    /// Milliseconds between attempts
    #[arg(long, default_value_t = 5)]
    interval: u64,
    /// Milliseconds of the whole run
    #[arg(long, default_value_t = 5_000)]
    duration: u64,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct ProbeResult {
    attempts: u64,
    succeeded: u64,
    failed: u64,
    /// Of those that failed: nobody listened.
    refused: u64,
    /// What the first of the others met.
    first_other_failure: Option<String>,
    /// Longest time between two successes, in milliseconds.
    longest_gap_ms: f64,
    /// When it began, in milliseconds from the start of the run.
    gap_began_ms: f64,
    /// From the last success to the end of the run, in milliseconds: an outage that goes on is no gap between two successes.
    silent_at_end_ms: f64,
    /// Median time of a successful attempt, in milliseconds.
    median_connect_ms: f64,
    /// Longest time of one.
    worst_connect_ms: f64,
}

pub(crate) async fn run(args: ProbeArgs) -> anyhow::Result<ProbeResult> {
    let tls = args.tls.connector()?;
    let begin = Instant::now();
    let end = begin + Duration::from_millis(args.duration);
    let mut ticks = interval(Duration::from_millis(args.interval));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut attempts = JoinSet::new();
    let (mut started, mut failed, mut refused, mut first_other_failure) = (0_u64, 0_u64, 0_u64, None);
    let mut successes: Vec<(Instant, Duration)> = Vec::new();
    while Instant::now() < end {
        tokio::select! {
            _ = ticks.tick(), if attempts.len() < MAX_ATTEMPTS => {
                let (tls, address) = (tls.clone(), args.connect);
                let id = format!("probe-{}-{started}", std::process::id());
                started += 1;
                attempts.spawn(async move {
                    let since = Instant::now();
                    match timeout(ATTEMPT_TIMEOUT, connection::connect(address, &tls, &id)).await {
                        Ok(Ok(_)) => Ok((Instant::now(), since.elapsed())),
                        Ok(Err(error)) => Err(error),
                        Err(late) => Err(late.into()),
                    }
                });
            }
            Some(ended) = attempts.join_next(), if !attempts.is_empty() => match ended? {
                Ok(success) => successes.push(success),
                Err(error) => {
                    failed += 1;
                    if is_refusal(&error) {
                        refused += 1;
                    } else if first_other_failure.is_none() {
                        first_other_failure = Some(format!("{error:#}"));
                    }
                }
            }
        }
    }
    attempts.abort_all();
    successes.sort_unstable();
    let gap = successes.windows(2).map(|pair| (pair[1].0 - pair[0].0, pair[0].0)).max();
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1_000.0;
    let mut times: Vec<_> = successes.iter().map(|(_, took)| *took).collect();
    times.sort_unstable();
    Ok(ProbeResult {
        attempts: started,
        succeeded: u64::try_from(successes.len())?,
        failed,
        refused,
        first_other_failure,
        longest_gap_ms: gap.map_or(f64::from(u32::try_from(args.duration)?), |(gap, _)| milliseconds(gap)),
        gap_began_ms: gap.map_or(0.0, |(_, at)| milliseconds(at - begin)),
        silent_at_end_ms: milliseconds(successes.last().map_or(begin, |(at, _)| *at).elapsed()),
        median_connect_ms: times.get(times.len() / 2).map_or(0.0, |took| milliseconds(*took)),
        worst_connect_ms: times.last().map_or(0.0, |took| milliseconds(*took)),
    })
}

/// Nobody listened at that address.
fn is_refusal(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .or_else(|| error.root_cause().downcast_ref::<std::io::Error>())
        .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}
