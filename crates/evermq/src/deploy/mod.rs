//! `evermq deploy`, `evermq rollback`, `evermq install`: the hosts as the cluster file has them.
//!
//! | module | subject |
//! |---|---|
//! | [`plan`] | what is done where, and in which order; data |
//! | [`observed`] | what a host has, as `look.sh` there says |
//! | [`packages`] | which package suits a host |
//! | [`files`] | which files a host needs |
//! | [`act`] | what an action is, as commands |
//! | [`way`] | ssh, or a shell here |
//! | [`carry_out`] | doing it |
//! | [`verify`] | a message through the VIP to every broker |

pub mod act;
pub mod carry_out;
pub mod files;
pub mod observed;
pub mod packages;
pub mod plan;
pub mod verify;
pub mod way;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use evermq_config::HostName;
use evermq_config::cluster::Host;
use evermq_daemon::command::this_host;

use self::carry_out::{Outcome, carry_out};
use self::files::{FilesError, Sources};
use self::observed::{Observed, PROGRAMS};
use self::packages::{Package, newest};
use self::plan::{Action, Options, Stage, Wanted, plan, programs_of};
use self::verify::Client;
use self::way::Way;
use crate::certs::authority::{Authority, Validity};
use crate::certs::{make, now};
use crate::command::CommandError;
use crate::config_file::ConfigFile;
use crate::output;
use crate::remote::ssh::quoted;
use crate::remote::{RemoteArgs, RemoteError, Ssh};
use crate::table::Table;

const LOOK: &str = include_str!("look.sh");

/// `evermq deploy`
#[derive(Debug, Args)]
#[command(
    after_help = "A repeat does what is left to do, or nothing. Hosts are reached over ssh by their names, at their addresses unless \
                        ~/.ssh/config says where a name leads.\n\nExit status: 0 done; 1 a step failed, and what state the hosts are in is \
                        told; 2 the command line or the cluster file is wrong."
)]
pub struct DeployArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Directory with packages: evermq_VERSION_ARCH.deb, evermq-VERSION-1.ARCH.rpm, evermq-VERSION-ARCH.tar.gz; the newest that suits a
    /// host is taken [default: what the hosts have stays]
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,
    /// Directory with ca.crt, NAME.crt and NAME.key of each host [default: where the cluster file names them]
    #[arg(long, value_name = "DIR")]
    tls: Option<PathBuf>,
    /// Add this host as a broker first: to the cluster file, and with a certificate by the authority beside the others
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = crate::init::host)]
    add_host: Option<(HostName, Ipv4Addr)>,
    /// Restart what runs already, one host after the other: for settings that a reload does not take over
    #[arg(long)]
    restart: bool,
    /// Clients that a broker sends away in a second before it is restarted [default: as `evermq drain` has it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    drain_rate: Option<u32>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Send no message through the VIP at the end
    #[arg(long)]
    no_verify: bool,
    /// A client's certificate for that message [default: one for this once, by the authority's key beside the certificates]
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
    #[command(flatten)]
    remote: RemoteArgs,
}

/// `evermq rollback`
#[derive(Debug, Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Clients that a broker sends away in a second before it is restarted [default: as `evermq drain` has it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    drain_rate: Option<u32>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    remote: RemoteArgs,
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
    config: PathBuf,
    /// Which host this is [default: this machine's host name]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Directory with packages; the newest that suits is taken
    #[arg(long, value_name = "DIR")]
    packages: Option<PathBuf>,
    /// Directory with ca.crt, NAME.crt and NAME.key of this host [default: where the cluster file names them]
    #[arg(long, value_name = "DIR")]
    tls: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Why hosts were not changed, or not all.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// A host was not reached; nothing has been changed anywhere.
    #[error("host {host}: {error}; nothing was changed")]
    Look {
        /// Which.
        host: String,
        /// Why.
        error: RemoteError,
    },
    /// A host cannot be changed.
    #[error("host {host} {what}; nothing was changed")]
    Host {
        /// Which.
        host: String,
        /// Why not, and what to do.
        what: String,
    },
    /// A file is missing here.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A directory of packages cannot be read.
    #[error("cannot read the directory {}; `make packages` fills target/packages", path.display())]
    Packages {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The host to be added is there.
    #[error("host \"{0}\" is in the cluster file already; run `evermq deploy` without --add-host")]
    Known(HostName),
    /// The cluster file cannot be written.
    #[error("cannot write {}; check who may write it", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A step failed. What the hosts are like has been told.
    #[error("it is not done: {0}")]
    Failed(String),
}

impl DeployError {
    /// Whether the command line or what it names has to change, rather than the hosts.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Files(_) | Self::Packages { .. } | Self::Known(_))
    }
}

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
    let job = Job { way: Way::Ssh(ssh), sources: &sources, packages, dry_run: args.dry_run };
    let options = Options { restart: args.restart, rollback: false, drain_rate: args.drain_rate };
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
    let job = Job { way: Way::Ssh(Ssh::new(&args.remote)?), sources: &sources, packages: None, dry_run: args.dry_run };
    let hosts: Vec<&Host> = sources.cluster().hosts.iter().collect();
    job.run(&hosts, Options { restart: false, rollback: true, drain_rate: args.drain_rate })?;
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

/// Appends a broker to the cluster file, and makes its certificate.
fn add_host(args: &DeployArgs, name: &HostName, address: Ipv4Addr) -> Result<(), CommandError> {
    let path = args.config.path();
    let text = fs::read_to_string(path).map_err(|source| FilesError::Read { path: path.to_owned(), source });
    let mut text = text.map_err(DeployError::from)?;
    let before = evermq_config::parse(path, &text)?.cluster;
    if before.host(name).is_some() {
        return Err(DeployError::Known(name.clone()).into());
    }
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    text += &format!("{newline}\n[[hosts]]\nname = \"{name}\"\naddress = \"{address}\"\nroles = [\"broker\"]\n");
    let cluster = evermq_config::parse(path, &text)?.cluster;
    let host = cluster.host(name).map(|host| cluster.tls.for_host(&host.name));
    let tls = args.tls.clone().or_else(|| host.and_then(|files| files.cert.parent().map(Path::to_owned)));
    if args.dry_run {
        output::print(&format!("{} gets {name}, {address}\n", path.display()))?;
        return Ok(());
    }
    if let Some(tls) = tls.filter(|tls| !tls.join(format!("{name}.crt")).exists()) {
        let now = now();
        let authority = Authority::load(&tls.join("ca.crt"), &tls.join("ca.key"), now)?;
        let only = [name.to_string()];
        let hosts = make::Hosts { cluster: &cluster, only: &only, alt_names: &[] };
        make::servers(&tls, hosts, &authority, Validity::days(now, crate::certs::LEAF_DAYS)?)?;
        output::print(&format!("made {}\n", tls.join(format!("{name}.crt")).display()))?;
    }
    fs::write(path, text).map_err(|source| DeployError::Write { path: path.to_owned(), source })?;
    output::print(&format!("{} has {name} now\n", path.display()))?;
    Ok(())
}

fn client_of(args: &DeployArgs, sources: &Sources, directory: &Path) -> Option<Client> {
    let ca = sources.ca_here();
    let tls = args.tls.clone().or_else(|| ca.parent().map(Path::to_owned))?;
    match (&args.client_cert, &args.client_key) {
        (Some(cert), Some(key)) => Some(Client { ca: tls.join("ca.crt"), cert: cert.clone(), key: key.clone() }),
        _ if args.no_verify || args.dry_run => None,
        _ => Client::for_once(&tls, directory).ok(),
    }
}

struct Job<'a> {
    way: Way,
    sources: &'a Sources,
    packages: Option<Vec<Package>>,
    dry_run: bool,
}

impl Job<'_> {
    /// Looks, plans, and does it. Whether anything may have to be verified.
    fn run(&self, hosts: &[&Host], options: Options) -> Result<bool, CommandError> {
        let files = hosts.iter().map(|host| match options.rollback {
            true => Ok(Vec::new()),
            false => self.sources.of_host(host),
        });
        let files = files.collect::<Result<Vec<_>, _>>().map_err(DeployError::from)?;
        let mut wanted: Vec<Wanted> = hosts
            .iter()
            .zip(files)
            .map(|(host, files)| Wanted {
                host: (*host).clone(),
                package: None,
                files,
                programs: programs_of(self.sources.cluster(), host),
            })
            .collect();
        let observed = self.look(&wanted)?;
        for (wanted, observed) in wanted.iter_mut().zip(&observed) {
            self.prepare(wanted, observed, options)?;
        }
        let stages = plan(&wanted, &observed, options);
        if stages.is_empty() {
            let what = if options.rollback {
                "there is nothing to bring back on any host"
            } else {
                "the hosts are as the file has them"
            };
            output::print(&format!("{what}: nothing to do\n"))?;
            return Ok(!self.dry_run && !options.rollback);
        }
        if self.dry_run {
            output::print(&described(&stages, &wanted))?;
            return Ok(false);
        }
        let outcome = carry_out(&stages, &wanted, &self.way);
        self.tell(&outcome, &wanted)?;
        Ok(!options.rollback)
    }

    fn look(&self, wanted: &[Wanted]) -> Result<Vec<Observed>, DeployError> {
        let vips: Vec<IpAddr> = self.sources.cluster().vips().collect();
        let vips = &vips;
        std::thread::scope(|scope| {
            let asking: Vec<_> = wanted.iter().map(|wanted| scope.spawn(move || self.look_at(wanted, vips))).collect();
            asking.into_iter().map(|thread| thread.join().expect("looking does not panic")).collect()
        })
    }

    fn look_at(&self, wanted: &Wanted, vips: &[IpAddr]) -> Result<Observed, DeployError> {
        let host = wanted.host.name.to_string();
        let paths: Vec<_> = wanted.files.iter().map(|file| file.path.to_string_lossy()).collect();
        let script = format!("FILES={}\n{}{LOOK}", quoted(&paths.join(" ")), act::VERSION);
        let target = (wanted.host.name.as_str(), wanted.host.address);
        let said = self.way.done(target, "looking", "sh -s", script.as_bytes());
        let said = said.map_err(|error| DeployError::Look { host: host.clone(), error })?;
        let cut_off = || DeployError::Host {
            host,
            what: "did not answer to the end; log in there and see whether `sh -s` works".to_owned(),
        };
        Observed::parse(&said, vips).ok_or_else(cut_off)
    }

    /// Chooses the host's package, and says what is in the way before anything is changed.
    fn prepare(&self, wanted: &mut Wanted, observed: &Observed, options: Options) -> Result<(), DeployError> {
        let refuse = |what: String| Err(DeployError::Host { host: wanted.host.name.to_string(), what });
        if !observed.root {
            return refuse("lets us in as a user who is not root; use --user root, or --sudo".to_owned());
        }
        if !observed.systemd {
            return refuse("has no systemd, which runs the programs; use a host with systemd 239 or later".to_owned());
        }
        match (&self.packages, options.rollback) {
            (Some(packages), false) => {
                let Some(kind) = observed.kind else {
                    return refuse("has none of dpkg, rpm and tar; install tar".to_owned());
                };
                match newest(packages, kind, &observed.machine) {
                    Some(package) => wanted.package = Some(package.clone()),
                    None => {
                        return refuse(format!(
                            "needs a {} for {}, and the directory has none; `make packages` makes it",
                            kind.name(),
                            observed.machine
                        ));
                    }
                }
            }
            _ if observed.version.is_none() => {
                return refuse("has no evermq; name a directory with packages: --packages DIR".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    /// After the last step: notes, or what failed and what state the hosts are in.
    fn tell(&self, outcome: &Outcome, wanted: &[Wanted]) -> Result<(), CommandError> {
        for note in &outcome.notes {
            output::print(&format!("note: {note}\n"))?;
        }
        if outcome.failures.is_empty() {
            return Ok(());
        }
        output::print(&format!("\nafter the failure:\n{}", self.states(wanted)))?;
        let failed =
            outcome.failures.iter().map(|failure| format!("{}: {}", wanted[failure.host].host.name, failure.error));
        let failed: Vec<String> = failed.collect();
        Err(DeployError::Failed(format!(
            "{}. Mend that and repeat the command, which goes on from there, or `evermq rollback`",
            failed.join("; ")
        ))
        .into())
    }

    fn states(&self, wanted: &[Wanted]) -> Table {
        let vips: Vec<IpAddr> = self.sources.cluster().vips().collect();
        let mut table = Table::titled(&["HOST", "VERSION", "FILES", "PROGRAMS"]);
        for wanted in wanted {
            let name = wanted.host.name.as_str();
            let Ok(observed) = self.look_at(wanted, &vips) else {
                table.row([name, "?", "?", "does not answer"]);
                continue;
            };
            let new =
                wanted.files.iter().filter(|file| observed.digests.get(&file.path) == Some(&file.digest())).count();
            let files = format!("{new} of {} as wanted", wanted.files.len());
            table.row([name, observed.version.as_deref().unwrap_or("-"), &files, &programs(&observed)]);
        }
        table
    }
}

fn programs(observed: &Observed) -> String {
    let shown = PROGRAMS.iter().filter_map(|program| {
        let unit = observed.units.get(*program).filter(|unit| unit.active || unit.enabled)?;
        let state = match (unit.active, unit.old) {
            (true, true) => "runs, old version",
            (true, false) => "runs",
            (false, _) => "STOPPED",
        };
        Some(format!("{program}: {state}"))
    });
    let shown: Vec<String> = shown.collect();
    let vip = if observed.holds_vip { ", has the VIP" } else { "" };
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") + vip }
}

/// A plan in words.
fn described(stages: &[Stage], wanted: &[Wanted]) -> String {
    let mut text = String::new();
    for stage in stages {
        let how = if stage.at_once { "all at once" } else { "one after the other" };
        text += &format!("{} ({how}):\n", stage.title);
        let mut table = Table::indented(2);
        for (host, action) in &stage.steps {
            table.row([wanted[*host].host.name.as_str(), &in_words(action)]);
        }
        text += &table.to_string();
    }
    text
}

fn in_words(action: &Action) -> String {
    match action {
        Action::Keep => "keep version and files for `evermq rollback`".to_owned(),
        Action::Install(package) => {
            format!("install {}", package.path.file_name().unwrap_or_default().to_string_lossy())
        }
        Action::Write(paths) => {
            let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            format!("write {}", paths.join(" "))
        }
        Action::Unwrite { .. } => "bring back the files of before".to_owned(),
        Action::Restore => "bring back version and files".to_owned(),
        Action::Check => "evermq check".to_owned(),
        Action::Start(programs) => format!("enable and start evermq-{}", programs.join(", evermq-")),
        Action::Reload => "evermq reload".to_owned(),
        Action::RestartBroker { drain: true, .. } => "drain, then restart evermq-broker".to_owned(),
        Action::RestartBroker { drain: false, .. } => "restart evermq-broker, the only one".to_owned(),
        Action::RestartLb { .. } => "hand over evermq-lb, restart evermq-vip".to_owned(),
    }
}
