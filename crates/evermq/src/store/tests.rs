use std::borrow::Cow;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use evermq_mqtt::{Publish, QoS, Text, TopicName};
use evermq_store::{Handle, Record, SessionState, Settings, Store, StoredMessage, Sync, Waiting, WallTime, open};

use super::*;

fn opened(path: &Path) -> std::sync::Arc<Store> {
    let settings = Settings { path: path.to_owned(), sync: Sync::Never, segment_size: 1 << 20, max_size: 32 << 20 };
    open(&settings, WallTime(1)).unwrap().0
}

/// A session for which a message waits.
fn write(store: &Store) -> Handle {
    let session = store.new_session();
    store.append(&Record::Session(SessionState {
        session,
        client_id: Cow::Borrowed("meter"),
        user: None,
        expiry: 60,
        will: None,
        connected: true,
        at: WallTime(5),
    }));
    let publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: TopicName::new(Text::new("a/b").unwrap()).unwrap(),
        packet_id: None,
        properties: None,
        payload: Bytes::from_static(b"\xFF\x01"),
    };
    let message = StoredMessage {
        publish: &publish,
        stamp_time: 9,
        stamp_origin: "broker1",
        received: WallTime(6),
        retained: false,
        from: None,
    };
    let (handle, _) = store.append_message(&message).unwrap();
    let waiting = Waiting { message: handle.id(), qos: QoS::AtLeastOnce, retain: false, ids: Cow::Borrowed(&[3]) };
    store.append(&Record::Enqueue { session, waiting });
    handle
}

#[test]
fn a_good_store_is_shown_as_a_table_and_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let store = opened(directory.path());
    let _message = write(&store);
    let checked = inspect::check(directory.path()).unwrap();
    assert_eq!(checked.held_by, Some(std::process::id().to_string()));
    store.close();
    let checked = inspect::check(directory.path()).unwrap();
    assert_eq!(checked.held_by, None);
    let text = to_text(&checked);
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["SEGMENT", "BYTES", "USED", "RECORDS", "DAMAGED", "FILE"]);
    assert_eq!((lines[1][0], lines[1][1], lines[1][4]), ("1", lines[1][2], "0"), "{text}");
    assert!(text.contains("\nmessages that wait          1\n"), "{text}");
    assert!(text.ends_with("good: every record can be read\n"), "{text}");
    let json = to_json(&checked);
    assert_eq!((&json["good"], &json["sessions"], &json["waiting"]), (&true.into(), &1.into(), &1.into()), "{json}");
}

#[test]
fn each_record_is_a_line_of_json() {
    let directory = tempfile::tempdir().unwrap();
    let store = opened(directory.path());
    let message = write(&store);
    store.close();
    let mut lines = Vec::new();
    inspect::dump(directory.path(), |located| lines.push(dump::line(&located))).unwrap();
    let kinds: Vec<_> =
        lines.iter().filter_map(|line| line["kind"].as_str()).filter(|kind| *kind != "commit").collect();
    assert_eq!(kinds, ["session", "message", "enqueue"]);
    let found = |kind: &str| lines.iter().find(|line| line["kind"] == kind).unwrap();
    assert_eq!(found("session")["client_id"], "meter");
    let publish = &found("message")["publish"];
    assert_eq!((&publish["topic"], &publish["payload_hex"]), (&"a/b".into(), &"ff01".into()));
    let waiting = &found("enqueue")["waiting"];
    assert_eq!((&waiting["message"], &waiting["ids"]), (&message.id().0.into(), &json!([3])));
    assert_eq!((&lines[0]["segment"], &lines[0]["offset"]), (&1.into(), &96.into()));
}

#[test]
fn damage_is_shown_and_so_is_what_it_costs() {
    let directory = tempfile::tempdir().unwrap();
    let store = opened(directory.path());
    drop(write(&store));
    drop(store);
    // Another one, so that the first is complete.
    drop(write(&opened(directory.path())));
    let file = directory.path().join("0000000000000001.log");
    let mut bytes = fs::read(&file).unwrap();
    let mut message = 0;
    inspect::dump(directory.path(), |located| {
        if located.segment.0 == 1 && located.kind == evermq_store::Kind::Message {
            message = located.offset;
        }
    })
    .unwrap();
    bytes[usize::try_from(message).unwrap() + 20] ^= 1;
    fs::write(&file, bytes).unwrap();
    let checked = inspect::check(directory.path()).unwrap();
    assert!(!is_good(&checked));
    let text = to_text(&checked);
    assert!(text.contains(&format!("from byte {message}, ")), "{text}");
    assert!(text.ends_with("the broker serves the rest\n"), "{text}");
    assert_eq!(to_json(&checked)["damage"][0]["lost"], "the records that stood there");
}

#[test]
fn where_there_is_no_store_it_says_so_and_makes_none() {
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().to_owned(), directory.path().join("none")] {
        let error = inspect::check(&path).unwrap_err();
        assert!(error.to_string().starts_with("there is no store in "), "{error}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
