//! nginx's upstreams: those of the first server are the cluster's brokers, those of others `[[lb.backends]]` of their own group.

use super::finding::Outcome;
use super::model::Model;
use super::statements::Statement;

/// An `upstream` block.
#[derive(Debug)]
pub struct Upstream<'a> {
    name: &'a str,
    lines: &'a [Statement],
}

/// Where brokers speak MQTT over TLS unless told otherwise.
const USUAL_PORT: &str = "8883";

impl<'a> Upstream<'a> {
    /// Of its statement.
    #[must_use]
    pub fn of(statement: &'a Statement) -> Self {
        Self { name: statement.argument(), lines: statement.inside() }
    }

    /// Takes it over as a group of brokers. `plain`: what goes there is not TLS.
    pub fn import(&self, group: &str, plain: bool, sets_balance: bool, model: &mut Model) {
        let mut balanced = false;
        for line in self.lines {
            let text = line.text();
            let at = (&line.place, text.as_str());
            let balance = match line.name() {
                "server" => {
                    server(line, group, plain, model);
                    continue;
                }
                "least_conn" => Some("least_conn"),
                "random" if line.argument() == "two" => Some("random_two"),
                "hash" if line.argument().contains("remote_addr") => Some("source_ip"),
                "ip_hash" => Some("source_ip"),
                _ => None,
            };
            match balance {
                Some(balance) if sets_balance => {
                    balanced = true;
                    model.keep(at, "lb", "balance", balance);
                }
                Some(_) => model.leave(at, "lb.balance holds for all groups"),
                None if line.name() == "zone" => model.usual(at, "all threads know of all brokers"),
                None => model.leave(at, "lb.balance is least_conn, round_robin, random_two, source_ip or client_id"),
            }
        }
        if let (false, true, Some(first)) = (balanced, sets_balance, self.lines.first()) {
            let text = format!("upstream {} (round robin)", self.name);
            model.differs(
                (&first.place, &text),
                "least_conn, which evens out connections that last long; lb.balance = \"round_robin\" is there",
            );
        }
    }
}

/// `proxy_pass ADDRESS:PORT` without an upstream.
pub fn direct(pass: &Statement, group: &str, model: &mut Model) {
    broker(pass.argument(), group, false, model);
}

/// Adds a broker, and says whether it is a host of the cluster; none where its address is not known.
fn broker(word: &str, group: &str, plain: bool, model: &mut Model) -> Option<bool> {
    let (host, port) = word.rsplit_once(':').unwrap_or((word, USUAL_PORT));
    let address = model.address_of(host)?;
    let of_cluster = group == "brokers";
    if of_cluster {
        model.host(address).broker = true;
        let listen = format!("0.0.0.0:{port}");
        if !plain && port != USUAL_PORT && !model.draft.table("broker").has("listen") {
            model.draft.table("broker").set("listen", listen, "MQTT over mutual TLS");
        }
    }
    Some(of_cluster)
}

fn server(line: &Statement, group: &str, plain: bool, model: &mut Model) {
    let text = line.text();
    let at = (&line.place, text.as_str());
    let word = line.argument();
    let option = |name: &str| line.arguments().iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let has = |name: &str| line.arguments().iter().any(|word| word == name);
    let Some(of_cluster) = broker(word, group, plain, model) else {
        model.leave(
            at,
            "nothing says its address: name it with --broker NAME=ADDRESS, or in the file that --hosts-file names",
        );
        return;
    };
    let number = |name: &str| option(name).and_then(|number| number.parse::<u64>().ok());
    let weight = if has("down") { Some(0) } else { number("weight") };
    let special = weight.is_some() || has("backup") || number("max_conns").is_some_and(|most| most > 0);
    let host = word.rsplit_once(':').map_or(word, |(host, _)| host);
    if special || !of_cluster {
        let name = backend_name(host, model);
        let table = model.draft.entry("lb.backends");
        table.set("name", name, "");
        if !of_cluster {
            let key = if plain { "plain_address" } else { "address" };
            table.set(key, word, "").set("group", group, "");
        }
        if let Some(weight) = weight {
            table.set("weight", weight.min(1000), "");
        }
        if has("backup") {
            table.set("backup", true, "");
        }
        if let Some(most @ 1..) = number("max_conns") {
            table.set("max_connections", most, "");
        }
    }
    if option("max_fails").is_some() || option("fail_timeout").is_some() {
        model.differs(at, "a broker is asked four times a second, and left out as soon as it does not answer: health_interval, health_timeout");
    } else {
        model.note(at.0, at.1, Outcome::Kept { key: "[[hosts]] with the role \"broker\", [[lb.backends]]".to_owned() });
    }
}

/// A backend of the cluster has its host's name; a host that nobody named gets it when hosts are written.
fn backend_name(host: &str, model: &Model) -> String {
    let address = model.address_of(host);
    let of_hosts = model.hosts.iter().filter(|known| known.broker && !known.lb);
    let known = of_hosts.enumerate().find(|(_, known)| Some(known.address) == address);
    match known {
        Some((_, known)) if known.name.is_some() => known.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        Some((index, known)) => {
            let by_file = model.known.iter().find(|(_, address)| **address == known.address);
            by_file.map_or_else(
                || format!("broker{}", index + 1),
                |(name, _)| name.split('.').next().unwrap_or_default().to_owned(),
            )
        }
        None => super::keepalived::label(host),
    }
}
