//! Asking all hosts of the cluster: this one on its control sockets, the others at their endpoints (`[admin]`).

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use evermq_admin::journal::{Journal, Mark, Said};
use evermq_admin::local::{self, Program};
use evermq_admin::mirror::host_answer;
use evermq_admin::overview::{Look, Plan};
use evermq_admin::remote::Door;
use evermq_config::cluster::Host;
use evermq_config::{Cluster, TlsFiles};
use evermq_daemon::command::this_host;
use evermq_daemon::control;
use evermq_daemon::tls::{Material, TlsError};
use serde_json::json;
use tokio::task::JoinSet;

use crate::command::CommandError;
use crate::config_file::{ConfigFile, ThisHost};

/// What the common certificate for this is called, beside the CA's.
const ADMIN: &str = "admin";

/// Which cluster, and who asks.
#[derive(Debug, Args)]
pub struct HostsArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    host: ThisHost,
    #[command(flatten)]
    certificate: CertificateArgs,
    /// How long to wait for each answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout: u64,
}

/// Who asks.
#[derive(Debug, Args)]
pub struct CertificateArgs {
    /// The certificate to show to other hosts [default: admin.crt beside the CA's, or this host's own]
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

/// The hosts, as they are asked again and again.
#[derive(Debug)]
pub struct Hosts {
    /// What is looked for.
    pub plan: Plan,
    ways: Vec<Way>,
    timeout: Duration,
}

/// What a host said.
#[derive(Debug)]
pub struct Heard {
    /// How it is.
    pub look: Look,
    /// What its programs have said since it was asked last.
    pub said: Vec<Said>,
}

/// How a host is asked.
#[derive(Debug)]
struct Way {
    name: String,
    /// At its endpoint.
    door: Result<Door, String>,
    reading: Reading,
    /// It is this one.
    own: Option<Own>,
}

#[derive(Debug, Default)]
struct Reading {
    process: u64,
    last: u64,
}

#[derive(Debug)]
struct Own {
    host: Host,
    programs: Vec<Program>,
    marks: Vec<Mark>,
    journal: Journal,
}

impl HostsArgs {
    /// The file.
    ///
    /// # Errors
    /// It is wrong.
    pub fn load(&self) -> Result<Cluster, CommandError> {
        Ok(self.config.load()?)
    }

    /// Which host this is.
    ///
    /// # Errors
    /// It is not in the file.
    pub fn this_host<'a>(&self, cluster: &'a Cluster) -> Result<&'a Host, CommandError> {
        Ok(self.host.find(cluster)?)
    }

    /// For each answer.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout)
    }

    /// The hosts; none has been asked yet.
    ///
    /// # Errors
    /// The host that was named is not in the file, or the certificate that was named cannot be used.
    pub fn hosts(&self, cluster: &Cluster) -> Result<Hosts, CommandError> {
        let own = self.host.find_if_any(cluster)?;
        Ok(Hosts::new(cluster, own, &self.certificate, self.timeout())?)
    }
}

impl CertificateArgs {
    /// The certificate to show.
    fn files(&self, cluster: &Cluster, own: Option<&Host>) -> Result<TlsFiles, String> {
        let ca = cluster.tls.ca.clone();
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            return Ok(TlsFiles { ca, cert: cert.clone(), key: key.clone() });
        }
        let beside = |end: &str| ca.with_file_name(format!("{ADMIN}.{end}"));
        if beside("crt").exists() && beside("key").exists() {
            return Ok(TlsFiles { cert: beside("crt"), key: beside("key"), ca });
        }
        own.map(|host| cluster.tls.for_host(&host.name)).ok_or_else(|| {
            format!(
                "no certificate to show: {} is not there, and this machine ({}) is no host of the cluster file; name one with --cert \
                 and --key",
                beside("crt").display(),
                this_host()
            )
        })
    }
}

fn door(cluster: &Cluster, host: &Host, material: Result<&Material, &String>) -> Result<Door, String> {
    let address = cluster.admin.of_host(host).ok_or("the cluster file has no admin.listen")?;
    let config = material
        .map_err(Clone::clone)?
        .client_config_for(&host.name, host.address.into())
        .map_err(|error: TlsError| error.to_string())?;
    Ok(Door::new(host.name.clone(), address, config))
}

impl Hosts {
    /// Of a cluster, asked from `own` if that is one of them.
    ///
    /// # Errors
    /// The certificate that was named cannot be used.
    pub fn new(
        cluster: &Cluster,
        own: Option<&Host>,
        certificate: &CertificateArgs,
        timeout: Duration,
    ) -> Result<Self, TlsError> {
        let material = match (certificate.files(cluster, own), &certificate.cert) {
            (Ok(files), Some(_)) => Ok(Material::load(&files)?),
            (Ok(files), None) => Material::load(&files).map_err(|error| error.to_string()),
            (Err(why), _) => Err(why),
        };
        let way = |host: &Host| Way {
            name: host.name.to_string(),
            door: door(cluster, host, material.as_ref()),
            reading: Reading::default(),
            own: own.filter(|own| own.name == host.name).map(|own| Own::new(cluster, own)),
        };
        Ok(Self { plan: Plan::new(cluster), ways: cluster.hosts.iter().map(way).collect(), timeout })
    }

    /// Asks all of them at once, in the file's order.
    pub async fn ask(&mut self) -> Vec<Heard> {
        let mut asked = JoinSet::new();
        let timeout = self.timeout;
        for (index, mut way) in std::mem::take(&mut self.ways).into_iter().enumerate() {
            asked.spawn(async move {
                let heard = way.ask(timeout).await;
                (index, way, heard)
            });
        }
        let mut all = asked.join_all().await;
        all.sort_by_key(|(index, ..)| *index);
        let (ways, heard) = all.into_iter().map(|(_, way, heard)| (way, heard)).unzip();
        self.ways = ways;
        heard
    }

    /// The door of a host, for what is to be done there.
    ///
    /// # Errors
    /// Why there is none.
    pub fn door(&mut self, host: &str) -> Result<&mut Door, String> {
        let way = self.ways.iter_mut().find(|way| way.name == host);
        let way = way.ok_or_else(|| format!("{host} is not in the cluster file"))?;
        way.door.as_mut().map_err(|why| why.clone())
    }
}

impl Way {
    async fn ask(&mut self, timeout: Duration) -> Heard {
        let at_door = match &mut self.door {
            Ok(door) => ask_door(door, &mut self.reading, timeout).await.map_err(Look::Silent),
            Err(why) => Err(Look::NotAsked(format!("not asked: {why}"))),
        };
        let mut heard = match (at_door, self.own.take()) {
            (Ok(heard), own) => {
                self.own = own;
                heard
            }
            // Its programs can be asked by themselves.
            (Err(_), Some(own)) => {
                let (own, heard) = own.ask(timeout).await;
                self.own = own;
                heard
            }
            (Err(look), None) => Heard { look, said: Vec::new() },
        };
        for said in &mut heard.said {
            said.host.clone_from(&self.name);
        }
        heard
    }
}

async fn ask_door(door: &mut Door, reading: &mut Reading, timeout: Duration) -> Result<Heard, String> {
    let mut answer = host_answer(door, reading.last, timeout).await?;
    if reading.last > 0 && answer.process != reading.process {
        // Another process, whose numbers began anew.
        answer = host_answer(door, 0, timeout).await?;
    }
    *reading = Reading { process: answer.process, last: answer.last };
    Ok(Heard { look: Look::Said(answer.report), said: answer.events })
}

impl Own {
    fn new(cluster: &Cluster, host: &Host) -> Self {
        let programs = local::programs_of(cluster, host);
        let marks = vec![Mark::default(); programs.len()];
        Self { host: host.clone(), programs, marks, journal: Journal::default() }
    }

    /// None of it remains where the thread that asks panicked.
    async fn ask(self, timeout: Duration) -> (Option<Self>, Heard) {
        let asked = tokio::task::spawn_blocking(move || self.ask_now(timeout));
        match asked.await {
            Ok((own, heard)) => (Some(own), heard),
            Err(error) => (None, Heard { look: Look::Silent(error.to_string()), said: Vec::new() }),
        }
    }

    fn ask_now(mut self, timeout: Duration) -> (Self, Heard) {
        let report = local::look(&self.host, &self.programs, timeout);
        let before = self.journal.last();
        for (program, mark) in self.programs.iter().zip(&mut self.marks) {
            // Twice at the most: the second time from the beginning.
            while let Some(page) = events(program, mark.last, timeout) {
                if self.journal.add_page(program.name, mark, page) {
                    break;
                }
            }
        }
        let said = self.journal.after(before);
        (self, Heard { look: Look::Said(report), said })
    }
}

fn events(program: &Program, after: u64, timeout: Duration) -> Option<evermq_daemon::events::Page> {
    let answer = control::request(&program.socket, &json!({ "request": "events", "after": after }), timeout).ok()?;
    serde_json::from_value(answer).ok()
}

/// Runs what waits for hosts.
///
/// # Errors
/// The system has no runtime to give.
pub fn block_on<T>(future: impl Future<Output = T>) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}

/// Output as people or programs read it: `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// JSON; one line for each of several.
    Json,
}

/// `-o json`, or `--json`
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// How it is printed
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "text")]
    output: Format,
    /// The same as -o json
    #[arg(long)]
    json: bool,
}

impl FormatArgs {
    /// Whether JSON is wanted.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json || self.output == Format::Json
    }
}
