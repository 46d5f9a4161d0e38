//! Which files a host needs, and where they are on the operator's machine: the cluster file, what it names, and of keys the host's own
//! only.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use evermq_config::Cluster;
use evermq_config::cluster::Host;
use evermq_daemon::command::DEFAULT_CONFIG;
use sha2::{Digest as _, Sha256};

/// A file that a host is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFile {
    /// Where, on the host.
    pub path: PathBuf,
    /// What it holds.
    pub contents: Vec<u8>,
    /// Whether only the programs may read it.
    pub secret: bool,
}

/// Why a file cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The cluster file cannot be read.
    #[error("cannot read {}; check the path and who may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that the cluster file names is not here.
    #[error("{} is missing, which host {host} needs as {}; {help}", here.display(), there.display())]
    Missing {
        /// Where it is looked for.
        here: PathBuf,
        /// The host.
        host: String,
        /// Where the host needs it.
        there: PathBuf,
        /// What to do.
        help: &'static str,
    },
}

impl HostFile {
    /// SHA-256 of its contents, as sha256sum prints it.
    #[must_use]
    pub fn digest(&self) -> String {
        Sha256::digest(&self.contents).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The cluster file as the hosts have it, and as it stands here: what it names is found by the one, and sent from the other.
#[derive(Debug)]
pub struct Sources {
    text: Vec<u8>,
    there: Cluster,
    here: Cluster,
    /// A directory with ca.crt, NAME.crt and NAME.key, whatever the cluster file calls them.
    tls: Option<PathBuf>,
}

impl Sources {
    /// Reads the cluster file.
    ///
    /// # Errors
    /// It cannot be read, or is wrong.
    pub fn load(config: &Path, tls: Option<PathBuf>) -> Result<Self, crate::command::CommandError> {
        let text = fs::read_to_string(config).map_err(|source| FilesError::Read { path: config.to_owned(), source });
        let text = text.map_err(super::DeployError::from)?;
        let here = evermq_config::parse(config, &text)?.cluster;
        let there = evermq_config::parse(Path::new(DEFAULT_CONFIG), &text)?.cluster;
        Ok(Self { text: text.into_bytes(), there, here, tls })
    }

    /// The cluster, as it stands on the hosts.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.there
    }

    /// The authority's certificate on this machine.
    #[must_use]
    pub fn ca_here(&self) -> &Path {
        &self.here.tls.ca
    }

    /// All files of a host.
    ///
    /// # Errors
    /// One is not here.
    pub fn of_host(&self, host: &Host) -> Result<Vec<HostFile>, FilesError> {
        let mut files = vec![HostFile { path: DEFAULT_CONFIG.into(), contents: self.text.clone(), secret: false }];
        let (there, here) = (named(&self.there, host), named(&self.here, host));
        for (key, file) in there {
            let found = here.get(&key).map_or(&file.path, |file| &file.path);
            let in_tls = self.tls.as_ref().and_then(|tls| {
                let name = match key.as_str() {
                    "tls.ca" => "ca.crt".to_owned(),
                    "tls.cert" => format!("{}.crt", host.name),
                    "tls.key" => format!("{}.key", host.name),
                    _ => return Some(tls.join(file.path.file_name()?)).filter(|path| path.exists()),
                };
                Some(tls.join(name))
            });
            let source = in_tls.as_ref().unwrap_or(found);
            match fs::read(source) {
                Ok(contents) => files.push(HostFile { path: file.path, contents, secret: file.secret }),
                // A file that every host has already, such as the system's bundle of authorities.
                Err(_) if file.path.is_absolute() && !file.path.starts_with("/etc/evermq") && in_tls.is_none() => {}
                Err(_) => {
                    return Err(FilesError::Missing {
                        here: source.clone(),
                        host: host.name.to_string(),
                        there: file.path,
                        help: file.help,
                    });
                }
            }
        }
        Ok(files)
    }
}

struct Named {
    path: PathBuf,
    secret: bool,
    help: &'static str,
}

/// What the cluster file names for one host, by its key.
fn named(cluster: &Cluster, host: &Host) -> BTreeMap<String, Named> {
    const CERTS: &str =
        "`evermq certs init --dir tls` makes what a cluster needs, `evermq certs issue NAME` what is missing";
    let mut files = BTreeMap::new();
    let mut add = |key: &str, path: &Path, secret, help| {
        let path = PathBuf::from(path.to_string_lossy().replace("{host}", host.name.as_str()));
        files.insert(key.to_owned(), Named { path, secret, help });
    };
    let tls = cluster.tls.for_host(&host.name);
    add("tls.ca", &tls.ca, false, CERTS);
    add("tls.cert", &tls.cert, false, CERTS);
    add("tls.key", &tls.key, true, CERTS);
    if let Some(quorum) = &cluster.quorum {
        add("vip.heartbeat_key", &quorum.key_file, true, "`evermq certs heartbeat-key` makes it");
    }
    let other = "put it there, or delete its key from the cluster file";
    if host.broker {
        let auth = &cluster.broker.auth;
        for (index, list) in auth.crl.iter().enumerate() {
            add(&format!("broker.auth.crl.{index}"), list, false, "`evermq certs revoke` makes it");
        }
        for (key, path) in
            [("broker.auth.password_file", &auth.password_file), ("broker.auth.acl_file", &auth.acl_file)]
        {
            if let Some(path) = path {
                add(key, path, true, other);
            }
        }
        for bridge in cluster.bridges.iter().filter(|bridge| bridge.hosts.contains(&host.name)) {
            let key = |key: &str| format!("bridges.{}.{key}", bridge.name);
            if let Some(path) = &bridge.password_file {
                add(&key("password_file"), path, true, other);
            }
            if let Some(tls) = &bridge.tls {
                add(&key("ca"), &tls.ca, false, other);
                if let Some((cert, private)) = &tls.identity {
                    add(&key("cert"), cert, false, other);
                    add(&key("key"), private, true, other);
                }
            }
        }
    }
    if host.lb && cluster.lb.listeners.iter().any(|listener| listener.mode.terminates()) {
        let tls = &cluster.lb.tls;
        add("lb.ticket_key", &tls.ticket_key, true, "`evermq certs ticket-key` makes it");
        for (index, list) in tls.crl.iter().enumerate() {
            add(&format!("lb.crl.{index}"), list, false, "`evermq certs revoke` makes it");
        }
        if let Some(path) = &tls.client_ca {
            add("lb.client_ca", path, false, other);
        }
        for (index, pair) in tls.certificates.iter().enumerate() {
            add(&format!("lb.certificates.{index}.cert"), &pair.cert, false, other);
            add(&format!("lb.certificates.{index}.key"), &pair.key, true, other);
        }
    }
    files
}
