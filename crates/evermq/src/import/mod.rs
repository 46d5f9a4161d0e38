//! `evermq import`: mosquitto.conf, keepalived.conf and nginx.conf as one cluster file, and what became of each line.
//!
//! | module | subject |
//! |---|---|
//! | [`mosquitto`] | its options, with [`listener`] and [`bridge`] |
//! | [`keepalived`] | its instances, with [`scripts`] for what they track |
//! | [`nginx`] | its `stream` block, with [`upstream`] |
//! | [`statements`] | words and blocks, as keepalived and nginx write them |
//! | [`model`] | what has been gathered |
//! | [`finding`] | what became of each line |
//! | [`files`] | reading files, and those that they include |

pub mod bridge;
pub mod files;
pub mod finding;
pub mod keepalived;
pub mod listener;
pub mod model;
pub mod mosquitto;
pub mod nginx;
pub mod scripts;
pub mod statements;
pub mod upstream;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use evermq_config::ClusterName;
use serde_json::json;

use self::files::Content;
use self::finding::Finding;
use self::model::Model;
use crate::command::CommandError;
use crate::init::ansible::hosts_file;
use crate::init::site::{SiteError, USUAL_NAME, USUAL_PORT, preamble};
use crate::init::{HostArgs, write_new};
use crate::output;

pub use self::files::ImportError;

/// `evermq import`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 the file passes `evermq check` but for its certificates; 1 something cannot be read or \
                        written; 2 the file is not usable as it is, and what is missing is said."
)]
pub struct ImportArgs {
    /// mosquitto.conf, keepalived.conf and nginx.conf, of one host or of several; which is which shows in what they say
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    hosts: HostArgs,
    /// Keep keepalived's protocol (VRRP 2, its interval and password), so that both can share the VIP for a while
    #[arg(long)]
    beside: bool,
    /// Where names of hosts are looked up
    #[arg(long, value_name = "FILE", default_value = "/etc/hosts")]
    hosts_file: PathBuf,
    /// The new file; - for standard output
    #[arg(long, value_name = "PATH", default_value = "-")]
    out: PathBuf,
    /// Show every line, those too that are taken over as they are
    #[arg(long)]
    all: bool,
    /// Print JSON: the file as text, and every line
    #[arg(long)]
    json: bool,
}

/// What came out.
#[derive(Debug)]
pub struct Imported {
    /// The cluster file.
    pub toml: String,
    /// What became of each line.
    pub findings: Vec<Finding>,
    /// What an operator should know beside that.
    pub notes: Vec<String>,
    /// Whether all hosts are known.
    pub complete: bool,
}

/// Reads the files, writes the cluster file, and tells of the rest.
///
/// # Errors
/// See [`ImportError`].
pub fn run(args: &ImportArgs) -> Result<ExitCode, CommandError> {
    let contents = files::read_all(&args.files)?;
    let known = fs::read_to_string(&args.hosts_file).map(|text| hosts_file(&text)).unwrap_or_default();
    let model = Model::new(&args.hosts.lbs, &args.hosts.brokers, known, args.beside);
    let imported = import(&contents, model, args.hosts.name.clone());
    let to_stdout = args.out == Path::new("-");
    let checked = evermq_config::parse(&args.out, &imported.toml);
    let is_good = checked.is_ok() && imported.complete;
    let problems = match checked {
        Ok(loaded) => loaded.warnings,
        Err(report) => report,
    };
    if !to_stdout {
        write_new(&args.out, &imported.toml)?;
    }
    if args.json {
        let findings: Vec<_> = imported.findings.iter().map(Finding::to_json).collect();
        output::print_json(&json!({
            "ok": is_good,
            "toml": imported.toml,
            "lines": findings,
            "notes": imported.notes,
            "problems": problems.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }))?;
    } else {
        if to_stdout {
            output::print(&imported.toml)?;
        }
        let mut said = told(&imported, args.all);
        if !problems.problems.is_empty() && imported.complete {
            said += &format!("\n{problems}\n");
        }
        output::complain(&said);
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn told(imported: &Imported, all: bool) -> String {
    let notable = imported.findings.iter().filter(|finding| finding.outcome.is_notable()).count();
    let taken = imported.findings.len() - notable;
    let mut said = format!("{taken} lines are taken over or are so in any case; {notable} to look at:\n");
    said += &finding::table(&imported.findings, all).to_string();
    for note in &imported.notes {
        said += &format!("note: {note}\n");
    }
    said
}

/// The authority is one that the site has already, and may have signed any name: who is an admin, only an operator knows.
const NO_ADMIN: &str = "there is no [admin] section, which `evermq status` from afar, events and the web page need: name the certificates that may see and act";

/// Puts files together.
#[must_use]
pub fn import(contents: &[Content], mut model: Model, name: Option<ClusterName>) -> Imported {
    // nginx first: it knows which hosts are brokers, which bridges between them depends on.
    for content in contents {
        if let Content::Nginx(statements) = content {
            nginx::import(statements, &mut model);
        }
    }
    for content in contents {
        match content {
            Content::Keepalived(statements) => keepalived::import(statements, &mut model),
            Content::Mosquitto(lines) => mosquitto::import(lines, &mut model),
            Content::Nginx(_) => {}
        }
    }
    finish(model, name)
}

fn finish(mut model: Model, name: Option<ClusterName>) -> Imported {
    let name = name.unwrap_or_else(|| ClusterName::new(USUAL_NAME).expect("the usual name is one"));
    preamble(&mut model.draft);
    model.draft.table("cluster").set("name", name.as_str(), "brokers refuse peers of another cluster");
    for (key, path) in [("ca", "tls/ca.crt"), ("cert", "tls/{host}.crt"), ("key", "tls/{host}.key")] {
        if !model.draft.table("tls").has(key) {
            model.draft.table("tls").set(key, path, "made by `evermq certs init`");
        }
    }
    let (complete, notes) = match model.site(name, USUAL_PORT) {
        Ok((mut site, mut notes)) => {
            site.vip = model.draft.value("vip", "address").and_then(|vip| vip.parse().ok());
            if let Some(network) = site.network_with(model.vips.iter().copied()) {
                model.draft.table("cluster").set("network", network, "of the lb hosts; the VIP must be in it");
            }
            site.port = model.port().unwrap_or(USUAL_PORT);
            if let Some(("lb", key, other)) = site.clash() {
                model.draft.table("lb").set(key, other, "not its usual one, which clients connect to");
            }
            model.write_hosts(&site);
            notes.push(NO_ADMIN.to_owned());
            (true, notes)
        }
        Err(error) => {
            let what = match error {
                SiteError::NoLb => "these files name no lb host: name each with --lb NAME=ADDRESS".to_owned(),
                SiteError::NoBroker => "these files name no broker: name each with --broker NAME=ADDRESS".to_owned(),
                other => other.to_string(),
            };
            (false, vec![format!("there is no [[hosts]] yet: {what}")])
        }
    };
    let mut findings = model.findings;
    findings.sort_by(|one, other| (&one.place.file, one.place.line).cmp(&(&other.place.file, other.place.line)));
    Imported { toml: model.draft.to_string(), findings, notes, complete }
}

#[cfg(test)]
mod tests;
