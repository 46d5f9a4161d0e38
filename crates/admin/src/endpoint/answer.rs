//! One request, one answer.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evermq_config::Cluster;
use evermq_config::cluster::Host as ConfiguredHost;
use evermq_daemon::control;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::action::{Drain, Hands, Rebalance};
use super::asset::{ASSETS, POLICY};
use super::{BODY_TIMEOUT, Caller, MAX_BODY, Right};
use crate::mirror::Mirror;
use crate::sampler::Sampler;

/// For a program's figures.
const FIGURES_TIMEOUT: Duration = Duration::from_secs(5);
/// Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Sent with every answer.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::SERVER, "evermq-admin"),
];

/// What a host answers from.
#[derive(Debug)]
pub struct Host {
    name: String,
    sampler: Arc<Sampler>,
    mirror: Arc<Mirror>,
    hands: Hands,
}

impl Host {
    /// Of this host.
    #[must_use]
    pub fn new(cluster: &Cluster, host: &ConfiguredHost, sampler: Arc<Sampler>, mirror: Arc<Mirror>) -> Self {
        let hands = Hands::new(cluster, host);
        Self { name: host.name.to_string(), sampler, mirror, hands }
    }
}

type Answered = Response<Full<Bytes>>;

/// Why there is no answer: the status, and what is said with it.
type Refusal = (StatusCode, String);

pub(super) async fn answer(
    host: Arc<Host>,
    caller: Arc<Caller>,
    request: Request<Incoming>,
) -> Result<Answered, Infallible> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match route(&host, &caller, request).await {
        Ok(response) => response,
        Err((status, text)) => {
            tracing::debug!(caller = caller.name, %method, path, %status, text, "refused");
            let mut response = of_json(&json!({ "error": text }));
            *response.status_mut() = status;
            response
        }
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

async fn route(host: &Host, caller: &Caller, request: Request<Incoming>) -> Result<Answered, Refusal> {
    if caller.may < Right::Read {
        let text = format!(
            "the certificate of \"{}\" may not see this: put its common name into admin.readers or admin.admins of the cluster file",
            caller.name
        );
        return Err((StatusCode::FORBIDDEN, text));
    }
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    let path = request.uri().path();
    if let Some(asset) = ASSETS.iter().find(|asset| asset.path == path).filter(|_| reads) {
        return Ok(of_text(asset.kind, asset.text.to_owned()));
    }
    let after = number(request.uri().query(), "after");
    match path {
        "/api/host" if reads => {
            host.sampler.first().await;
            let answer = host.sampler.answer(after);
            serde_json::to_value(answer).map(|value| of_json(&value)).map_err(|error| internal(&error))
        }
        "/api/cluster" if reads => {
            let mut shown = host.mirror.show(after).await;
            shown["host"] = json!(host.name);
            shown["you"] = json!(caller);
            shown["drains"] = if caller.may == Right::Act { json!(host.hands.drains()) } else { json!([]) };
            Ok(of_json(&shown))
        }
        "/api/drain" if request.method() == Method::POST => {
            let wanted: Drain = order(caller, request).await?;
            done(host.hands.drain(wanted, &caller.name).await)
        }
        "/api/drain" if reads => match text(request.uri().query(), "broker") {
            Some(broker) => done(host.hands.drained(broker).await),
            None => Err((StatusCode::BAD_REQUEST, "say which: /api/drain?broker=NAME".to_owned())),
        },
        "/api/rebalance" if request.method() == Method::POST => {
            let wanted: Rebalance = order(caller, request).await?;
            done(host.hands.rebalance(wanted, &caller.name).await)
        }
        path if reads && path.starts_with("/metrics/") => figures(host, &path["/metrics/".len()..]).await,
        "/api/host" | "/api/cluster" | "/api/drain" | "/api/rebalance" => {
            Err((StatusCode::METHOD_NOT_ALLOWED, "this is asked for with another method".to_owned()))
        }
        _ => {
            let there = "there is /, /api/host, /api/cluster, /api/drain, /api/rebalance, /metrics/PROGRAM";
            Err((StatusCode::NOT_FOUND, there.to_owned()))
        }
    }
}

/// What a program has answered.
fn done(answer: Result<Value, String>) -> Result<Answered, Refusal> {
    answer.map(|done| of_json(&done)).map_err(|text| (StatusCode::CONFLICT, text))
}

/// What somebody wants done, if he may.
async fn order<T: DeserializeOwned>(caller: &Caller, request: Request<Incoming>) -> Result<T, Refusal> {
    if caller.may < Right::Act {
        let text = format!("\"{}\" may only see: admin.admins of the cluster file names who may act", caller.name);
        return Err((StatusCode::FORBIDDEN, text));
    }
    // A page from elsewhere can have a browser send requests with its user's certificate, but not of this content type, and
    // not without saying where it comes from.
    is_from_here(&request).map_err(|text| (StatusCode::FORBIDDEN, text.to_owned()))?;
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(request.into_body(), MAX_BODY).collect()).await;
    let body = body.map_err(|_| (StatusCode::REQUEST_TIMEOUT, "the body did not come".to_owned()))?;
    let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => (StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {MAX_BODY} bytes")),
        None => bad(format!("the body cannot be read: {error}")),
    })?;
    let body = body.to_bytes();
    serde_json::from_slice(&body).map_err(|error| bad(format!("not a request: {error}")))
}

fn is_from_here(request: &Request<Incoming>) -> Result<(), &'static str> {
    let text = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    if text(header::CONTENT_TYPE) != Some("application/json") {
        return Err("the content type must be application/json");
    }
    let (origin, host) = (request.headers().get(header::ORIGIN), text(header::HOST));
    match (origin.map(HeaderValue::to_str), host) {
        (None, _) => Ok(()),
        (Some(Ok(origin)), Some(host)) if origin.strip_prefix("https://") == Some(host) => Ok(()),
        (Some(_), _) => Err("a page from elsewhere may not ask for this"),
    }
}

async fn figures(host: &Host, short: &str) -> Result<Answered, Refusal> {
    let program = host.sampler.programs().iter().find(|program| program.name.strip_prefix("evermq-") == Some(short));
    let Some(program) = program else {
        return Err((StatusCode::NOT_FOUND, format!("{} runs no program \"{short}\"", host.name)));
    };
    let socket: PathBuf = program.socket.clone();
    let asked = tokio::task::spawn_blocking(move || {
        control::request(&socket, &json!({ "request": "metrics" }), FIGURES_TIMEOUT)
    });
    let answer = match asked.await {
        Ok(answer) => answer.map_err(|error| (StatusCode::BAD_GATEWAY, error.to_string()))?,
        Err(error) => return Err(internal(&error)),
    };
    let text = answer.as_str().or(answer["text"].as_str()).unwrap_or_default();
    Ok(of_text(TEXT_FORMAT, text.to_owned()))
}

fn internal(error: &dyn std::fmt::Display) -> Refusal {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn of_json(value: &Value) -> Answered {
    of_text("application/json", value.to_string())
}

fn of_text(kind: &'static str, text: String) -> Answered {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The value of a query such as `broker=broker1`. Names of hosts need no escapes.
fn text<'a>(query: Option<&'a str>, key: &str) -> Option<&'a str> {
    let mut pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
}

/// The number of a query such as `after=7`; 0 where there is none.
fn number(query: Option<&str>, key: &str) -> u64 {
    text(query, key).and_then(|value| value.parse().ok()).unwrap_or(0)
}
