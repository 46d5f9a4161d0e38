//! Connections full of bytes from the backend to the client.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::sleep;

use crate::backend::SOURCE;
use crate::echo::WARM_UP;
use crate::meter;
use crate::target::TargetArgs;

/// What one read takes at most.
const CHUNK: usize = 256 << 10;

#[derive(Debug, Args)]
pub(crate) struct BulkArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Connections
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Seconds that count
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

pub(crate) async fn run(args: BulkArgs) -> anyhow::Result<Value> {
    let target = args.target.target()?;
    let got = Rc::new(Cell::new(0_u64));
    for _ in 0..args.connections {
        let mut stream = target.open().await?.stream;
        stream.write_all(SOURCE).await?;
        stream.flush().await?;
        let got = Rc::clone(&got);
        tokio::task::spawn_local(async move {
            let mut buffer = vec![0; CHUNK];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                got.set(got.get() + count as u64);
            }
        });
    }
    sleep(WARM_UP).await;
    let before = args.target.pid.map(meter::cpu).transpose()?;
    let (start, counted) = (Instant::now(), got.get());
    sleep(Duration::from_secs_f64(args.seconds)).await;
    let used = meter::since(args.target.pid, before)?;
    let took = start.elapsed();
    let gigabytes = (got.get() - counted) as f64 / 1e9;
    ensure!(gigabytes > 0.0, "nothing came");
    Ok(json!({
        "cpu_s_per_gb": used.map(|used| used.as_secs_f64() / gigabytes),
        "gb_per_second": gigabytes / took.as_secs_f64(),
    }))
}
