//! On a real file system.

use std::borrow::Cow;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use super::model::picture_of;
use super::sample::{enqueue, publish, state, stored};
use crate::disk::simulated::Chance;
use crate::writer::wall_time;
use crate::{Position, Record, Settings, Store, StoreError, Sync, WallTime, inspect, open};

pub(super) fn settings(path: &Path) -> Settings {
    Settings { path: path.join("store"), sync: Sync::Always, segment_size: 1 << 20, max_size: 64 << 20 }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Sleeps until `at` is durable, a minute at most.
pub(crate) fn wait(store: &Store, at: Position) {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let cx = Context::from_waker(&waker);
    let deadline = wall_time().0 + 60_000;
    while store.poll_durable(at, &cx) == Poll::Pending {
        let left = deadline.saturating_sub(wall_time().0);
        assert!(left > 0, "{at:?} does not come to the disk: {:?}, {:?}", store.status(), store.figures());
        std::thread::park_timeout(Duration::from_millis(left));
    }
}

/// Waits until it is so, a minute at most.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = wall_time().0 + 60_000;
    while !is_so() {
        assert!(wall_time().0 < deadline, "it never came to be that {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn what_was_durable_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let (store, recovered) = open(&settings, WallTime(5)).unwrap();
    assert!(recovered.sessions.is_empty() && recovered.messages.is_empty());
    let session = store.new_session();
    store.append(&Record::Session(state(session, "meter")));
    let filter = Cow::Borrowed("a/#");
    store.append(&Record::Subscribe { session, filter, options: 1, id: Some(7) });
    let sent = publish("a/b", "first");
    let (first, _) = store.append_message(&stored(&sent, 17, false)).unwrap();
    store.append(&enqueue(session, first.id()));
    let kept = publish("a/c", "kept");
    let (second, _) = store.append_message(&stored(&kept, 18, true)).unwrap();
    store.append(&enqueue(session, second.id()));
    let at = store.append(&Record::Sent { session, message: first.id(), packet_id: 3 });
    wait(&store, at);
    assert!(store.is_durable(at));
    let figures = store.figures();
    // Two of them bytes that nobody holds on to: what has a handle is alive.
    assert_eq!((figures.live_messages, figures.segments), (2, 1));
    drop(store);

    let (store, recovered) = open(&settings, WallTime(6)).unwrap();
    assert_eq!((recovered.report.damage.len(), &recovered.report.torn), (0, &None));
    let [session] = &recovered.sessions[..] else { panic!("{:?}", recovered.sessions) };
    assert_eq!((&*session.client_id, session.expiry, session.next_packet_id), ("meter", 3600, 4));
    assert_eq!(session.subscriptions, [("a/#".to_owned(), 1, Some(7))]);
    let message = |index: usize| recovered.messages[index].publish.payload.clone();
    assert_eq!(session.waiting.iter().map(|waiting| message(waiting.message)).collect::<Vec<_>>(), ["kept"]);
    let [(3, Some(inflight))] = &session.inflight[..] else { panic!("{:?}", session.inflight) };
    assert_eq!(message(inflight.message), "first");
    assert_eq!(recovered.retained.iter().map(|index| message(*index)).collect::<Vec<_>>(), ["kept"]);
    assert_eq!(recovered.last_stamp, 18);
    assert!(store.new_session() > session.session, "numbers are not used again");
}

#[test]
fn one_process_at_a_time_and_for_its_user_alone() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let (store, _) = open(&settings, WallTime(5)).unwrap();
    let error = open(&settings, WallTime(5)).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
    wait(&store, store.append(&Record::Session(state(store.new_session(), "a"))));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&settings.path), 0o700);
    let files: Vec<_> = settings.path.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 2);
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
    drop(store);
    open(&settings, WallTime(5)).unwrap();
}

#[test]
fn a_running_store_can_be_looked_at_without_harm() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { segment_size: 16 << 10, ..settings(directory.path()) };
    let (store, recovered) = open(&settings, WallTime(5)).unwrap();
    let (model, _) = picture_of(&store, recovered);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut chance = Chance::new(4);
            while !is_over.load(Ordering::SeqCst) {
                model.step(&mut chance);
                store.pace();
            }
        });
        for _ in 0..10 {
            let checked = inspect::check(&settings.path).unwrap();
            assert_eq!(checked.report.damage, []);
            assert_eq!(checked.held_by, Some(std::process::id().to_string()));
            inspect::dump(&settings.path, |_| {}).unwrap();
        }
        is_over.store(true, Ordering::SeqCst);
    });
    wait(&store, model.end());
    let before = model.picture();
    drop(model);
    drop(store);
    let checked = inspect::check(&settings.path).unwrap();
    assert_eq!((checked.report.damage.len(), checked.report.lost_messages, &checked.held_by), (0, 0, &None));
    let (store, recovered) = open(&settings, WallTime(6)).unwrap();
    assert_eq!(picture_of(&store, recovered).1, before);
}

#[test]
fn a_directory_that_cannot_be_used_is_named_with_what_it_has_to_be() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("store"), "a file").unwrap();
    let error = open(&settings(directory.path()), WallTime(5)).unwrap_err();
    assert!(matches!(error, StoreError::Directory { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("must belong to the user as whom the broker runs") && text.contains("0700"), "{text}");
}
