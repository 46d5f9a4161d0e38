//! What the control socket answers.
//!
//! | request | answer |
//! |---|---|
//! | `state` | [`crate::state::State`] |
//! | `clients` | for evermq-vip, see [`crate::peers`] |
//! | `connections`, with `backend`, `source`, `listener`, `sort`, `limit`, `over_ms` | `host`, `total`, `connections` |
//! | `close`, with `ids` | `host`, `closed`, `unknown` |
//! | `backend`, with `name`, and `state`, `rate`, `weight` to change it | what holds for it |
//! | `rebalance`, with `rate` | `host`, `rate`, and for each group how many connections are to move |
//! | `metrics` | the text that Prometheus gets |
//! | `reload` | what was put in force, once it is |
//! | `upgrade` | what the new process has, once it is on its own |
//! | `bequeath` | what is left to the process that systemd starts next; this one ends |

use std::sync::Arc;

use evermq_daemon::control::{self, Answer, Control, Reply};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::admin::{Admin, Change, MAX_WORDS};
use crate::desk::{Desk, clock, is_of};
use crate::driver::giving::{self, Request};
use crate::engine::ended::Why;
use crate::engine::steering::Target;
use crate::metrics;
use crate::mover::{self, Wish};
use crate::peers::{self, Peers};
use crate::rebalance::DRAIN_RATE;
use crate::state::State;
use crate::upgrade::giver::Summary;
use crate::view::{Before, Query};

/// Numbers in one request to close: more do not fit into a request.
const MOST_CLOSED: usize = 256;

/// The control socket of this lb.
pub(crate) fn control(
    desk: &Arc<Desk>,
    reloads: mpsc::Sender<Option<Reply>>,
    upgrades: mpsc::Sender<Request>,
    wishes: mpsc::Sender<Wish>,
) -> Control {
    let shown = Arc::clone(desk);
    let asked = Arc::clone(desk);
    Control {
        state: Arc::new(move || serde_json::to_value(State::new(&shown, clock())).unwrap_or_default()),
        health: desk.health.clone(),
        requests: Arc::new(move |name, request| match name {
            "clients" => Some(asked.peers.as_deref().map_or_else(peers::no_clients, Peers::answer_clients)),
            "connections" => Some(connections(&asked, request)),
            "close" => Some(close(&asked, request)),
            "backend" => Some(backend(&asked, request)),
            "rebalance" => Some(rebalance(&wishes, request)),
            "metrics" => Some(Answer::Ok(json!({ "host": asked.host(), "text": metrics::text(&asked, clock()) }))),
            "reload" => Some(control::pass_on("evermq-lb", &reloads, Some)),
            "upgrade" => Some(hand_over(upgrades.clone(), Request::Upgrade)),
            "bequeath" => Some(hand_over(upgrades.clone(), Request::Bequeath)),
            _ => None,
        }),
    }
}

fn connections(desk: &Arc<Desk>, request: &Value) -> Answer {
    let query = match Query::read(request) {
        Ok(query) => query,
        Err(text) => return Answer::Error(text),
    };
    let desk = Arc::clone(desk);
    later(async move {
        let before = if query.over.is_zero() {
            None
        } else {
            let rows = desk.rows(|_| true).await?;
            let before = Before::new(&rows, clock());
            tokio::time::sleep(query.over).await;
            Some(before)
        };
        let rows = desk.rows(|_| true).await?;
        anyhow::Ok(query.answer(&desk.host(), rows, before.as_ref(), clock()))
    })
}

fn close(desk: &Arc<Desk>, request: &Value) -> Answer {
    let ids: Option<Vec<u64>> =
        request["ids"].as_array().and_then(|ids| ids.iter().map(Value::as_u64).collect::<Option<Vec<_>>>());
    let Some(mut ids) = ids.filter(|ids| !ids.is_empty() && ids.len() <= MOST_CLOSED) else {
        return Answer::Error(format!("`ids` must be one to {MOST_CLOSED} numbers, as `connections` shows them"));
    };
    ids.sort_unstable();
    ids.dedup();
    let desk = Arc::clone(desk);
    later(async move {
        let rows = desk.rows(|worker| ids.iter().any(|id| is_of(*id, worker))).await?;
        let found = rows.iter().filter(|row| ids.binary_search(&row.id).is_ok());
        let targets: Vec<Target> =
            found.map(|row| Target { key: row.key, id: row.id, why: Why::ClosedByHand }).collect();
        let closed = desk.steer(&targets, true).await?;
        tracing::info!(asked = ids.len(), closed = closed.len(), "connections closed by an operator");
        let unknown: Vec<u64> = ids.into_iter().filter(|id| !closed.contains(id)).collect();
        anyhow::Ok(json!({ "host": desk.host(), "closed": closed, "unknown": unknown }))
    })
}

fn backend(desk: &Arc<Desk>, request: &Value) -> Answer {
    let pool = desk.pool();
    let name = request["name"].as_str().unwrap_or_default();
    if !pool.members().iter().any(|member| member.name() == name) {
        let known: Vec<&str> = pool.members().iter().map(|member| member.name()).collect();
        return Answer::Error(format!("there is no broker \"{name}\"; there are: {}", known.join(", ")));
    }
    match change(request) {
        Err(text) => Answer::Error(text),
        Ok(change) if change != Change::default() && !desk.say(name, change) => Answer::Error(format!(
            "too much was said of other brokers already ({MAX_WORDS}); restart all lbs to forget it"
        )),
        Ok(_) => backend_shown(desk, name).map_or_else(|| Answer::Error(format!("{name} has just gone")), Answer::Ok),
    }
}

fn rebalance(wishes: &mpsc::Sender<Wish>, request: &Value) -> Answer {
    let rate = match rate(request) {
        Ok(rate) => rate,
        Err(text) => return Answer::Error(text),
    };
    control::pass_on("evermq-lb", wishes, |reply| (rate, reply))
}

fn rate(request: &Value) -> Result<Option<u32>, String> {
    match &request["rate"] {
        Value::Null => Ok(None),
        rate => match rate.as_u64().and_then(|rate| u32::try_from(rate).ok()).filter(|rate| *rate > 0) {
            Some(rate) => Ok(Some(rate)),
            None => Err(format!("{rate} is no rate: a whole number above 0")),
        },
    }
}

/// What is to be changed.
fn change(request: &Value) -> Result<Change, String> {
    let rate = rate(request)?;
    let admin = match &request["state"] {
        Value::Null => None,
        state => {
            let state = state.as_str().and_then(Admin::from_name);
            Some((state.ok_or("there are the states ready, drain and maint")?, rate))
        }
    };
    let weight = match &request["weight"] {
        Value::Null => None,
        Value::String(text) if text == "file" => Some(None),
        weight => {
            let number = weight.as_u64().and_then(|weight| u16::try_from(weight).ok());
            Some(Some(number.ok_or_else(|| format!("{weight} is no weight: 0 to 65535, or \"file\""))?))
        }
    };
    Ok(Change { admin, weight })
}

fn backend_shown(desk: &Desk, name: &str) -> Option<Value> {
    let (now, word) = (desk.in_force(), desk.board.words().of(name));
    let index = now.pool.members().iter().position(|member| member.name() == name)?;
    let member = &now.pool.members()[index];
    Some(json!({
        "host": now.config.host.as_str(),
        "name": name,
        "group": now.pool.config(index).group,
        "standing": member.standing().name(),
        "state": word.admin.name(),
        "drain_rate": word.rate.or(now.config.lb.rebalance.rate).unwrap_or(DRAIN_RATE),
        "refuge": mover::has_refuge(&now.pool, index),
        "weight": member.weight(),
        "weight_by_hand": word.weight.is_some(),
        "connections": member.connections(),
        "peers": desk.peers.as_deref().map(Peers::state).unwrap_or_default(),
    }))
}

fn hand_over(asking: mpsc::Sender<Request>, request: fn(giving::Reply) -> Request) -> Answer {
    Answer::Later(Box::pin(async move {
        let (reply, result) = oneshot::channel();
        if asking.send(request(reply)).await.is_err() {
            return Answer::Error("this process stops".to_owned());
        }
        match result.await {
            Ok(Ok(Summary { process, moved, left, took, longest })) => Answer::Ok(json!({
                "process": process,
                "moved": moved,
                "left": left,
                "took_us": u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                "longest_us": u64::try_from(longest.as_micros()).unwrap_or(u64::MAX),
            })),
            Ok(Err(reason)) => Answer::Error(reason),
            Err(_) => Answer::Error("this process stops".to_owned()),
        }
    }))
}

fn later(work: impl Future<Output = anyhow::Result<Value>> + Send + 'static) -> Answer {
    Answer::Later(Box::pin(async move {
        match work.await {
            Ok(value) => Answer::Ok(value),
            Err(error) => Answer::Error(error.to_string()),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_changed_is_read_whole_or_not_at_all() {
        let read = |request: Value| change(&request);
        assert_eq!(read(json!({})), Ok(Change::default()));
        let drain = read(json!({ "state": "drain", "rate": 50, "weight": 7 }));
        assert_eq!(drain, Ok(Change { admin: Some((Admin::Drain, Some(50))), weight: Some(Some(7)) }));
        assert_eq!(read(json!({ "weight": "file" })), Ok(Change { admin: None, weight: Some(None) }));
        for bad in [
            json!({ "state": "off" }),
            json!({ "state": 1 }),
            json!({ "weight": 70_000 }),
            json!({ "weight": -1 }),
            json!({ "weight": "much" }),
            json!({ "state": "drain", "rate": 0 }),
            json!({ "rate": "fast" }),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
