//! `evermq certs issue`, `renew` and `revoke`: certificates after the first ones.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rcgen::RevocationReason;
use time::{Duration, OffsetDateTime};

use super::authority::{Authority, Validity};
use super::renewal::{self, Left, REPLACED, Renewal, Renewed, serial_text};
use super::replace::Replacement;
use super::revocation::List;
use super::{AltName, AuthorityFiles, CertsError, ClientName, LEAF_DAYS, Signing, date, days, make, pem_file, summary};
use crate::command::CommandError;
use crate::config_file::ConfigFile;
use crate::table::Table;

/// `evermq certs issue`
#[derive(Debug, Args)]
pub struct IssueArgs {
    /// Hosts of the cluster file, and clients: each becomes a certificate's common name
    #[arg(required = true, value_name = "NAME")]
    names: Vec<ClientName>,
    #[command(flatten)]
    config: ConfigFile,
    /// All of them are clients; no cluster file is read
    #[arg(long, conflicts_with = "config")]
    client: bool,
    #[command(flatten)]
    signing: Signing,
    /// Another DNS name or address that clients reach the hosts by, such as a cloud's load balancer; may be given again
    #[arg(long = "san", value_name = "NAME|ADDRESS")]
    alt_names: Vec<AltName>,
}

/// `evermq certs renew`
#[derive(Debug, Args)]
pub struct RenewArgs {
    /// Only these, whenever they end; `ca` is the authority itself, which keeps its key [default: all in DIR that end soon]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Without names: those that end within so many days, the revocation list too
    #[arg(long, value_name = "DAYS", default_value_t = 30, conflicts_with = "names", value_parser = days())]
    within: u32,
    /// Cluster file, whose hosts' names and addresses of today go into their certificates beside the old ones
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Keep the keys. Where a key is not in DIR, as that of a client who made it, it is kept in any case
    #[arg(long)]
    keep_key: bool,
    #[command(flatten)]
    signing: Signing,
}

/// `evermq certs revoke`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["names", "certificates", "serials"]))]
pub struct RevokeArgs {
    /// Whose certificates in DIR do not count any more, those too that were renewed before their end
    #[arg(value_name = "NAME")]
    names: Vec<ClientName>,
    /// A certificate's file; may be given again
    #[arg(long = "cert", value_name = "FILE")]
    certificates: Vec<PathBuf>,
    /// A certificate's serial number in hexadecimal, as `evermq certs show --json` has it; may be given again
    #[arg(long = "serial", value_name = "HEX", value_parser = serial)]
    serials: Vec<Serial>,
    /// Why, as the list says it
    #[arg(long, value_enum, default_value_t = Reason::Unspecified)]
    reason: Reason,
    /// The list, made or continued [default: DIR/ca.crl]
    #[arg(long, value_name = "FILE")]
    crl: Option<PathBuf>,
    /// How long the list is taken for a good one; then it has to be signed anew (`evermq certs renew`)
    #[arg(long, value_name = "DAYS", default_value_t = LIST_DAYS, value_parser = days())]
    crl_days: u32,
    /// Directory of the certificates
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    authority: AuthorityFiles,
}

/// Why a certificate does not count any more (RFC 5280 §5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Reason {
    /// Not said
    Unspecified,
    /// Somebody else may have its key
    KeyCompromise,
    /// Its holder belongs elsewhere now
    AffiliationChanged,
    /// Another has taken its place
    Superseded,
    /// It is not needed any more
    CessationOfOperation,
    /// Its holder may not any more
    PrivilegeWithdrawn,
}

/// Bytes of a serial number.
#[derive(Debug, Clone)]
struct Serial(Vec<u8>);

/// Programs refuse an expired list when they start, so a list that nobody has to change lives long.
const LIST_DAYS: u32 = 3650;

pub(super) fn issue(args: &IssueArgs, now: OffsetDateTime) -> Result<String, CommandError> {
    let cluster = if args.client { None } else { Some(args.config.load()?) };
    let (signing, validity) = (&args.signing, Validity::days(now, args.signing.days)?);
    let authority = signing.authority(now)?;
    let made = make::named(&signing.dir, cluster.as_ref(), &args.names, &args.alt_names, &authority, validity)?;
    Ok(summary::issued(&made, &signing.dir, &signing.ca_cert(), args.config.path(), cluster.as_ref()))
}

pub(super) fn renew(args: &RenewArgs, now: OffsetDateTime) -> Result<String, CommandError> {
    let cluster = args.config.as_deref().map(evermq_config::load).transpose()?.map(|loaded| loaded.cluster);
    let signing = &args.signing;
    let (ca_cert, crl) = (signing.ca_cert(), signing.dir.join("ca.crl"));
    let authority = signing.authority(now)?;
    if args.names.iter().any(|name| name == "ca") && args.names.len() > 1 {
        return Err(CertsError::Twice { name: "ca".to_owned() }.into());
    }
    if args.names == ["ca"] {
        let days = if signing.days == LEAF_DAYS { super::CA_DAYS } else { signing.days };
        let renewed = renewal::authority(&ca_cert, &authority, Validity::days(now, days)?)?;
        return Ok(told(&[renewed], &[], &signing.dir) + AFTER_AUTHORITY);
    }
    let renewal = Renewal {
        dir: &signing.dir,
        ca_cert: &ca_cert,
        authority: &authority,
        validity: Validity::days(now, signing.days)?,
        cluster: cluster.as_ref(),
        keep_keys: args.keep_key,
        now,
    };
    if !args.names.is_empty() {
        let names = args.names.iter().map(|name| name.parse().map_err(|_| nothing_of(name, &signing.dir)));
        let renewed = renewal.named(&names.collect::<Result<Vec<ClientName>, _>>()?)?;
        return Ok(told(&renewed, &[], &signing.dir) + AFTER);
    }
    let until = now.checked_add(Duration::days(args.within.into())).ok_or(CertsError::TooLong { days: args.within })?;
    let (renewed, left) = renewal.ending(until)?;
    let mut text = told(&renewed, &left, &signing.dir);
    let list = List::load(&crl, &authority)?;
    if list.next_update().is_some_and(|end| end < until) {
        let (pem, end) = list.sign(&authority, now, LIST_DAYS)?;
        replace_list(&crl, pem)?;
        let _ = writeln!(text, "signed the revocation list {} anew, until {}", crl.display(), date(end));
    } else if renewed.is_empty() {
        let _ = writeln!(text, "nothing ends within {} days", args.within);
        return Ok(text + &authority_ends(&authority, until, now));
    }
    Ok(text + AFTER + &authority_ends(&authority, until, now))
}

pub(super) fn revoke(args: &RevokeArgs, now: OffsetDateTime) -> Result<String, CommandError> {
    let authority = args.authority.load(&args.dir, now)?;
    let crl = args.crl.clone().unwrap_or_else(|| args.dir.join("ca.crl"));
    let mut list = List::load(&crl, &authority)?;
    let mut found: Vec<Found> = Vec::new();
    for name in &args.names {
        let of_name = certificates_of(&args.dir, name, &authority)?;
        if of_name.is_empty() {
            return Err(nothing_of(name.as_str(), &args.dir).into());
        }
        found.extend(of_name);
    }
    for path in &args.certificates {
        found.push(
            Found::read(path, &authority)?.ok_or_else(|| CertsError::OtherIssuer {
                path: path.clone(),
                issuer: "another authority".to_owned(),
            })?,
        );
    }
    found.extend(args.serials.iter().map(|serial| Found { what: "-".to_owned(), serial: serial.0.clone() }));
    let mut table = Table::indented(2);
    let mut any_new = false;
    for certificate in &found {
        let is_new = list.add(&certificate.serial, args.reason.on_list(), now);
        any_new |= is_new;
        let state = if is_new { "revoked" } else { "was revoked before" };
        table.row([certificate.what.as_str(), &serial_text(&certificate.serial), state]);
    }
    let mut end = list.next_update();
    if any_new {
        let (pem, until) = list.sign(&authority, now, args.crl_days)?;
        replace_list(&crl, pem)?;
        end = Some(until);
    }
    for name in &args.names {
        for certificate in found.iter().filter(|certificate| certificate.what == format!("{name}.crt")) {
            renewal::retire(&args.dir, name.as_str(), &certificate.serial)?;
        }
    }
    let until = end.map_or_else(String::new, |end| format!(", good until {}", date(end)));
    let (count, crl) = (list.len(), crl.display());
    Ok(format!("{table}{crl} names {count} in all{until}\n{AFTER_REVOCATION}"))
}

const AFTER: &str = "next: `evermq deploy`, or copy each host's files over the old ones and run `evermq reload` there; clients \
                     get theirs from you\n";
const AFTER_AUTHORITY: &str = "what it has signed goes on to count. next: `evermq deploy`, or copy it to every host and run \
                               `evermq reload` there; clients need it before the old one ends\n";
const AFTER_REVOCATION: &str = "next: crl = [\"tls/ca.crl\"] in [broker.auth], in [lb] too where it ends TLS; then `evermq deploy`, \
                                or copy the list to every host and run `evermq reload` there: it ends the sessions of what it names\n";

fn nothing_of(name: &str, dir: &Path) -> CertsError {
    CertsError::NothingOf { name: name.to_owned(), dir: dir.to_owned() }
}

fn replace_list(path: &Path, pem: String) -> Result<(), CertsError> {
    let mut files = Replacement::default();
    files.public(path.to_owned(), pem);
    files.write()
}

fn told(renewed: &[Renewed], left: &[Left], dir: &Path) -> String {
    let mut table = Table::indented(2);
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for done in renewed {
        let key = if done.new_key { "new key" } else { "the same key" };
        let shortened = if done.shortened { " (the authority's end)" } else { "" };
        let until = format!("until {}{shortened}", date(done.not_after));
        table.row([&name(&done.certificate), "renewed", &format!("ended {}", date(done.ended)), &until, key]);
    }
    for other in left {
        let reason = other.reason.as_ref().map_or_else(String::new, |reason| format!("NOT RENEWED: {reason}"));
        table.row([&name(&other.certificate), "left", &format!("until {}", date(other.not_after)), &reason]);
    }
    format!("in {}:\n{table}", dir.display())
}

/// The authority is not renewed by the way: all clients and hosts have to get it.
fn authority_ends(authority: &Authority, until: OffsetDateTime, now: OffsetDateTime) -> String {
    if authority.not_after() >= until {
        return String::new();
    }
    let days = (authority.not_after() - now).whole_days();
    format!(
        "the authority itself ends in {days} days, on {}, and all that it signed: `evermq certs renew ca`, then give it to every \
         host and client\n",
        date(authority.not_after())
    )
}

/// A certificate that is to be revoked.
struct Found {
    what: String,
    serial: Vec<u8>,
}

impl Found {
    /// None where another authority signed it.
    fn read(path: &Path, authority: &Authority) -> Result<Option<Self>, CertsError> {
        let section = &pem_file::read(path)?[0];
        let parsed = section.parse(path)?;
        let what = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let signed = authority.is_called(parsed.issuer().as_raw());
        Ok(signed.then(|| Self { what, serial: parsed.raw_serial().to_vec() }))
    }
}

/// The certificate of that name, and those that it has taken the place of.
fn certificates_of(dir: &Path, name: &ClientName, authority: &Authority) -> Result<Vec<Found>, CertsError> {
    let mut paths = vec![dir.join(format!("{name}.crt"))];
    let mut replaced: Vec<PathBuf> = fs::read_dir(dir.join(REPLACED))
        .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
        .unwrap_or_default();
    replaced.retain(|path| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        stem.rsplit_once('-').is_some_and(|(of, _)| of == name.as_str())
    });
    replaced.sort();
    paths.extend(replaced);
    let there = paths.iter().filter(|path| path.symlink_metadata().is_ok());
    let found = there.map(|path| Found::read(path, authority)).collect::<Result<Vec<_>, _>>()?;
    Ok(found.into_iter().flatten().collect())
}

impl Reason {
    const fn on_list(self) -> Option<RevocationReason> {
        match self {
            // RFC 5280 §5.3.1: rather than this code, no code.
            Self::Unspecified => None,
            Self::KeyCompromise => Some(RevocationReason::KeyCompromise),
            Self::AffiliationChanged => Some(RevocationReason::AffiliationChanged),
            Self::Superseded => Some(RevocationReason::Superseded),
            Self::CessationOfOperation => Some(RevocationReason::CessationOfOperation),
            Self::PrivilegeWithdrawn => Some(RevocationReason::PrivilegeWithdrawn),
        }
    }
}

fn serial(text: &str) -> Result<Serial, String> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let even = digits.len().is_multiple_of(2) && (2..=40).contains(&digits.len());
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = if even { (0..digits.len()).step_by(2).map(byte).collect() } else { None };
    bytes.map(Serial).ok_or_else(|| "up to 20 bytes as two hexadecimal digits each, with or without colons".to_owned())
}
