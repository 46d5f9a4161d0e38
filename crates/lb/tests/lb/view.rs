//! What is seen of connections from outside: the view, closing by hand, figures, the access log.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::harness::broker::{Broker, Clients};
use crate::harness::{PATIENCE, Running, certs, config, eventually, ping, wait_closed};
use evermq_config::lb::AccessLog;
use evermq_exposition::{parse, scrape};
use serde_json::{Value, json};

fn ask(lb: &Running, request: &Value) -> Value {
    evermq_daemon::control::request(&lb.control, request, PATIENCE).unwrap()
}

fn connections(lb: &Running, more: Value) -> Value {
    let mut request = json!({ "request": "connections" });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask(lb, &request)
}

fn ids(answer: &Value) -> BTreeSet<u64> {
    answer["connections"].as_array().unwrap().iter().map(|row| row["id"].as_u64().unwrap()).collect()
}

#[test]
fn connections_are_shown_in_the_order_asked_for_and_closed_by_hand() {
    let brokers = ["broker1", "broker2"].map(|name| Broker::start(name, Clients::Echoed));
    let lb = Running::start_up(config(&[brokers[0].address, brokers[1].address]));
    let mut clients: Vec<TcpStream> = (0..6).map(|_| lb.echoing_client()).collect();
    clients[3].write_all(&[1; 5000]).unwrap();
    clients[3].read_exact(&mut [0; 5000]).unwrap();

    let all = connections(&lb, json!({}));
    assert_eq!((&all["host"], &all["total"]), (&json!("lb1"), &json!(6)));
    let rows = all["connections"].as_array().unwrap();
    assert_eq!(rows[0]["client"], json!(clients[3].local_addr().unwrap()));
    assert!(rows[0]["bytes_in"].as_u64().unwrap() >= 5000 && rows[0]["bytes_out"].as_u64().unwrap() >= 5000);
    for row in rows {
        assert_eq!(
            (&row["listener"], &row["phase"], &row["mode"]),
            (&json!("main"), &json!("relaying"), &json!("passthrough"))
        );
    }
    let [one, two] = ["broker1", "broker2"].map(|name| ids(&connections(&lb, json!({ "backend": name }))));
    assert_eq!((one.len(), two.len(), one.intersection(&two).count()), (3, 3, 0));
    assert_eq!(connections(&lb, json!({ "source": "127.0.0.0/8" }))["total"], 6);
    assert_eq!(connections(&lb, json!({ "source": "192.0.2.0/24" }))["total"], 0);
    assert_eq!(ids(&connections(&lb, json!({ "limit": 2 }))).len(), 2);
    let oldest = connections(&lb, json!({ "sort": "age" }));
    let ages: Vec<u64> =
        oldest["connections"].as_array().unwrap().iter().map(|row| row["age_ms"].as_u64().unwrap()).collect();
    assert!(ages.is_sorted_by(|one, next| one >= next), "{ages:?}");

    // The one that talks while it is measured.
    let busy = std::thread::spawn({
        let mut client = clients[5].try_clone().unwrap();
        move || {
            for _ in 0..200 {
                ping(&mut client);
            }
        }
    });
    let rates = connections(&lb, json!({ "sort": "rate", "over_ms": 300, "limit": 1 }));
    busy.join().unwrap();
    assert_eq!(rates["connections"][0]["client"], json!(clients[5].local_addr().unwrap()));
    assert!(rates["connections"][0]["rate"].as_u64().unwrap() > 0);

    let mine = rows.iter().find(|row| row["client"] == json!(clients[0].local_addr().unwrap())).unwrap()["id"].clone();
    let closed = ask(&lb, &json!({ "request": "close", "ids": [mine, 1] }));
    assert_eq!((&closed["closed"], &closed["unknown"]), (&json!([mine]), &json!([1])));
    wait_closed(&mut clients[0]);
    ping(&mut clients[1]);
    let again = ask(&lb, &json!({ "request": "close", "ids": [mine] }));
    assert_eq!((&again["closed"], &again["unknown"]), (&json!([]), &json!([mine])));
    let error = evermq_daemon::control::request(&lb.control, &json!({ "request": "close", "ids": [] }), PATIENCE);
    assert!(error.unwrap_err().to_string().contains("one to 256 numbers"));
}

#[test]
fn many_connections_are_all_shown_and_nobody_waits_for_that() {
    let broker = Broker::start("broker1", Clients::Echoed);
    let mut config = config(&[broker.address]);
    // Clients that say nothing after their hello are in their handshakes.
    config.lb.handshakes.concurrent = 1000;
    config.lb.handshakes.concurrent_per_backend = 1000;
    let lb = Running::start_up(config);
    // More than a slice for each worker.
    let mut clients: Vec<TcpStream> = (0..700).map(|_| lb.client()).collect();
    let all = eventually("all there", || Some(connections(&lb, json!({}))).filter(|all| all["total"] == 700));
    assert_eq!(ids(&all).len(), 700);
    ping(clients.last_mut().unwrap());
}

#[test]
fn a_line_tells_of_each_connection_that_has_ended() {
    let broker = Broker::start("broker1", Clients::Echoed);
    let path = certs::path("access-view.log");
    let mut config = config(&[broker.address]);
    config.lb.access_log = AccessLog::File(path.clone());
    let lb = Running::start_up(config);
    let client = lb.echoing_client();
    let from = client.local_addr().unwrap();
    drop(client);
    let mut stranger = lb.stranger();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    wait_closed(&mut stranger);
    let text = eventually("two lines", || std::fs::read_to_string(&path).ok().filter(|text| text.lines().count() == 2));
    let line =
        |client: &str| text.lines().find(|line| line.contains(client)).unwrap_or_else(|| panic!("{client}: {text}"));
    let good = line(&format!("client={from} "));
    for word in ["listener=main", "mode=passthrough", "backend=broker1", "why=client_closed"] {
        assert!(good.contains(word), "{good}");
    }
    assert!(!good.contains("connect_ms=-") && !good.contains("greeting_ms=-"), "{good}");
    let bad = line(&format!("client={} ", stranger.local_addr().unwrap()));
    assert!(bad.contains("backend=- why=not_tls bytes_in=0 bytes_out=0 greeting_ms=-"), "{bad}");
}

#[test]
fn prometheus_gets_the_figures_of_listeners_and_backends() {
    let brokers = ["broker1", "broker2"].map(|name| Broker::start(name, Clients::Echoed));
    let address = evermq_ports::free_address();
    let mut config = config(&[brokers[0].address, brokers[1].address]);
    config.lb.metrics = Some(address);
    let lb = Running::start_up(config);
    let kept: Vec<TcpStream> = (0..4).map(|_| lb.echoing_client()).collect();
    let mut stranger = lb.stranger();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    wait_closed(&mut stranger);
    let families = eventually("everything is counted", || {
        let families = parse(&scrape(address));
        let told = ["broker1", "broker2"].iter().all(|broker| {
            let bytes = format!("evermq_lb_backend_bytes_total{{backend=\"{broker}\",direction=\"out\"}}");
            families.of(&bytes) >= families.of(&format!("evermq_lb_backend_connections{{backend=\"{broker}\"}}"))
        });
        let ended = families.of("evermq_lb_ended_total{listener=\"main\",cause=\"not_tls\"}");
        (told && ended == 1.0).then_some(families)
    });
    let now = |series: &str| families.of(series);
    assert_eq!(now("evermq_lb_accepted_total{listener=\"main\"}"), 5.0);
    assert_eq!(now("evermq_lb_connections{listener=\"main\"}"), 4.0);
    assert!(now("evermq_lb_bytes_total{listener=\"main\",direction=\"in\"}") >= 4.0);
    for broker in ["broker1", "broker2"] {
        let connections = now(&format!("evermq_lb_backend_connections{{backend=\"{broker}\"}}"));
        assert!((1.0..=3.0).contains(&connections), "{broker}: {connections}");
        assert_eq!(now(&format!("evermq_lb_backend_state{{backend=\"{broker}\",state=\"up\"}}")), 1.0);
        assert_eq!(now(&format!("evermq_lb_backend_state{{backend=\"{broker}\",state=\"down\"}}")), 0.0);
        assert_eq!(now(&format!("evermq_lb_backend_admin_state{{backend=\"{broker}\",state=\"ready\"}}")), 1.0);
        assert_eq!(now(&format!("evermq_lb_backend_weight{{backend=\"{broker}\"}}")), 1.0);
        let bytes = now(&format!("evermq_lb_backend_bytes_total{{backend=\"{broker}\",direction=\"out\"}}"));
        assert!(bytes >= connections, "{bytes}");
    }
    let backends =
        ["broker1", "broker2"].map(|broker| now(&format!("evermq_lb_backend_connections{{backend=\"{broker}\"}}")));
    assert_eq!(backends.iter().sum::<f64>(), 4.0, "{backends:?}");
    assert_eq!(now("evermq_lb_reloads_total{result=\"refused\"}"), 0.0);
    assert_eq!(now("evermq_lb_queue_length"), 0.0);
    assert!(now("evermq_lb_uptime_seconds") > 0.0);
    drop(kept);
    let families = eventually("the handshakes are counted", || {
        let families = parse(&scrape(address));
        (families.of("evermq_lb_connections{listener=\"main\"}") == 0.0).then_some(families)
    });
    let connects: f64 = ["broker1", "broker2"]
        .iter()
        .map(|name| families.of(&format!("evermq_lb_connect_seconds_count{{backend=\"{name}\"}}")))
        .sum();
    assert_eq!(connects, 4.0);
    assert_eq!(families.of("evermq_lb_greeting_seconds_bucket{listener=\"main\",le=\"+Inf\"}"), 4.0);
    let shown = ask(&lb, &json!({ "request": "metrics" }));
    assert!(parse(shown["text"].as_str().unwrap()).names().eq(families.names()));
}
