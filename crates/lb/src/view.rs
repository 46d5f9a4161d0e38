//! Who is connected, as an operator asks: what is looked for, in what order, how much of it. Pure.
//!
//! The workers are asked for their connections a slice at a time, so that none of them stands still for it; what they give
//! is put together here. A rate is the difference between two such looks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evermq_config::lb::{IpNetwork, Mode};
use serde_json::{Value, json};

/// Most connections in one answer.
const MOST: usize = 100_000;
/// The longest time over which rates are measured.
const LONGEST: Duration = Duration::from_secs(60);

/// A connection at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// Its place in its worker.
    pub(crate) key: u32,
    /// Its number, unique in the life of the process.
    pub(crate) id: u64,
    /// The client.
    pub(crate) client: SocketAddr,
    /// The listener's name.
    pub(crate) listener: Arc<str>,
    /// What is done with TLS.
    pub(crate) mode: Mode,
    /// How far it is.
    pub(crate) phase: &'static str,
    /// The name that it asked for.
    pub(crate) sni: Option<Box<str>>,
    /// Its MQTT client identifier, where it was seen.
    pub(crate) client_id: Option<Box<str>>,
    /// The backend's name.
    pub(crate) backend: Option<Box<str>>,
    /// This host's address of the connection to the backend.
    pub(crate) backend_local: Option<SocketAddr>,
    /// From the client to the backend.
    pub(crate) bytes_in: u64,
    /// From the backend to the client.
    pub(crate) bytes_out: u64,
    /// When it came.
    pub(crate) accepted: Instant,
    /// When a byte went last.
    pub(crate) active: Instant,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Query {
    backend: Option<String>,
    source: Option<IpNetwork>,
    listener: Option<String>,
    sort: Sort,
    limit: usize,
    /// How long to measure rates; none for zero.
    pub(crate) over: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Rate,
    Bytes,
    Age,
}

impl Query {
    /// Reads a request.
    ///
    /// # Errors
    /// It asks for something that there is not; in the words of the answer.
    pub(crate) fn read(request: &Value) -> Result<Self, String> {
        let text = |key: &str| request[key].as_str().map(str::to_owned);
        let source = match text("source") {
            None => None,
            Some(source) => Some(
                IpNetwork::parse(&source)
                    .ok_or_else(|| format!("\"{source}\" is no address and no network such as 10.0.0.0/8"))?,
            ),
        };
        let sort = match request["sort"].as_str() {
            None | Some("bytes") => Sort::Bytes,
            Some("rate") => Sort::Rate,
            Some("age") => Sort::Age,
            Some(other) => return Err(format!("cannot sort by \"{other}\": rate, bytes or age")),
        };
        let limit = request["limit"].as_u64().map_or(MOST, |limit| usize::try_from(limit).unwrap_or(MOST)).min(MOST);
        let over = Duration::from_millis(request["over_ms"].as_u64().unwrap_or(0)).min(LONGEST);
        if sort == Sort::Rate && over.is_zero() {
            return Err("a rate is measured over some time: over_ms is missing".to_owned());
        }
        Ok(Self { backend: text("backend"), source, listener: text("listener"), sort, limit, over })
    }

    /// Whether a connection is asked for.
    pub(crate) fn matches(&self, row: &Row) -> bool {
        self.backend.as_deref().is_none_or(|wanted| row.backend.as_deref() == Some(wanted))
            && self.listener.as_deref().is_none_or(|wanted| *row.listener == *wanted)
            && self.source.is_none_or(|wanted| wanted.contains(row.client.ip()))
    }

    /// The answer: the matching `rows`, in order, with their rates where there was a look `before` them.
    pub(crate) fn answer(&self, host: &str, mut rows: Vec<Row>, before: Option<&Before>, now: Instant) -> Value {
        rows.retain(|row| self.matches(row));
        let total = rows.len();
        let rate = |row: &Row| before.map(|before| before.rate(row, now));
        match self.sort {
            Sort::Rate => rows.sort_by_cached_key(|row| (std::cmp::Reverse(rate(row).unwrap_or(0)), row.id)),
            Sort::Bytes => {
                rows.sort_by_key(|row| (std::cmp::Reverse(row.bytes_in.saturating_add(row.bytes_out)), row.id));
            }
            Sort::Age => rows.sort_by_key(|row| (row.accepted, row.id)),
        }
        rows.truncate(self.limit);
        let connections: Vec<Value> = rows.iter().map(|row| shown(row, rate(row), now)).collect();
        json!({ "host": host, "total": total, "connections": connections })
    }
}

/// An earlier look.
#[derive(Debug)]
pub(crate) struct Before {
    bytes: HashMap<u64, u64>,
    at: Instant,
}

impl Before {
    pub(crate) fn new(rows: &[Row], at: Instant) -> Self {
        Self { bytes: rows.iter().map(|row| (row.id, row.bytes_in.wrapping_add(row.bytes_out))).collect(), at }
    }

    /// Bytes in a second since then; of one that was not there, since it came.
    fn rate(&self, row: &Row, now: Instant) -> u64 {
        let (earlier, since) = match self.bytes.get(&row.id) {
            Some(bytes) => (*bytes, self.at),
            None => (0, row.accepted.max(self.at)),
        };
        let bytes = row.bytes_in.wrapping_add(row.bytes_out).saturating_sub(earlier);
        let micros = now.saturating_duration_since(since).as_micros().max(1);
        u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
    }
}

fn shown(row: &Row, rate: Option<u64>, now: Instant) -> Value {
    let millis = |since: Instant| u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX);
    let mut value = json!({
        "id": row.id,
        "client": row.client,
        "listener": &*row.listener,
        "mode": row.mode.name(),
        "phase": row.phase,
        "sni": row.sni,
        "client_id": row.client_id,
        "backend": row.backend,
        "backend_local": row.backend_local,
        "bytes_in": row.bytes_in,
        "bytes_out": row.bytes_out,
        "age_ms": millis(row.accepted),
        "idle_ms": millis(row.active),
    });
    if let Some(rate) = rate {
        value["rate"] = rate.into();
    }
    value
}

/// The connections of one backend, those first that cost least to close: idle for longest.
///
/// Closing one makes its client connect and perhaps fetch what it has missed; one that is in the midst of something would
/// have to do that again as well.
pub(crate) fn cheapest_first(rows: &mut Vec<Row>, backend: &str) {
    rows.retain(|row| row.backend.as_deref() == Some(backend));
    rows.sort_by_key(|row| (row.active, row.id));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> (Vec<Row>, Instant) {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let now = Instant::now() + Duration::from_secs(1000);
        let ago = |seconds| now - Duration::from_secs(seconds);
        let row = |id, client: &str, backend: Option<&str>, bytes_in, bytes_out, accepted, active| Row {
            key: 0,
            id,
            client: client.parse().unwrap(),
            listener: if id == 3 { "plain".into() } else { "main".into() },
            mode: Mode::Passthrough,
            phase: "relaying",
            sni: None,
            client_id: None,
            backend: backend.map(Into::into),
            backend_local: None,
            bytes_in,
            bytes_out,
            accepted: ago(accepted),
            active: ago(active),
        };
        let rows = vec![
            row(1, "10.0.0.1:5", Some("broker1"), 100, 100, 500, 1),
            row(2, "10.0.1.1:5", Some("broker2"), 10, 10, 900, 50),
            row(3, "192.0.2.1:5", None, 0, 0, 1, 1),
            row(4, "[::ffff:10.0.0.9]:5", Some("broker1"), 900, 100, 10, 9),
        ];
        (rows, now)
    }

    fn ids(answer: &Value) -> Vec<u64> {
        answer["connections"].as_array().unwrap().iter().map(|row| row["id"].as_u64().unwrap()).collect()
    }

    fn ask(request: &Value) -> Value {
        let (rows, now) = rows();
        Query::read(request).unwrap().answer("lb1", rows, None, now)
    }

    #[test]
    fn what_is_asked_for_comes_in_its_order() {
        let all = ask(&json!({}));
        assert_eq!((ids(&all), &all["total"], &all["host"]), (vec![4, 1, 2, 3], &json!(4), &json!("lb1")));
        assert_eq!(ids(&ask(&json!({ "sort": "age" }))), [2, 1, 4, 3]);
        let two = ask(&json!({ "limit": 2 }));
        assert_eq!((ids(&two), &two["total"]), (vec![4, 1], &json!(4)));
        assert_eq!(ids(&ask(&json!({ "backend": "broker1" }))), [4, 1]);
        assert_eq!(ids(&ask(&json!({ "listener": "plain" }))), [3]);
        assert_eq!(ids(&ask(&json!({ "source": "10.0.0.0/24" }))), [4, 1]);
        assert_eq!(ids(&ask(&json!({ "source": "192.0.2.1", "backend": "broker1" }))), [0; 0]);
        let row = &all["connections"][0];
        assert_eq!(
            (&row["age_ms"], &row["idle_ms"], &row["backend"]),
            (&json!(10_000), &json!(9_000), &json!("broker1"))
        );
        assert!(row.get("rate").is_none());
    }

    #[test]
    fn rates_are_measured_between_two_looks() {
        let (mut rows, now) = rows();
        let before = Before::new(&rows[..2], now - Duration::from_secs(2));
        rows[1].bytes_out += 5000;
        let query = Query::read(&json!({ "sort": "rate", "over_ms": 2000 })).unwrap();
        assert_eq!(query.over, Duration::from_secs(2));
        let answer = query.answer("lb1", rows, Some(&before), now);
        assert_eq!(ids(&answer), [2, 4, 1, 3]);
        let rates: Vec<_> =
            answer["connections"].as_array().unwrap().iter().map(|row| row["rate"].as_u64().unwrap()).collect();
        assert_eq!(rates, [2500, 500, 0, 0]);
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        for (request, word) in [
            (json!({ "sort": "size" }), "size"),
            (json!({ "sort": "rate" }), "over_ms"),
            (json!({ "source": "10.0.0.1/8" }), "10.0.0.1/8"),
        ] {
            let error = Query::read(&request).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn who_is_idle_for_longest_is_closed_first() {
        let (mut rows, _) = rows();
        cheapest_first(&mut rows, "broker1");
        assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [4, 1]);
    }
}
