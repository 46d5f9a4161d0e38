//! What a process and its children have used, from `/proc`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

/// CPU time so far: `/proc/PID/task/*/schedstat`, which counts nanoseconds.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut all = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid}"))? {
        let path = task?.path();
        // A thread or child may have ended since it was listed.
        if let Ok(text) = fs::read_to_string(path.join("schedstat")) {
            all += Duration::from_nanos(text.split_whitespace().next().context("empty schedstat")?.parse()?);
        }
        for child in children(&path) {
            all += cpu(child).unwrap_or_default();
        }
    }
    Ok(all)
}

/// Proportional set size in bytes, the kernel's memory for sockets not included: `/proc/PID/smaps_rollup`.
pub(crate) fn memory(pid: u32) -> anyhow::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).with_context(|| format!("process {pid}"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    let mut all = line.split_whitespace().next().context("no Pss")?.parse::<u64>()? * 1024;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        for child in children(&task?.path()) {
            all += memory(child).unwrap_or_default();
        }
    }
    Ok(all)
}

fn children(task: &Path) -> Vec<u32> {
    let listed = fs::read_to_string(task.join("children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// The CPU time that `pid` has used since `before`; none without a process to look at.
pub(crate) fn since(pid: Option<u32>, before: Option<Duration>) -> anyhow::Result<Option<Duration>> {
    let (Some(pid), Some(before)) = (pid, before) else { return Ok(None) };
    Ok(Some(cpu(pid)?.saturating_sub(before)))
}

/// `used` for each of `count`, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(crate) fn micros_each(used: Option<Duration>, count: usize) -> Option<f64> {
    used.map(|used| used.as_secs_f64() * 1e6 / count.max(1) as f64)
}

/// The value that this share of a sorted list is not above, in microseconds.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).map_or(0.0, |time| time.as_secs_f64() * 1e6)
}
