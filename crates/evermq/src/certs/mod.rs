//! `evermq certs`: a certificate authority, the certificates of hosts and clients, all ECDSA P-256, and the keys that hosts
//! share.
//!
//! | module | subject |
//! |---|---|
//! | [`authority`] | the authority: made here or elsewhere, signs |
//! | [`make`] | what is made for which host and client |
//! | [`files`] | onto the disk: all or nothing, never over an existing file |
//! | [`life`] | `issue`, `renew`, `revoke`: certificates after the first ones |
//! | [`renewal`] | the same certificates for a longer time |
//! | [`revocation`] | the list of those that do not count any more |
//! | [`replace`] | files that others may read at any moment, replaced as a whole |
//! | [`expiry`] | when revocation lists end |
//! | [`show`] | what certificates say |
//! | [`names`] | names that go into certificates |
//! | [`pem_file`] | certificates in PEM files |
//! | [`error`] | what can go wrong |

pub mod authority;
pub mod error;
pub mod expiry;
pub mod files;
pub mod life;
pub mod make;
pub mod names;
pub mod pem_file;
pub mod renewal;
pub mod replace;
pub mod revocation;
pub mod show;
mod summary;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use time::OffsetDateTime;

use self::authority::{Authority, Validity};
use crate::command::CommandError;
use crate::config_file::ConfigFile;
use crate::output;

pub use self::error::CertsError;
pub use self::make::{Hosts, Made};
pub use self::names::{AltName, ClientName};

/// `evermq certs ...`
#[derive(Debug, Args)]
pub struct CertsArgs {
    #[command(subcommand)]
    command: CertsCommand,
}

#[derive(Debug, Subcommand)]
enum CertsCommand {
    /// Make all that a cluster needs: an authority, a certificate for every host, one for every named client, and with
    /// vip.quorum the heartbeat's key, with a listener that ends TLS the session tickets' key
    Init(InitArgs),
    /// Make a certificate authority: ca.crt and ca.key
    Ca(CaArgs),
    /// Make certificates for hosts of the cluster: NAME.crt and NAME.key
    Server(ServerArgs),
    /// Make certificates for clients: NAME.crt and NAME.key
    Client(ClientArgs),
    /// Make the key that all hosts share for the heartbeat of vip.quorum: 32 random bytes as hexadecimal digits
    HeartbeatKey(HeartbeatKeyArgs),
    /// Make the key that all lb hosts share for session tickets, so that clients resume at any of them: 32 random bytes as
    /// hexadecimal digits
    TicketKey(TicketKeyArgs),
    /// Make certificates for hosts of the cluster file and for clients, whichever each name is: NAME.crt and NAME.key
    Issue(life::IssueArgs),
    /// Renew certificates that end soon, or those that are named
    Renew(life::RenewArgs),
    /// Revoke certificates: put them on the list that the programs read (crl)
    Revoke(life::RevokeArgs),
    /// Say what certificates hold: subject, names, validity left, key, issuer
    Show(ShowArgs),
}

#[derive(Debug, Args)]
struct InitArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Directory for the new files; made if missing
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Make a certificate for this client too; may be given again
    #[arg(long = "client", value_name = "NAME")]
    clients: Vec<ClientName>,
    /// Another DNS name or address that clients reach the hosts by, such as a cloud's load balancer; may be given again
    #[arg(long = "san", value_name = "NAME|ADDRESS")]
    alt_names: Vec<AltName>,
    /// Validity of the authority
    #[arg(long, value_name = "DAYS", default_value_t = CA_DAYS, value_parser = days())]
    ca_days: u32,
    /// Validity of the certificates
    #[arg(long, value_name = "DAYS", default_value_t = LEAF_DAYS, value_parser = days())]
    days: u32,
}

#[derive(Debug, Args)]
struct CaArgs {
    /// Directory for ca.crt and ca.key; made if missing
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The authority's name (its common name)
    #[arg(long, default_value = "EverMQ CA", value_parser = common_name)]
    name: String,
    /// Validity
    #[arg(long, value_name = "DAYS", default_value_t = CA_DAYS, value_parser = days())]
    days: u32,
}

#[derive(Debug, Args)]
struct ServerArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    signing: Signing,
    /// Only for this host of the cluster; may be given again [default: every host]
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Another DNS name or address that clients reach the hosts by, such as a cloud's load balancer; may be given again
    #[arg(long = "san", value_name = "NAME|ADDRESS")]
    alt_names: Vec<AltName>,
}

#[derive(Debug, Args)]
struct ClientArgs {
    /// Names of the clients: each becomes a certificate's common name
    #[arg(required = true, value_name = "NAME")]
    names: Vec<ClientName>,
    #[command(flatten)]
    signing: Signing,
}

/// Where new certificates go and who signs them.
#[derive(Debug, Args)]
struct Signing {
    /// Directory for the new files; made if missing
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    authority: AuthorityFiles,
    /// Validity, at most as long as the authority's
    #[arg(long, value_name = "DAYS", default_value_t = LEAF_DAYS, value_parser = days())]
    days: u32,
}

/// Who signs: two files, beside the certificates unless they are elsewhere.
#[derive(Debug, Args)]
struct AuthorityFiles {
    /// The authority's certificate, made here or elsewhere [default: DIR/ca.crt]
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// The authority's private key [default: DIR/ca.key]
    #[arg(long, value_name = "FILE")]
    ca_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct HeartbeatKeyArgs {
    /// The new file
    #[arg(long, value_name = "PATH", default_value = make::HEARTBEAT_KEY)]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct TicketKeyArgs {
    /// The new file
    #[arg(long, value_name = "PATH", default_value = make::TICKET_KEY)]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// PEM files with one certificate or several
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Ten years: replacing an authority means touching every client.
const CA_DAYS: u32 = 3650;
/// The longest that common TLS stacks accept of a server's certificate from a private authority.
pub const LEAF_DAYS: u32 = 825;

/// Does what the command line asks for.
///
/// # Errors
/// The cluster file is wrong, or see [`CertsError`].
pub fn run(args: &CertsArgs) -> Result<ExitCode, CommandError> {
    let now = now();
    let text = match &args.command {
        CertsCommand::Init(args) => {
            let cluster = args.config.load()?;
            let (ca, leaf) = (Validity::days(now, args.ca_days)?, Validity::days(now, args.days)?);
            let made = make::everything(&args.dir, &cluster, &args.clients, &args.alt_names, ca, leaf)?;
            summary::everything(&made, &args.dir, args.config.path(), &cluster)
        }
        CertsCommand::Ca(args) => {
            let made = make::authority(&args.dir, &args.name, Validity::days(now, args.days)?)?;
            summary::authority(&made, &args.dir)
        }
        CertsCommand::Server(args) => {
            let cluster = args.config.load()?;
            let hosts = Hosts { cluster: &cluster, only: &args.hosts, alt_names: &args.alt_names };
            let authority = args.signing.authority(now)?;
            let made = make::servers(&args.signing.dir, hosts, &authority, Validity::days(now, args.signing.days)?)?;
            summary::servers(&made, &args.signing.dir, &args.signing.ca_cert(), args.config.path(), &cluster)
        }
        CertsCommand::Client(args) => {
            let authority = args.signing.authority(now)?;
            let validity = Validity::days(now, args.signing.days)?;
            let made = make::clients(&args.signing.dir, &args.names, &authority, validity)?;
            summary::clients(&made, &args.signing.dir, &args.signing.ca_cert())
        }
        CertsCommand::HeartbeatKey(args) => {
            make::shared_key(&args.out, "has no vote")?;
            summary::heartbeat_key(&args.out)
        }
        CertsCommand::TicketKey(args) => {
            make::shared_key(&args.out, "resumes nobody's session")?;
            summary::ticket_key(&args.out)
        }
        CertsCommand::Issue(args) => life::issue(args, now)?,
        CertsCommand::Renew(args) => life::renew(args, now)?,
        CertsCommand::Revoke(args) => life::revoke(args, now)?,
        CertsCommand::Show(args) => {
            let certificates = show::describe(&args.files, now)?;
            if args.json {
                output::print_json(&certificates)?;
                return Ok(ExitCode::SUCCESS);
            }
            show::table(&certificates).to_string()
        }
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The wall clock, by which certificates are valid.
#[expect(clippy::disallowed_methods, reason = "certificates are valid by wall time")]
#[must_use]
pub fn now() -> OffsetDateTime {
    SystemTime::now().into()
}

impl Signing {
    fn authority(&self, now: OffsetDateTime) -> Result<Authority, CertsError> {
        self.authority.load(&self.dir, now)
    }

    fn ca_cert(&self) -> PathBuf {
        self.authority.cert(&self.dir)
    }
}

impl AuthorityFiles {
    fn load(&self, dir: &Path, now: OffsetDateTime) -> Result<Authority, CertsError> {
        let key = self.ca_key.clone().unwrap_or_else(|| dir.join("ca.key"));
        Authority::load(&self.cert(dir), &key, now)
    }

    fn cert(&self, dir: &Path) -> PathBuf {
        self.ca_cert.clone().unwrap_or_else(|| dir.join("ca.crt"))
    }
}

/// A day as people write it: `2031-05-17`.
fn date(time: OffsetDateTime) -> String {
    let date = time.date();
    format!("{}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=36_500)
}

fn common_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().count() > 64 || text.chars().any(char::is_control) {
        return Err("an authority's name is 1 to 64 printable characters".to_owned());
    }
    Ok(text.to_owned())
}
