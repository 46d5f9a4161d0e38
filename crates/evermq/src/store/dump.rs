//! `evermq store dump`: records as lines of JSON.

use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::process::ExitCode;

use evermq_mqtt::Publish;
use evermq_store::inspect::{self, Located};
use evermq_store::{Entry, MessageRecord, OriginLog, Record, SessionState, Source, Waiting, decode_publish};
use serde_json::{Map, Value, json};

use crate::command::CommandError;
use crate::output;

/// Prints them.
pub(super) fn run(path: &Path) -> Result<ExitCode, CommandError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut result = Ok(());
    let report = inspect::dump(path, |located| {
        if result.is_ok() {
            result = writeln!(out, "{}", line(&located));
        }
    })?;
    output::ignore_closed_pipe(result.and_then(|()| out.flush()))?;
    for damage in &report.damage {
        let (file, offset, len) = (damage.file.display(), damage.offset, damage.len);
        output::complain(&format!("evermq: damaged: {file} from byte {offset}, {len} bytes: lost is {}", damage.lost));
    }
    Ok(if report.damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn line(located: &Located<'_>) -> Value {
    let mut line = Map::new();
    line.insert("segment".into(), located.segment.0.into());
    line.insert("offset".into(), located.offset.into());
    line.insert("bytes".into(), located.len.into());
    line.insert("kind".into(), located.kind.to_string().into());
    let fields = match &located.entry {
        Some(Entry::Record(record)) => record_fields(record),
        Some(Entry::Message(message)) => message_fields(message),
        Some(Entry::Commit { synced }) => json!({ "synced": synced }),
        None => json!({ "unreadable": true }),
    };
    if let Value::Object(fields) = fields {
        line.extend(fields);
    }
    Value::Object(line)
}

fn record_fields(record: &Record<'_>) -> Value {
    match record {
        Record::Session(state) => state_fields(state),
        Record::SessionEnd { session } => json!({ "session": session.0 }),
        Record::Subscribe { session, filter, options, id } => {
            json!({ "session": session.0, "filter": filter, "options": options, "id": id })
        }
        Record::Unsubscribe { session, filter } => json!({ "session": session.0, "filter": filter }),
        Record::Enqueue { session, waiting } => json!({ "session": session.0, "waiting": waiting_fields(waiting) }),
        Record::Moved { from, session, waiting } => {
            json!({ "from": from.0, "session": session.0, "waiting": waiting_fields(waiting) })
        }
        Record::Sent { session, message, packet_id } => {
            json!({ "session": session.0, "message": message.0, "packet_id": packet_id })
        }
        Record::Dropped { session, message } => json!({ "session": session.0, "message": message.0 }),
        Record::Released { session, packet_id }
        | Record::Done { session, packet_id }
        | Record::Received { session, packet_id }
        | Record::ReceivedDone { session, packet_id } => json!({ "session": session.0, "packet_id": packet_id }),
        Record::Snapshot(snapshot) => {
            let mut fields = state_fields(&snapshot.state);
            let subscriptions = snapshot
                .subscriptions
                .iter()
                .map(|(filter, options, id)| json!({ "filter": filter, "options": options, "id": id }));
            fields["subscriptions"] = subscriptions.collect();
            fields["waiting"] = snapshot.waiting.iter().map(waiting_fields).collect();
            let inflight = snapshot.inflight.iter().map(|(packet_id, waiting)| {
                json!({ "packet_id": packet_id, "waiting": waiting.as_ref().map(waiting_fields) })
            });
            fields["inflight"] = inflight.collect();
            fields["received"] = json!(snapshot.received);
            fields["next_packet_id"] = json!(snapshot.next_packet_id);
            fields
        }
        Record::RetainedGone { topic } => json!({ "topic": topic }),
        Record::OriginLog(OriginLog { epoch, reserved, first, kept }) => {
            json!({ "epoch": epoch, "reserved": reserved, "first": first, "kept": kept })
        }
        Record::Forward { seq, message, giver, directions } => json!({
            "seq": seq, "message": message.0, "giver": giver.map(|giver| giver.0),
            "directions": directions.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        }),
        Record::PeerCursor { peer, seq } => json!({ "peer": peer, "seq": seq }),
        Record::Applied { origin, epoch, seq } => json!({ "origin": origin, "epoch": epoch, "seq": seq }),
        Record::WillDue { will, session, publish } => {
            json!({ "will": will.0, "session": session.0, "publish": publish_bytes(publish) })
        }
        Record::WillSent { will } => json!({ "will": will.0 }),
    }
}

fn state_fields(state: &SessionState<'_>) -> Value {
    let will = state.will.as_ref().map(|will| json!({ "delay": will.delay, "publish": publish_bytes(&will.publish) }));
    json!({
        "session": state.session.0,
        "client_id": state.client_id,
        "user": state.user,
        "expiry": state.expiry,
        "will": will,
        "connected": state.connected,
        "at": state.at.0,
    })
}

fn waiting_fields(waiting: &Waiting<'_>) -> Value {
    json!({ "message": waiting.message.0, "qos": waiting.qos as u8, "retain": waiting.retain, "ids": waiting.ids })
}

fn message_fields(message: &MessageRecord<'_>) -> Value {
    json!({
        "message": message.id.0,
        "stamp_time": message.stamp_time,
        "stamp_origin": message.stamp_origin,
        "received": message.received.0,
        "retained": message.retained,
        "from": message.from.map(|source| match source {
            Source::Client { session, packet_id } => json!({ "session": session.0, "packet_id": packet_id }),
            Source::Peer { epoch, seq } => json!({ "epoch": epoch, "seq": seq }),
            Source::Will { will } => json!({ "will": will.0 }),
        }),
        "publish": publish_bytes(message.publish),
    })
}

fn publish_bytes(bytes: &[u8]) -> Value {
    decode_publish(bytes).map_or(Value::Null, |publish| publish_fields(&publish))
}

fn publish_fields(publish: &Publish) -> Value {
    let mut fields = json!({ "topic": publish.topic.as_str(), "qos": publish.qos as u8, "retain": publish.retain });
    match std::str::from_utf8(&publish.payload) {
        Ok(text) => fields["payload"] = text.into(),
        Err(_) => fields["payload_hex"] = hex(&publish.payload).into(),
    }
    let Some(properties) = publish.properties.as_deref() else { return fields };
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            fields[name] = value;
        }
    };
    put("payload_is_utf8", properties.payload_is_utf8.map(Value::from));
    put("message_expiry", properties.message_expiry.map(Value::from));
    put("content_type", properties.content_type.as_ref().map(|text| text.as_str().into()));
    put("response_topic", properties.response_topic.as_ref().map(|text| text.as_str().into()));
    put("correlation_data_hex", properties.correlation_data.as_ref().map(|data| hex(data).into()));
    let pairs = properties.user_properties.iter().map(|(name, value)| json!([name.as_str(), value.as_str()]));
    put("user_properties", (!properties.user_properties.is_empty()).then(|| pairs.collect()));
    fields
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
