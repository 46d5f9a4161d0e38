//! `evermq drain` by the broker itself, on its own host or asked at its host's endpoint: it sends all of its clients away,
//! wherever they come from.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::BROKER;
use crate::asking::{AskError, ProgramArgs};
use crate::cells::word;
use crate::command::CommandError;
use crate::output;

/// Between two looks while it is waited for.
const LOOK: Duration = Duration::from_millis(250);

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Clients in a second, if anybody says how many.
    pub rate: Option<u32>,
    /// It will not be back.
    pub moved: bool,
    /// Until it may be stopped.
    pub wait: bool,
    /// No drain any more.
    pub undo: bool,
}

impl Wanted {
    /// As an endpoint is asked for it.
    #[must_use]
    pub fn body(self, broker: &str) -> Value {
        json!({ "broker": broker, "state": self.state(), "rate": self.rate, "moved": self.moved })
    }

    const fn state(self) -> &'static str {
        if self.undo { "ready" } else { "drain" }
    }
}

/// Begins or ends a drain.
///
/// # Errors
/// The broker does not answer, the drain was undone meanwhile, or standard output cannot be written.
pub fn run(args: &ProgramArgs, wanted: Wanted) -> Result<ExitCode, CommandError> {
    let broker = BROKER.find(args)?;
    let request = json!({ "request": "drain", "state": wanted.state(), "rate": wanted.rate, "moved": wanted.moved });
    let first = broker.ask(&request, Duration::ZERO)?;
    let look = || Ok(broker.ask(&json!({ "request": "drain" }), Duration::ZERO)?);
    finish(broker.host(), first, wanted.wait, args.json, look)
}

/// Shows the answer; with `wait` the one that says that it may be stopped.
///
/// # Errors
/// As [`run`]; those of `look`, which asks how far it is.
pub fn finish(
    host: &str,
    mut answer: Value,
    wait: bool,
    as_json: bool,
    look: impl FnMut() -> Result<Value, CommandError>,
) -> Result<ExitCode, CommandError> {
    if wait {
        answer = until_it_may_stop(host, answer, as_json, look)?;
    }
    if as_json {
        output::print_json(&answer)?;
    } else {
        output::print(&text(&answer))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Until it may be stopped. Tells how far it is: on a terminal, as a line of JSON each time where that is asked for, and
/// wherever it does not get on.
fn until_it_may_stop(
    host: &str,
    mut answer: Value,
    as_json: bool,
    mut look: impl FnMut() -> Result<Value, CommandError>,
) -> Result<Value, CommandError> {
    let terminal = io::stderr().is_terminal();
    let mut stuck_said = false;
    while answer["may_stop"] != true {
        if answer["state"] == "ready" {
            return Err(AskError::Gone(format!(
                "{host} does not drain any more; it has {} clients",
                answer["clients"]
            ))
            .into());
        }
        if answer["refuge"] == false {
            if !std::mem::replace(&mut stuck_said, true) {
                let left = &answer["clients"];
                output::complain(&format!(
                    "evermq: no other broker is linked to {host}: {left} clients stay until one is"
                ));
            }
        } else if as_json {
            output::complain(&answer.to_string());
        } else if terminal {
            output::complain(text(&answer).trim_end());
        }
        pause();
        answer = look()?;
    }
    Ok(answer)
}

fn text(answer: &Value) -> String {
    let count = |key: &str| answer[key].as_u64().unwrap_or(0);
    let (host, clients, rate) = (word(&answer["host"]), count("clients"), count("rate"));
    let mut text = match answer["state"].as_str() {
        Some("drained") if answer["may_stop"] == true => format!("{host}: drained, it may be stopped\n"),
        Some("drained") => {
            format!("{host}: drained; {} messages are on their way to other brokers\n", count("unacknowledged"))
        }
        Some("draining") => {
            let about = clients.checked_div(rate).map_or_else(String::new, |seconds| format!(", about {seconds} s"));
            format!("{host}: draining, {clients} clients left, {rate} in a second{about}\n")
        }
        _ => format!("{host}: {}, {clients} clients\n", word(&answer["state"])),
    };
    if answer["refuge"] == false && clients > 0 {
        text.push_str("no other broker is linked: they stay until one is\n");
    }
    if count("kept_for_brokers_away") > 0 {
        let kept = count("kept_for_brokers_away");
        text.push_str(&format!(
            "{kept} messages wait here for brokers that are away: they have them when this one runs again\n"
        ));
    }
    text
}

#[expect(clippy::disallowed_methods, reason = "another process's state can only be asked for; the operator ends it")]
fn pause() {
    std::thread::sleep(LOOK);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_says_what_to_do() {
        let answer = |state: &str, clients: u64, may_stop: bool| {
            json!({ "host": "broker1", "state": state, "clients": clients, "rate": 10, "refuge": true, "may_stop": may_stop,
                "unacknowledged": 3, "kept_for_brokers_away": 0 })
        };
        assert_eq!(text(&answer("ready", 5, false)), "broker1: ready, 5 clients\n");
        assert_eq!(
            text(&answer("draining", 45, false)),
            "broker1: draining, 45 clients left, 10 in a second, about 4 s\n"
        );
        assert_eq!(
            text(&answer("drained", 0, false)),
            "broker1: drained; 3 messages are on their way to other brokers\n"
        );
        assert_eq!(text(&answer("drained", 0, true)), "broker1: drained, it may be stopped\n");
        let mut stuck = answer("draining", 5, false);
        stuck["refuge"] = json!(false);
        stuck["kept_for_brokers_away"] = json!(7);
        let said = text(&stuck);
        assert!(said.contains("they stay until one is") && said.contains("7 messages wait here"), "{said}");
    }
}
