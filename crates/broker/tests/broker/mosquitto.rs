//! mosquitto's clients, over mutual TLS.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};

use evermq_config::TlsFiles;

use crate::running::{Running, start};

fn command(program: &str, broker: &Running, tls: &TlsFiles) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &broker.tls.port().to_string()]);
    command.arg("--cafile").arg(&tls.ca).arg("--cert").arg(&tls.cert).arg("--key").arg(&tls.key);
    command
}

fn publish(broker: &Running, tls: &TlsFiles, args: &[&str]) {
    let output = command("mosquitto_pub", broker, tls)
        .args(args)
        .output()
        .expect("mosquitto_pub is needed: apt-get install mosquitto-clients");
    assert!(output.status.success(), "mosquitto_pub {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

struct Subscriber {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Subscriber {
    /// A running mosquitto_sub, once it has subscribed.
    fn new(broker: &Running, tls: &TlsFiles, args: &[&str]) -> Self {
        let before = broker.state()["subscriptions"].as_u64();
        let mut child = command("mosquitto_sub", broker, tls)
            // It ends by itself where a message does not come.
            .args(["-W", "30"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("mosquitto_sub is needed: apt-get install mosquitto-clients");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        broker.wait_for("the subscription", |state| state["subscriptions"].as_u64() > before);
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("mosquitto_sub ended").unwrap()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn messages_of_every_qos_in_every_version() {
    let (site, broker) = start();
    let tls = site.ca.issue("device-1", 1);
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        let topic = format!("t/{version}");
        let mut subscriber =
            Subscriber::new(&broker, &tls, &["-V", version, "-q", "2", "-t", &topic, "-F", "%q %t %p"]);
        for qos in ["0", "1", "2"] {
            let payload = format!("payload {qos}");
            publish(&broker, &tls, &["-V", version, "-q", qos, "-t", &topic, "-m", &payload]);
            assert_eq!(subscriber.line(), format!("{qos} {topic} payload {qos}"));
        }
        drop(subscriber);
        broker.wait_for("the subscriber's end", |state| state["subscriptions"] == 0);
    }
}

#[test]
fn retained_and_properties() {
    let (site, broker) = start();
    let tls = site.ca.issue("device-1", 1);
    publish(
        &broker,
        &tls,
        &["-V", "mqttv5", "-r", "-q", "1", "-t", "r", "-m", "kept", "-D", "publish", "user-property", "k", "v"],
    );
    let mut subscriber = Subscriber::new(&broker, &tls, &["-V", "mqttv5", "-t", "r", "-F", "%r %P %p"]);
    assert_eq!(subscriber.line(), "1 k:v kept");
}

#[test]
fn a_session_that_waits() {
    let (site, broker) = start();
    let tls = site.ca.issue("device-1", 1);
    let args = ["-i", "sleeper", "-c", "-q", "1", "-t", "q"];
    drop(Subscriber::new(&broker, &tls, &args));
    broker.wait_for("the subscriber's end", |state| state["connections"] == 0);
    for payload in ["one", "two"] {
        publish(&broker, &tls, &["-q", "1", "-t", "q", "-m", payload]);
    }
    let output = command("mosquitto_sub", &broker, &tls).args(args).args(["-C", "2"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one\ntwo\n");
}

#[test]
fn a_shared_subscription() {
    let (site, broker) = start();
    let tls = site.ca.issue("device-1", 1);
    let member = |version| Subscriber::new(&broker, &tls, &["-V", version, "-q", "1", "-t", "$share/g/t/#"]);
    let mut members = [member("mqttv311"), member("mqttv5")];
    for payload in ["0", "1", "2", "3"] {
        publish(&broker, &tls, &["-q", "1", "-t", "t/x", "-m", payload]);
    }
    let mut got: Vec<_> = members.iter_mut().flat_map(|member| [member.line(), member.line()]).collect();
    got.sort();
    assert_eq!(got, ["0", "1", "2", "3"]);
}

#[test]
fn a_will() {
    let (site, broker) = start();
    let tls = site.ca.issue("device-1", 1);
    let mut watcher = Subscriber::new(&broker, &tls, &["-t", "will"]);
    let dying = Subscriber::new(
        &broker,
        &tls,
        &["-t", "x", "--will-topic", "will", "--will-payload", "gone", "--will-qos", "1"],
    );
    drop(dying);
    assert_eq!(watcher.line(), "gone");
}
