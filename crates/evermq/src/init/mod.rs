//! `evermq init`: the first cluster file, out of a few answers or an Ansible inventory.
//!
//! | module | subject |
//! |---|---|
//! | [`site`] | what has to be known, and the file that follows from it |
//! | [`inventory`] | Ansible's INI inventories |
//! | [`ansible`] | the inventory of the bundle for mosquitto, nginx and keepalived |
//! | [`questions`] | asking at the terminal |
//! | [`draft`] | a cluster file that is being written |

pub mod ansible;
pub mod draft;
pub mod inventory;
pub mod questions;
pub mod site;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use evermq_config::{ClusterName, HostName, Report};

use self::ansible::AnsibleError;
use self::questions::Ask;
use self::site::{Site, SiteError, USUAL_NAME, USUAL_PORT};
use crate::command::CommandError;
use crate::output;

/// `evermq init`
#[derive(Debug, Args)]
#[command(after_help = "Without --lb, --broker and --from-ansible it asks, a line for each answer.")]
pub struct InitArgs {
    #[command(flatten)]
    hosts: HostArgs,
    /// What clients connect to: an address that no host has
    #[arg(long, value_name = "ADDRESS", conflicts_with = "no_vip")]
    vip: Option<IpAddr>,
    /// There is none: a cloud's load balancer stands before the lb hosts
    #[arg(long)]
    no_vip: bool,
    /// The port that clients connect to [default: 9000]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The interface for the VIP on the lb hosts [default: the one with the host's address]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// An inventory with the groups mosquitto-master, mosquitto-broker, mosquitto-broker-address, mosquitto-nginx-keepalived,
    /// keepalived-vip, vip-port, add-broker, add-broker-address
    #[arg(long, value_name = "FILE")]
    from_ansible: Option<PathBuf>,
    /// Where names of an inventory that has no addresses for them are looked up
    #[arg(long, value_name = "FILE", default_value = "/etc/hosts")]
    hosts_file: PathBuf,
    /// The new file; - for standard output
    #[arg(long, value_name = "PATH", default_value = "evermq.toml")]
    out: PathBuf,
}

/// Hosts as options name them.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// The cluster's name [default: mqtt]
    #[arg(long, value_name = "NAME", value_parser = cluster_name)]
    pub name: Option<ClusterName>,
    /// A host that passes clients on and may hold the VIP; may be given again, and for a broker too
    #[arg(long = "lb", value_name = "NAME=ADDRESS", value_parser = host)]
    pub lbs: Vec<(HostName, Ipv4Addr)>,
    /// A host that is a broker; may be given again
    #[arg(long = "broker", value_name = "NAME=ADDRESS", value_parser = host)]
    pub brokers: Vec<(HostName, Ipv4Addr)>,
}

/// Why there is no new file.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A file cannot be read.
    #[error("cannot read {}; check the path and who may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// An inventory gives no site.
    #[error("{}: {error}", path.display())]
    Ansible {
        /// The inventory.
        path: PathBuf,
        /// Why not.
        error: AnsibleError,
    },
    /// Something is missing or contradicts.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// What was said makes no good file.
    #[error("what was said makes no good cluster file:\n{0}")]
    Bad(Report),
    /// The file is there.
    #[error("{} is already there and will not be overwritten; name another with --out, or move it away", path.display())]
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write {}; check the path and who may write there", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// Nobody answers.
    #[error("the questions were not answered to the end; name the hosts with --lb, --broker and --vip")]
    Unanswered,
}

impl InitError {
    /// Whether the command line or what it names has to change, rather than the machine.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Ansible { .. } | Self::Site(_) | Self::Bad(_) | Self::Unanswered)
    }
}

/// Writes a new cluster file.
///
/// # Errors
/// See [`InitError`].
pub fn run(args: &InitArgs) -> Result<ExitCode, CommandError> {
    let to_stdout = args.out == Path::new("-");
    if !to_stdout && args.out.symlink_metadata().is_ok() {
        return Err(InitError::InTheWay { path: args.out.clone() }.into());
    }
    let (site, notes) = args.site()?;
    let text = site.draft().to_string();
    let report = match evermq_config::parse(&args.out, &text) {
        Ok(loaded) => loaded.warnings,
        Err(report) => return Err(InitError::Bad(report).into()),
    };
    let said: String = notes.iter().map(|note| format!("note: {note}\n")).collect();
    let said = if report.problems.is_empty() { said } else { format!("{said}{report}\n") };
    if to_stdout {
        output::complain(&said);
        output::print(&text)?;
    } else {
        write_new(&args.out, &text)?;
        output::print(&format!("{said}wrote {}\n{}", args.out.display(), next(&args.out)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a file that is not there yet.
///
/// # Errors
/// It is there, or the file system refuses.
pub fn write_new(path: &Path, text: &str) -> Result<(), InitError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => InitError::InTheWay { path: path.to_owned() },
        _ => InitError::Write { path: path.to_owned(), source },
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

fn next(path: &Path) -> String {
    let path = path.display();
    format!(
        "next:\n  evermq certs init --config {path} --dir tls --client client --client admin   # beside the file\n  evermq check --config {path}\n  \
         evermq check --config {path} --hosts                            # what is in the way on the hosts\n  \
         evermq deploy --config {path} --packages DIRECTORY\n  evermq status --config {path}                                    # by tls/admin.crt\n"
    )
}

impl InitArgs {
    fn site(&self) -> Result<(Site, Vec<String>), InitError> {
        let (mut site, notes) = match &self.from_ansible {
            Some(path) => {
                let text = fs::read_to_string(path).map_err(|source| InitError::Read { path: path.clone(), source })?;
                let known =
                    fs::read_to_string(&self.hosts_file).map(|text| ansible::hosts_file(&text)).unwrap_or_default();
                let read =
                    ansible::read(&text, &known).map_err(|error| InitError::Ansible { path: path.clone(), error })?;
                (read.site, read.notes)
            }
            None => (self.of_options()?, Vec::new()),
        };
        if let Some(name) = &self.hosts.name {
            site.name = name.clone();
        }
        site.port = self.port.unwrap_or(site.port);
        site.vip = if self.no_vip { None } else { self.vip.or(site.vip) };
        site.interface.clone_from(&self.interface);
        self.hosts.add_to(&mut site)?;
        site.check()?;
        if site.vip.is_none() && !self.no_vip && self.from_ansible.is_some() {
            return Err(SiteError::NoVip.into());
        }
        Ok((site, notes))
    }

    fn of_options(&self) -> Result<Site, InitError> {
        let mut site = Site {
            name: ClusterName::new(USUAL_NAME).expect("the usual name is one"),
            vip: self.vip,
            port: USUAL_PORT,
            interface: None,
            hosts: Vec::new(),
        };
        if self.hosts.lbs.is_empty() && self.hosts.brokers.is_empty() {
            let mut ask = Ask { input: io::stdin().lock(), output: io::stderr().lock() };
            site = ask.site(site, self.no_vip, self.hosts.name.is_none(), self.port.is_none())?;
        } else if self.vip.is_none() && !self.no_vip {
            return Err(SiteError::NoVip.into());
        }
        Ok(site)
    }
}

impl HostArgs {
    /// Adds the hosts that were named.
    ///
    /// # Errors
    /// One has two addresses.
    pub fn add_to(&self, site: &mut Site) -> Result<(), SiteError> {
        for (name, address) in &self.lbs {
            site.add(name, *address, true, false)?;
        }
        for (name, address) in &self.brokers {
            site.add(name, *address, false, true)?;
        }
        Ok(())
    }
}

fn cluster_name(text: &str) -> Result<ClusterName, String> {
    ClusterName::new(text).ok_or_else(|| "1 to 63 letters, digits and hyphens, such as plant-7".to_owned())
}

/// `NAME=ADDRESS`
///
/// # Errors
/// It is none; the text says what to write.
pub fn host(text: &str) -> Result<(HostName, Ipv4Addr), String> {
    let (name, address) = text.split_once('=').ok_or("write NAME=ADDRESS, such as lb1=192.168.10.11")?;
    let name = HostName::new(name.trim()).ok_or("the name is 1 to 63 letters, digits and hyphens, not only digits")?;
    let address = address.trim().parse().map_err(|_| "the address is an IPv4 address, such as 192.168.10.11")?;
    Ok((name, address))
}
