//! Command line, config and exit status of a daemon.
//!
//! Exit status: 0 after a clean stop, 1 when the program failed, 2 when the command line or the cluster file is wrong.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser};
use evermq_config::{Cluster, Loaded, Report, RoleError};

use crate::{kept, log};

/// Where the cluster file is unless `--config` says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/evermq/evermq.toml";

/// Version of the whole product: all programs carry the same. A package of another version than the source's names it in the
/// build, so that programs and package never differ.
pub const VERSION: &str = match option_env!("EVERMQ_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// No options beyond the common ones.
#[derive(Debug, Args)]
pub struct NoArgs {}

/// The options that every daemon has.
#[derive(Debug, Parser)]
struct Line<A: Args> {
    /// The cluster file
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Which host of the cluster file this is [default: this machine's host name]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Check the cluster file and this host's certificates, then exit
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    own: A,
}

/// Where a program's config came from, so that it can be read again.
pub struct ConfigSource<C> {
    path: PathBuf,
    host: String,
    select: Select<C>,
}

/// Takes a host's part of the cluster.
type Select<C> = Box<dyn Fn(&Cluster, &str) -> Result<C, RoleError> + Send + Sync>;

/// Why the cluster file is no config for this program.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file has mistakes.
    #[error("{0}")]
    File(Report),
    /// The file is good, but has no part for this host.
    #[error("{path}: {source}", path = path.display())]
    Role {
        /// The file.
        path: PathBuf,
        /// What is missing.
        source: RoleError,
    },
}

impl<C> ConfigSource<C> {
    /// The part that `select` takes of this file for `host`.
    #[must_use]
    pub fn new(
        path: PathBuf,
        host: String,
        select: impl Fn(&Cluster, &str) -> Result<C, RoleError> + Send + Sync + 'static,
    ) -> Self {
        Self { path, host, select: Box::new(select) }
    }

    /// The cluster file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file and takes this host's part of it; gives the file's warnings as well. Blocks while it reads.
    ///
    /// # Errors
    /// Every mistake of the file.
    pub fn load(&self) -> Result<(C, Report), ConfigError> {
        let (config, loaded) = self.load_all()?;
        Ok((config, loaded.warnings))
    }

    fn load_all(&self) -> Result<(C, Loaded), ConfigError> {
        let loaded = evermq_config::load(&self.path).map_err(ConfigError::File)?;
        let config = (self.select)(&loaded.cluster, &self.host)
            .map_err(|source| ConfigError::Role { path: self.path.clone(), source })?;
        Ok((config, loaded))
    }
}

impl<C> std::fmt::Debug for ConfigSource<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigSource").field("path", &self.path).field("host", &self.host).finish_non_exhaustive()
    }
}

/// Runs a daemon: reads the command line and the cluster file, sets up logs, takes the host's part with `select`, and
/// calls `run` with it.
pub fn main<C, A: Args>(
    program: &'static str,
    about: &'static str,
    select: impl Fn(&Cluster, &str) -> Result<C, RoleError> + Send + Sync + 'static,
    run: impl FnOnce(C, A, ConfigSource<C>) -> anyhow::Result<()>,
) -> ExitCode {
    let command = Line::<A>::command().name(program).about(about).version(VERSION);
    let line = match Line::<A>::from_arg_matches(&command.get_matches()) {
        Ok(line) => line,
        Err(error) => error.exit(),
    };
    if !line.check {
        kept::receive();
    }
    let host = line.host.unwrap_or_else(this_host);
    let source = ConfigSource::new(line.config, host, select);
    let (config, loaded) = match source.load_all() {
        Ok(read) => read,
        Err(error) => {
            // Nobody is to wait for a program that cannot start.
            kept::close_unclaimed();
            return match error {
                ConfigError::File(report) => refuse_file(program, &report),
                ConfigError::Role { .. } => refuse(program, &error),
            };
        }
    };
    if line.check {
        return check(program, &loaded, &source.host);
    }
    log::init(loaded.cluster.log);
    for warning in &loaded.warnings.problems {
        tracing::warn!(%warning, "cluster file");
    }
    match run(config, line.own, source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, but for those that it has told itself.
fn with_causes(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

/// This machine's host name up to the first dot; empty where it is not valid UTF-8, which no cluster file can name.
#[must_use]
pub fn this_host() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    name.split('.').next().unwrap_or_default().to_owned()
}

fn check(program: &str, loaded: &Loaded, host: &str) -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "a certificate is valid by wall time")]
    let now = SystemTime::now();
    let hosts: Vec<_> = loaded.cluster.hosts.iter().filter(|candidate| candidate.name.as_str() == host).collect();
    let mut report = loaded.warnings.clone();
    report.problems.extend(evermq_config::certificates::check(&loaded.cluster, &hosts, now));
    if report.has_errors() {
        return refuse_file(program, &report);
    }
    if !report.problems.is_empty() {
        say(&report);
    }
    say(&format_args!("{program}: the cluster file is good for host {host}"));
    ExitCode::SUCCESS
}

/// Problems begin with the file's name, so that editors find them; the program's line comes last.
fn refuse_file(program: &str, report: &Report) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "{report}");
    refuse(program, &"not started; mend the lines above first")
}

fn refuse(program: &str, what: &dyn std::fmt::Display) -> ExitCode {
    // Nothing is left to tell a closed standard error.
    let _ = writeln!(std::io::stderr().lock(), "{program}: {what}");
    ExitCode::from(2)
}

fn say(what: &dyn std::fmt::Display) {
    // A closed standard output is the reader's choice.
    let _ = writeln!(std::io::stdout().lock(), "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = || std::io::Error::other("disk on fire");
        let told = anyhow::Error::new(cause()).context("cannot read x: disk on fire; buy another");
        assert_eq!(with_causes(&told), "cannot read x: disk on fire; buy another");
        assert_eq!(with_causes(&anyhow::Error::new(cause()).context("cannot read x")), "cannot read x: disk on fire");
    }
}
