//! What this process has used.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};

/// A moment to count from.
pub struct Meter {
    start: Instant,
    cpu: Duration,
    written: u64,
    resident: u64,
}

/// What was used since then.
pub struct Used {
    /// Seconds of the clock.
    pub seconds: f64,
    /// Seconds of all threads.
    pub cpu: f64,
    /// Bytes that the kernel was given to write to a disk.
    pub written: f64,
    /// More megabytes in memory than before.
    pub resident: u64,
}

impl Meter {
    pub fn begin() -> anyhow::Result<Self> {
        Ok(Self { cpu: cpu()?, written: written()?, resident: resident()?, start: Instant::now() })
    }

    #[allow(clippy::cast_precision_loss, reason = "counts of bytes")]
    pub fn used(&self) -> anyhow::Result<Used> {
        Ok(Used {
            seconds: self.start.elapsed().as_secs_f64(),
            cpu: (cpu()? - self.cpu).as_secs_f64(),
            written: (written()? - self.written) as f64,
            resident: resident()?.saturating_sub(self.resident) / 1024,
        })
    }
}

/// Megabytes of the blocks that a directory's files take.
pub fn on_disk(directory: &Path) -> anyhow::Result<u64> {
    Ok(blocks(directory)? * 512 / 1_000_000)
}

fn blocks(directory: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        // A file may go while this looks.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        sum += if metadata.is_dir() { blocks(&path)? } else { metadata.blocks() };
    }
    Ok(sum)
}

fn cpu() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

fn written() -> anyhow::Result<u64> {
    field("/proc/self/io", "write_bytes:")
}

fn resident() -> anyhow::Result<u64> {
    field("/proc/self/status", "VmRSS:")
}

fn field(file: &str, name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name} in {file}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
