#![expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]

use bytes::Bytes;
use evermq_mqtt::packet::{ConnAck, SubAck};
use evermq_mqtt::properties::ConnAckProperties;
use evermq_mqtt::{PacketId, Text, TopicName};
use proptest::prelude::*;

use super::*;

const CONNECT: Duration = Duration::from_millis(300);
const INTERVAL: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_millis(1000);
const MS: Duration = Duration::from_millis(1);

fn timing() -> Timing {
    Timing { connect_timeout: CONNECT, interval: INTERVAL, timeout: TIMEOUT }
}

fn answer(reason: ReasonCode) -> Packet {
    Packet::ConnAck(Box::new(ConnAck { session_present: false, reason, properties: ConnAckProperties::default() }))
}

fn accepted() -> Packet {
    answer(ReasonCode::Success)
}

fn actions(session: &mut Session) -> Vec<Action> {
    std::iter::from_fn(|| session.poll_action()).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Connecting,
    Handshaking,
    Introducing,
    Up,
    Asking,
}

const STAGES: [Stage; 6] =
    [Stage::Waiting, Stage::Connecting, Stage::Handshaking, Stage::Introducing, Stage::Up, Stage::Asking];

/// A session in that stage at `now`, its actions taken.
fn session(stage: Stage, now: Instant) -> Session {
    let before = if stage == Stage::Asking { now - INTERVAL } else { now };
    let mut session = Session::new(timing(), before);
    if stage != Stage::Waiting {
        session.handle_timeout(before);
    }
    if !matches!(stage, Stage::Waiting | Stage::Connecting) {
        session.handle_connected(before);
    }
    if matches!(stage, Stage::Introducing | Stage::Up | Stage::Asking) {
        session.handle_secured();
    }
    if matches!(stage, Stage::Up | Stage::Asking) {
        session.handle_packet(&accepted(), before);
    }
    if stage == Stage::Asking {
        session.handle_timeout(now);
    }
    actions(&mut session);
    assert_eq!(stage_of(&session), stage);
    session
}

fn stage_of(session: &Session) -> Stage {
    match session.state {
        State::Waiting { .. } => Stage::Waiting,
        State::Connecting { .. } => Stage::Connecting,
        State::Handshaking { .. } => Stage::Handshaking,
        State::Introducing { .. } => Stage::Introducing,
        State::Up { asked: None, .. } => Stage::Up,
        State::Up { asked: Some(_), .. } => Stage::Asking,
    }
}

fn rejected(text: &str) -> Failure {
    Failure::Rejected(text.to_owned())
}

#[test]
fn every_transition() {
    const MISPLACED: &str = "it sent a packet that has no place here";
    const REFUSED: &str = "CONNACK says \"Not authorized\"";
    type Input = (&'static str, fn(&mut Session, Instant));
    let inputs: [Input; 7] = [
        ("connected", |session, now| session.handle_connected(now)),
        ("secured", |session, _| session.handle_secured()),
        ("accepted", |session, now| session.handle_packet(&accepted(), now)),
        ("refused", |session, now| session.handle_packet(&answer(ReasonCode::NotAuthorized), now)),
        ("pong", |session, now| session.handle_packet(&Packet::PingResp, now)),
        ("ping", |session, now| session.handle_packet(&Packet::PingReq, now)),
        ("closed", |session, now| session.handle_failure(Failure::Closed, now)),
    ];
    let fail = |failure| (Stage::Waiting, vec![Action::Close, Action::Failed(failure)]);
    let misplaced = || fail(rejected(MISPLACED));
    let now = Instant::now();
    let mut seen = 0;
    for stage in STAGES {
        for (name, input) in inputs {
            let stay = (stage, vec![]);
            let (to, expected) = match (stage, name) {
                (Stage::Connecting, "connected") => (Stage::Handshaking, vec![Action::Secure]),
                (Stage::Handshaking, "secured") => (Stage::Introducing, vec![Action::Introduce]),
                (Stage::Introducing, "accepted") => (Stage::Up, vec![Action::Up]),
                (Stage::Introducing, "refused") => fail(rejected(REFUSED)),
                (Stage::Introducing, "pong" | "ping") => misplaced(),
                (Stage::Up | Stage::Asking, "accepted" | "refused" | "ping") => misplaced(),
                (Stage::Up | Stage::Asking, "pong") => (Stage::Up, vec![]),
                (Stage::Waiting, "closed") => stay,
                (_, "closed") => fail(Failure::Closed),
                _ => stay,
            };
            let mut session = session(stage, now);
            input(&mut session, now);
            assert_eq!((stage_of(&session), actions(&mut session)), (to, expected), "{stage:?} {name}");
            seen += 1;
        }
    }
    assert_eq!(seen, 42);
}

fn message(topic: &str, payload: &'static [u8], qos: QoS) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: TopicName::new(Text::new(topic).unwrap()).unwrap(),
        packet_id: (qos != QoS::AtMostOnce).then_some(PacketId(std::num::NonZeroU16::MIN)),
        properties: None,
        payload: Bytes::from_static(payload),
    })
}

fn suback(reason: ReasonCode) -> Packet {
    Packet::SubAck(SubAck { packet_id: PacketId(std::num::NonZeroU16::MIN), reasons: vec![reason], properties: None })
}

/// A session to a broker of the cluster, just up.
fn asking(now: Instant) -> Session {
    let mut session = Session::new(timing(), now).asking_for_state();
    session.handle_timeout(now);
    session.handle_connected(now);
    session.handle_secured();
    assert_eq!(actions(&mut session), [Action::Open, Action::Secure, Action::Introduce]);
    session.handle_packet(&accepted(), now);
    assert_eq!(actions(&mut session), [Action::Up, Action::Subscribe]);
    session
}

#[test]
fn a_broker_of_the_cluster_is_asked_and_says_how_it_is() {
    let now = Instant::now();
    let mut session = asking(now);
    session.handle_packet(&suback(ReasonCode::Success), now);
    assert!(!session.is_heard());
    for readiness in Readiness::ALL {
        session.handle_packet(&message("$EVERMQ/state", readiness.word().as_bytes(), QoS::AtMostOnce), now);
        assert_eq!(actions(&mut session), [Action::Says(readiness)]);
        assert!(session.is_heard());
    }
    session.handle_failure(Failure::Closed, now);
    assert!(!session.is_heard());
}

#[test]
fn who_refuses_or_ignores_the_question_stays_up_and_ready() {
    let now = Instant::now();
    let mut refusing = asking(now);
    refusing.handle_packet(&suback(ReasonCode::NotAuthorized), now);
    refusing.handle_packet(&message("$EVERMQ/state", b"a later word", QoS::AtMostOnce), now);
    for mut session in [asking(now), refusing] {
        session.handle_timeout(now + INTERVAL);
        session.handle_packet(&Packet::PingResp, now + INTERVAL);
        assert_eq!(actions(&mut session), [Action::Ping]);
        assert!(!session.is_heard());
        assert_eq!(stage_of(&session), Stage::Up);
    }
}

#[test]
fn messages_that_nobody_asked_for_end_the_session() {
    let now = Instant::now();
    let unasked = [
        (asking(now), message("a/b", b"ready", QoS::AtMostOnce)),
        (asking(now), message("$EVERMQ/state", b"ready", QoS::AtLeastOnce)),
        (session(Stage::Up, now), message("$EVERMQ/state", b"ready", QoS::AtMostOnce)),
        (session(Stage::Up, now), suback(ReasonCode::Success)),
    ];
    for (mut session, packet) in unasked {
        session.handle_packet(&packet, now);
        assert_eq!(stage_of(&session), Stage::Waiting, "{packet:?}");
    }
}

#[test]
fn every_deadline_to_the_millisecond() {
    let now = Instant::now();
    let cases = [
        (Stage::Connecting, CONNECT, Some(Failure::ConnectTimeout)),
        (Stage::Handshaking, TIMEOUT, Some(Failure::HandshakeTimeout)),
        (Stage::Introducing, TIMEOUT, Some(Failure::HandshakeTimeout)),
        (Stage::Up, INTERVAL, None),
        // The last answer came one interval before the question.
        (Stage::Asking, TIMEOUT - INTERVAL, Some(Failure::NoAnswer)),
    ];
    for (stage, after, failure) in cases {
        let mut session = session(stage, now);
        assert_eq!(session.poll_timeout(), now + after, "{stage:?}");
        session.handle_timeout(now + after - MS);
        assert_eq!(actions(&mut session), [], "{stage:?}");
        session.handle_timeout(now + after);
        let expected = match failure {
            Some(failure) => vec![Action::Close, Action::Failed(failure)],
            None => vec![Action::Ping],
        };
        assert_eq!(actions(&mut session), expected, "{stage:?}");
    }
}

#[test]
fn the_first_attempt_is_due_at_once() {
    let now = Instant::now();
    let mut session = Session::new(timing(), now);
    assert_eq!(session.poll_timeout(), now);
    session.handle_timeout(now);
    assert_eq!(actions(&mut session), [Action::Open]);
}

#[test]
fn refused_attempts_follow_quickly_and_others_slow_down() {
    let cases = [
        (Failure::Refused, [20, 40, 50, 50, 50, 50, 50, 50]),
        (Failure::Unreachable(String::new()), [20, 40, 80, 160, 320, 640, 1000, 1000]),
    ];
    for (failure, pauses) in cases {
        let mut now = Instant::now();
        let mut session = session(Stage::Connecting, now);
        for pause in pauses {
            session.handle_failure(failure.clone(), now);
            assert_eq!(session.poll_timeout(), now + Duration::from_millis(pause), "{failure}");
            now += Duration::from_millis(pause);
            session.handle_timeout(now);
            assert_eq!(actions(&mut session), [Action::Close, Action::Failed(failure.clone()), Action::Open]);
        }
    }
}

#[test]
fn a_session_that_stood_makes_the_next_attempt_quick_again() {
    let now = Instant::now();
    let mut session = session(Stage::Connecting, now);
    for _ in 0..5 {
        session.handle_failure(Failure::ConnectTimeout, now);
        session.handle_timeout(session.poll_timeout());
    }
    session.handle_connected(now);
    session.handle_secured();
    session.handle_packet(&accepted(), now);
    session.handle_failure(Failure::Closed, now);
    assert_eq!(session.poll_timeout(), now + FIRST_PAUSE);
}

#[test]
fn asks_at_each_interval_and_measures_the_round_trip() {
    let start = Instant::now();
    let mut session = session(Stage::Up, start);
    assert_eq!(session.round_trip(), None);
    for round in 1..5 {
        let asked = start + INTERVAL * round;
        assert_eq!(session.poll_timeout(), asked);
        session.handle_timeout(asked);
        assert_eq!(actions(&mut session), [Action::Ping]);
        session.handle_packet(&Packet::PingResp, asked + 7 * MS);
        assert_eq!(session.round_trip(), Some(7 * MS));
    }
    session.handle_failure(Failure::Closed, start + INTERVAL * 5);
    assert_eq!(session.round_trip(), None);
}

#[test]
fn a_late_answer_counts_and_the_next_question_follows_at_once() {
    let now = Instant::now();
    let mut session = session(Stage::Asking, now);
    let late = now + INTERVAL * 2;
    session.handle_packet(&Packet::PingResp, late);
    assert_eq!(session.poll_timeout(), late);
    session.handle_timeout(late);
    assert_eq!(actions(&mut session), [Action::Ping]);
    assert_eq!(session.poll_timeout(), late + TIMEOUT);
}

#[test]
fn an_interval_as_long_as_the_timeout_still_leaves_time_for_an_answer() {
    let now = Instant::now();
    let mut session = Session::new(Timing { interval: TIMEOUT, ..timing() }, now);
    session.handle_timeout(now);
    session.handle_connected(now);
    session.handle_secured();
    session.handle_packet(&accepted(), now);
    assert_eq!(session.poll_timeout(), now + TIMEOUT / 2);
    session.handle_timeout(now + TIMEOUT / 2);
    assert_eq!(session.poll_timeout(), now + TIMEOUT);
}

#[test]
fn a_pause_of_this_machine_costs_no_backend_its_life() {
    let now = Instant::now();
    // Nothing was asked before the pause: ask now, and give time to answer.
    let mut before = session(Stage::Up, now);
    let after = now + Duration::from_secs(60);
    before.handle_timeout(after);
    assert_eq!(actions(&mut before), [Action::Ping]);
    assert_eq!(before.poll_timeout(), after + TIMEOUT / 2);
    before.handle_timeout(after + TIMEOUT / 2 - MS);
    assert_eq!(actions(&mut before), []);
    before.handle_timeout(after + TIMEOUT / 2);
    assert_eq!(actions(&mut before), [Action::Close, Action::Failed(Failure::NoAnswer)]);
    // The answer came during the pause, and the driver hands it in before the time.
    let mut asked = session(Stage::Asking, now);
    asked.handle_packet(&Packet::PingResp, after);
    asked.handle_timeout(after);
    assert_eq!(actions(&mut asked), [Action::Ping]);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Connected,
    Secured,
    Accepted,
    Pong,
    Closed,
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Connected),
        1 => Just(Step::Secured),
        1 => Just(Step::Accepted),
        3 => Just(Step::Pong),
        1 => Just(Step::Closed),
        6 => (0_u64..700).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn up_and_failed_alternate_and_a_silent_backend_is_found_in_time(steps in proptest::collection::vec(any_step(), 0..200)) {
        let mut now = Instant::now();
        let mut session = Session::new(timing(), now);
        let mut up = false;
        let mut heard = now;
        for step in steps {
            match step {
                Step::Connected => session.handle_connected(now),
                Step::Secured => session.handle_secured(),
                Step::Accepted => session.handle_packet(&accepted(), now),
                Step::Pong => session.handle_packet(&Packet::PingResp, now),
                Step::Closed => session.handle_failure(Failure::Closed, now),
                Step::Wait(ms) => {
                    let until = now + Duration::from_millis(ms);
                    while session.poll_timeout() <= until {
                        // Never a timer that is due and does nothing: that would spin.
                        now = now.max(session.poll_timeout());
                        session.handle_timeout(now);
                        prop_assert!(session.poll_timeout() > now);
                    }
                    now = until;
                }
            }
            if matches!(step, Step::Pong | Step::Accepted) {
                heard = now;
            }
            while let Some(action) = session.poll_action() {
                match action {
                    Action::Up => {
                        prop_assert!(!up);
                        up = true;
                    }
                    Action::Failed(_) => up = false,
                    Action::Open | Action::Secure | Action::Introduce | Action::Close => prop_assert!(!up || action == Action::Close),
                    Action::Ping => prop_assert!(up),
                    Action::Subscribe | Action::Says(_) => prop_assert!(false, "nobody asked"),
                }
            }
            prop_assert!(!up || now < heard + TIMEOUT, "silent for too long");
            prop_assert!(session.pause <= LONGEST_PAUSE);
        }
    }
}
