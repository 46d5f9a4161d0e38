//! `evermq deploy`, `evermq rollback`, `evermq install`: the hosts as the cluster file has them.
//!
//! | module | subject |
//! |---|---|
//! | `args` | options |
//! | `add_host` | `--add-host` |
//! | `job` | one run: look, plan, do it, say what came of it |
//! | [`plan`] | what is done where, and in which order; data |
//! | [`observed`] | what a host has, as `look.sh` there says |
//! | [`packages`] | which package suits a host |
//! | [`files`] | which files a host needs |
//! | [`act`] | what an action is, as commands |
//! | `words` | plans and hosts in words |
//! | [`way`] | ssh, or a shell here |
//! | [`carry_out`] | doing it |
//! | [`verify`] | a message through the VIP to every broker |

pub mod act;
mod add_host;
mod args;
pub mod carry_out;
mod error;
pub mod files;
mod job;
pub mod observed;
pub mod packages;
pub mod plan;
pub mod verify;
pub mod way;
mod words;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use evermq_config::cluster::Host;
use evermq_daemon::command::this_host;

use self::add_host::add_host;
pub use self::args::{DeployArgs, InstallArgs, RollbackArgs};
pub use self::error::DeployError;
use self::files::Sources;
use self::job::Job;
use self::packages::Package;
use self::plan::Options;
use self::verify::Client;
use self::way::Way;
use crate::command::CommandError;
use crate::output;
use crate::remote::Ssh;

/// Makes the hosts as the cluster file has them.
///
/// # Errors
/// See [`DeployError`].
pub fn run(args: &DeployArgs) -> Result<ExitCode, CommandError> {
    if let Some((name, address)) = &args.add_host {
        add_host(args, name, *address)?;
    }
    let sources = Sources::load(args.config.path(), args.tls.clone())?;
    let packages = args.packages.as_deref().map(packages_in).transpose()?;
    let ssh = Ssh::new(&args.remote)?;
    let client = client_of(args, &sources, ssh.directory());
    let job = Job { way: Way::Ssh(ssh), sources: &sources, packages, dry_run: args.how.dry_run };
    let options = Options { restart: args.restart, rollback: false, drain_rate: args.how.drain_rate };
    let hosts: Vec<&Host> = sources.cluster().hosts.iter().collect();
    if !job.run(&hosts, options)? || args.no_verify {
        return Ok(ExitCode::SUCCESS);
    }
    match client {
        Some(client) => match verify::verify(sources.cluster(), &client)? {
            Ok(said) => output::print(&format!("{said}\n"))?,
            Err(said) => return Err(DeployError::Failed(said).into()),
        },
        None => output::print(
            "no message was sent through the VIP: the authority's key is not here; name a client with --client-cert and --client-key\n",
        )?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Brings back what was there before the last change.
///
/// # Errors
/// See [`DeployError`].
pub fn run_rollback(args: &RollbackArgs) -> Result<ExitCode, CommandError> {
    let sources = Sources::load(args.config.path(), None)?;
    let job =
        Job { way: Way::Ssh(Ssh::new(&args.remote)?), sources: &sources, packages: None, dry_run: args.how.dry_run };
    let hosts: Vec<&Host> = sources.cluster().hosts.iter().collect();
    job.run(&hosts, Options { restart: false, rollback: true, drain_rate: args.how.drain_rate })?;
    Ok(ExitCode::SUCCESS)
}

/// Makes this host as the cluster file has it.
///
/// # Errors
/// See [`DeployError`].
pub fn run_install(args: &InstallArgs) -> Result<ExitCode, CommandError> {
    let sources = Sources::load(&args.config, args.tls.clone())?;
    let packages = args.packages.as_deref().map(packages_in).transpose()?;
    let name = args.host.clone().unwrap_or_else(this_host);
    let cluster = sources.cluster();
    let host = cluster.hosts.iter().find(|host| host.name.as_str() == name);
    let host = host.ok_or_else(|| evermq_config::RoleError::UnknownHost {
        host: name,
        known: cluster.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", "),
    })?;
    let job = Job { way: Way::Here, sources: &sources, packages, dry_run: args.dry_run };
    job.run(&[host], Options::default())?;
    Ok(ExitCode::SUCCESS)
}

/// The packages of a directory.
fn packages_in(path: &Path) -> Result<Vec<Package>, DeployError> {
    let failed = |source| DeployError::Packages { path: path.to_owned(), source };
    let entries = fs::read_dir(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    Ok(entries.iter().filter_map(|entry| Package::of(&entry.path())).collect())
}

fn client_of(args: &DeployArgs, sources: &Sources, directory: &Path) -> Option<Client> {
    let ca = sources.ca_here();
    let tls = args.tls.clone().or_else(|| ca.parent().map(Path::to_owned))?;
    match (&args.client_cert, &args.client_key) {
        (Some(cert), Some(key)) => Some(Client { ca: tls.join("ca.crt"), cert: cert.clone(), key: key.clone() }),
        _ if args.no_verify || args.how.dry_run => None,
        _ => Client::for_once(&tls, directory).ok(),
    }
}
