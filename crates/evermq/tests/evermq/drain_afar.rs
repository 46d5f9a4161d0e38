//! `evermq drain` and `rebalance` on a laptop, by endpoints of `evermq admin`, whose hosts' programs are stood in for.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use evermq_daemon::control;
use serde_json::{Value, json};

use crate::admin::eventually;
use crate::lb::{Lb, broker};
use crate::program::{CLUSTER, Site};

/// A cluster all of whose addresses are this machine's, with certificates. Each host reads a file of its own, with a run
/// directory of its own; the laptop reads evermq.toml.
fn site() -> Site {
    let hosts = [11, 12, 21, 22].map(|last| Ipv4Addr::new(127, 0, 0, last).into());
    let port = evermq_ports::free_on(hosts)[0].port();
    let cluster = CLUSTER.replace("192.168.10.", "127.0.0.");
    let admin = |address: &str| format!("[admin]\nlisten = \"{address}:{port}\"\nreaders = [\"prometheus\"]\n");
    let site = Site::new(&format!("{cluster}\n{}", admin("0.0.0.0")));
    for (host, address) in [("lb1", "127.0.0.11"), ("broker1", "127.0.0.21")] {
        let own = cluster.replace("run_dir = \"run\"", &format!("run_dir = \"run/{host}\""));
        std::fs::write(site.path(&format!("{host}.toml")), format!("{own}\n{}", admin(address))).unwrap();
    }
    site.evermq("certs init --config evermq.toml --dir tls --client admin --client device --client prometheus").good();
    site
}

/// `evermq admin` of a host.
struct Endpoint(Child);

impl Endpoint {
    fn start(site: &Site, host: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_evermq"))
            .args(["admin", "--config", &format!("{host}.toml"), "--host", host])
            .current_dir(site.root())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let socket = site.root().join(format!("run/{host}/admin.sock"));
        let ask = || control::request(&socket, &json!({ "request": "state" }), Duration::from_secs(5)).ok();
        eventually("it listens", || ask().filter(|state| state["listen"].is_string()));
        Self(child)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn drained(state: &str, clients: u64, may_stop: bool) -> Result<Value, &'static str> {
    Ok(json!({ "host": "broker1", "state": state, "clients": clients, "rate": 50, "refuge": true, "may_stop": may_stop,
        "unacknowledged": 0, "kept_for_brokers_away": 0 }))
}

#[test]
fn the_broker_is_drained_by_its_host_and_waited_for() {
    let site = site();
    let answers = [
        drained("draining", 30, false),
        drained("draining", 10, false),
        drained("drained", 0, true),
        drained("ready", 5, false),
    ];
    let own = Lb::start(&site, "broker1/broker.sock", answers);
    let lb = Lb::start(&site, "lb1/lb.sock", [broker(0, "drain"), broker(0, "ready")]);
    let (_lb1, _broker1) = (Endpoint::start(&site, "lb1"), Endpoint::start(&site, "broker1"));
    let laptop = |words: &str| site.evermq(&format!("drain broker1 {words} --config evermq.toml"));
    assert_eq!(laptop("--moved --wait --rate 50").good(), "broker1: drained, it may be stopped\n");
    let look = json!({ "request": "drain" });
    let order = json!({ "request": "drain", "state": "drain", "rate": 50, "moved": true });
    assert_eq!(own.asked(), [order, look.clone(), look]);
    assert_eq!(lb.asked(), [Value::Null; 0], "the broker tells the lbs");

    // An lb that was told to drain it besides is told otherwise.
    let undone = laptop("--undo");
    assert!(undone.stderr.contains("broker1 on lb1: ready"), "{undone:#?}");
    assert_eq!(undone.good(), "broker1: ready, 5 clients\n");
    assert_eq!(own.asked()[0]["state"], "ready");
    let told = json!({ "request": "backend", "name": "broker1", "state": "ready", "rate": null });
    assert_eq!(lb.asked(), [json!({ "request": "backend", "name": "broker1" }), told]);
}

#[test]
fn where_its_host_is_silent_the_lbs_drain_it() {
    let site = site();
    let lb = Lb::start(&site, "lb1/lb.sock", [broker(30, "drain"), broker(10, "drain"), broker(0, "drain")]);
    let _lb1 = Endpoint::start(&site, "lb1");
    let laptop = |words: &str| site.evermq(&format!("drain broker2 {words} --config evermq.toml"));
    let moved = laptop("--moved").bad(1);
    assert!(
        moved.contains("broker2: cannot connect to 127.0.0.22") && moved.contains("only the broker can say --moved"),
        "{moved}"
    );
    let ended = laptop("--wait --rate 100");
    for said in
        ["broker2: cannot connect to 127.0.0.22", "the lbs are asked in its place", "lb2: cannot connect to 127.0.0.12"]
    {
        assert!(ended.stderr.contains(said), "{said}: {ended:#?}");
    }
    assert!(ended.good().contains("on lb1: drain, 100 connections moved in a second"));
    let look = json!({ "request": "backend", "name": "broker2" });
    let order = json!({ "request": "backend", "name": "broker2", "state": "drain", "rate": 100 });
    assert_eq!(lb.asked(), [order, look.clone(), look]);
}

#[test]
fn who_may_not_is_told_what_to_do() {
    let site = site();
    let own = Lb::start(&site, "broker1/broker.sock", []);
    let _broker1 = Endpoint::start(&site, "broker1");
    let laptop = |words: &str| site.evermq(&format!("drain {words} --config evermq.toml"));
    let refused = laptop("broker1 --cert tls/prometheus.crt --key tls/prometheus.key").bad(1);
    assert!(
        refused.contains("\"prometheus\" may only see: admin.admins of the cluster file names who may act"),
        "{refused}"
    );
    let refused = laptop("broker1 --cert tls/device.crt --key tls/device.key").bad(1);
    assert!(refused.contains("the certificate of \"device\" may not see this"), "{refused}");
    let silent = laptop("x").bad(1);
    assert!(
        silent.contains("lb1: cannot connect to 127.0.0.11") && silent.contains("does evermq-admin run there?"),
        "{silent}"
    );
    assert!(laptop("broker1 --cert tls/none.crt --key tls/none.key").bad(1).contains("tls/none.key"));
    std::fs::remove_file(site.path("tls/admin.key")).unwrap();
    let without = laptop("broker1").bad(1);
    assert!(without.contains("admin.crt is not there") && without.contains("--cert and --key"), "{without}");
    assert_eq!(own.asked(), [Value::Null; 0]);
}

#[test]
fn all_lbs_even_out_their_clients() {
    let site = site();
    let groups = json!([{ "name": "brokers", "moves": 30 }]);
    let lb = Lb::start(&site, "lb1/lb.sock", [Ok(json!({ "host": "lb1", "rate": 10, "groups": groups }))]);
    let _lb1 = Endpoint::start(&site, "lb1");
    let ended = site.evermq("rebalance --rate 10 --config evermq.toml");
    assert!(ended.stderr.contains("lb2: cannot connect to"), "{ended:#?}");
    assert_eq!(ended.good(), "lb1:\nbrokers: 30 clients to move, 10 in a second, about 3 s\n");
    assert_eq!(lb.asked(), [json!({ "request": "rebalance", "rate": 10 })]);
}
