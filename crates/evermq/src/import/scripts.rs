//! What keepalived tracks: scripts, interfaces, files.

use super::finding::Outcome;
use super::keepalived::{label, track};
use super::model::Model;
use super::statements::Statement;
use crate::init::draft::Value;

/// The scripts and files of a file, by name.
#[derive(Debug)]
pub struct Scripts {
    scripts: Vec<Statement>,
    /// Names that an instance tracks.
    tracked: Vec<String>,
}

/// Words of scripts that ask whether the local balancer or broker lives.
const WATCHED_ANYWAY: [&str; 4] = ["nginx", "haproxy", "mosquitto", ":9000"];

impl Scripts {
    /// Those of a file.
    #[must_use]
    pub fn of(statements: &[Statement]) -> Self {
        let is_script = |statement: &&Statement| {
            matches!(statement.name(), "vrrp_script" | "vrrp_track_file" | "track_file") && statement.block.is_some()
        };
        let instances = statements.iter().filter(|statement| statement.name() == "vrrp_instance");
        let tracked = instances
            .flat_map(Statement::inside)
            .filter(|inner| matches!(inner.name(), "track_script" | "track_file"))
            .flat_map(Statement::inside)
            .map(|line| line.name().to_owned());
        Self { scripts: statements.iter().filter(is_script).cloned().collect(), tracked: tracked.collect() }
    }

    /// A script's own block.
    pub fn tell_unused(&self, statement: &Statement, model: &mut Model) {
        let at = (&statement.place, &*statement.text());
        if !self.tracked.iter().any(|name| name == statement.argument()) {
            model.leave(at, "no instance tracks it");
        } else if is_watched_anyway(statement) {
            model.usual(at, "evermq-vip watches the evermq-lb of its host, which watches the brokers");
        } else {
            model.note(at.0, at.1, Outcome::Kept { key: "[[vip.track]]".to_owned() });
        }
    }

    /// A `track_...` block of an instance.
    pub fn track(&self, statement: &Statement, model: &mut Model) {
        for line in statement.inside() {
            let text = format!("{} {}", statement.name(), line.text());
            let at = (&line.place, text.as_str());
            let weight = number_after(line, "weight");
            match statement.name() {
                "track_interface" => match track(model, &format!("interface-{}", line.name()), weight.unwrap_or(0)) {
                    Some(table) => {
                        table.set("interface", line.name(), "");
                        model.note(at.0, at.1, Outcome::Kept { key: "[[vip.track]]".to_owned() });
                    }
                    None => model.usual(at, "it is tracked for all virtual routers"),
                },
                "track_script" | "track_file" => self.named(line, weight, at, model),
                _ => model.leave(at, "[[vip.track]] pid_file looks after a process"),
            }
        }
    }

    fn named(&self, line: &Statement, weight: Option<i64>, at: (&super::finding::Place, &str), model: &mut Model) {
        let Some(script) = self.scripts.iter().find(|script| script.argument() == line.name()) else {
            model.leave(at, "there is no script of that name");
            return;
        };
        if is_watched_anyway(script) {
            model.usual(at, "evermq-vip watches the evermq-lb of its host, which watches the brokers");
            return;
        }
        let weight = weight.or_else(|| inner_number(script, "weight")).unwrap_or(0);
        let Some(table) = track(model, &label(line.name()), weight) else {
            model.usual(at, "it is tracked for all virtual routers");
            return;
        };
        let of = |name: &str| script.inside().iter().find(|inner| inner.name() == name);
        if let Some(file) = of("file") {
            table.set("file", file.argument(), "");
        } else {
            let command = of("script").map(|script| script.arguments().join(" ")).unwrap_or_default();
            table.set("script", Value::list(command.split_whitespace()), "");
            for key in ["interval", "timeout"] {
                if let Some(seconds) = of(key).and_then(|inner| inner.argument().parse::<f64>().ok()) {
                    let millis = (seconds.clamp(0.02, 3600.0) * 1000.0).round();
                    table.set(if key == "interval" { "interval" } else { "timeout" }, format!("{millis}ms"), "");
                }
            }
            for key in ["rise", "fall"] {
                if let Some(count) = inner_number(script, key) {
                    table.set(if key == "rise" { "rise" } else { "fall" }, Value::signed(count.clamp(1, 100)), "");
                }
            }
            if let Some(user) = of("user").filter(|user| user.argument() != "root") {
                table.set("user", user.argument(), "");
            }
        }
        model.note(at.0, at.1, Outcome::Kept { key: "[[vip.track]]".to_owned() });
    }
}

fn is_watched_anyway(script: &Statement) -> bool {
    let command = script.inside().iter().find(|inner| inner.name() == "script");
    command.is_some_and(|command| WATCHED_ANYWAY.iter().any(|word| command.text().contains(word)))
}

fn number_after(line: &Statement, word: &str) -> Option<i64> {
    let at = line.words.iter().position(|known| known == word)?;
    line.words.get(at + 1)?.parse().ok()
}

fn inner_number(script: &Statement, name: &str) -> Option<i64> {
    script.inside().iter().find(|inner| inner.name() == name)?.argument().parse().ok()
}
