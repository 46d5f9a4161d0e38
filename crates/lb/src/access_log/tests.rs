use super::*;

fn open(path: &std::path::Path) -> Target {
    Target::open(&lb::AccessLog::File(path.to_owned())).unwrap()
}

fn record(id: u64) -> Box<Record> {
    Box::new(Record { id, ended: clock(), ..Record::of(&example()) })
}

fn ids(path: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| line.split(' ').nth(1).unwrap_or_default().to_owned()).collect()
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = clock() + Duration::from_secs(10);
    while !condition() {
        assert!(clock() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn lines_are_appended_and_come_without_being_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    std::fs::write(&path, "old line\n").unwrap();
    let log = AccessLog::start(open(&path), LogFormat::Text).unwrap();
    log.hand().write(record(1));
    eventually("the line is written", || ids(&path) == ["line", "id=1"]);
    eventually("it is counted", || log.figures() == Figures { written: 1, ..Figures::default() });
    log.hand().write(record(2));
    log.finish();
    assert_eq!(ids(&path), ["line", "id=1", "id=2"]);
}

#[test]
fn a_file_that_was_moved_away_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let (path, old) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
    let log = AccessLog::start(open(&path), LogFormat::Text).unwrap();
    log.hand().write(record(1));
    std::fs::rename(&path, &old).unwrap();
    eventually("still written to the one that it has open", || ids(&old) == ["id=1"]);
    log.turn_to(open(&path));
    eventually("taken", || log.hand.shared.next.lock().unwrap().is_none());
    log.hand().write(record(2));
    log.finish();
    assert_eq!((ids(&old), ids(&path)), (vec!["id=1".to_owned()], vec!["id=2".to_owned()]));
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let full = Target::File(OpenOptions::new().write(true).open("/dev/full").unwrap(), "/dev/full".into());
    let log = AccessLog::start(full, LogFormat::Json).unwrap();
    for id in 0..10 {
        log.hand().write(record(id));
    }
    eventually("they are counted", || log.figures().failed == 10);
    let path = directory.path().join("access.log");
    log.turn_to(open(&path));
    log.hand().write(record(11));
    eventually("it goes on", || log.figures().written == 1);
    log.finish();
    let line: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(line["id"], 11);
}

#[test]
fn a_torn_line_does_not_spoil_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let mut writer = Writer::new(Arc::default(), open(&path), LogFormat::Text);
    std::fs::write(&path, "half a li").unwrap();
    writer.torn = true;
    writer.take(&record(1));
    writer.flush();
    assert_eq!(ids(&path), ["a", "id=1"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
}

#[test]
fn what_does_not_fit_is_dropped_and_counted() {
    let (sender, receiver) = sync_channel(2);
    let shared = Arc::new(Shared::default());
    let hand = Hand { sender, shared: Arc::clone(&shared) };
    hand.write(record(0));
    assert_eq!(receiver.try_iter().count(), 0, "nothing is handed over while it is off");
    shared.on.store(true, Ordering::Relaxed);
    for id in 0..5 {
        hand.write(record(id));
    }
    assert_eq!(hand.figures(), Figures { dropped: 3, ..Figures::default() });
    assert_eq!(receiver.try_iter().count(), 2);
}

#[test]
fn a_file_that_cannot_be_made_is_named() {
    let error = Target::open(&lb::AccessLog::File("/nowhere/access.log".into())).unwrap_err().to_string();
    assert!(error.contains("/nowhere/access.log: No such file") && error.contains("lb.access_log"), "{error}");
    assert!(matches!(Target::open(&lb::AccessLog::Off), Ok(Target::Off)));
    assert!(matches!(Target::open(&lb::AccessLog::Log), Ok(Target::Log)));
}
