//! nginx.conf: what its `stream` block is in `[lb]`, `[[lb.backends]]` and `[[hosts]]`.

use std::collections::BTreeMap;

use super::finding::{Outcome, Place};
use super::model::Model;
use super::statements::Statement;
use super::upstream::{self, Upstream};
use crate::init::draft::Value;

/// Takes a file's statements over.
pub fn import(statements: &[Statement], model: &mut Model) {
    for statement in statements {
        let text = statement.text();
        let at = (&statement.place, text.as_str());
        match statement.name() {
            "stream" => stream(statement, model),
            "events" => {
                model.usual((&statement.place, "events"), "each of its lines is looked at");
                for inner in statement.inside() {
                    let why = match inner.name() {
                        "worker_connections" => "lb.max_connections bounds the clients of a host, by default 20000",
                        _ => "connections are accepted with epoll, as many as there are",
                    };
                    model.leave((&inner.place, &inner.text()), why);
                }
            }
            "http" | "mail" => model.leave(
                at,
                "evermq-lb serves MQTT; a web or mail server is a program of its own and may go on beside it",
            ),
            "worker_processes" => match statement.argument().parse::<u64>() {
                Ok(count) => model.keep(at, "lb", "workers", count.min(256)),
                Err(_) => model.usual(at, "lb.workers: one for each core"),
            },
            // A fragment that a stream block includes.
            "upstream" | "server" | "map" => {
                stream_parts(std::slice::from_ref(statement), statements, model);
            }
            name => model.leave(at, why_left(name)),
        }
    }
}

fn stream(statement: &Statement, model: &mut Model) {
    model.usual((&statement.place, "stream"), "each of its lines is looked at");
    stream_parts(statement.inside(), statement.inside(), model);
}

/// `parts` of a stream block, all of which is `whole`.
fn stream_parts(parts: &[Statement], whole: &[Statement], model: &mut Model) {
    let upstreams: BTreeMap<&str, Upstream<'_>> = whole
        .iter()
        .filter(|part| part.name() == "upstream")
        .map(|part| (part.argument(), Upstream::of(part)))
        .collect();
    let maps: Vec<&Statement> = whole.iter().filter(|part| part.name() == "map").collect();
    for part in parts {
        let text = part.text();
        let at = (&part.place, text.as_str());
        match part.name() {
            "server" => server(part, &upstreams, &maps, model),
            "upstream" => {
                let used = whole.iter().any(|other| uses(other, part.argument()));
                if used {
                    model.note(
                        at.0,
                        at.1,
                        Outcome::Kept { key: "[[hosts]] with the role \"broker\", [[lb.backends]]".to_owned() },
                    );
                } else {
                    model.leave(at, "no server passes anything to it");
                }
            }
            "map" if part.argument() == "$ssl_preread_server_name" => {
                model.note(at.0, at.1, Outcome::Kept { key: "[[lb.routes]]".to_owned() });
            }
            "map" | "geo" | "split_clients" | "set" | "js_import" | "js_set" => {
                model.leave(at, "clients are told apart by the name that they ask for ([[lb.routes]]) or by client identifier ([[lb.client_ids]])");
            }
            _ => of_server(part, true, model),
        }
    }
}

/// Whether a server or map passes clients to an upstream of that name.
fn uses(part: &Statement, upstream: &str) -> bool {
    part.inside().iter().any(|inner| match part.name() {
        "server" => inner.name() == "proxy_pass" && inner.argument() == upstream,
        "map" => inner.argument() == upstream,
        _ => false,
    })
}

fn server(part: &Statement, upstreams: &BTreeMap<&str, Upstream<'_>>, maps: &[&Statement], model: &mut Model) {
    let of = |name: &str| part.inside().iter().find(|inner| inner.name() == name);
    let text = part.text();
    let Some(listen) = of("listen") else {
        model.leave((&part.place, &text), "it listens nowhere");
        return;
    };
    if listen.arguments().iter().any(|word| word == "udp") {
        model.leave((&part.place, &text), "MQTT goes over TCP");
        return;
    }
    let is_first = !model.draft.table("lb").has("listen");
    let ends_tls = listen.arguments().iter().any(|word| word == "ssl");
    let again = of("proxy_ssl").is_some_and(|inner| inner.argument() == "on");
    let target = of("proxy_pass").map_or("", |pass| pass.argument());
    let behind =
        upstreams.get(target).and_then(Upstream::port).or_else(|| target.rsplit_once(':').map(|(_, port)| port));
    let way = match (ends_tls, again) {
        (true, true) => Way::Reencrypt,
        (true, false) => Way::Terminate,
        (false, _) if behind == Some(PLAIN_PORT) => Way::Plain,
        (false, _) => Way::Passthrough,
    };
    let group = match of("proxy_pass") {
        None => {
            model.leave((&part.place, &text), "it passes clients on to nobody");
            return;
        }
        Some(pass) if target.starts_with('$') => {
            routes(target, maps, upstreams, model);
            if of("ssl_preread").is_none_or(|inner| inner.argument() != "on") {
                let why = "the name is read from the client's greeting only where TLS passes through";
                model.leave((&pass.place, &pass.text()), why);
            }
            upstream::BROKERS.to_owned()
        }
        Some(_) => upstream::group(target, upstreams.get(target), way.is_plain_behind(), is_first, model),
    };
    let address = socket(listen.argument());
    if is_first {
        model.draft.table("lb").set("listen", address, "");
    } else {
        let name = format!("listener-{}", address.rsplit(':').next().unwrap_or_default());
        let table = model.draft.entry("lb.listeners");
        table.set("name", name, "").set("listen", address, "").set("group", group.as_str(), "");
    }
    set_mode(part, is_first, way, model);
    let key = if is_first { "[lb]" } else { "[[lb.listeners]]" };
    model.note(&part.place, "server", Outcome::Kept { key: key.to_owned() });
    for inner in part.inside() {
        of_server(inner, is_first, model);
    }
}

/// Where brokers speak plain MQTT as a rule: nginx does not say what it passes on.
const PLAIN_PORT: &str = "1883";

/// What becomes of TLS on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Passthrough,
    Terminate,
    Reencrypt,
    Plain,
}

impl Way {
    const fn is_plain_behind(self) -> bool {
        matches!(self, Self::Terminate | Self::Plain)
    }
}

fn set_mode(part: &Statement, is_first: bool, way: Way, model: &mut Model) {
    let (mode, comment) = match way {
        Way::Passthrough => return,
        Way::Terminate => ("terminate", "TLS ends at the lb"),
        Way::Reencrypt => ("reencrypt", "TLS ends at the lb, and another one begins"),
        Way::Plain => ("plain", "no TLS at all"),
    };
    let table =
        if is_first { model.draft.table("lb") } else { model.draft.last("lb.listeners").expect("added just now") };
    table.set("mode", mode, comment);
    if way.is_plain_behind() {
        let comment = "plain MQTT for the lb hosts only, with who the client is";
        model.draft.table("broker").set("listen_proxy", "0.0.0.0:8885", comment);
        let why = "plain MQTT goes from the lb to broker.listen_proxy, with a PROXY protocol header";
        model.differs((&part.place, "listen"), why);
    }
}

/// `9000`, `*:9000`, `10.0.0.1:9000`, `[::]:9000`
fn socket(word: &str) -> String {
    match word.rsplit_once(':') {
        Some(("*", port)) => format!("0.0.0.0:{port}"),
        Some(_) => word.to_owned(),
        None => format!("0.0.0.0:{word}"),
    }
}

fn routes(variable: &str, maps: &[&Statement], upstreams: &BTreeMap<&str, Upstream<'_>>, model: &mut Model) {
    let map = maps.iter().find(|map| map.words.get(2).is_some_and(|name| name == variable));
    let Some(map) = map.filter(|map| map.argument() == "$ssl_preread_server_name") else { return };
    let default = map.inside().iter().filter(|line| line.name() == "default");
    let others = map.inside().iter().filter(|line| line.name() != "default");
    for line in default.chain(others) {
        let text = line.text();
        let at = (&line.place, text.as_str());
        let Some(upstream) = upstreams.get(line.argument()) else {
            model.leave(at, "there is no upstream of that name");
            continue;
        };
        if line.name().starts_with('~') || line.name() == "hostnames" {
            model.leave(at, "names of [[lb.routes]] are whole, or *.DOMAIN");
            continue;
        }
        let is_default = line.name() == "default";
        let group = upstream::group(line.argument(), Some(upstream), false, is_default, model);
        if is_default {
            model.note(at.0, at.1, Outcome::Kept { key: format!("the group {group}") });
        } else {
            let name =
                line.name().strip_prefix('.').map_or_else(|| line.name().to_owned(), |domain| format!("*.{domain}"));
            model.draft.entry("lb.routes").set("sni", Value::list([name]), "").set("group", group, "");
            model.note(at.0, at.1, Outcome::Kept { key: "[[lb.routes]]".to_owned() });
        }
    }
}

fn of_server(inner: &Statement, is_first: bool, model: &mut Model) {
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

fn why_left(name: &str) -> &'static str {
    match name {
        "user" | "pid" | "daemon" | "master_process" | "working_directory" => {
            "systemd starts evermq-lb, as a user of its own"
        }
        "error_log" | "log_format" | "access_log" | "open_log_file_cache" => {
            "the log goes to the journal: journalctl -u evermq-lb; lb.access_log has a line for each connection"
        }
        "load_module" | "include" => "there are no modules",
        "worker_rlimit_nofile" | "worker_cpu_affinity" | "worker_priority" => {
            "evermq-lb takes the descriptors that it needs, and one thread for each core"
        }
        "allow" | "deny" => "who gets in is the certificate's matter; addresses are a firewall's",
        "limit_conn_zone" | "limit_conn_log_level" => "lb.max_connections_per_source needs no memory to be set aside",
        "ssl_protocols" => "lb.tls_min_version is 1.2 or 1.3",
        "ssl_ciphers" | "ssl_prefer_server_ciphers" | "ssl_dhparam" | "ssl_ecdh_curve" => {
            "the suites are those of TLS 1.2 and 1.3 that are safe today, and need no parameters"
        }
        "ssl_session_cache" | "ssl_session_timeout" | "ssl_session_tickets" | "ssl_session_ticket_key" => {
            "clients resume with tickets at any lb: lb.ticket_key, lb.ticket_rotation"
        }
        "proxy_buffer_size" | "proxy_upload_rate" | "proxy_download_rate" | "preread_buffer_size" => {
            "what passes is spliced in the kernel or sent on at once; broker.max_publish_bytes holds a client back"
        }
        "proxy_bind" => {
            "the lb connects from its host's address; brokers know the client by PROXY protocol (lb.send_proxy)"
        }
        "resolver" | "resolver_timeout" => "hosts are known by their addresses",
        "health_check" | "health_check_timeout" => {
            "each broker is asked four times a second over a standing MQTT session"
        }
        name if name.starts_with("proxy_ssl") => "between lb and broker the host's certificates of [tls] are used",
        _ => "evermq-lb has nothing like it",
    }
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

    #[test]
    fn sockets_have_addresses() {
        for (word, expected) in [("9000", "0.0.0.0:9000"), ("*:9000", "0.0.0.0:9000"), ("[::]:9000", "[::]:9000")] {
            assert_eq!(socket(word), expected);
        }
    }
}
