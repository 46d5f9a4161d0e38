//! nginx.conf: what its `stream` block is in `[lb]`, `[[lb.backends]]` and `[[hosts]]`.

mod server;

use std::collections::BTreeMap;

use self::server::of_server;
use super::finding::Outcome;
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
    fn sockets_have_addresses() {
        for (word, expected) in [("9000", "0.0.0.0:9000"), ("*:9000", "0.0.0.0:9000"), ("[::]:9000", "[::]:9000")] {
            assert_eq!(socket(word), expected);
        }
    }
}
