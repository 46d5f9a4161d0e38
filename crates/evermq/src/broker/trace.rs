//! `evermq trace`: one client's packets as they come and go.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::BROKER;
use crate::asking::ProgramArgs;
use crate::command::CommandError;
use crate::output;

/// `evermq trace CLIENT`
#[derive(Debug, Args)]
#[command(after_help = "evermq trace meter-17\n\
                  evermq trace meter-17 --for 10m --payload\n\n\
                  The client need not be connected yet. `<` came from it, `>` went to it. Times are UTC. Other clients are not \
                  slowed down; what comes too fast to be shown is counted.\n\n\
                  Exit status: 0 the time is over, or the broker has ended; 1 the broker does not answer or would not; 2 the \
                  command line or the file is wrong.")]
pub struct TraceArgs {
    /// The client identifier
    #[arg(value_name = "CLIENT")]
    client: String,
    /// How long, such as 30s, 10m or 1h; at most a day
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = duration)]
    time: Duration,
    /// Show payloads too, the first kilobyte of each
    #[arg(long)]
    payload: bool,
    #[command(flatten)]
    broker: ProgramArgs,
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a whole number with s, m or h, such as 60s; at most a day".to_owned();
    let digits = text.len() - text.chars().last().map_or(0, char::len_utf8);
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let seconds = match &text[digits..] {
        "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3600),
        _ => None,
    };
    seconds.filter(|seconds| (1..=86_400).contains(seconds)).map(Duration::from_secs).ok_or_else(wrong)
}

/// Prints a client's packets until the time is over.
///
/// # Errors
/// The cluster file is wrong, the host is none of its brokers, its broker does not answer, or standard output cannot be
/// written.
pub fn run(args: &TraceArgs) -> Result<ExitCode, CommandError> {
    let broker = BROKER.find(&args.broker)?;
    let millis = u64::try_from(args.time.as_millis()).unwrap_or(u64::MAX);
    let request = json!({ "request": "trace", "client": args.client, "for_ms": millis, "payload": args.payload });
    let (mut begun, mut failed) = (false, None);
    broker.follow(&request, |line| {
        if !std::mem::replace(&mut begun, true) {
            // Where the output goes into a file, this is not in it.
            let there = if line["connected"] == true { "is connected" } else { "is not connected yet" };
            output::complain(&format!("{} {there}; following it for {} s", args.client, args.time.as_secs()));
            return ControlFlow::Continue(());
        }
        let text = if args.broker.json { format!("{line}\n") } else { format!("{}\n", shown(&line)) };
        match output::offer(&text) {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// One line: time, direction, packet, then what it carries.
fn shown(line: &Value) -> String {
    if let Some(event) = line["event"].as_str() {
        let shown = fields(line, &["count", "address", "listener", "user", "tls", "version"]);
        return format!("{} - {event}{shown}", time_of_day(line));
    }
    let direction = if line["direction"] == "in" { '<' } else { '>' };
    let mut text = format!("{} {direction} {}", time_of_day(line), line["packet"].as_str().unwrap_or("?"));
    text.push_str(&fields(line, &["packet_id", "topic", "qos", "retain", "dup", "payload_bytes", "topic_alias"]));
    text.push_str(&fields(line, &["message_expiry", "content_type", "response_topic", "user_properties"]));
    text.push_str(&fields(line, &["subscription_id", "subscription_ids", "session_present", "method"]));
    for filter in line["filters"].as_array().into_iter().flatten() {
        text.push_str(&fields(filter, &["filter", "qos", "no_local", "retain_as_published", "retain_handling"]));
    }
    let reasons = line["reasons"].as_array().cloned().unwrap_or_default();
    for reason in std::iter::once(&line["reason"]).chain(&reasons).filter(|reason| !reason.is_null()) {
        let code = reason["code"].as_u64().unwrap_or(0);
        text.push_str(&format!(" reason={code:#04x} ({})", reason["name"].as_str().unwrap_or_default()));
    }
    text.push_str(&fields(line, &["reason_string", "bytes"]));
    let payload = &line["payload"];
    if let Some((kind, shown)) = ["text", "hex"].into_iter().find_map(|kind| Some((kind, payload[kind].as_str()?))) {
        let more = if line["payload_truncated"] == true { "..." } else { "" };
        let shown = if kind == "text" { format!("{shown:?}") } else { shown.to_owned() };
        text.push_str(&format!(" payload={shown}{more}"));
    }
    text
}

/// Those that are there and say something.
fn fields(line: &Value, names: &[&str]) -> String {
    let shown = names.iter().filter_map(|name| match &line[*name] {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some(format!(" {name}")),
        // Quoted where a terminal, or whoever splits the line, could take it for something else.
        Value::String(text) if text.chars().any(|c| c.is_control() || c == ' ' || c == '"') => {
            Some(format!(" {name}={text:?}"))
        }
        Value::String(text) => Some(format!(" {name}={text}")),
        other => Some(format!(" {name}={other}")),
    });
    shown.collect()
}

fn time_of_day(line: &Value) -> String {
    let Some(millis) = line["at_ms"].as_u64() else { return "            ".to_owned() };
    let (seconds, millis) = (millis / 1000 % 86_400, millis % 1000);
    format!("{:02}:{:02}:{:02}.{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_short_and_whole() {
        let publish = json!({
            "at_ms": 3_723_004_u64, "direction": "in", "packet": "PUBLISH", "packet_id": 7, "topic": "a b", "qos": 1,
            "retain": true, "dup": false, "payload_bytes": 5, "bytes": 14, "payload": { "text": "x\u{1b}y" },
        });
        assert_eq!(
            shown(&publish),
            "01:02:03.004 < PUBLISH packet_id=7 topic=\"a b\" qos=1 retain payload_bytes=5 bytes=14 payload=\"x\\u{1b}y\""
        );
        let puback = json!({ "at_ms": 0, "direction": "out", "packet": "PUBACK", "packet_id": 7, "bytes": 4,
            "reason": { "code": 135, "name": "Not authorized" } });
        assert_eq!(shown(&puback), "00:00:00.000 > PUBACK packet_id=7 reason=0x87 (Not authorized) bytes=4");
        let subscribe = json!({ "at_ms": 0, "direction": "in", "packet": "SUBSCRIBE", "packet_id": 1, "bytes": 9,
            "filters": [{ "filter": "a/#", "qos": 2, "no_local": false, "retain_handling": 0 }] });
        assert_eq!(
            shown(&subscribe),
            "00:00:00.000 < SUBSCRIBE packet_id=1 filter=a/# qos=2 retain_handling=0 bytes=9"
        );
        assert_eq!(shown(&json!({ "event": "lines lost", "count": 5 })), "             - lines lost count=5");
    }

    #[test]
    fn times_are_read() {
        for (text, seconds) in [("60s", 60), ("10m", 600), ("24h", 86_400), ("1s", 1)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "60", "0s", "25h", "1d", "-1s", "1.5m", "10ü", "99999999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
