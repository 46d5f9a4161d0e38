//! The lines of a `server` block that are not about where it passes clients on to.

use super::why_left;
use crate::import::finding::{Outcome, Place};
use crate::import::model::Model;
use crate::import::statements::Statement;
use crate::init::draft::Value;

/// Takes one over.
pub(super) fn of_server(inner: &Statement, is_first: bool, model: &mut Model) {
    let text = inner.text();
    let at = (&inner.place, text.as_str());
    let word = inner.argument();
    let lb = |model: &mut Model, key: &'static str, value: Value| {
        if is_first {
            model.keep(at, "lb", key, value);
        } else {
            model.leave(at, "it holds for all listeners of the lb: [lb]");
        }
    };
    match inner.name() {
        "listen" => listen(inner, at, model),
        "proxy_pass" => model.note(
            at.0,
            at.1,
            Outcome::Kept { key: "[[hosts]] with the role \"broker\", [[lb.backends]]".to_owned() },
        ),
        "proxy_timeout" => match duration(word) {
            Some(time) => lb(model, "idle_timeout", time.into()),
            None => model.leave(at, "no time that is known here: lb.idle_timeout"),
        },
        "proxy_connect_timeout" => match duration(word) {
            Some(time) => lb(model, "connect_timeout", time.into()),
            None => model.leave(at, "no time that is known here: lb.connect_timeout"),
        },
        "preread_timeout" | "ssl_handshake_timeout" => match duration(word) {
            Some(time) => lb(model, "greeting_timeout", time.into()),
            None => model.leave(at, "no time that is known here: lb.greeting_timeout"),
        },
        "proxy_protocol" if word == "on" => lb(model, "send_proxy", true.into()),
        "set_real_ip_from" => lb(model, "accept_proxy_from", Value::list([word])),
        "access_log" if word == "off" => lb(model, "access_log", "off".into()),
        "access_log" if !word.contains('$') && word.starts_with('/') => {
            model.alter(at, "lb", "access_log", word, "its lines have a format of their own (docs/lb.md)");
        }
        "limit_conn" => match inner.words.get(2).and_then(|count| count.parse::<u64>().ok()) {
            Some(count) => {
                model.alter(at, "lb", "max_connections_per_source", count, "counted for each client address");
            }
            None => model.leave(at, "lb.max_connections_per_source counts for each client address"),
        },
        "ssl_certificate" if !model.draft.table("tls").has("cert") => {
            model.alter(at, "tls", "cert", word, "it must be the host's own, for its name or address and for the VIP, for server and client: `evermq check` looks");
        }
        "ssl_certificate_key" if !model.draft.table("tls").has("key") => model.keep(at, "tls", "key", word),
        "ssl_client_certificate" | "ssl_trusted_certificate" if !model.draft.table("tls").has("ca") => {
            model.keep(at, "tls", "ca", word);
        }
        "ssl_crl" => lb(model, "crl", Value::list([word])),
        "ssl_verify_client" => match word {
            "on" => lb(model, "client_certificates", "required".into()),
            "optional" => lb(model, "client_certificates", "optional".into()),
            "off" => lb(model, "client_certificates", "off".into()),
            _ => model.leave(at, "lb.client_certificates is required, optional or off"),
        },
        "proxy_protocol"
        | "ssl_preread"
        | "tcp_nodelay"
        | "proxy_ssl"
        | "proxy_half_close"
        | "proxy_next_upstream"
        | "proxy_socket_keepalive" => {
            model.usual(at, "evermq-lb does so where it is needed");
        }
        "ssl_certificate" | "ssl_certificate_key" | "ssl_client_certificate" | "ssl_trusted_certificate" => {
            model.leave(at, "a host has one certificate, one key and one CA, and another one has been taken; further ones by name: [[lb.certificates]]");
        }
        name => model.leave(at, why_left(name)),
    }
}

fn listen(inner: &Statement, at: (&Place, &str), model: &mut Model) {
    let known = ["ssl", "reuseport", "default_server", "deferred"];
    let keepalive = |word: &String| word.starts_with("so_keepalive") || word.starts_with("backlog");
    let proxied = inner.arguments().iter().any(|word| word == "proxy_protocol");
    let others: Vec<_> = inner.arguments()[1.min(inner.arguments().len())..]
        .iter()
        .filter(|word| !known.contains(&word.as_str()))
        .collect();
    if proxied {
        model.differs(at, "say who may speak for clients: lb.accept_proxy_from = [\"NETWORK\"]");
    } else if others.iter().all(|word| keepalive(word)) && !others.is_empty() {
        model.differs(at, "lb.tcp_keepalive and lb.tcp_user_timeout find clients that are gone; the queue of new ones is the kernel's");
    } else if others.is_empty() {
        model.note(at.0, at.1, Outcome::Kept { key: "listen".to_owned() });
    } else {
        model.differs(at, "address and port are taken over, its other words not");
    }
}

/// nginx's times: `10m`, `1h30m`, `500ms`, `90`.
fn duration(text: &str) -> Option<String> {
    let mut millis: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest[digits..].trim_start();
        let unit = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let factor: u64 = match &rest[..unit] {
            "ms" => 1,
            "" | "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        millis = millis.checked_add(number.checked_mul(factor)?)?;
        rest = rest[unit..].trim_start();
    }
    Some(if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_durations() {
        let cases = [
            ("10m", "600s"),
            ("1h30m", "5400s"),
            ("500ms", "500ms"),
            ("90", "90s"),
            ("1d 2h", "93600s"),
            ("1w", "604800s"),
        ];
        for (text, expected) in cases {
            assert_eq!(duration(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "s", "1x", "99999999999999999999", "18446744073709551615w"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
