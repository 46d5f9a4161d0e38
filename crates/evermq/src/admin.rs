//! `evermq admin`: the endpoint of this host.

use std::process::ExitCode;

use clap::Args;
use evermq_admin::service::{self, Source};
use evermq_daemon::log;

use crate::command::CommandError;
use crate::config_file::{ConfigFile, ThisHost};

/// `evermq admin`
#[derive(Debug, Args)]
#[command(
    after_help = "Run by the unit evermq-admin. Where the cluster file has no admin.listen it serves nothing and waits.\n\n\
                  Exit status: 0 after SIGTERM; 1 it cannot serve; 2 the cluster file is wrong."
)]
pub struct AdminArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    host: ThisHost,
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct AdminError(anyhow::Error);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The cluster file is wrong, or the endpoint cannot be served.
pub fn run(args: &AdminArgs) -> Result<ExitCode, CommandError> {
    let cluster = args.config.load()?;
    let host = args.host.find(&cluster)?;
    log::init(cluster.log);
    let source = Source { path: args.config.path().to_owned(), host: host.name.to_string() };
    service::run(source, &cluster, host).map_err(AdminError)?;
    Ok(ExitCode::SUCCESS)
}
