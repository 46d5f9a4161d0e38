//! An lb's answers as text. What is missing is shown as `-`: another version may show less.

use serde_json::Value;

use crate::cells::{bytes, dash, time, word};
use crate::table::Table;

/// The connections, then how many there are.
pub(super) fn connections(answer: &Value) -> String {
    let rows = answer["connections"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rates = rows.iter().any(|row| !row["rate"].is_null());
    let titles = ["ID", "CLIENT", "LISTENER", "BACKEND", "NAME", "PHASE", "AGE", "IDLE", "IN", "OUT"];
    let mut table = Table::titled(&[&titles[..], if rates { &["RATE"] } else { &[] }].concat());
    for row in rows {
        let name = ["client_id", "sni"].into_iter().find_map(|key| row[key].as_str()).unwrap_or("-");
        let mut cells = vec![
            row["id"].as_u64().map_or_else(dash, |id| id.to_string()),
            word(&row["client"]),
            word(&row["listener"]),
            word(&row["backend"]),
            name.to_owned(),
            word(&row["phase"]),
            row["age_ms"].as_u64().map_or_else(dash, time),
            row["idle_ms"].as_u64().map_or_else(dash, time),
            row["bytes_in"].as_u64().map_or_else(dash, bytes),
            row["bytes_out"].as_u64().map_or_else(dash, bytes),
        ];
        if rates {
            cells.push(row["rate"].as_u64().map_or_else(dash, |rate| format!("{}/s", bytes(rate))));
        }
        table.row(cells);
    }
    let matching = answer["total"].as_u64().unwrap_or(0);
    let host = word(&answer["host"]);
    format!("{table}\n{host}: {} of {matching} shown\n", rows.len())
}

/// One broker on this lb, and which lbs know of it.
pub(super) fn backend(answer: &Value) -> String {
    let weight = answer["weight"].as_u64().map_or_else(dash, |weight| weight.to_string());
    let by_hand = if answer["weight_by_hand"] == true { " (set by hand)" } else { "" };
    let rate = answer["drain_rate"].as_u64().filter(|_| answer["state"] == "drain");
    let rate = rate.map_or_else(String::new, |rate| format!(", {rate} connections moved in a second"));
    let mut text = format!(
        "{} on {}: {}{rate}; health {}, weight {weight}{by_hand}, {} connections\n",
        word(&answer["name"]),
        word(&answer["host"]),
        word(&answer["state"]),
        word(&answer["standing"]),
        answer["connections"].as_u64().map_or_else(dash, |connections| connections.to_string()),
    );
    for peer in answer["peers"].as_array().into_iter().flatten() {
        let name = word(&peer["name"]);
        if peer["sending"] == false {
            text.push_str(&format!("{name} does not hear of it now; it is told when it is back\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up() {
        let answer = json!({ "host": "lb1", "total": 3, "connections": [
            { "id": 17, "client": "192.0.2.1:40000", "listener": "main", "backend": "broker1", "sni": "mqtt.example.org",
              "client_id": null, "phase": "relaying", "age_ms": 7_265_000, "idle_ms": 12, "bytes_in": 999,
              "bytes_out": 1_550_000, "rate": 10_000 },
            { "id": 4_294_967_296_u64, "client": "[2001:db8::1]:5", "listener": "plain", "backend": null, "client_id": "m\u{1b}1",
              "phase": "waiting", "age_ms": 61_000, "idle_ms": 3000, "bytes_in": 0, "bytes_out": 0, "rate": 0 },
        ]});
        assert_eq!(
            connections(&answer),
            "ID          CLIENT           LISTENER  BACKEND  NAME              PHASE     AGE    IDLE  IN   OUT   RATE\n\
             17          192.0.2.1:40000  main      broker1  mqtt.example.org  relaying  2h01m  12ms  999  1.5M  10k/s\n\
             4294967296  [2001:db8::1]:5  plain     -        m?1               waiting   1m01s  3s    0    0     0/s\n\
             \nlb1: 2 of 3 shown\n"
        );
        let none = connections(&json!({ "host": "lb1", "total": 0, "connections": [] }));
        assert!(
            none.starts_with("ID  CLIENT") && !none.contains("RATE") && none.ends_with("lb1: 0 of 0 shown\n"),
            "{none}"
        );
    }

    #[test]
    fn a_backend_says_what_holds_and_who_does_not_know() {
        let answer = json!({ "host": "lb1", "name": "broker1", "state": "drain", "drain_rate": 50, "standing": "up", "weight": 3,
            "weight_by_hand": true, "connections": 12, "refuge": true, "peers": [{ "name": "lb2", "sending": false }] });
        assert_eq!(
            backend(&answer),
            "broker1 on lb1: drain, 50 connections moved in a second; health up, weight 3 (set by hand), 12 connections\n\
             lb2 does not hear of it now; it is told when it is back\n"
        );
        let ready = json!({ "host": "lb1", "name": "b", "state": "ready", "drain_rate": 10, "standing": "down", "weight": 1, "connections": 0 });
        assert_eq!(backend(&ready), "b on lb1: ready; health down, weight 1, 0 connections\n");
    }
}
