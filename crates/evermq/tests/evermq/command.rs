//! The command line: help, completion, manual pages, a closed pipe, status.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::program::{CLUSTER, Site, evermq};
use evermq_daemon::control::{self, Control};
use evermq_daemon::health::Health;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

#[test]
fn version_and_usage() {
    assert_eq!(evermq(["--version"]).good(), format!("evermq {}\n", env!("CARGO_PKG_VERSION")));
    assert!(evermq(["--help"]).good().contains("certs"));
    assert!(evermq(["dance"]).bad(2).contains("dance"));
}

#[test]
fn every_shell_gets_a_script() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = evermq(["completion", shell]).good();
        assert!(script.contains("certs") && script.contains("ca-days"), "{shell}: {script}");
    }
    assert!(evermq(["completion", "csh"]).bad(2).contains("bash"));
}

#[test]
fn bash_takes_its_script_and_completes_a_command() {
    let script = evermq(["completion", "bash"]).good();
    let try_it = "COMP_WORDS=(evermq certs in); COMP_CWORD=2; _evermq evermq in certs; echo \"${COMPREPLY[@]}\"\n";
    let mut bash = Command::new("bash").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all((script + try_it).as_bytes()).unwrap();
    let output = bash.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "init\n");
}

#[test]
fn every_command_has_a_manual_page() {
    let site = Site::new(CLUSTER);
    let said = site.evermq("man --dir man1").good();
    let pages: BTreeSet<String> = fs::read_dir(site.path("man1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(said, format!("wrote {} manual pages into man1\n", pages.len()));
    for page in
        ["evermq.1", "evermq-check.1", "evermq-certs.1", "evermq-certs-init.1", "evermq-status.1", "evermq-man.1"]
    {
        assert!(pages.contains(page), "{page} in {pages:?}");
        let text = fs::read_to_string(site.path("man1").join(page)).unwrap();
        assert!(text.contains(".TH evermq") && text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
    let shown = site.evermq("man certs init").good();
    assert_eq!(shown, fs::read_to_string(site.path("man1/evermq-certs-init.1")).unwrap());
    assert!(site.evermq("man certs dance").bad(2).contains("there is no command \"certs dance\""));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output =
        Command::new(env!("CARGO_BIN_EXE_evermq")).args(["completion", "bash"]).stdout(writer).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_full_disk_is_one() {
    let full = fs::File::create("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_evermq")).args(["completion", "bash"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.starts_with("evermq: cannot write the output: No space left"), "{complaint}");
}

/// A program as its control socket shows it.
struct Program {
    health: watch::Sender<Health>,
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Program {
    fn start(site: &Site, socket: &str, state: serde_json::Value) -> Self {
        let listener = control::bind(&site.path("run").join(socket)).unwrap();
        let (sender, health) = watch::channel(Health::Up);
        let control = Control { state: Arc::new(move || state.clone()), health, requests: control::no_requests() };
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(control::serve(listener, control, token)).unwrap();
        });
        Self { health: sender, shutdown, thread: Some(thread) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

#[test]
fn status_asks_the_programs_of_the_host() {
    let site = Site::new(CLUSTER);
    let status = |words: &str| site.evermq(&format!("status --config evermq.toml --host lb1 --programs {words}"));
    let vip = Program::start(&site, "vip.sock", json!({ "state": "master", "priority": 200 }));
    let lb = Program::start(&site, "lb.sock", json!({ "backends": [{ "name": "broker1", "health": "up" }] }));

    let text = status("").good();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["host", "lb1", "up"]);
    assert_eq!(rows[2], ["evermq-vip", "up", "state", "master,", "priority", "200"]);
    assert_eq!(rows[3], ["evermq-lb", "up"]);
    assert_eq!(rows[4], ["backend", "broker1", "up"]);

    lb.health.send(Health::Degraded).unwrap();
    let degraded = status("--json");
    assert_eq!(degraded.status, 1, "{degraded:#?}");
    let json = degraded.json();
    assert_eq!((&json["host"], &json["health"]), (&json!("lb1"), &json!("degraded")));
    assert_eq!(json["programs"][0]["state"]["state"], "master");
    assert_eq!(json["programs"][1]["health"], "degraded");

    drop(vip);
    let down = status("");
    assert_eq!(down.status, 2, "{down:#?}");
    assert!(down.stdout.contains("evermq-vip: it does not run: systemctl start evermq-vip"), "{down:#?}");
    // The other host of the file has another program, which is not here either.
    let broker = site.evermq("status --config evermq.toml --host broker1 --programs --json");
    assert_eq!((broker.status, broker.json()["programs"].as_array().unwrap().len()), (2, 1), "{broker:#?}");
}

#[test]
fn status_shows_the_cluster_as_far_as_it_can_be_asked() {
    let site = Site::new(CLUSTER);
    let master = json!({ "instances": [{ "name": "vip", "state": "master", "since": "2026-11-23T15:20:11.250Z" }] });
    let _vip = Program::start(&site, "vip.sock", master);
    let lb = json!({ "connections": { "current": 7 }, "backends": [{ "name": "broker1", "state": "up", "admin": "ready" }] });
    let _lb = Program::start(&site, "lb.sock", lb);
    let status = site.evermq("status --config evermq.toml --host lb1");
    assert_eq!(status.status, 0, "{status:#?}");
    let text = &status.stdout;
    assert!(
        text.starts_with("cluster test: up\nVIP 192.168.10.10:9000: held by lb1 since 2026-11-23T15:20:11.250Z ("),
        "{text}"
    );
    let version = env!("CARGO_PKG_VERSION");
    let row =
        |host: &str| text.lines().find(|line| line.starts_with(host)).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(row("lb1 "), ["lb1", "lb", "up,", "has", "the", "VIP", "7", "-", "-", "-", version]);
    assert_eq!(row("broker1 ")[2..4], ["not", "asked"]);

    let json = site.evermq("status --config evermq.toml --host lb1 -o json").json();
    assert_eq!((&json["verdict"], &json["vips"][0]["holders"]), (&json!("up"), &json!(["lb1"])));
    assert_eq!(json["hosts"][0]["lb_connections"], 7);
    assert_eq!(json["reports"][0]["said"]["programs"][1]["state"]["connections"]["current"], 7);

    // Whoever is no host of the cluster has to show a certificate.
    let nobody = site.evermq("status --config evermq.toml --host nobody");
    assert_eq!(nobody.status, 2, "{nobody:#?}");
}

#[test]
fn what_programs_have_said_is_asked_for_too() {
    let site = Site::new(CLUSTER);
    let _vip = Program::start(&site, "vip.sock", json!({}));
    let logs = site.evermq("logs --config evermq.toml --host lb1");
    // Nobody logs in this process, and three hosts cannot be asked.
    assert_eq!((logs.status, logs.stdout.as_str()), (1, ""), "{logs:#?}");
    assert!(logs.stderr.contains("broker2: not asked: the cluster file has no admin.listen"), "{logs:#?}");
    let events = site.evermq("events --config evermq.toml --host lb1");
    assert_eq!(
        (events.status, events.stdout.as_str()),
        (1, "TIME  HOST  WHAT  CHANGE  OUTAGE  CAUSE\n"),
        "{events:#?}"
    );
}
