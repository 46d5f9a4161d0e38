//! Both drivers over a real channel, with real descriptors, in one process.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::super::message::{Record, Socket, VERSION};
use super::super::parcel::tests::carried;
use super::super::taker::{self, Heir, Predecessor, Sockets, TakeError};
use super::*;

#[derive(Debug, Default)]
struct Seen {
    accepting: bool,
    settled: bool,
    connections: Vec<Carried>,
    watchers: Vec<control::Client>,
}

/// The old process's things.
struct Old {
    seen: Arc<Mutex<Seen>>,
    clients: Vec<control::Client>,
}

/// The new one's.
#[derive(Default)]
struct New {
    seen: Arc<Mutex<Seen>>,
    cannot: Option<String>,
    refuses: Option<u16>,
    /// Stands still once this many connections have come.
    stuck_at: Option<usize>,
    gone: bool,
}

impl Holdings for Old {
    async fn offer(&mut self) -> io::Result<(Offer, Vec<OwnedFd>)> {
        let directory = tempfile::tempdir()?;
        let listener = UnixListener::bind(directory.path().join("lb.sock"))?;
        let sockets = vec![Socket::Control { path: "/run/evermq/lb.sock".to_owned() }];
        Ok((Offer { version: VERSION, sockets, up: vec!["broker1".to_owned()] }, vec![listener.into()]))
    }

    async fn suspend(&mut self) {
        self.seen.lock().unwrap().accepting = false;
    }

    fn control_clients(&self) -> &[control::Client] {
        &self.clients
    }

    fn words(&self) -> Vec<Word> {
        vec![Word {
            backend: "broker1".to_owned(),
            state: "drain".to_owned(),
            rate: None,
            weight: Some(3),
            time: 9,
            host: "lb1".to_owned(),
        }]
    }

    async fn resume(&mut self) {
        self.seen.lock().unwrap().accepting = true;
    }

    async fn export(&mut self, most: usize) -> Exported {
        let mut seen = self.seen.lock().unwrap();
        let movable = |connection: &mut Carried| connection.record.failed.is_none();
        let connections: Vec<_> = seen.connections.extract_if(.., movable).take(most).collect();
        Exported { connections, left: seen.connections.len() }
    }

    async fn take_back(&mut self, connections: Vec<Carried>, stay: bool) {
        let taken = connections.into_iter().map(|mut connection| {
            connection.record.failed = stay.then(|| "stays".to_owned());
            connection
        });
        self.seen.lock().unwrap().connections.extend(taken);
    }

    async fn settle(&mut self, _: u32) {
        let mut seen = self.seen.lock().unwrap();
        seen.settled = true;
        // Those that stay leave by themselves.
        seen.connections.clear();
    }
}

impl Heir for New {
    async fn prepare(&mut self, up: &[String]) -> Result<(), String> {
        assert_eq!(up, ["broker1"]);
        self.cannot.take().map_or(Ok(()), Err)
    }

    async fn take_charge(&mut self, clients: Vec<control::Client>, words: Vec<Word>) {
        assert_eq!(words.first().map(|word| (word.backend.as_str(), word.weight)), Some(("broker1", Some(3))));
        let mut seen = self.seen.lock().unwrap();
        seen.accepting = true;
        seen.watchers = clients;
    }

    fn objection(&self, record: &Record) -> Option<String> {
        (self.refuses == Some(record.client.port())).then(|| "no such backend".to_owned())
    }

    async fn import(&mut self, connections: Vec<Carried>) {
        self.seen.lock().unwrap().connections.extend(connections);
        let count = self.seen.lock().unwrap().connections.len();
        if self.stuck_at.is_some_and(|limit| count >= limit) {
            std::future::pending::<()>().await;
        }
    }

    async fn settle(&mut self) {
        self.seen.lock().unwrap().settled = true;
    }

    async fn farewell(&mut self) {
        self.gone = true;
    }
}

const CONNECTIONS: u16 = 200;

struct Bench {
    giver: Giver<Old>,
    old: Arc<Mutex<Seen>>,
    theirs: OwnedFd,
    answer: oneshot::Receiver<Result<Summary, String>>,
    watcher: UnixStream,
}

fn bench() -> Bench {
    let (ours, theirs) = channel::pair().unwrap();
    // It stands for the new process, and is there to be killed.
    let child = Command::new("sleep").arg("600").spawn().unwrap();
    let kept = |port: u16| {
        if port.is_multiple_of(3) { vec![port.to_be_bytes()[1]; usize::from(port) * 10] } else { Vec::new() }
    };
    let connections = (0..CONNECTIONS).map(|port| carried(port, &kept(port), &kept(port + 1))).collect();
    let seen = Seen { accepting: true, connections, ..Seen::default() };
    let old = Arc::new(Mutex::new(seen));
    let (watcher, stream) = UnixStream::pair().unwrap();
    let client = control::Client { stream, received: b"a".to_vec(), unsent: b"bc".to_vec(), watches: true };
    let (reply, answer) = oneshot::channel();
    let holdings = Old { seen: Arc::clone(&old), clients: vec![client] };
    Bench { giver: Giver::new(Channel::new(ours).unwrap(), child, holdings, reply), old, theirs, answer, watcher }
}

async fn meet(theirs: OwnedFd) -> (Predecessor, Sockets) {
    tokio::task::spawn_blocking(|| taker::meet(theirs).unwrap()).await.unwrap()
}

#[tokio::test]
async fn everything_passes_on_but_what_the_new_process_cannot_take() {
    let Bench { giver, old, theirs, answer, mut watcher } = bench();
    let mut new = New { refuses: Some(7), ..New::default() };
    let child = giver.child.id();
    let give = giver.run(CancellationToken::new());
    let take = async {
        let (predecessor, mut sockets) = meet(theirs).await;
        assert!(sockets.control("/elsewhere/lb.sock".as_ref()).is_none());
        assert!(sockets.control("/run/evermq/lb.sock".as_ref()).is_some());
        predecessor.succeed(&mut new).await
    };
    let (outcome, taken) = tokio::join!(give, take);
    assert_eq!(outcome, Outcome::Done);
    taken.unwrap();
    let summary = answer.await.unwrap().unwrap();
    assert_eq!((summary.process, summary.moved, summary.left), (child, usize::from(CONNECTIONS) - 1, 1));
    assert!(new.gone && !old.lock().unwrap().accepting);
    let mut seen = std::mem::take(&mut *new.seen.lock().unwrap());
    assert!(seen.accepting && seen.settled);
    let came: BTreeMap<_, _> = seen.connections.iter().map(|one| (one.record.client.port(), one)).collect();
    assert!(came.keys().copied().eq((0..CONNECTIONS).filter(|&port| port != 7)));
    for (port, connection) in came {
        let length = |port: u16| if port.is_multiple_of(3) { usize::from(port) * 10 } else { 0 };
        assert_eq!(connection.to_backend.len(), length(port));
        assert_eq!(connection.to_client.len(), length(port + 1));
        // The two sockets are each other's ends.
        let client = UnixStream::from(connection.client.try_clone().unwrap());
        (&client).write_all(&port.to_be_bytes()).unwrap();
        let mut word = [0; 2];
        UnixStream::from(connection.backend.try_clone().unwrap()).read_exact(&mut word).unwrap();
        assert_eq!(u16::from_be_bytes(word), port);
    }
    let passed = seen.watchers.remove(0);
    assert_eq!((passed.received, passed.unsent, passed.watches), (b"a".to_vec(), b"bc".to_vec(), true));
    (&passed.stream).write_all(b"up").unwrap();
    let mut word = [0; 2];
    watcher.read_exact(&mut word).unwrap();
    kill(child);
}

#[tokio::test]
async fn a_new_process_that_refuses_is_ended_and_its_words_are_told() {
    let Bench { giver, old, theirs, answer, .. } = bench();
    let mut new = New { cannot: Some("broker1 is not reached".to_owned()), ..New::default() };
    let take = async {
        let (predecessor, _sockets) = meet(theirs).await;
        predecessor.succeed(&mut new).await
    };
    let (outcome, taken) = tokio::join!(giver.run(CancellationToken::new()), take);
    assert!(matches!(taken, Err(TakeError::NotNeeded(reason)) if reason == "broker1 is not reached"));
    let Outcome::Failed(reason) = outcome else { panic!("{outcome:?}") };
    assert!(reason.starts_with("broker1 is not reached (signal: 9"), "{reason}");
    assert_eq!(answer.await.unwrap(), Err(reason));
    let old = old.lock().unwrap();
    assert!(old.accepting && !old.settled);
    assert_eq!(old.connections.len(), usize::from(CONNECTIONS));
}

#[tokio::test]
async fn one_that_ends_half_way_leaves_the_rest_to_the_old_process() {
    let Bench { giver, old, theirs, answer, .. } = bench();
    let mut new = New { stuck_at: Some(BATCH * 2), ..New::default() };
    let child = giver.child.id();
    let take = async {
        let (predecessor, _sockets) = meet(theirs).await;
        let limit = Duration::from_millis(200);
        assert!(tokio::time::timeout(limit, predecessor.succeed(&mut new)).await.is_err(), "it stands still");
        kill(child);
    };
    let (outcome, ()) = tokio::join!(giver.run(CancellationToken::new()), take);
    let Outcome::Failed(reason) = outcome else { panic!("{outcome:?}") };
    assert_eq!(reason, "it has ended (signal: 9 (SIGKILL))");
    assert_eq!(answer.await.unwrap(), Err(reason));
    let (old, new) = (old.lock().unwrap(), new.seen.lock().unwrap());
    assert!(old.accepting && !old.settled);
    assert_eq!((new.connections.len(), old.connections.len()), (BATCH * 2, usize::from(CONNECTIONS) - BATCH * 2));
}

fn kill(process: u32) {
    let process = nix::unistd::Pid::from_raw(process.cast_signed());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
}
