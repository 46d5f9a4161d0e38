//! What the control socket answers besides `state` and `health`.
//!
//! | request | answer |
//! |---|---|
//! | `clients`, with `client`, `user`, `listener`, `limit`, `from` | `host`, `clients`, and `next` where there is more |
//! | the same with `sort` (and `over_ms` for rates) | the first ones of all by that, and `total` |
//! | `sessions`, likewise; `sort` is `queued` or `inflight` | `host`, `sessions`, and `next` or `total` |
//! | `subscriptions`, with `client`, `topic`, `limit`, `from` | `host`, `subscriptions`, `next` |
//! | `retained`, with `filter`, `values`, `limit`, `from` | `host`, `retained`, `next` |
//! | `forget`, with `topic` | whether there was a retained message to delete, here and on the other brokers |
//! | `kick`, with `client`, `reason`, `session` | `host`, `found` |
//! | `trace`, with `client`, `for_ms`, `payload` | a line that it has begun, then one for each packet |
//! | `drain`, with `state` (`drain`, `ready`), `rate`, `moved` | `host`, `state` and how far it is; without `state` it only shows that |
//! | `metrics` | the text that Prometheus gets |

use std::sync::Arc;
use std::time::Duration;

use evermq_daemon::control::{Answer, Requests};
use evermq_mqtt::{ReasonCode, Text};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::broker::Broker;
use crate::connection::clock;
use crate::drain::{self, Order};
use crate::metrics::Desk;
use crate::trace::{DEPTH, Following};
use crate::view::clients::{Top, Wanted, page};
use crate::view::{retained, subscriptions};

/// The longest trace.
const LONGEST_TRACE: Duration = Duration::from_secs(24 * 3600);

/// Answers what only this program knows.
#[must_use]
pub fn requests(desk: Arc<Desk>) -> Requests {
    Arc::new(move |name, request| match name {
        "clients" => Some(listed(&desk, "clients", request, Wanted::read(request, false))),
        "sessions" => Some(listed(&desk, "sessions", request, Wanted::read(request, true))),
        "subscriptions" => Some(paged(&desk, "subscriptions", subscriptions::page(&desk.broker, request))),
        "retained" => Some(paged(&desk, "retained", retained::page(&desk.broker, request, clock()))),
        "forget" => Some(forget(&desk, request)),
        "kick" => Some(kick(&desk, request)),
        "trace" => Some(trace(&desk, request)),
        "drain" => Some(drained(&desk, request)),
        "metrics" => Some(Answer::Ok(json!({ "host": desk.host, "text": crate::metrics::text(&desk, clock()) }))),
        _ => None,
    })
}

fn listed(desk: &Desk, name: &str, request: &Value, wanted: Wanted) -> Answer {
    if request["sort"].is_null() {
        return paged(desk, name, page(&desk.broker, request, &wanted, clock()));
    }
    match Top::read(request, wanted) {
        Ok(top) => {
            let answer = top.answer(Arc::clone(&desk.broker), desk.host.clone());
            Answer::Later(Box::pin(async { Answer::Ok(answer.await) }))
        }
        Err(text) => Answer::Error(text),
    }
}

fn paged(desk: &Desk, name: &str, page: Result<(Vec<Value>, Value), String>) -> Answer {
    match page {
        Ok((rows, next)) => Answer::Ok(json!({ "host": desk.host, name: rows, "next": next })),
        Err(text) => Answer::Error(text),
    }
}

fn forget(desk: &Desk, request: &Value) -> Answer {
    match retained::forget(&desk.broker, request["topic"].as_str().unwrap_or_default(), clock()) {
        Ok(found) => Answer::Ok(json!({ "host": desk.host, "found": found })),
        Err(text) => Answer::Error(text),
    }
}

fn client_of(request: &Value) -> Result<Text, Answer> {
    let text = request["client"].as_str().filter(|client| !client.is_empty());
    let text = text.and_then(|text| Text::new(text).ok());
    text.ok_or_else(|| Answer::Error("`client` must be a client identifier".to_owned()))
}

fn kick(desk: &Desk, request: &Value) -> Answer {
    let client = match client_of(request) {
        Ok(client) => client,
        Err(answer) => return answer,
    };
    let ends_session = request["session"] == true;
    // What does not fit into a reason string is no reason.
    let text = request["reason"].as_str().filter(|text| !text.is_empty());
    if text.is_some_and(|text| Text::new(text).is_err()) {
        return Answer::Error("`reason` must be text that MQTT can carry".to_owned());
    }
    let mailbox = desk.broker.registry.get(&client);
    let found = mailbox.is_some_and(|mailbox| desk.broker.kick(&mailbox, text.map(Box::from), ends_session, clock()));
    tracing::info!(client = %client, reason = text, ends_session, found, "an operator closes a client's connection");
    Answer::Ok(json!({ "host": desk.host, "found": found }))
}

fn drained(desk: &Desk, request: &Value) -> Answer {
    let broker = &desk.broker;
    match request["state"].as_str() {
        Some("drain") => {
            let rate = request["rate"].as_u64().and_then(|rate| u32::try_from(rate).ok()).unwrap_or(drain::RATE).max(1);
            let is_moved = request["moved"] == true;
            let reason = if is_moved { ReasonCode::ServerMoved } else { ReasonCode::UseAnotherServer };
            broker.drain.set(Some(Order { rate, reason }));
        }
        Some("ready") => broker.drain.set(None),
        Some(other) => return Answer::Error(format!("`state` is \"drain\" or \"ready\", not {other:?}")),
        None => {}
    }
    let mut answer = json!({ "host": desk.host, "state": "ready", "clients": drain::clients(broker) });
    if let (Value::Object(answer), Value::Object(state)) = (&mut answer, drain::state(broker)) {
        answer.extend(state);
    }
    Answer::Ok(answer)
}

fn trace(desk: &Desk, request: &Value) -> Answer {
    let client = match client_of(request) {
        Ok(client) => client,
        Err(answer) => return answer,
    };
    let time = Duration::from_millis(request["for_ms"].as_u64().unwrap_or(60_000)).min(LONGEST_TRACE);
    let payloads = request["payload"] == true;
    let (following, lines) = match desk.broker.tracer.follow(&client, payloads) {
        Ok(following) => following,
        Err(error) => return Answer::Error(error.to_string()),
    };
    let presence = present(&desk.broker, &client);
    if let Some(presence) = &presence {
        presence.set_traced(true);
    }
    tracing::info!(client = %client, seconds = time.as_secs(), payloads, "an operator follows a client's packets");
    let begun = json!({ "ok": { "host": desk.host, "client": client.as_str(), "connected": presence.is_some() } });
    let (sender, receiver) = mpsc::channel(DEPTH);
    tokio::spawn(follow(Arc::clone(&desk.broker), following, lines, begun, sender, time));
    Answer::Stream(receiver)
}

/// Hands lines on until the time is over or nobody reads them any more; owned by whoever reads them.
async fn follow(
    broker: Arc<Broker>,
    following: Following,
    mut lines: mpsc::Receiver<Value>,
    begun: Value,
    sender: mpsc::Sender<Value>,
    time: Duration,
) {
    let over = tokio::time::sleep(time);
    let mut over = std::pin::pin!(over);
    let mut next = Some(begun);
    loop {
        if let Some(line) = next.take() {
            // A reader that stands still makes `lines` overflow, which is counted; it does not make the trace longer.
            tokio::select! {
                sent = sender.send(line) => if sent.is_err() { break },
                () = &mut over => break,
            }
        }
        tokio::select! {
            line = lines.recv() => next = line,
            () = &mut over => break,
            () = sender.closed() => break,
        }
    }
    let client = following.client_id().clone();
    drop(following);
    if !broker.tracer.is_followed(&client)
        && let Some(presence) = present(&broker, &client)
    {
        presence.set_traced(false);
    }
    tracing::info!(client = %client, "the client's packets are not followed any more");
}

fn present(broker: &Broker, client: &Text) -> Option<Arc<crate::presence::Presence>> {
    broker.registry.get(client)?.lock().presence.clone()
}
