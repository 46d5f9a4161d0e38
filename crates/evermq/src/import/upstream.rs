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

    /// The port of its first server.
    #[must_use]
    pub fn port(&self) -> Option<&'a str> {
        let first = self.lines.iter().find(|line| line.name() == "server")?;
        first.argument().rsplit_once(':').map(|(_, port)| port)
    }

    /// Takes it over as a group of brokers. `plain`: what goes there is not TLS.
    fn import(&self, group: &str, plain: bool, sets_balance: bool, model: &mut Model) {
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

/// The group of the cluster's own brokers.
pub const BROKERS: &str = "brokers";

/// The group that an upstream, or an address that stands in its place, is in: the first that is passed to are the cluster's brokers.
/// Its servers are taken over when it is asked for the first time. `plain`: what goes there is not TLS.
pub fn group(
    target: &str,
    upstream: Option<&Upstream<'_>>,
    plain: bool,
    sets_balance: bool,
    model: &mut Model,
) -> String {
    if let Some(group) = model.groups.get(target) {
        return group.clone();
    }
    let group = if model.groups.is_empty() { BROKERS.to_owned() } else { super::keepalived::label(target) };
    model.groups.insert(target.to_owned(), group.clone());
    match upstream {
        Some(upstream) => upstream.import(&group, plain, sets_balance, model),
        None => {
            if let Some(address) = broker(target, &group, plain, model)
                && group != BROKERS
            {
                let name = backend_name(target.rsplit_once(':').map_or(target, |(host, _)| host), model);
                let key = if plain { "plain_address" } else { "address" };
                let table = model.draft.entry("lb.backends");
                table.set("name", name, "").set(key, address, "").set("group", group.as_str(), "");
            }
        }
    }
    group
}

/// Adds a broker, and gives its address and port; none where its address is not known.
fn broker(word: &str, group: &str, plain: bool, model: &mut Model) -> Option<String> {
    let (host, port) = word.rsplit_once(':').unwrap_or((word, USUAL_PORT));
    let address = model.address_of(host)?;
    if group == BROKERS {
        model.host(address).broker = true;
        let listen = format!("0.0.0.0:{port}");
        if !plain && port != USUAL_PORT && !model.draft.table("broker").has("listen") {
            model.draft.table("broker").set("listen", listen, "MQTT over mutual TLS");
        }
    }
    Some(format!("{address}:{port}"))
}

fn server(line: &Statement, group: &str, plain: bool, model: &mut Model) {
    let text = line.text();
    let at = (&line.place, text.as_str());
    let word = line.argument();
    let option = |name: &str| line.arguments().iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let has = |name: &str| line.arguments().iter().any(|word| word == name);
    let Some(address) = broker(word, group, plain, model) else {
        model.leave(
            at,
            "nothing says its address: name it with --broker NAME=ADDRESS, or in the file that --hosts-file names",
        );
        return;
    };
    let of_cluster = group == BROKERS;
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
            table.set(key, address, "").set("group", group, "");
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
