//! The three pieces of work.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::candidates::Candidate;
use crate::meter::{Meter, on_disk};

/// What each number of writers is given.
const EACH: Duration = Duration::from_secs(3);
const MILLION: u64 = 1_000_000;
/// Records that are appended before one sync, and released at one time.
const BATCH: u64 = 500;
/// Records that are still needed.
const WINDOW: u64 = 10_000;

/// Writers that each wait for every record: records in a second, microseconds of CPU and bytes written for each.
#[allow(clippy::cast_precision_loss, reason = "counts of a second")]
pub fn append<C: Candidate>(directory: &Path, writers: usize) -> anyhow::Result<Vec<String>> {
    let (candidate, _) = C::open(&directory.join("log"))?;
    let meter = Meter::begin()?;
    let end = Instant::now() + EACH;
    let until = |writer| -> anyhow::Result<u64> {
        let mut count = 0;
        while Instant::now() < end {
            candidate.append(writer)?;
            count += 1;
        }
        Ok(count)
    };
    let sum: anyhow::Result<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers).map(|writer| scope.spawn(move || until(writer))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a writer ends")).sum()
    });
    let (used, count) = (meter.used()?, sum? as f64);
    candidate.close()?;
    Ok(vec![
        format!("{:.0}", count / used.seconds),
        format!("{:.1}", used.cpu * 1e6 / count),
        format!("{:.0} B", used.written / count),
    ])
}

/// One thread that appends, syncs for many at once, and releases what is older than the window.
#[allow(clippy::cast_precision_loss, reason = "counts of a second")]
pub fn release<C: Candidate>(directory: &Path) -> anyhow::Result<Vec<String>> {
    let log = directory.join("log");
    let (candidate, _) = C::open(&log)?;
    let meter = Meter::begin()?;
    let mut largest = 0;
    for batch in 1..=MILLION / BATCH {
        candidate.append_many(BATCH, true)?;
        candidate.release((batch * BATCH).saturating_sub(WINDOW))?;
        if batch % 20 == 0 {
            largest = largest.max(on_disk(&log)?);
        }
    }
    let used = meter.used()?;
    candidate.close()?;
    let million = MILLION as f64;
    Ok(vec![
        format!("{:.2}", used.cpu * 1e6 / million),
        format!("{:.0} B", used.written / million),
        format!("{largest} MB"),
        format!("{} MB", on_disk(&log)?),
    ])
}

/// A million records, all of them needed.
pub fn fill<C: Candidate>(log: &Path) -> anyhow::Result<Vec<String>> {
    let (candidate, _) = C::open(log)?;
    for _ in 0..MILLION / BATCH {
        candidate.append_many(BATCH, false)?;
    }
    candidate.close()?;
    Ok(Vec::new())
}

/// Opens them and makes messages of them.
pub fn reopen<C: Candidate>(log: &Path) -> anyhow::Result<Vec<String>> {
    let size = on_disk(log)?;
    let meter = Meter::begin()?;
    let (candidate, messages) = C::open(log)?;
    let used = meter.used()?;
    anyhow::ensure!(messages.len() as u64 == MILLION, "{} records came back", messages.len());
    drop(messages);
    candidate.close()?;
    Ok(vec![
        format!("{size} MB"),
        format!("{:.1}", used.seconds),
        format!("{:.1}", used.cpu),
        format!("{} MB", used.resident),
    ])
}
