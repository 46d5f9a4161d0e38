//! This process: its version, open files, memory and age, for the control request `about` and for Prometheus.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use serde::{Deserialize, Serialize};

use crate::command::VERSION;
use crate::metrics::{Exposition, Kind};
use crate::tls;

/// What every program can say of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Open files; none where the system does not say.
    pub open_files: Option<u64>,
    /// How many there may be.
    pub max_open_files: Option<u64>,
    /// Bytes of memory that are its own now.
    pub resident_bytes: Option<u64>,
    /// Processor time since its start, in seconds.
    pub cpu_seconds: Option<f64>,
    /// When its host's certificate, as it uses it, ends: seconds since 1970. None where it uses none.
    pub certificate_until: Option<i64>,
}

/// How this process is now.
#[must_use]
pub fn about() -> About {
    About {
        version: VERSION.to_owned(),
        pid: std::process::id(),
        open_files: open_files(),
        max_open_files: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        resident_bytes: resident_bytes(),
        cpu_seconds: cpu_seconds(),
        certificate_until: tls::certificate_until(),
    }
}

/// Linux 6.2 and later says it as the directory's size; before, its entries have to be counted.
fn open_files() -> Option<u64> {
    const OPEN_FILES: &str = "/proc/self/fd";
    match fs::metadata(OPEN_FILES).ok()?.size() {
        // The directory itself is one of them while it is read.
        0 => Some(u64::try_from(fs::read_dir(OPEN_FILES).ok()?.count()).unwrap_or(u64::MAX).saturating_sub(1)),
        size => Some(size),
    }
}

/// proc_pid_statm(5): the second number is the resident set in pages.
fn resident_bytes() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * u64::try_from(page).ok()?)
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let seconds = |time: nix::sys::time::TimeVal| {
        use nix::sys::time::TimeValLike as _;
        #[expect(clippy::cast_precision_loss, reason = "microseconds of 285 years are exact")]
        let micros = time.num_microseconds() as f64;
        micros / 1e6
    };
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Adds this process's figures, under the names that all programs of Prometheus have for them where there are such.
pub fn expose(text: &mut Exposition, program: &str) {
    let about = about();
    text.family("evermq_build_info", Kind::Gauge, "1, with the program's version.")
        .sample(&[("program", program), ("version", &about.version)], 1);
    let mut gauge = |name, help, value: Option<u64>| {
        if let Some(value) = value {
            text.family(name, Kind::Gauge, help).sample(&[], value);
        }
    };
    gauge("process_open_fds", "Open files.", about.open_files);
    gauge("process_max_fds", "How many open files there may be.", about.max_open_files);
    gauge("process_resident_memory_bytes", "Memory that is the process's own.", about.resident_bytes);
    if let Some(seconds) = about.cpu_seconds {
        text.family("process_cpu_seconds_total", Kind::Counter, "Processor time.").sample(&[], seconds);
    }
    if let Some(until) = about.certificate_until {
        let help = "When the host's certificate ends, in seconds since 1970.";
        text.family("evermq_certificate_not_after_timestamp_seconds", Kind::Gauge, help).sample(&[], until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_files_and_its_memory() {
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let about = about();
        drop(files);
        assert!(about.open_files.unwrap() >= 50, "{about:?}");
        assert!(about.max_open_files.unwrap() >= about.open_files.unwrap(), "{about:?}");
        assert!(about.resident_bytes.unwrap() > 1_000_000, "{about:?}");
        assert!(about.cpu_seconds.is_some(), "{about:?}");
        let mut text = Exposition::new();
        expose(&mut text, "evermq-x");
        let text = text.finish();
        assert!(
            text.contains(&format!("evermq_build_info{{program=\"evermq-x\",version=\"{VERSION}\"}} 1\n")),
            "{text}"
        );
        for name in
            ["process_open_fds", "process_max_fds", "process_resident_memory_bytes", "process_cpu_seconds_total"]
        {
            assert!(text.contains(&format!("\n{name} ")), "{text}");
        }
    }
}
