//! Hosts as they may be, and what is done with them.

use std::collections::BTreeMap;

use super::super::observed::Unit;
use super::super::packages::Kind;
use super::*;

const HOSTS: [(&str, bool, bool); 4] =
    [("lb1", true, false), ("lb2", true, false), ("b1", false, true), ("b2", false, true)];

fn package(version: &str) -> Package {
    Package { path: "p".into(), kind: Kind::Deb, version: version.to_owned(), machine: "x86_64".to_owned() }
}

fn file(contents: &str) -> HostFile {
    HostFile { path: "/etc/evermq/evermq.toml".into(), contents: contents.as_bytes().to_vec(), secret: false }
}

pub(in crate::deploy) fn wanted(version: &str, contents: &str) -> Vec<Wanted> {
    let cluster = include_str!("../../../../../config/evermq.toml");
    let cluster = evermq_config::parse("/etc/evermq/evermq.toml".as_ref(), cluster).unwrap().cluster;
    let one = |host: &Host| Wanted {
        host: host.clone(),
        package: Some(package(version)),
        files: vec![file(contents)],
        programs: programs_of(&cluster, host),
    };
    cluster.hosts.iter().map(one).collect()
}

/// Hosts that have been deployed with that version and file; lb1 has the VIP.
fn running(version: &str, contents: &str) -> Vec<Observed> {
    let unit = Unit { active: true, enabled: true, old: false };
    let one = |(name, lb, broker): &(&str, bool, bool)| Observed {
        version: Some(version.to_owned()),
        digests: BTreeMap::from([(file(contents).path, file(contents).digest())]),
        units: [("vip", *lb), ("lb", *lb), ("broker", *broker)]
            .into_iter()
            .filter(|(_, has)| *has)
            .map(|(name, _)| (name.to_owned(), unit))
            .collect(),
        holds_vip: *name == "lb1",
        ..Observed::default()
    };
    HOSTS.iter().map(one).collect()
}

/// `title: host action, host action` with `|` between steps that follow each other.
fn shown(stages: &[Stage]) -> Vec<String> {
    let one = |stage: &Stage| {
        let steps = stage.steps.iter().map(|(index, action)| {
            let action = match action {
                Action::Install(package) => format!("install {}", package.version),
                Action::Write(files) => format!("write {}", files.len()),
                Action::Start(programs) => format!("start {}", programs.join("+")),
                Action::RestartBroker { drain, .. } => {
                    format!("restart broker{}", if *drain { " drained" } else { "" })
                }
                other => format!("{other:?}").to_lowercase(),
            };
            format!("{} {action}", HOSTS.get(*index).map_or("?", |host| host.0))
        });
        format!("{}: {}", stage.title, steps.collect::<Vec<_>>().join(if stage.at_once { ", " } else { " | " }))
    };
    stages.iter().map(one).collect()
}

#[test]
fn bare_hosts_are_made_at_once() {
    let plan = plan(&wanted("0.1.0", "a"), &vec![Observed::default(); 4], Options::default());
    assert_eq!(
        shown(&plan),
        [
            "packages: lb1 install 0.1.0, lb2 install 0.1.0, b1 install 0.1.0, b2 install 0.1.0",
            "files: lb1 write 1, lb2 write 1, b1 write 1, b2 write 1",
            "check: lb1 check, lb2 check, b1 check, b2 check",
            "start brokers: b1 start broker, b2 start broker",
            "start load balancers: lb1 start lb, lb2 start lb",
            "start the VIP: lb1 start vip, lb2 start vip",
        ]
    );
}

#[test]
fn a_repeat_does_nothing() {
    assert_eq!(plan(&wanted("0.1.0", "a"), &running("0.1.0", "a"), Options::default()), []);
}

#[test]
fn a_new_version_rolls() {
    let plan = plan(&wanted("0.2.0", "a"), &running("0.1.0", "a"), Options::default());
    assert_eq!(
        shown(&plan),
        [
            "keep what is there: lb1 keep, lb2 keep, b1 keep, b2 keep",
            "packages: b1 install 0.2.0, b2 install 0.2.0",
            "packages of load balancers: lb2 install 0.2.0 | lb1 install 0.2.0",
            "check: lb1 check, lb2 check, b1 check, b2 check",
            "restart brokers: b1 restart broker drained | b2 restart broker drained",
            "restart load balancers: lb2 restartlb { always: false } | lb1 restartlb { always: false }",
        ]
    );
}

#[test]
fn a_changed_file_is_reloaded_host_by_host() {
    let plan = plan(&wanted("0.1.0", "b"), &running("0.1.0", "a"), Options::default());
    assert_eq!(
        shown(&plan),
        [
            "keep what is there: lb1 keep, lb2 keep, b1 keep, b2 keep",
            "files: lb1 write 1, lb2 write 1, b1 write 1, b2 write 1",
            "check: lb1 check, lb2 check, b1 check, b2 check",
            "reload brokers: b1 reload | b2 reload",
            "reload load balancers: lb2 reload | lb1 reload",
        ]
    );
}

#[test]
fn a_new_broker_starts_when_the_others_know_it() {
    let mut observed = running("0.1.0", "a");
    observed[3] = Observed::default();
    let plan = plan(&wanted("0.1.0", "b"), &observed, Options::default());
    assert_eq!(
        shown(&plan)[1..],
        [
            "packages: b2 install 0.1.0",
            "files: lb1 write 1, lb2 write 1, b1 write 1, b2 write 1",
            "check: lb1 check, lb2 check, b1 check, b2 check",
            "reload brokers: b1 reload",
            "start brokers: b2 start broker",
            "reload load balancers: lb2 reload | lb1 reload",
        ]
    );
}

#[test]
fn what_was_cut_off_goes_on_where_it_was() {
    // The packages are there and the first broker has been restarted.
    let mut observed = running("0.2.0", "a");
    observed[3].units.get_mut("broker").unwrap().old = true;
    observed[0].units.get_mut("vip").unwrap().old = true;
    let options = Options::default();
    assert_eq!(
        shown(&plan(&wanted("0.2.0", "a"), &observed, options)),
        ["restart brokers: b2 restart broker drained", "restart load balancers: lb1 restartlb { always: false }",]
    );
    // A program that does not run, or would not after a reboot.
    let mut observed = running("0.1.0", "a");
    observed[2].units.get_mut("broker").unwrap().enabled = false;
    observed[1].units.get_mut("lb").unwrap().active = false;
    assert_eq!(
        shown(&plan(&wanted("0.1.0", "a"), &observed, options)),
        ["start brokers: b1 start broker", "start load balancers: lb2 start lb"]
    );
}

#[test]
fn the_only_broker_is_not_drained() {
    let wanted: Vec<Wanted> = wanted("0.2.0", "a").into_iter().take(3).collect();
    let plan = plan(&wanted, &running("0.1.0", "a")[..3], Options::default());
    assert!(shown(&plan).contains(&"restart brokers: b1 restart broker".to_owned()), "{plan:#?}");
}

#[test]
fn a_restart_on_request() {
    let options = Options { restart: true, ..Options::default() };
    assert_eq!(
        shown(&plan(&wanted("0.1.0", "a"), &running("0.1.0", "a"), options)),
        [
            "restart brokers: b1 restart broker drained | b2 restart broker drained",
            "restart load balancers: lb2 restartlb { always: true } | lb1 restartlb { always: true }",
        ]
    );
}

#[test]
fn a_rollback_rolls_too() {
    let options = Options { rollback: true, ..Options::default() };
    let mut observed = running("0.2.0", "b");
    assert_eq!(plan(&wanted("0.2.0", "b"), &observed, options), [], "there is nothing to bring back");
    for host in &mut observed {
        host.previous = Some("0.1.0".to_owned());
    }
    assert_eq!(
        shown(&plan(&wanted("0.2.0", "b"), &observed, options)),
        [
            "bring back what was there before: b1 restore | b2 restore | lb2 restore | lb1 restore",
            "check: lb1 check, lb2 check, b1 check, b2 check",
            "reload brokers: b1 reload | b2 reload",
            "reload load balancers: lb2 reload | lb1 reload",
            "restart brokers: b1 restart broker drained | b2 restart broker drained",
            "restart load balancers: lb2 restartlb { always: false } | lb1 restartlb { always: false }",
        ]
    );
}
