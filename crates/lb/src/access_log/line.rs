//! One line of the access log: text, or a JSON object. Pure.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::record::Record;

/// A record's words in their order; where there is none, the text shows `-` and JSON `null`.
struct Fields(Vec<(&'static str, Value)>);

/// Appends `ended`, which ended at `wall`, as one line of `key=value`.
pub(super) fn text(ended: &Record, wall: SystemTime, line: &mut Vec<u8>) {
    let mut output = String::with_capacity(320);
    for (key, value) in fields(ended, wall).0 {
        if !output.is_empty() {
            output.push(' ');
        }
        output.push_str(key);
        output.push('=');
        match value {
            Value::Null => output.push('-'),
            Value::String(value) => quote(&value, &mut output),
            other => {
                // Writing to a string does not fail.
                let _ = write!(output, "{other}");
            }
        }
    }
    output.push('\n');
    line.extend_from_slice(output.as_bytes());
}

/// Appends it as one line with a JSON object.
pub(super) fn json(ended: &Record, wall: SystemTime, line: &mut Vec<u8>) {
    let object: Map<String, Value> =
        fields(ended, wall).0.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    line.extend_from_slice(Value::Object(object).to_string().as_bytes());
    line.push(b'\n');
}

fn fields(ended: &Record, wall: SystemTime) -> Fields {
    let time = OffsetDateTime::from(wall).replace_millisecond(
        // The same moment, without digits that nobody reads.
        OffsetDateTime::from(wall).millisecond(),
    );
    let time = time.ok().and_then(|time| time.format(&Rfc3339).ok());
    let word = |word: Option<&str>| word.map_or(Value::Null, |word| Value::String(word.to_owned()));
    let times = ended.times;
    Fields(vec![
        ("time", word(time.as_deref())),
        ("id", ended.id.into()),
        ("client", ended.client.to_string().into()),
        ("listener", word(Some(&ended.listener))),
        ("mode", word(Some(ended.mode.name()))),
        ("sni", word(ended.sni.as_deref())),
        ("client_id", word(ended.client_id.as_deref())),
        ("backend", word(ended.backend.as_deref())),
        ("why", word(Some(ended.why.name()))),
        ("bytes_in", ended.bytes_in.into()),
        ("bytes_out", ended.bytes_out.into()),
        ("greeting_ms", times.greeting.map(millis).into()),
        ("queue_ms", times.queue.map(millis).into()),
        ("connect_ms", times.connect.map(millis).into()),
        ("handshake_ms", times.handshake.map(millis).into()),
        ("total_ms", millis(times.total).into()),
        ("tls", word(ended.tls_version)),
        ("tls_resumed", ended.tls_version.map_or(Value::Null, |_| ended.tls_resumed.into())),
        ("cn", word(ended.common_name.as_deref())),
    ])
}

/// Milliseconds, to the microsecond.
pub(super) fn millis(time: Duration) -> f64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    #[expect(clippy::cast_precision_loss, reason = "exact for three hundred years")]
    let micros = micros as f64;
    micros / 1000.0
}

/// As it is where it cannot be misread, else in quotes: clients choose some of these words.
fn quote(word: &str, output: &mut String) {
    let plain = |c: char| c.is_alphanumeric() || "._:/+-[]*@".contains(c);
    if !word.is_empty() && word != "-" && word.chars().all(plain) {
        return output.push_str(word);
    }
    output.push('"');
    for c in word.chars() {
        match c {
            '"' | '\\' => output.extend(['\\', c]),
            c if c.is_control() => output.extend(c.escape_unicode()),
            c => output.push(c),
        }
    }
    output.push('"');
}

#[cfg(test)]
mod tests {
    use super::super::record::example;
    use super::*;

    fn record() -> Record {
        Record { backend: Some("broker1".into()), ..Record::of(&example()) }
    }

    fn wall() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456)
    }

    fn written(write: fn(&Record, SystemTime, &mut Vec<u8>), ended: &Record) -> String {
        let mut line = Vec::new();
        write(ended, wall(), &mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn text_has_every_word_in_its_place() {
        assert_eq!(
            written(text, &record()),
            "time=2023-11-14T22:13:20.123Z id=7 client=192.0.2.1:40000 listener=main \
             mode=passthrough sni=mqtt.example.org client_id=- backend=broker1 why=client_closed bytes_in=100 \
             bytes_out=2000 greeting_ms=1.5 queue_ms=0.001 connect_ms=0.499 handshake_ms=10.0 total_ms=60000.0 tls=- \
             tls_resumed=- cn=-\n"
        );
    }

    #[test]
    fn json_has_the_same_words() {
        let tls = Record { tls_version: Some("1.3"), tls_resumed: true, common_name: Some("c".into()), ..record() };
        let value: Value = serde_json::from_str(&written(json, &tls)).unwrap();
        assert_eq!(value["sni"], "mqtt.example.org");
        assert_eq!((&value["bytes_out"], &value["handshake_ms"]), (&2000.into(), &10.0.into()));
        assert_eq!(
            (&value["client_id"], &value["tls_resumed"], &value["cn"]),
            (&Value::Null, &true.into(), &"c".into())
        );
        let keys = |text: &str| text.split(' ').map(|word| word.split('=').next().unwrap().to_owned()).collect();
        let mut words: Vec<String> = keys(written(text, &tls).trim_end());
        words.sort();
        assert_eq!(value.as_object().unwrap().keys().cloned().collect::<Vec<_>>(), words);
    }

    #[test]
    fn what_a_client_chooses_cannot_make_another_line_or_word() {
        let mean = |id: &str| Record { client_id: Some(id.into()), ..record() };
        let line = written(text, &mean("a\nwhy=idle \"x\\\u{1b}"));
        assert_eq!(line.lines().count(), 1);
        assert!(line.contains(r#" client_id="a\u{a}why=idle \"x\\\u{1b}" backend="#), "{line}");
        assert!(written(text, &mean("-")).contains(" client_id=\"-\" "));
        assert!(written(text, &mean("")).contains(" client_id=\"\" "));
        assert_eq!(written(json, &mean("a\nb")).lines().count(), 1);
    }
}
