//! The files of a lab: the cluster file, identical on all hosts, and each host's certificates.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use evermq_config::Cluster;

use super::error::LabError;
use super::plan::{self, CLIENT_CERTIFICATES, HOSTS};
use super::registry::Lab;
use crate::certs::authority::Validity;
use crate::certs::{self, ClientName, Made};

/// The lab's certificates are for tests, and nobody keeps a lab up until one is to be renewed.
const DAYS: u32 = 90;

/// Settings by section: those of the lab, then those of `--set`.
type Sections = Vec<(String, Vec<(String, String)>)>;

/// Writes the cluster file and makes the certificates. `settings` are `SECTION.KEY=VALUE`.
pub(super) fn make(lab: &Lab, settings: &[String]) -> Result<Cluster, LabError> {
    let pki = lab.directory().join("pki");
    let config = lab.directory().join("evermq.toml");
    let text = cluster_file(lab.name(), settings)?;
    write(&config, &text)?;
    let cluster = evermq_config::load(&config)?.cluster;
    let made = make_certificates(&pki, &cluster)?;
    for host in &HOSTS {
        let place = lab.host_directory(host.name);
        let tls = place.join("etc/tls");
        for directory in [&tls, &place.join("logs")] {
            fs::create_dir_all(directory).map_err(LabError::io(format!("cannot make {}", directory.display())))?;
        }
        copy(&config, &place.join("etc/evermq.toml"))?;
        copy(&pki.join("ca.crt"), &tls.join("ca.crt"))?;
        let heartbeat_key = made.heartbeat_key.as_deref().filter(|_| !host.roles.is_empty());
        let ticket_key = made.ticket_key.as_deref().filter(|_| host.roles.contains(&"lb"));
        for key in heartbeat_key.into_iter().chain(ticket_key) {
            copy(key, &place.join("etc").join(key.file_name().unwrap_or_default()))?;
        }
        let own = [host.name];
        // A host has its own key and nobody else's.
        let names: &[&str] = if host.name == plan::CLIENT { &CLIENT_CERTIFICATES } else { &own };
        for name in names {
            for file in [format!("{name}.crt"), format!("{name}.key")] {
                copy(&pki.join(&file), &tls.join(&file))?;
            }
        }
    }
    Ok(cluster)
}

/// Certificates, and the keys that hosts share where the settings ask for what needs them.
fn make_certificates(pki: &Path, cluster: &Cluster) -> Result<Made, LabError> {
    let names: Vec<ClientName> = CLIENT_CERTIFICATES.iter().filter_map(|name| name.parse().ok()).collect();
    let validity = Validity::days(certs::now(), DAYS)?;
    Ok(certs::make::everything(pki, cluster, &names, &[], validity, validity)?)
}

fn cluster_file(name: &str, settings: &[String]) -> Result<String, LabError> {
    let mut sections: Sections = Vec::new();
    set(&mut sections, "cluster", "name", quoted(name));
    set(&mut sections, "vip", "address", quoted(&plan::VIP.to_string()));
    set(&mut sections, "lb", "listen", quoted(&format!("0.0.0.0:{}", plan::VIP_PORT)));
    set(&mut sections, "broker", "store.path", quoted("store/{host}"));
    set(&mut sections, "admin", "listen", quoted(&format!("0.0.0.0:{}", plan::ADMIN_PORT)));
    for (key, file) in [("ca", "tls/ca.crt"), ("cert", "tls/{host}.crt"), ("key", "tls/{host}.key")] {
        set(&mut sections, "tls", key, quoted(file));
    }
    for setting in settings {
        let refused = || LabError::Setting(setting.clone());
        let (path, value) = setting.split_once('=').ok_or_else(refused)?;
        let (section, key) = path.trim().split_once('.').ok_or_else(refused)?;
        set(&mut sections, section, key, literal(value.trim()));
    }
    let mut text = format!("# The cluster file of lab \"{name}\".\n");
    for (section, keys) in &sections {
        let _ = writeln!(text, "\n[{section}]");
        for (key, value) in keys {
            let _ = writeln!(text, "{key} = {value}");
        }
    }
    for host in HOSTS.iter().filter(|host| !host.roles.is_empty()) {
        let roles: Vec<_> = host.roles.iter().map(|role| quoted(role)).collect();
        let (name, address, roles) = (quoted(host.name), quoted(&host.address().to_string()), roles.join(", "));
        let _ = write!(text, "\n[[hosts]]\nname = {name}\naddress = {address}\nroles = [{roles}]\n");
    }
    Ok(text)
}

fn set(sections: &mut Sections, section: &str, key: &str, value: String) {
    let at = sections.iter().position(|(name, _)| name == section).unwrap_or_else(|| {
        sections.push((section.to_owned(), Vec::new()));
        sections.len() - 1
    });
    let Some((_, keys)) = sections.get_mut(at) else { return };
    match keys.iter_mut().find(|(name, _)| name == key) {
        Some((_, old)) => *old = value,
        None => keys.push((key.to_owned(), value)),
    }
}

/// A value as TOML: numbers, booleans and what is quoted already stay as they are, words are quoted.
fn literal(value: &str) -> String {
    let plain =
        value.parse::<i64>().is_ok() || ["true", "false"].contains(&value) || value.starts_with(['"', '\'', '[']);
    if plain { value.to_owned() } else { quoted(value) }
}

/// A JSON string is a TOML basic string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn copy(from: &Path, to: &Path) -> Result<(), LabError> {
    fs::copy(from, to).map(|_| ()).map_err(LabError::io(format!("cannot copy {} to {}", from.display(), to.display())))
}

fn write(path: &Path, text: &str) -> Result<(), LabError> {
    fs::write(path, text).map_err(LabError::io(format!("cannot write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_cluster_file_is_valid_and_takes_settings() {
        let settings =
            ["lb.balance=round_robin", "lb.workers = 1", "broker.listen_plain=127.0.0.1:1883"].map(str::to_owned);
        let text = cluster_file("one", &settings).unwrap();
        let loaded = evermq_config::parse(Path::new("/etc/evermq/evermq.toml"), &text).unwrap();
        assert!(loaded.warnings.problems.is_empty(), "{}", loaded.warnings);
        let cluster = loaded.cluster;
        assert_eq!(cluster.lb.balance, evermq_config::lb::Balance::RoundRobin);
        assert_eq!(cluster.lb.workers, 1);
        assert_eq!(cluster.broker.listen_plain, "127.0.0.1:1883".parse().ok());
        assert_eq!(cluster.vips().collect::<Vec<_>>(), [std::net::IpAddr::V4(plan::VIP)]);
        assert_eq!(cluster.hosts.len(), 4);
        assert_eq!(cluster.admin.of_host(&cluster.hosts[0]), Some(plan::page().into()));
        assert!(cluster.admin.admins.iter().all(|name| CLIENT_CERTIFICATES.contains(&name.as_str())));
        for host in cluster.hosts {
            let planned = plan::Host::named(host.name.as_str()).unwrap();
            assert_eq!(host.address, planned.address());
            assert_eq!((host.lb, host.broker), (planned.roles.contains(&"lb"), planned.roles.contains(&"broker")));
        }
    }

    #[test]
    fn wrong_settings_are_refused() {
        for setting in ["balance", "lb.balance", "balance=x"] {
            assert!(matches!(cluster_file("one", &[setting.to_owned()]), Err(LabError::Setting(_))), "{setting}");
        }
    }

    #[test]
    fn hosts_of_a_quorum_share_a_key() {
        let parent = tempfile::tempdir().unwrap();
        let lab = Lab::new("one", Some(parent.path())).unwrap();
        let _lock = lab.create().unwrap();
        make(&lab, &["vip.quorum=true".to_owned()]).unwrap();
        let key_of = |host: &plan::Host| lab.host_directory(host.name).join("etc/heartbeat.key");
        let text = fs::read_to_string(key_of(&HOSTS[0])).unwrap();
        assert_eq!(text.trim_end().len(), 64);
        for host in &HOSTS {
            assert_eq!(key_of(host).exists(), !host.roles.is_empty(), "{}", host.name);
            if !host.roles.is_empty() {
                assert_eq!(fs::read_to_string(key_of(host)).unwrap(), text);
                evermq_quorum::Key::read(&key_of(host)).unwrap();
            }
        }
    }

    #[test]
    fn lbs_that_end_tls_share_a_ticket_key() {
        let parent = tempfile::tempdir().unwrap();
        let lab = Lab::new("one", Some(parent.path())).unwrap();
        let _lock = lab.create().unwrap();
        make(&lab, &["lb.mode=terminate".to_owned(), "broker.listen_proxy=0.0.0.0:8885".to_owned()]).unwrap();
        let key_of = |host: &plan::Host| lab.host_directory(host.name).join("etc/ticket.key");
        let mut keys = Vec::new();
        for host in &HOSTS {
            assert_eq!(key_of(host).exists(), host.roles.contains(&"lb"), "{}", host.name);
            if key_of(host).exists() {
                keys.push(fs::read_to_string(key_of(host)).unwrap());
            }
        }
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[0], keys[1]);
        assert_eq!(keys[0].trim_end().len(), 64);
    }

    #[test]
    fn each_host_gets_its_own_key_only() {
        let parent = tempfile::tempdir().unwrap();
        let lab = Lab::new("one", Some(parent.path())).unwrap();
        let _lock = lab.create().unwrap();
        make(&lab, &[]).unwrap();
        for host in &HOSTS {
            let tls = lab.host_directory(host.name).join("etc/tls");
            let mut keys: Vec<_> = fs::read_dir(&tls)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.ends_with(".key"))
                .collect();
            keys.sort();
            let expected: Vec<String> = if host.name == plan::CLIENT {
                CLIENT_CERTIFICATES.iter().map(|name| format!("{name}.key")).collect()
            } else {
                vec![format!("{}.key", host.name)]
            };
            assert_eq!(keys, expected);
            for key in keys {
                assert_eq!(fs::metadata(tls.join(key)).unwrap().permissions().mode() & 0o777, 0o600);
            }
        }
    }
}
