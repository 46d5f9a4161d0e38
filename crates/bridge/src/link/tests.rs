use super::*;

const PEER: u64 = 900;

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn start() -> Instant {
    Instant::now()
}

fn hello() -> Hello {
    Hello { oldest: 1, newest: 1, minor: 0, instance: 5, cluster: "c".into(), host: "me".into(), last: None }
}

fn welcome(resume: Option<u64>) -> Frame {
    Frame::Welcome(Welcome { version: 1, minor: 0, instance: PEER, resume, max_body: 1000 })
}

fn actions(link: &mut Link) -> Vec<Action> {
    std::iter::from_fn(|| link.poll_action()).collect()
}

/// The actions without the reports, and the reports as "from-to".
fn split(link: &mut Link) -> (Vec<Action>, Vec<String>) {
    let (changes, rest): (Vec<_>, Vec<_>) =
        actions(link).into_iter().partition(|action| matches!(action, Action::Changed(_)));
    let changes = changes
        .into_iter()
        .map(|change| match change {
            Action::Changed(change) => format!("{}-{}", change.from.name(), change.to.name()),
            other => panic!("{other:?}"),
        })
        .collect();
    (rest, changes)
}

fn batch(last: u64, bytes: u64) -> Batch {
    Batch { last, bytes, ..Batch::default() }
}

/// A link in each state.
fn links(now: Instant) -> Vec<Link> {
    let make = |steps: &[fn(&mut Link, Instant)]| {
        let mut link = Link::new(hello(), 1, now);
        for step in steps {
            step(&mut link, now);
        }
        actions(&mut link);
        link
    };
    let start: fn(&mut Link, Instant) = |link, now| link.handle_start(now);
    let open: fn(&mut Link, Instant) = |link, now| link.handle_opened(now);
    let new_peer: fn(&mut Link, Instant) = |link, now| link.handle_frame(welcome(None), now);
    let sent: fn(&mut Link, Instant) = |link, _| link.handle_snapshot_sent();
    let lost: fn(&mut Link, Instant) = |link, now| link.handle_lost("reset".into(), false, now);
    let stop: fn(&mut Link, Instant) = |link, now| link.handle_shutdown(0, now);
    vec![
        make(&[]),
        make(&[start]),
        make(&[start, open]),
        make(&[start, open, new_peer]),
        make(&[start, open, new_peer, sent]),
        make(&[start, lost]),
        make(&[start, lost, stop]),
    ]
}

/// Every input in every state, and the state after it: the whole diagram.
#[test]
fn the_whole_transition_table() {
    type Input = (&'static str, fn(&mut Link, Instant));
    let inputs: [Input; 12] = [
        ("start", |link, now| link.handle_start(now)),
        ("timeout", |link, now| link.handle_timeout(now + Duration::from_secs(60))),
        ("seen", |link, now| link.handle_seen(now)),
        ("opened", |link, now| link.handle_opened(now)),
        ("lost", |link, now| link.handle_lost("reset".into(), false, now)),
        ("welcome, resume", |link, now| link.handle_frame(welcome(Some(0)), now)),
        ("welcome, new", |link, now| link.handle_frame(welcome(None), now)),
        ("ack", |link, now| link.handle_frame(Frame::Ack { seq: 0 }, now)),
        ("error", |link, now| link.handle_frame(Frame::Error { text: "no".into() }, now)),
        ("bye", |link, now| link.handle_frame(Frame::Bye, now)),
        ("snapshot sent", |link, _| link.handle_snapshot_sent()),
        ("shutdown", |link, now| link.handle_shutdown(0, now)),
    ];
    let table: [(&str, [&str; 12]); 7] = [
        // state, then the state after each input of the list above; "=" where it stays
        ("idle", ["connecting", "=", "=", "=", "=", "=", "=", "=", "=", "=", "=", "stopped"]),
        ("connecting", ["=", "backoff", "=", "greeting", "backoff", "=", "=", "=", "=", "=", "=", "stopped"]),
        (
            "greeting",
            [
                "=",
                "backoff",
                "=",
                "=",
                "backoff",
                "streaming",
                "snapshot",
                "backoff",
                "backoff",
                "backoff",
                "=",
                "stopped",
            ],
        ),
        (
            "snapshot",
            [
                "=",
                "backoff",
                "=",
                "=",
                "backoff",
                "backoff",
                "backoff",
                "=",
                "backoff",
                "backoff",
                "streaming",
                "stopped",
            ],
        ),
        ("streaming", ["=", "backoff", "=", "=", "backoff", "backoff", "backoff", "=", "backoff", "backoff", "=", "="]),
        ("backoff", ["=", "connecting", "connecting", "=", "=", "=", "=", "=", "=", "=", "=", "stopped"]),
        ("stopped", ["=", "=", "=", "=", "=", "=", "=", "=", "=", "=", "=", "="]),
    ];
    let now = start();
    for (index, (state, row)) in table.iter().enumerate() {
        for ((input, apply), expected) in inputs.iter().zip(row) {
            let mut link = links(now).remove(index);
            assert_eq!(link.state().name(), *state);
            apply(&mut link, now);
            let expected = if *expected == "=" { state } else { expected };
            assert_eq!(link.state().name(), *expected, "{input} in state {state}");
            let (_, changes) = split(&mut link);
            assert_eq!(changes.is_empty(), state == expected, "{input} in state {state}: {changes:?}");
        }
    }
}

#[test]
fn first_contact_sends_the_snapshot_and_then_the_log() {
    let now = start();
    let mut link = Link::new(hello(), 1, now);
    link.handle_start(now);
    assert_eq!(split(&mut link), (vec![Action::Connect], vec!["idle-connecting".into()]));
    link.handle_opened(now);
    assert_eq!(split(&mut link), (vec![Action::Send(Frame::Hello(hello()))], vec!["connecting-greeting".into()]));
    link.handle_frame(welcome(None), now);
    assert_eq!(
        split(&mut link),
        (vec![Action::Attach(0), Action::Snapshot { base: 0 }], vec!["greeting-snapshot".into()])
    );
    link.handle_snapshot_sent();
    let (rest, changes) = split(&mut link);
    assert_eq!(changes, ["snapshot-streaming"]);
    assert!(matches!(rest[..], [Action::Read(Room { from: 1, .. })]), "{rest:?}");
    link.handle_batch(&batch(3, 300));
    assert_eq!(actions(&mut link), [], "nothing more before the bytes are on their way");
    link.handle_writable();
    assert!(matches!(actions(&mut link)[..], [Action::Read(Room { from: 4, .. })]));
    link.handle_end(now);
    link.handle_writable();
    assert_eq!(actions(&mut link), [], "the log's end: no more reads until there is news");
    link.handle_frame(Frame::Ack { seq: 2 }, now);
    assert_eq!(actions(&mut link), [Action::Acknowledged(2)]);
    link.handle_news();
    assert!(matches!(actions(&mut link)[..], [Action::Read(Room { from: 4, .. })]));
}

#[test]
fn what_the_peer_says_decides_where_to_go_on() {
    let now = start();
    let mut link = links(now).remove(4);
    link.handle_writable();
    link.handle_batch(&batch(10, 100));
    link.handle_frame(Frame::Ack { seq: 4 }, now);
    link.handle_lost("reset".into(), false, now);
    link.handle_seen(now);
    link.handle_opened(now);
    actions(&mut link);
    // It had applied up to 7, and the acknowledgement was lost.
    link.handle_frame(welcome(Some(7)), now);
    let (rest, changes) = split(&mut link);
    assert_eq!(changes, ["greeting-streaming"]);
    assert!(matches!(rest[..], [Action::Attach(7), Action::Read(Room { from: 8, .. })]), "{rest:?}");
    assert_eq!(link.handle_batch(&batch(12, 50)), 3, "8 to 10 a second time");
}

#[test]
fn a_restarted_peer_gets_a_snapshot_and_what_its_predecessor_had_not_acknowledged() {
    let now = start();
    let mut link = links(now).remove(4);
    link.handle_batch(&batch(10, 100));
    link.handle_frame(Frame::Ack { seq: 4 }, now);
    link.handle_lost("reset".into(), false, now);
    link.handle_seen(now);
    link.handle_opened(now);
    actions(&mut link);
    link.handle_frame(welcome(None), now);
    let (rest, _) = split(&mut link);
    assert_eq!(rest, [Action::Attach(4), Action::Snapshot { base: 4 }]);
}

#[test]
fn a_gap_is_announced_once_and_counted_when_the_peer_knows_of_it() {
    let now = start();
    let mut link = links(now).remove(4);
    link.handle_gone(21);
    assert_eq!(
        split(&mut link),
        (vec![Action::Losing(Loss::LogFull), Action::Snapshot { base: 0 }], vec!["streaming-snapshot".into()])
    );
    link.handle_writable();
    link.handle_snapshot_sent();
    let (rest, _) = split(&mut link);
    let gap = Range { from: 1, to: 20 };
    assert!(matches!(rest[..], [Action::Send(Frame::Gap(range)), Action::Read(Room { from: 21, .. })] if range == gap));
    link.handle_frame(Frame::Ack { seq: 20 }, now);
    assert_eq!(actions(&mut link), [Action::Lost(gap), Action::Acknowledged(20)]);
    link.handle_frame(Frame::Ack { seq: 20 }, now);
    assert_eq!(actions(&mut link), [Action::Acknowledged(20)], "not twice");
}

#[test]
fn losing_while_the_peer_is_away_is_announced_once() {
    let now = start();
    let mut link = links(now).remove(5);
    link.handle_log_start(1);
    assert_eq!(actions(&mut link), []);
    link.handle_log_start(2);
    assert_eq!(actions(&mut link), [Action::Losing(Loss::LogFull)]);
    link.handle_log_start(9);
    assert_eq!(actions(&mut link), []);
}

#[test]
fn silence_ends_the_link_and_signs_of_life_keep_it() {
    let now = start();
    let mut link = links(now).remove(4);
    let mut at = now;
    for _ in 0..20 {
        at = link.poll_timeout().unwrap();
        link.handle_timeout(at);
        assert_eq!(actions(&mut link), [Action::Send(Frame::Ping)]);
        link.handle_bytes(at);
    }
    let last = at;
    let (rest, changes) = loop {
        at = link.poll_timeout().unwrap();
        link.handle_timeout(at);
        if link.state() != State::Streaming {
            break split(&mut link);
        }
    };
    assert_eq!(at, last + DEAD_AFTER);
    assert_eq!(changes, ["streaming-backoff"]);
    assert_eq!(rest.last(), Some(&Action::Detach));
}

#[test]
fn attempts_come_at_jittered_intervals_and_at_once_when_the_peer_is_seen() {
    let now = start();
    let mut link = links(now).remove(5);
    let mut at = now;
    for _ in 0..10 {
        let next = link.poll_timeout().unwrap();
        assert!(next > at && next <= at + Duration::from_secs(2));
        at = next;
        link.handle_timeout(at);
        assert!(matches!(link.state(), State::Connecting { .. }));
        link.handle_lost("refused".into(), false, at);
    }
    link.handle_seen(at);
    assert!(matches!(link.state(), State::Connecting { .. }));
}

#[test]
fn a_peer_that_knows_more_than_the_log_has_another_one_before_it() {
    let now = start();
    let mut link = links(now).remove(2);
    link.handle_frame(welcome(Some(1)), now);
    let all = actions(&mut link);
    assert!(matches!(all[..2], [Action::LogWasSetBack, Action::Close { last_word: false }]), "{all:?}");
    // One that goes on may have been sent more than it remembers.
    let mut link = links(now).remove(2);
    link.resume(5, 20);
    link.handle_frame(welcome(Some(20)), now);
    assert!(matches!(actions(&mut link)[..], [Action::Attach(20), Action::Changed(_), Action::Read(_)]));
}

#[test]
fn what_is_held_is_not_the_end_of_the_log() {
    let now = start();
    let mut link = links(now).remove(4);
    link.handle_held();
    link.handle_shutdown(0, now);
    assert_eq!(link.state(), State::Streaming, "it waits until that may go");
    link.handle_news();
    assert!(actions(&mut link).iter().any(|action| matches!(action, Action::Read(_))));
}

#[test]
fn a_peer_that_breaks_the_protocol_is_told_and_left() {
    let now = start();
    let bad: [(usize, Frame); 4] = [
        (2, Frame::Welcome(Welcome { version: 9, minor: 0, instance: PEER, resume: None, max_body: 1 })),
        (2, Frame::Pong),
        (4, Frame::Ack { seq: 1 }),
        (4, Frame::Hello(hello())),
    ];
    for (state, frame) in bad {
        let mut link = links(now).remove(state);
        link.handle_frame(frame.clone(), now);
        let all = actions(&mut link);
        assert!(
            matches!(all[..2], [Action::Send(Frame::Error { .. }), Action::Close { last_word: true }]),
            "{frame:?}"
        );
        assert!(matches!(all.last(), Some(Action::Changed(change)) if change.refused), "{frame:?}: {all:?}");
    }
}

#[test]
fn shutdown_waits_until_everything_is_acknowledged() {
    let now = start();
    let mut link = links(now).remove(4);
    link.handle_batch(&batch(5, 50));
    link.handle_shutdown(5, now);
    link.handle_writable();
    link.handle_end(now);
    link.handle_frame(Frame::Ack { seq: 4 }, now);
    assert_eq!(link.state(), State::Streaming);
    actions(&mut link);
    link.handle_frame(Frame::Ack { seq: 5 }, now);
    let (rest, changes) = split(&mut link);
    let bye = [Action::Acknowledged(5), Action::Send(Frame::Bye), Action::Close { last_word: true }, Action::Detach];
    assert_eq!((rest, changes), (bye.to_vec(), vec!["streaming-stopped".into()]));
}

#[test]
fn shutdown_sends_what_was_appended_since_the_last_read() {
    let now = start();
    let mut link = links(now).remove(4);
    link.handle_batch(&batch(5, 50));
    link.handle_writable();
    link.handle_end(now);
    link.handle_frame(Frame::Ack { seq: 5 }, now);
    actions(&mut link);
    // Message 6 is in the log, and the word of it has not arrived.
    link.handle_shutdown(6, now);
    assert_eq!(link.state(), State::Streaming);
    assert!(actions(&mut link).iter().any(|action| matches!(action, Action::Read { .. })), "message 6 is read");
}

#[test]
fn shutdown_does_not_wait_for_ever() {
    let now = start();
    for state in [1, 4] {
        let mut link = links(now).remove(state);
        if state == 4 {
            link.handle_batch(&batch(5, 50));
        }
        link.handle_shutdown(5, now);
        assert_ne!(link.state(), State::Stopped, "something is left to send");
        link.handle_bytes(now + DRAIN_TIMEOUT);
        assert!(link.poll_timeout().unwrap() <= now + DRAIN_TIMEOUT);
        link.handle_timeout(now + DRAIN_TIMEOUT);
        assert_eq!(link.state(), State::Stopped);
    }
}

#[test]
fn a_peer_is_told_what_it_can_understand() {
    for minor in [0, 1, 2, 200] {
        let now = start();
        let mut link = Link::new(hello(), 1, now);
        link.handle_start(now);
        link.handle_opened(now);
        actions(&mut link);
        let welcome = Welcome { version: 1, minor, instance: PEER, resume: Some(0), max_body: 1000 };
        link.handle_frame(Frame::Welcome(welcome), now);
        let (actions, _) = split(&mut link);
        assert_eq!(actions.contains(&Action::Tell(minor)), minor > 0, "minor {minor}: {actions:?}");
    }
}

#[test]
fn a_peer_that_leaves_gets_a_last_word_and_nothing_more() {
    let now = start();
    for (index, mut link) in links(now).into_iter().enumerate() {
        let was_up = link.state().is_up();
        let was = link.state();
        link.handle_removed(now);
        assert_eq!(link.state(), State::Stopped, "from {was:?}");
        let (rest, _) = split(&mut link);
        assert_eq!(rest.contains(&Action::Send(Frame::Bye)), was_up, "{index}: {rest:?}");
        assert_eq!(rest.contains(&Action::Detach), was_up, "{index}: {rest:?}");
        link.handle_seen(now);
        link.handle_moved(now);
        link.handle_timeout(now + Duration::from_secs(60));
        assert_eq!((link.state(), actions(&mut link)), (State::Stopped, Vec::new()));
    }
}

#[test]
fn a_peer_that_is_elsewhere_now_is_connected_to_at_once() {
    let now = start();
    for mut link in links(now) {
        let was = link.state();
        link.handle_moved(now);
        let connects = actions(&mut link).contains(&Action::Connect);
        let expected = !matches!(was, State::Idle | State::Stopped);
        assert_eq!(connects, expected, "from {was:?}");
        assert_eq!(matches!(link.state(), State::Connecting { .. }), expected, "from {was:?}");
    }
}
