use std::io::BufReader;

use serde_json::json;

use super::*;
use crate::health::HealthLine;

struct Served {
    path: PathBuf,
    health: watch::Sender<Health>,
    shutdown: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn served() -> Served {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run").join("x.sock");
    let listener = bind(&path).unwrap();
    let (sender, health) = watch::channel(Health::Up);
    let control = Control { state: Arc::new(|| json!({ "host": "lb1" })), health, requests: Arc::new(own_request) };
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(serve(listener, control, token)).unwrap();
    });
    Served { path, health: sender, shutdown, thread: Some(thread), _directory: directory }
}

fn own_request(name: &str, request: &Value) -> Option<Answer> {
    match name {
        "echo" => Some(Answer::Ok(request["text"].clone())),
        "count" => Some(Answer::Lines(vec![json!(1), json!(2), json!({ "end": true })])),
        "tick" => {
            let (sender, lines) = mpsc::channel(1);
            tokio::spawn(async move {
                let mut number = 0;
                while sender.send(if number == 0 { json!({ "ok": 0 }) } else { json!(number) }).await.is_ok() {
                    number += 1;
                }
            });
            Some(Answer::Stream(lines))
        }
        "fail" => Some(Answer::Error("cannot".to_owned())),
        "later" => Some(Answer::Later(Box::pin(async {
            tokio::task::yield_now().await;
            Answer::Ok(json!("done"))
        }))),
        _ => None,
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn lines_are_followed_for_as_long_as_they_are_wanted() {
    let served = served();
    let mut seen = Vec::new();
    let take = |line: Value| {
        seen.push(line);
        if seen.len() < 5 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    follow(&served.path, &json!({ "request": "tick" }), PATIENCE, take).unwrap();
    assert_eq!(seen, [0, 1, 2, 3, 4].map(|number| json!(number)));
    let error = follow(&served.path, &json!({ "request": "fail" }), PATIENCE, |_| ControlFlow::Continue(()));
    assert!(matches!(&error, Err(ControlError::Refused { text, .. }) if text == "cannot"), "{error:?}");
}

#[test]
fn state_is_answered() {
    let served = served();
    let state = request(&served.path, &json!({ "request": "state" }), PATIENCE).unwrap();
    assert_eq!(state, json!({ "host": "lb1" }));
}

#[test]
fn an_unknown_request_is_an_error() {
    let served = served();
    let error = request(&served.path, &json!({ "request": "dance" }), PATIENCE).unwrap_err();
    assert!(matches!(&error, ControlError::Refused { text, .. } if text == "unknown request \"dance\""), "{error}");
}

#[test]
fn a_program_answers_requests_of_its_own() {
    let served = served();
    let ask = |what: Value| request(&served.path, &what, PATIENCE);
    assert_eq!(ask(json!({ "request": "echo", "text": "a" })).unwrap(), json!("a"));
    assert_eq!(ask(json!({ "request": "later" })).unwrap(), json!("done"));
    let error = ask(json!({ "request": "fail" })).unwrap_err();
    assert!(matches!(&error, ControlError::Refused { text, .. } if text == "cannot"), "{error}");
    let mut stream = UnixStream::connect(&served.path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"{\"request\":\"count\"}\n").unwrap();
    let lines: Vec<_> = BufReader::new(stream).lines().map(Result::unwrap).collect();
    assert_eq!(lines, ["1", "2", "{\"end\":true}"]);
}

#[test]
fn what_names_no_request_is_an_error() {
    let served = served();
    for line in ["{}", "[]", "7", "{\"request\":7}", "nonsense"] {
        let mut stream = UnixStream::connect(&served.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert!(answer.starts_with("{\"error\":\"not a request"), "{line}: {answer}");
    }
}

#[test]
fn health_beats_and_changes_are_told() {
    let served = served();
    let mut stream = UnixStream::connect(&served.path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"{\"request\":\"health\"}\n").unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut next = || serde_json::from_str::<HealthLine>(&lines.next().unwrap().unwrap()).unwrap().health;
    assert_eq!(next(), Health::Up);
    assert_eq!(next(), Health::Up, "repeated without a change");
    served.health.send(Health::Down).unwrap();
    while next() != Health::Down {}
}

#[test]
fn a_long_request_is_cut_off() {
    let served = served();
    let mut stream = UnixStream::connect(&served.path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&vec![b' '; usize::try_from(MAX_REQUEST).unwrap()]).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    assert!(answer.contains("error"), "{answer}");
}

#[test]
fn the_process_that_listens_is_known() {
    let served = served();
    assert_eq!(listener(&served.path), i32::try_from(std::process::id()).ok());
    assert_eq!(listener(&served.path.with_file_name("nobody.sock")), None);
}

#[test]
fn a_stuck_process_is_neither_replaced_nor_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stuck.sock");
    let _stuck = bind(&path).unwrap();
    // Nobody accepts: the queue fills.
    let mut waiting = Vec::new();
    while let Ok(stream) = connect(&path) {
        waiting.push(stream);
    }
    assert!(matches!(bind(&path), Err(ControlError::InUse(_))));
    let error = request(&path, &json!({ "request": "state" }), PATIENCE).unwrap_err();
    assert!(matches!(error, ControlError::Unreachable { .. }), "{error}");
}

#[test]
fn a_socket_that_answers_is_not_replaced_but_a_dead_one_is() {
    let served = served();
    assert!(matches!(bind(&served.path), Err(ControlError::InUse(_))));
    let path = served.path.with_file_name("dead.sock");
    drop(bind(&path).unwrap());
    assert!(path.exists());
    bind(&path).unwrap();
}

/// Reads the next health line.
fn next_health(reader: &mut impl std::io::BufRead) -> Option<Health> {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    serde_json::from_str::<HealthLine>(&line).ok().map(|line| line.health)
}

/// A server that can lend its socket, on a thread of its own.
fn lending_server(estate: Estate, shown: Health) -> (Lender, CancellationToken, std::thread::JoinHandle<()>) {
    let (lender, lending) = lending();
    let end = CancellationToken::new();
    let token = end.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (_sender, health) = watch::channel(shown);
        let control = Control { state: Arc::new(move || json!(shown)), health, requests: Arc::new(own_request) };
        runtime.block_on(serve_estate(estate, control, Placement::default(), lending, token)).unwrap();
    });
    (lender, end, thread)
}

#[test]
fn the_socket_passes_on_with_everybody_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.sock");
    let estate = Estate { listener: bind(&path).unwrap(), clients: Vec::new() };
    let (lender, end, thread) = lending_server(estate, Health::Up);
    let connect = || {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let mut watcher = BufReader::new(connect());
    watcher.get_mut().write_all(b"{\"request\":\"health\"}\n").unwrap();
    assert_eq!(next_health(&mut watcher), Some(Health::Up));
    let mut slow = connect();
    slow.write_all(b"{\"requ").unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut estate = runtime.block_on(lender.take()).unwrap();
    assert!(runtime.block_on(lender.take()).is_none(), "it is gone");
    assert!(estate.clients.iter().any(|client| client.watches));
    // The half request may not have been accepted yet: then it waits in the listener's queue.
    for client in &mut estate.clients {
        assert!(client.watches || client.received == b"{\"requ" || client.received.is_empty(), "{client:?}");
    }
    let (second, second_end, second_thread) = lending_server(estate, Health::Degraded);
    while next_health(&mut watcher).unwrap() != Health::Degraded {}
    slow.write_all(b"est\":\"state\"}\n").unwrap();
    let mut answer = String::new();
    BufReader::new(slow).read_line(&mut answer).unwrap();
    assert_eq!(answer, "{\"ok\":\"degraded\"}\n");

    let estate = runtime.block_on(second.take()).unwrap();
    runtime.block_on(lender.give_back(estate));
    while next_health(&mut watcher).unwrap() != Health::Up {}
    assert_eq!(request(&path, &json!({ "request": "state" }), PATIENCE).unwrap(), json!("up"));
    for (end, thread) in [(end, thread), (second_end, second_thread)] {
        end.cancel();
        thread.join().unwrap();
    }
}

#[test]
fn a_line_that_was_begun_is_ended_by_the_next_process() {
    let directory = tempfile::tempdir().unwrap();
    let listener = bind(&directory.path().join("x.sock")).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = Client { stream: theirs, received: Vec::new(), unsent: b"th\":\"down\"}\n".to_vec(), watches: true };
    let (_lender, end, thread) = lending_server(Estate { listener, clients: vec![client] }, Health::Up);
    let mut reader = BufReader::new(ours);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "th\":\"down\"}\n");
    assert_eq!(next_health(&mut reader), Some(Health::Up));
    end.cancel();
    thread.join().unwrap();
}
