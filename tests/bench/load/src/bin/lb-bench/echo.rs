//! 64 bytes there and back, again and again, as fast as it goes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::meter;
use crate::target::{Stream, TargetArgs};

/// A PUBLISH of a sensor, about.
pub(crate) const MESSAGE: usize = 64;
/// Until everybody is at work.
pub(crate) const WARM_UP: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(crate) struct EchoArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds that count
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

pub(crate) async fn run(args: EchoArgs) -> anyhow::Result<Value> {
    let target = args.target.target()?;
    let times = Rc::new(RefCell::new(Vec::new()));
    let stop = Rc::new(Cell::new(false));
    let mut tasks = JoinSet::new();
    for _ in 0..args.connections {
        let stream = target.open().await?.stream;
        tasks.spawn_local(echo(stream, Rc::clone(&times), Rc::clone(&stop)));
    }
    sleep(WARM_UP).await;
    times.borrow_mut().clear();
    let before = args.target.pid.map(meter::cpu).transpose()?;
    let start = Instant::now();
    sleep(Duration::from_secs_f64(args.seconds)).await;
    let used = meter::since(args.target.pid, before)?;
    let took = start.elapsed();
    let mut measured: Vec<Duration> = times.take();
    stop.set(true);
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    ensure!(!measured.is_empty(), "nothing came back");
    measured.sort_unstable();
    Ok(json!({
        "cpu_us": meter::micros_each(used, measured.len()),
        "per_second": measured.len() as f64 / took.as_secs_f64(),
        "p50_us": meter::percentile(&measured, 0.5),
        "p99_us": meter::percentile(&measured, 0.99),
    }))
}

async fn echo(
    mut stream: Box<dyn Stream>,
    times: Rc<RefCell<Vec<Duration>>>,
    stop: Rc<Cell<bool>>,
) -> anyhow::Result<()> {
    let message = [7; MESSAGE];
    // Larger than a message: a read that does not fill it tells the runtime that there is no more, without another one.
    let mut buffer = [0; 2 * MESSAGE];
    while !stop.get() {
        let start = Instant::now();
        stream.write_all(&message).await?;
        stream.flush().await?;
        let mut back = 0;
        while back < MESSAGE {
            let count = stream.read(&mut buffer).await?;
            ensure!(count > 0, "closed");
            back += count;
        }
        times.borrow_mut().push(start.elapsed());
    }
    Ok(())
}
