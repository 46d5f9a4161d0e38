//! Making certificates: an authority, one for each host of the cluster, one for each named client.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use evermq_config::Cluster;
use evermq_config::cluster::Host;
use time::OffsetDateTime;

use super::authority::{Authority, Issued, Leaf, Validity};
use super::files::{NewFiles, make_dir, refuse_existing};
use super::{AltName, CertsError, ClientName};

/// The heartbeat key's name where the cluster file does not say another.
pub const HEARTBEAT_KEY: &str = "heartbeat.key";

/// The ticket key's name where the cluster file does not say another.
pub const TICKET_KEY: &str = "ticket.key";

/// Which hosts get certificates, with which names.
#[derive(Debug, Clone, Copy)]
pub struct Hosts<'a> {
    /// The cluster that they are in.
    pub cluster: &'a Cluster,
    /// Only these; all of the cluster if empty.
    pub only: &'a [String],
    /// Names and addresses that every host is reached by besides its own and the VIP, such as a cloud's load balancer.
    pub alt_names: &'a [AltName],
}

/// What was made.
#[derive(Debug, Default)]
pub struct Made {
    /// In the order in which it was made.
    pub pairs: Vec<Pair>,
    /// The key for the heartbeat, where the cluster has a quorum.
    pub heartbeat_key: Option<PathBuf>,
    /// The key for session tickets, where an lb ends TLS.
    pub ticket_key: Option<PathBuf>,
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Pair {
    /// Whom it is for, in words.
    pub what: String,
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
    /// End of the certificate's validity.
    pub not_after: OffsetDateTime,
    /// Whether that is earlier than asked for, because the authority ends then.
    pub shortened: bool,
}

/// Makes a new authority called `name`: `ca.crt` and `ca.key` in `dir`.
///
/// # Errors
/// A file is in the way, or the disk refuses; nothing is made then.
pub fn authority(dir: &Path, name: &str, validity: Validity) -> Result<Made, CertsError> {
    let mut batch = Batch::new(dir, ["ca"])?;
    let (_, issued) = Authority::generate(name, validity, &batch.certificate_path("ca"))?;
    batch.add("ca", format!("authority \"{name}\""), issued);
    batch.write()
}

/// Makes a certificate for each host: `NAME.crt` and `NAME.key` in `dir`.
///
/// # Errors
/// A host is unknown, a file is in the way, or the disk refuses; nothing is made then.
pub fn servers(dir: &Path, hosts: Hosts<'_>, authority: &Authority, validity: Validity) -> Result<Made, CertsError> {
    let chosen = hosts.chosen()?;
    let mut batch = Batch::new(dir, chosen.iter().map(|host| host.name.as_str()))?;
    batch.add_hosts(hosts, &chosen, authority, validity)?;
    batch.write()
}

/// Makes a certificate for each client: `NAME.crt` and `NAME.key` in `dir`.
///
/// # Errors
/// A name is there twice, a file is in the way, or the disk refuses; nothing is made then.
pub fn clients(
    dir: &Path,
    names: &[ClientName],
    authority: &Authority,
    validity: Validity,
) -> Result<Made, CertsError> {
    let mut batch = Batch::new(dir, names.iter().map(ClientName::as_str))?;
    batch.add_clients(names, authority, validity)?;
    batch.write()
}

/// Makes a certificate for each name: a host's where the cluster has a host of that name, else a client's.
///
/// # Errors
/// A name is there twice, a file is in the way, or the disk refuses; nothing is made then.
pub fn named(
    dir: &Path,
    cluster: Option<&Cluster>,
    names: &[ClientName],
    alt_names: &[AltName],
    authority: &Authority,
    validity: Validity,
) -> Result<Made, CertsError> {
    let mut batch = Batch::new(dir, names.iter().map(ClientName::as_str))?;
    for name in names {
        let of_that_name = |host: &&Host| host.name.as_str() == name.as_str();
        match cluster.and_then(|cluster| Some((cluster, cluster.hosts.iter().find(of_that_name)?))) {
            Some((cluster, host)) => {
                batch.add_hosts(Hosts { cluster, only: &[], alt_names }, &[host], authority, validity)?;
            }
            None => batch.add_clients(std::slice::from_ref(name), authority, validity)?,
        }
    }
    batch.write()
}

/// Makes everything that a cluster needs: an authority, a certificate for each of its hosts and for each client; where it
/// has a quorum, the key for its heartbeat; where its lbs end TLS, the key for session tickets.
///
/// # Errors
/// A client has a host's name or is there twice, a file is in the way, or the disk refuses; nothing is made then.
pub fn everything(
    dir: &Path,
    cluster: &Cluster,
    names: &[ClientName],
    alt_names: &[AltName],
    authority_validity: Validity,
    validity: Validity,
) -> Result<Made, CertsError> {
    let hosts = Hosts { cluster, only: &[], alt_names };
    if let Some(name) = names.iter().find(|name| cluster.hosts.iter().any(|host| host.name.as_str() == name.as_str())) {
        return Err(CertsError::ClientNamedLikeHost { name: name.to_string() });
    }
    let chosen = hosts.chosen()?;
    let stems = chosen.iter().map(|host| host.name.as_str()).chain(names.iter().map(ClientName::as_str));
    let mut batch = Batch::new(dir, ["ca"].into_iter().chain(stems))?;
    let name = format!("{} CA", cluster.name);
    let (authority, issued) = Authority::generate(&name, authority_validity, &batch.certificate_path("ca"))?;
    batch.add("ca", format!("authority \"{name}\""), issued);
    batch.add_hosts(hosts, &chosen, &authority, validity)?;
    batch.add_clients(names, &authority, validity)?;
    if let Some(quorum) = &cluster.quorum {
        batch.made.heartbeat_key = Some(batch.add_key(&quorum.key_file, HEARTBEAT_KEY)?);
    }
    if cluster.lb.listeners.iter().any(|listener| listener.mode.terminates()) {
        batch.made.ticket_key = Some(batch.add_key(&cluster.lb.tls.ticket_key, TICKET_KEY)?);
    }
    batch.write()
}

/// Makes a key that hosts share: 32 random bytes as hexadecimal digits. `otherwise` says what becomes of a host that has
/// another key than the rest.
///
/// # Errors
/// The file exists, the disk refuses, or the system has no randomness.
pub fn shared_key(path: &Path, otherwise: &'static str) -> Result<(), CertsError> {
    let mut files = NewFiles::default();
    files.key(path.to_owned(), random_key()?);
    files.write().map_err(|error| match error {
        CertsError::InTheWay { .. } => CertsError::KeyInTheWay { path: path.to_owned(), otherwise },
        other => other,
    })
}

fn random_key() -> Result<String, CertsError> {
    let mut secret = [0; 32];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut secret).map_err(|_| CertsError::Random)?;
    Ok(secret.iter().map(|byte| format!("{byte:02x}")).chain(["\n".to_owned()]).collect())
}

impl<'a> Hosts<'a> {
    fn chosen(&self) -> Result<Vec<&'a Host>, CertsError> {
        if self.only.is_empty() {
            return Ok(self.cluster.hosts.iter().collect());
        }
        self.only.iter().map(|name| self.find(name)).collect()
    }

    fn find(&self, name: &str) -> Result<&'a Host, CertsError> {
        let hosts = &self.cluster.hosts;
        hosts.iter().find(|host| host.name.as_str() == name).ok_or_else(|| CertsError::UnknownHost {
            host: name.to_owned(),
            known: hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// The host's own name and address; the VIP, because clients of a TLS passthrough check a broker's certificate
    /// against the address that they connected to; and what the operator adds.
    pub(super) fn alt_names_of(&self, host: &Host) -> Result<Vec<AltName>, CertsError> {
        let name = host.name.as_str();
        let name = name.parse().map_err(|_| CertsError::HostNotDns { host: name.to_owned() })?;
        let mut names = vec![name, AltName::from(IpAddr::from(host.address))];
        let vip = self.cluster.vips().map(AltName::from);
        for extra in vip.chain(self.alt_names.iter().cloned()) {
            if !names.contains(&extra) {
                names.push(extra);
            }
        }
        Ok(names)
    }
}

/// Pairs that are made together, in one directory.
struct Batch<'a> {
    dir: &'a Path,
    files: NewFiles,
    made: Made,
}

impl<'a> Batch<'a> {
    /// Looks first whether any file is in the way: before keys are made and before anything is written.
    fn new<'s>(dir: &'a Path, stems: impl IntoIterator<Item = &'s str>) -> Result<Self, CertsError> {
        let batch = Self { dir, files: NewFiles::default(), made: Made::default() };
        let mut seen = BTreeSet::new();
        let mut paths = Vec::new();
        for stem in stems {
            if !seen.insert(stem) {
                return Err(CertsError::Twice { name: stem.to_owned() });
            }
            paths.extend([batch.certificate_path(stem), batch.key_path(stem)]);
        }
        refuse_existing(paths.iter().map(PathBuf::as_path))?;
        Ok(batch)
    }

    fn certificate_path(&self, stem: &str) -> PathBuf {
        self.dir.join(format!("{stem}.crt"))
    }

    fn key_path(&self, stem: &str) -> PathBuf {
        self.dir.join(format!("{stem}.key"))
    }

    fn add_hosts(
        &mut self,
        hosts: Hosts<'_>,
        chosen: &[&Host],
        authority: &Authority,
        validity: Validity,
    ) -> Result<(), CertsError> {
        for host in chosen {
            let name = host.name.as_str();
            let alt_names = hosts.alt_names_of(host)?;
            let issued = authority.issue(&Leaf::Host { name, alt_names: &alt_names }, validity)?;
            let names = alt_names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            self.add(name, format!("host, for {names}"), issued);
        }
        Ok(())
    }

    fn add_clients(
        &mut self,
        names: &[ClientName],
        authority: &Authority,
        validity: Validity,
    ) -> Result<(), CertsError> {
        for name in names {
            let issued = authority.issue(&Leaf::Client { name }, validity)?;
            self.add(name.as_str(), format!("client \"{name}\""), issued);
        }
        Ok(())
    }

    fn add(&mut self, stem: &str, what: String, issued: Issued) {
        let (certificate, key) = (self.certificate_path(stem), self.key_path(stem));
        self.files.certificate(certificate.clone(), issued.certificate);
        self.files.key(key.clone(), issued.key);
        self.made.pairs.push(Pair { what, certificate, key, not_after: issued.not_after, shortened: issued.shortened });
    }

    /// A key that hosts share, called as the cluster file calls it.
    fn add_key(&mut self, wanted: &Path, usual: &str) -> Result<PathBuf, CertsError> {
        let path = self.dir.join(wanted.file_name().unwrap_or(usual.as_ref()));
        self.files.key(path.clone(), random_key()?);
        Ok(path)
    }

    fn write(self) -> Result<Made, CertsError> {
        make_dir(self.dir)?;
        self.files.write()?;
        Ok(self.made)
    }
}
