use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;

const PATIENCE: Duration = Duration::from_secs(5);

/// A program that answers each connection with `answers`, in turn, then is gone.
fn program(dir: &Path, answers: Vec<String>) -> (PathBuf, thread::JoinHandle<Vec<String>>) {
    let path = dir.join("program.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let requests = thread::spawn(move || {
        let answer = |answer: &String| {
            let (stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            (&stream).write_all(answer.as_bytes()).unwrap();
            request
        };
        answers.iter().map(answer).collect()
    });
    (path, requests)
}

fn host(programs: Vec<ProgramStatus>) -> HostStatus {
    HostStatus { host: "lb1".to_owned(), health: Health::Up, programs }
}

fn up(program: &'static str, state: Value) -> ProgramStatus {
    ProgramStatus { program, socket: "x.sock".into(), health: Health::Up, state, error: None, help: None }
}

#[test]
fn a_program_is_asked_for_health_and_state() {
    let dir = tempfile::tempdir().unwrap();
    let answers = vec!["{\"health\":\"degraded\"}\n".to_owned(), "{\"ok\":{\"state\":\"master\"}}\n".to_owned()];
    let (socket, requests) = program(dir.path(), answers);
    let status = ProgramStatus::ask("evermq-vip", socket, PATIENCE);
    assert_eq!(requests.join().unwrap(), ["{\"request\":\"health\"}\n", "{\"request\":\"state\"}\n"]);
    assert_eq!(status.health, Health::Degraded);
    assert_eq!(status.state, json!({ "state": "master" }));
    assert_eq!((status.error, status.help), (None, None));
}

#[test]
fn a_program_that_does_not_run_is_down_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = ProgramStatus::ask("evermq-lb", dir.path().join("lb.sock"), PATIENCE);
    assert_eq!(missing.health, Health::Down);
    assert!(missing.help.as_ref().unwrap().contains("systemctl start evermq-lb"), "{missing:?}");
    // A socket file that a killed program left behind.
    let left = dir.path().join("left.sock");
    drop(UnixListener::bind(&left).unwrap());
    let killed = ProgramStatus::ask("evermq-lb", left, PATIENCE);
    assert!(killed.help.as_ref().unwrap().contains("systemctl start evermq-lb"), "{killed:?}");
}

#[test]
fn a_stuck_program_is_told_from_one_that_does_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("lb.sock");
    // Connections wait in the backlog; nobody ever answers.
    let _listener = UnixListener::bind(&socket).unwrap();
    let status = ProgramStatus::ask("evermq-lb", socket, Duration::from_millis(20));
    assert_eq!(status.health, Health::Down);
    assert!(status.help.as_ref().unwrap().contains("stuck"), "{status:?}");
}

#[test]
fn a_program_that_ends_as_it_is_asked_does_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("lb.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let program = thread::spawn(move || {
        let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut waiting, PollTimeout::NONE).unwrap();
    });
    let status = ProgramStatus::ask("evermq-lb", socket, PATIENCE);
    program.join().unwrap();
    assert!(status.help.as_ref().unwrap().contains("systemctl start evermq-lb"), "{status:?}");
}

#[test]
fn an_answer_that_is_no_health_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, requests) = program(dir.path(), vec!["hello\n".to_owned()]);
    let status = ProgramStatus::ask("evermq-lb", socket, PATIENCE);
    requests.join().unwrap();
    assert_eq!((status.health, status.state), (Health::Down, Value::Null));
}

#[test]
fn the_table_shows_whatever_a_program_says() {
    let lb = json!({
        "host": "lb1",
        "listen": "0.0.0.0:9000",
        "connections": { "current": 0, "total": 12 },
        "draining": false,
        "backends": [
            { "name": "broker1", "state": "up", "connections": 12, "refused": 0 },
            { "name": "broker2", "connected": false, "last_error": "timed out", "times": { "connect_ms": 3 } },
        ],
    });
    let vip = json!({
        "priority": 200,
        "state": "master",
        "master": null,
        "transitions": [{ "from": "initialize", "to": "backup" }, { "from": "backup", "to": "master" }],
        "instances": [{ "name": "vip", "state": "master" }, { "name": "six", "state": "backup", "vrid": 52 }],
        "bridge": { "lag": 0, "peers": [{ "name": "broker2", "connected": true, "lag": 7 }] },
    });
    assert_eq!(
        render::text(&host(vec![up("evermq-lb", lb), up("evermq-vip", vip)])),
        "PROGRAM            HEALTH  DETAILS\n\
         host lb1           up\n\
         evermq-lb          up      listen 0.0.0.0:9000, draining no\n\
         \x20 backend broker1  up      connections 12\n\
         \x20 backend broker2  down    last error timed out\n\
         \x20   times                  connect ms 3\n\
         \x20 connections              total 12\n\
         evermq-vip         up      state master, priority 200\n\
         \x20 bridge\n\
         \x20   peer broker2   up      lag 7\n\
         \x20 instance six     backup  vrid 52\n\
         \x20 last transition          from backup, to master\n"
    );
}

#[test]
fn what_is_wrong_comes_first() {
    let broker = json!({
        "host": "broker1",
        "readiness": "ready",
        "trouble": "no room for the store in /var/lib/evermq: free disk space",
        "store": { "state": "full", "bytes": 7, "damaged_bytes": 0 },
    });
    let program = ProgramStatus { health: Health::Degraded, ..up("evermq-broker", broker) };
    let status = HostStatus { health: Health::Degraded, ..host(vec![program]) };
    assert_eq!(
        render::text(&status),
        "PROGRAM        HEALTH    DETAILS\n\
         host lb1       degraded\n\
         evermq-broker  degraded  trouble no room for the store in /var/lib/evermq: free disk space, readiness ready\n\
         \x20 store                  state full, bytes 7\n"
    );
}

#[test]
fn odd_states_do_not_upset_the_table() {
    for state in [Value::Null, json!([]), json!("text"), json!({}), json!({ "list": [1, [2], { "a": null }] })] {
        let text = render::text(&host(vec![up("evermq-lb", state)]));
        assert!(text.contains("evermq-lb"), "{text}");
    }
}

#[test]
fn advice_follows_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let text = render::text(&host(vec![ProgramStatus::ask("evermq-lb", dir.path().join("lb.sock"), PATIENCE)]));
    assert!(text.contains("evermq-lb  down    no answer from "), "{text}");
    assert!(text.contains("\n\nevermq-lb: it does not run: systemctl start evermq-lb"), "{text}");
}
