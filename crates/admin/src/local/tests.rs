use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;

const PATIENCE: Duration = Duration::from_secs(5);

fn named(name: &'static str, socket: PathBuf) -> Program {
    Program { name, socket }
}

/// A program that answers each connection with `answers`, in turn, then is gone.
fn served(dir: &Path, answers: Vec<String>) -> (PathBuf, thread::JoinHandle<Vec<String>>) {
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

#[test]
fn a_program_is_asked_for_health_and_state() {
    let dir = tempfile::tempdir().unwrap();
    let about = r#"{"ok":{"version":"9.9.9","pid":7,"open_files":3,"max_open_files":9,"resident_bytes":1,"cpu_seconds":0.5,"certificate_until":null}}"#;
    let answers =
        [r#"{"health":"degraded"}"#, r#"{"ok":{"state":"master"}}"#, about].map(|answer| format!("{answer}\n"));
    let (socket, requests) = served(dir.path(), answers.to_vec());
    let status = ask(&named("evermq-vip", socket), PATIENCE);
    assert_eq!(
        requests.join().unwrap(),
        ["health", "state", "about"].map(|name| format!("{{\"request\":\"{name}\"}}\n"))
    );
    assert_eq!(status.health, Health::Degraded);
    assert_eq!(status.state, json!({ "state": "master" }));
    assert_eq!(status.about.map(|about| (about.version, about.pid)), Some(("9.9.9".to_owned(), 7)));
    assert_eq!((status.error, status.help), (None, None));
}

#[test]
fn a_program_that_does_not_run_is_down_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = ask(&named("evermq-lb", dir.path().join("lb.sock")), PATIENCE);
    assert_eq!(missing.health, Health::Down);
    assert!(missing.help.as_ref().unwrap().contains("systemctl start evermq-lb"), "{missing:?}");
    // A socket file that a killed program left behind.
    let left = dir.path().join("left.sock");
    drop(UnixListener::bind(&left).unwrap());
    let killed = ask(&named("evermq-lb", left), PATIENCE);
    assert!(killed.help.as_ref().unwrap().contains("systemctl start evermq-lb"), "{killed:?}");
}

#[test]
fn a_stuck_program_is_told_from_one_that_does_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("lb.sock");
    // Connections wait in the backlog; nobody ever answers.
    let _listener = UnixListener::bind(&socket).unwrap();
    let status = ask(&named("evermq-lb", socket), Duration::from_millis(20));
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
    let status = ask(&named("evermq-lb", socket), PATIENCE);
    program.join().unwrap();
    assert!(status.help.as_ref().unwrap().contains("systemctl start evermq-lb"), "{status:?}");
}

#[test]
fn an_answer_that_is_no_health_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, requests) = served(dir.path(), vec!["hello\n".to_owned()]);
    let status = ask(&named("evermq-lb", socket), PATIENCE);
    requests.join().unwrap();
    assert_eq!((status.health, status.state), (Health::Down, Value::Null));
}
