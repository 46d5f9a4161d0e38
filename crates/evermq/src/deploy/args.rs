//! Options of the commands.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::Args;
use evermq_config::HostName;

use crate::config_file::ConfigFile;
use crate::remote::RemoteArgs;

/// `evermq deploy`
#[derive(Debug, Args)]
#[command(
    after_help = "A repeat does what is left to do, or nothing. Hosts are reached over ssh by their names, at their addresses unless \
                        ~/.ssh/config says where a name leads.\n\nExit status: 0 done; 1 a step failed, and what state the hosts are in is \
                        told; 2 the command line or the cluster file is wrong."
)]
pub struct DeployArgs {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    /// Directory with packages: evermq_VERSION_ARCH.deb, evermq-VERSION-1.ARCH.rpm, evermq-VERSION-ARCH.tar.gz; the newest that suits a
    /// host is taken [default: what the hosts have stays]
    #[arg(long, value_name = "DIR")]
    pub(super) packages: Option<PathBuf>,
    /// Directory with ca.crt, NAME.crt and NAME.key of each host [default: where the cluster file names them]
    #[arg(long, value_name = "DIR")]
    pub(super) tls: Option<PathBuf>,
    /// Add this host as a broker first: to the cluster file, and with a certificate by the authority beside the others
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = crate::init::host)]
    pub(super) add_host: Option<(HostName, Ipv4Addr)>,
    /// Restart what runs already, one host after the other: for settings that a reload does not take over
    #[arg(long)]
    pub(super) restart: bool,
    #[command(flatten)]
    pub(super) how: HowArgs,
    /// Send no message through the VIP at the end
    #[arg(long)]
    pub(super) no_verify: bool,
    /// A client's certificate for that message [default: one for this once, by the authority's key beside the certificates]
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub(super) client_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub(super) client_key: Option<PathBuf>,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

/// `evermq rollback`
#[derive(Debug, Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    #[command(flatten)]
    pub(super) how: HowArgs,
    #[command(flatten)]
    pub(super) remote: RemoteArgs,
}

/// How all hosts are changed, to another version or back.
#[derive(Debug, Args)]
pub(super) struct HowArgs {
    /// Clients that a broker sends away in a second before it is restarted [default: as `evermq drain` has it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) drain_rate: Option<u32>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// `evermq install`
#[derive(Debug, Args)]
#[command(
    after_help = "As root, on each host. Without --packages what is installed stays: unpack the archive over / first \
                        (tar -xzf evermq-VERSION-ARCH.tar.gz -C / && /usr/lib/evermq/after-install)."
)]
pub struct InstallArgs {
    /// The cluster file, which becomes /etc/evermq/evermq.toml
    #[arg(long, value_name = "PATH")]
    pub(super) config: PathBuf,
    /// Which host this is [default: this machine's host name]
    #[arg(long, value_name = "NAME")]
    pub(super) host: Option<String>,
    /// Directory with packages; the newest that suits is taken
    #[arg(long, value_name = "DIR")]
    pub(super) packages: Option<PathBuf>,
    /// Directory with ca.crt, NAME.crt and NAME.key of this host [default: where the cluster file names them]
    #[arg(long, value_name = "DIR")]
    pub(super) tls: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}
