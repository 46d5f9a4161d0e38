//! Transitions and lines as text.

use evermq_admin::journal::Said;
use evermq_admin::timeline::Transition;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::cells;
use crate::command::CommandError;
use crate::table::Table;

/// One object for each, on a line of its own.
pub(super) fn json(entries: &[impl Serialize]) -> Result<String, CommandError> {
    let mut text = String::new();
    for entry in entries {
        text.push_str(&serde_json::to_string(entry).map_err(std::io::Error::from)?);
        text.push('\n');
    }
    Ok(text)
}

/// A table; `titled` the first time.
pub(super) fn events(transitions: &[Transition], titled: bool) -> String {
    let titles = ["TIME", "HOST", "WHAT", "CHANGE", "OUTAGE", "CAUSE"];
    let mut table = if titled { Table::titled(&titles) } else { Table::default() };
    for one in transitions {
        let cause = one.cause.clone().unwrap_or_default();
        let (what, change, cause) = match (&one.from, &one.to) {
            (Some(from), Some(to)) => (one.what.clone(), format!("{from} -> {to}"), cause),
            (None, Some(to)) => (one.what.clone(), format!("-> {to}"), cause),
            // What is said without states may be long: it stands last.
            (_, None) => {
                let program = one.program.strip_prefix("evermq-").unwrap_or(&one.program).to_owned();
                let text = if cause.is_empty() { one.what.clone() } else { format!("{}: {cause}", one.what) };
                (program, if one.level == "info" { cells::dash() } else { one.level.clone() }, text)
            }
        };
        let outage = one.outage_ms.map_or_else(cells::dash, outage);
        table.row([moment(one.time_ms), one.host.clone(), what, change, outage, cause]);
    }
    table.to_string()
}

/// `66ms`, `1.250s`, `3m05s`
fn outage(millis: u64) -> String {
    match millis {
        ..1000 => format!("{millis}ms"),
        1000..60_000 => format!("{}.{:03}s", millis / 1000, millis % 1000),
        _ => cells::time(millis),
    }
}

/// `TIME HOST PROGRAM LEVEL MESSAGE key=value ...`
pub(super) fn logs(said: &[Said]) -> String {
    let mut text = String::new();
    for said in said {
        let program = said.program.strip_prefix("evermq-").unwrap_or(&said.program);
        let level = said.level.to_uppercase();
        let mut line = format!("{} {} {program} {level:<5} {}", moment(said.time_ms), said.host, said.message);
        for (key, value) in &said.fields {
            line.push_str(&format!(" {key}={}", field(value)));
        }
        // A field may carry what a client sent.
        text.extend(line.chars().map(|c| if c.is_control() { '?' } else { c }));
        text.push('\n');
    }
    text
}

fn field(value: &Value) -> String {
    match value.as_str() {
        Some(text) if text.contains([' ', '"', '=']) || text.is_empty() => format!("{text:?}"),
        Some(text) => text.to_owned(),
        None => value.to_string(),
    }
}

/// `2026-11-23 15:20:11.250`
fn moment(time_ms: u64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]");
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_ms) * 1_000_000)
        .ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_transition_is_a_row_and_a_line_is_a_line() {
        let transition = Transition {
            time_ms: 1_795_447_211_250,
            host: "lb2".to_owned(),
            program: "evermq-vip".to_owned(),
            level: "info".to_owned(),
            what: "VIP 10.0.0.1".to_owned(),
            from: Some("backup".to_owned()),
            to: Some("master".to_owned()),
            cause: Some("master 10.0.0.11 fell silent".to_owned()),
            outage_ms: Some(66),
        };
        let alarm =
            Transition { from: None, to: None, outage_ms: None, level: "warn".to_owned(), ..transition.clone() };
        assert_eq!(
            events(&[transition, alarm], true),
            "TIME                     HOST  WHAT          CHANGE            OUTAGE  CAUSE\n\
             2026-11-23 15:20:11.250  lb2   VIP 10.0.0.1  backup -> master  66ms    master 10.0.0.11 fell silent\n\
             2026-11-23 15:20:11.250  lb2   vip           warn              -       VIP 10.0.0.1: master 10.0.0.11 fell silent\n"
        );
        assert_eq!([999, 1250, 185_000].map(outage), ["999ms", "1.250s", "3m05s"]);
        let fields = json!({ "backend": "broker1", "count": 3, "reason": "a \u{1b}b" });
        let Value::Object(fields) = fields else { unreachable!("it is one") };
        let said = Said {
            id: 1,
            host: "lb1".to_owned(),
            program: "evermq-lb".to_owned(),
            time_ms: 0,
            level: "warn".to_owned(),
            message: "backend changed".to_owned(),
            fields,
        };
        let expected =
            "1970-01-01 00:00:00.000 lb1 lb WARN  backend changed backend=broker1 count=3 reason=\"a \\u{1b}b\"\n";
        assert_eq!(logs(&[said]), expected);
    }
}
