//! The cluster as an operator sees it from a laptop, before and after a host has died; and the figures that rules and dashboard
//! ask for, as running programs show them.

use std::collections::BTreeSet;
use std::time::Duration;

use evermq_e2e::lab::Lab;
use evermq_e2e::wait;
use serde_json::Value;

const RULES: &str = include_str!("../../../../deploy/prometheus/evermq.rules.yml");
const DASHBOARD: &str = include_str!("../../../../deploy/grafana/evermq.json");

/// What a command says, run where nothing of the cluster runs: exit status, and its lines of JSON.
fn ask(lab: &Lab, command: &str) -> (Option<i32>, Vec<Value>) {
    let output = lab.exec("client", &[&lab.path_of("evermq"), command, "-o", "json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let values = serde_json::Deserializer::from_str(&text).into_iter().map_while(Result::ok).collect();
    (output.status.code(), values)
}

fn status(lab: &Lab, what: &str, is_it: impl Fn(i32, &Value) -> bool) -> Value {
    wait::until(what, Duration::from_secs(30), || {
        let (code, values) = ask(lab, "status");
        let overview = values.into_iter().next()?;
        is_it(code?, &overview).then_some(overview)
    })
    .0
}

#[test]
fn an_operator_sees_a_failover_from_a_laptop() {
    let lab = Lab::up();
    let overview = status(&lab, "all is up", |code, overview| code == 0 && overview["verdict"] == "up");
    let holder = lab.holder();
    assert_eq!(overview["vips"][0]["holders"], serde_json::json!([holder]));
    for host in overview["hosts"].as_array().unwrap() {
        assert_eq!(host["versions"], serde_json::json!([env!("CARGO_PKG_VERSION")]), "{host}");
        assert_eq!(host["state"], "up", "{host}");
        assert!(host["certificate_days"].as_i64().unwrap() >= 29, "{host}");
    }
    figures(&lab);
    drain(&lab);

    lab.kill(holder);
    let other = Lab::other_lb(holder);
    let moved = |code: i32, overview: &Value| {
        let dead = overview["hosts"].as_array().and_then(|hosts| hosts.iter().find(|host| host["host"] == holder));
        code == 1 && overview["vips"][0]["holders"][0] == other && dead.is_some_and(|host| host["state"] == "silent")
    };
    status(&lab, "the other lb has the VIP", moved);
    let taken = wait::until("the takeover is among the events", Duration::from_secs(30), || {
        let (code, events) = ask(&lab, "events");
        // One host does not answer.
        assert_eq!(code, Some(1));
        // It may have had the VIP before, at the beginning.
        events
            .into_iter()
            .rfind(|event| event["host"] == other && event["to"] == "master" && event["outage_ms"].is_u64())
    })
    .0;
    assert!(taken["what"].as_str().unwrap().starts_with("VIP "), "{taken}");
    // It was silent for at least three of its intervals.
    assert!(taken["outage_ms"].as_u64() >= Some(600), "{taken}");
    assert!(taken["cause"].as_str().unwrap().ends_with("fell silent"), "{taken}");
    let (_, lines) = ask(&lab, "logs");
    assert!(lines.iter().any(|line| line["host"] == "broker1" && line["message"] == "broker serves"), "{lines:?}");
}

/// A broker is drained, and serves again, by who is no host of the cluster.
fn drain(lab: &Lab) {
    let evermq = lab.path_of("evermq");
    let ask = |words: &[&str]| {
        let output = lab.exec("client", &[&[evermq.as_str(), "drain", "broker2"], words].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(ask(&["--moved", "--wait"]), "broker2: drained, it may be stopped\n");
    status(lab, "it is seen to be drained", |code, overview| {
        code == 1 && overview["reasons"].to_string().contains("broker2")
    });
    assert_eq!(ask(&["--undo"]), "broker2: ready, 0 clients\n");
    status(lab, "all is up again", |code, overview| code == 0 && overview["verdict"] == "up");
}

/// Every family, label and value of a label that rules and dashboard name is one that a program shows.
fn figures(lab: &Lab) {
    let mut shown = BTreeSet::from(["up".to_owned()]);
    let mut series = String::new();
    for (host, socket) in [("lb1", "vip"), ("lb1", "lb"), ("broker1", "broker")] {
        let ask = format!("echo '{{\"request\":\"metrics\"}}' | socat -t 30 - UNIX-CONNECT:/run/evermq/{socket}.sock");
        let output = lab.exec(host, &["sh", "-c", &ask]);
        let answer: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let text = answer["ok"].as_str().or(answer["ok"]["text"].as_str()).expect("a text").to_owned();
        series.push_str(&text);
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').expect("a name and a kind");
            shown.insert(name.to_owned());
            if kind == "histogram" {
                shown.extend(["bucket", "sum", "count"].map(|end| format!("{name}_{end}")));
            }
        }
    }
    let words = [RULES, DASHBOARD].map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let asked: BTreeSet<&str> = words
        .into_iter()
        .flatten()
        .filter(|word| {
            let begins =
                ["evermq_vip_", "evermq_lb_", "evermq_broker_", "evermq_build_", "evermq_certificate_", "process_"];
            begins.iter().any(|begin| word.starts_with(begin))
        })
        .collect();
    assert!(asked.len() >= 25, "{asked:?}");
    let missing: Vec<_> = asked.into_iter().filter(|name| !shown.contains(*name)).collect();
    assert_eq!(missing, [""; 0], "no program shows these");
    labels(&series);
}

/// Prometheus itself adds these, and its configuration.
const ADDED: [&str; 3] = ["cluster", "instance", "job"];
/// Of families that have a series once something has been refused.
const LATER: [&str; 1] = ["reason"];

/// What selectors such as `evermq_lb_backend_state{state=~"up|unproven"}` choose by, and what sums are kept apart by.
fn labels(series: &str) {
    let mut seen = 0;
    let texts = [RULES.to_owned(), DASHBOARD.replace("\\\"", "\"")];
    for (at, text) in texts.iter().flat_map(|text| text.match_indices('{').map(move |(at, _)| (at, text))) {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let name = &text[text[..at].rfind(|c| !is_name(c)).map_or(0, |before| before + 1)..at];
        let Some(end) = text[at..].find('}').filter(|_| name.starts_with("evermq_")) else { continue };
        for matcher in text[at + 1..at + end].split(',') {
            let Some((label, values)) = matcher.split_once('=') else { panic!("{name}: {matcher}") };
            for value in values.trim_matches(['~', '"']).split('|').filter(|_| !ADDED.contains(&label)) {
                let has = format!("{label}=\"{value}\"");
                let is_shown = |line: &str| line.starts_with(&format!("{name}{{")) && line.contains(&has);
                assert!(series.lines().any(is_shown), "no program shows {name}{{{has}}}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 10, "{seen}");
    for by in texts.iter().flat_map(|text| text.split("by (").skip(1)) {
        let (labels, _) = by.split_once(')').expect("a closing parenthesis");
        for label in labels.split(", ").filter(|label| !ADDED.contains(label) && !LATER.contains(label)) {
            let has = [format!("{{{label}=\""), format!(",{label}=\"")];
            assert!(has.iter().any(|has| series.contains(has)), "no program shows a label {label}");
        }
    }
}
