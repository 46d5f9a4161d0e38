#![expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]

use evermq_mqtt::packet::ConnAck;
use evermq_mqtt::properties::ConnAckProperties;
use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
const INTERVAL: Duration = Duration::from_millis(1000);
const KINDS: [Kind; 4] = [Kind::Tcp, Kind::Tls, Kind::Mqtt { tls: true }, Kind::Mqtt { tls: false }];

fn settings(kind: Kind) -> Settings {
    Settings {
        kind,
        connect_timeout: Duration::from_millis(300),
        interval: INTERVAL,
        timeout: Duration::from_millis(700),
        rise: 2,
        fall: 3,
    }
}

fn answer(reason: ReasonCode) -> Packet {
    Packet::ConnAck(Box::new(ConnAck { session_present: false, reason, properties: ConnAckProperties::default() }))
}

fn actions(probing: &mut Probing) -> Vec<Action> {
    std::iter::from_fn(|| probing.poll_action()).collect()
}

/// One probe that everything goes well with, from its due time; what it led to.
fn succeed(probing: &mut Probing) -> Vec<Action> {
    let now = probing.poll_timeout();
    probing.handle_timeout(now);
    probing.handle_connected(now);
    probing.handle_secured(now);
    probing.handle_packet(&answer(ReasonCode::Success), now);
    actions(probing)
}

fn fail(probing: &mut Probing, failure: Failure) -> Vec<Action> {
    let now = probing.poll_timeout();
    probing.handle_timeout(now);
    probing.handle_failure(failure, now);
    actions(probing)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Resting,
    Connecting,
    Securing,
    Introducing,
}

fn stage_of(probing: &Probing) -> Stage {
    match probing.state {
        State::Resting { .. } => Stage::Resting,
        State::Connecting { .. } => Stage::Connecting,
        State::Securing { .. } => Stage::Securing,
        State::Introducing { .. } => Stage::Introducing,
    }
}

/// Probes of a kind in a stage; `None` where the kind does not come there.
fn probing(kind: Kind, stage: Stage, now: Instant) -> Option<Probing> {
    let mut probing = Probing::new(settings(kind), 7, now);
    if stage != Stage::Resting {
        probing.handle_timeout(now);
    }
    if matches!(stage, Stage::Securing | Stage::Introducing) {
        probing.handle_connected(now);
    }
    if stage == Stage::Introducing {
        probing.handle_secured(now);
    }
    actions(&mut probing);
    (stage_of(&probing) == stage).then_some(probing)
}

#[test]
fn every_transition() {
    type Input = (&'static str, fn(&mut Probing, Instant));
    let inputs: [Input; 6] = [
        ("connected", Probing::handle_connected),
        ("secured", Probing::handle_secured),
        ("accepted", |probing, now| probing.handle_packet(&answer(ReasonCode::Success), now)),
        ("refused", |probing, now| probing.handle_packet(&answer(ReasonCode::NotAuthorized), now)),
        ("unavailable", |probing, now| probing.handle_packet(&answer(ReasonCode::ServerUnavailable), now)),
        ("closed", |probing, now| probing.handle_failure(Failure::Closed, now)),
    ];
    let now = Instant::now();
    let good = || (Stage::Resting, vec![Action::Close, Action::Alive]);
    let bad = |failure: Failure| {
        (Stage::Resting, vec![Action::Close, Action::Missed(failure.clone()), Action::Failed(failure)])
    };
    let mut seen = 0;
    for kind in KINDS {
        for stage in [Stage::Resting, Stage::Connecting, Stage::Securing, Stage::Introducing] {
            for (name, input) in inputs {
                let Some(mut probing) = probing(kind, stage, now) else { continue };
                let (to, expected) = match (stage, name) {
                    (Stage::Connecting, "connected") => match kind {
                        Kind::Tcp => good(),
                        Kind::Tls | Kind::Mqtt { tls: true } => (Stage::Securing, vec![Action::Secure]),
                        Kind::Mqtt { tls: false } => (Stage::Introducing, vec![Action::Introduce]),
                    },
                    (Stage::Securing, "secured") if kind == Kind::Tls => good(),
                    (Stage::Securing, "secured") => (Stage::Introducing, vec![Action::Introduce]),
                    (Stage::Introducing, "accepted") => {
                        (Stage::Resting, vec![Action::Farewell, Action::Close, Action::Alive])
                    }
                    (Stage::Introducing, "refused") => good(),
                    (Stage::Introducing, "unavailable") => {
                        bad(Failure::Rejected("CONNACK says \"Server unavailable\"".to_owned()))
                    }
                    (Stage::Connecting | Stage::Securing | Stage::Introducing, "closed") => bad(Failure::Closed),
                    _ => (stage, vec![]),
                };
                input(&mut probing, now);
                assert_eq!((stage_of(&probing), actions(&mut probing)), (to, expected), "{kind:?} {stage:?} {name}");
                seen += 1;
            }
        }
    }
    // tcp has two stages, tls three, mqtt over TLS four and in the clear three.
    assert_eq!(seen, 6 * (2 + 3 + 4 + 3));
}

#[test]
fn every_deadline_to_the_millisecond() {
    let now = Instant::now();
    let cases = [
        (Stage::Connecting, 300, Failure::ConnectTimeout),
        (Stage::Securing, 700, Failure::HandshakeTimeout),
        (Stage::Introducing, 700, Failure::HandshakeTimeout),
    ];
    for (stage, after, failure) in cases {
        let mut probing = probing(Kind::Mqtt { tls: true }, stage, now).expect("a stage of this kind");
        let due = now + after * MS;
        assert_eq!(probing.poll_timeout(), due);
        probing.handle_timeout(due - MS);
        assert_eq!(actions(&mut probing), []);
        probing.handle_timeout(due);
        assert_eq!(actions(&mut probing), [Action::Close, Action::Missed(failure.clone()), Action::Failed(failure)]);
    }
}

#[test]
fn the_first_probe_counts_by_itself_and_then_rise_and_fall_do() {
    let now = Instant::now();
    let kind = Kind::Tcp;
    let missed = || vec![Action::Open, Action::Close, Action::Missed(Failure::Refused)];
    let failed = || [missed(), vec![Action::Failed(Failure::Refused)]].concat();
    let good = || vec![Action::Open, Action::Close];
    let alive = || [good(), vec![Action::Alive]].concat();

    let mut probing = Probing::new(settings(kind), 1, now);
    assert_eq!(succeed(&mut probing), alive());
    // Two of three, then a good one: it starts over.
    assert_eq!(fail(&mut probing, Failure::Refused), missed());
    assert_eq!(fail(&mut probing, Failure::Refused), missed());
    assert_eq!(succeed(&mut probing), good());
    assert_eq!(fail(&mut probing, Failure::Refused), missed());
    assert_eq!(fail(&mut probing, Failure::Refused), missed());
    assert_eq!(fail(&mut probing, Failure::Refused), failed());
    assert_eq!(fail(&mut probing, Failure::Refused), missed());
    // One of two, then a bad one: it starts over.
    assert_eq!(succeed(&mut probing), good());
    assert_eq!(fail(&mut probing, Failure::Refused), missed());
    assert_eq!(succeed(&mut probing), good());
    assert_eq!(succeed(&mut probing), alive());

    let mut dead = Probing::new(settings(kind), 1, now);
    assert_eq!(fail(&mut dead, Failure::Refused), failed());
}

#[test]
fn another_reason_of_a_dead_backend_is_told() {
    let mut probing = Probing::new(settings(Kind::Tcp), 1, Instant::now());
    for failure in [Failure::Refused, Failure::ConnectTimeout, Failure::Refused] {
        let expected = [Action::Open, Action::Close, Action::Missed(failure.clone()), Action::Failed(failure.clone())];
        assert_eq!(fail(&mut probing, failure), expected);
    }
}

#[test]
fn this_hosts_own_lack_says_nothing() {
    let local = || Failure::Local("too many open files".to_owned());
    let mut probing = Probing::new(settings(Kind::Tcp), 1, Instant::now());
    succeed(&mut probing);
    for _ in 0..10 {
        assert_eq!(fail(&mut probing, local()), [Action::Open, Action::Close, Action::Missed(local())]);
    }
}

#[test]
fn probes_of_two_lbs_drift_apart_and_keep_the_interval() {
    let now = Instant::now();
    let due = |seed| {
        let mut probing = Probing::new(settings(Kind::Tcp), seed, now);
        let due: Vec<Instant> = (0..50)
            .map(|_| {
                succeed(&mut probing);
                probing.poll_timeout()
            })
            .collect();
        due
    };
    let (one, other) = (due(1), due(2));
    assert_ne!(one, other);
    assert_eq!(one, due(1));
    for pair in one.windows(2) {
        let pause = pair[1] - pair[0];
        assert!(pause >= INTERVAL * 9 / 10 && pause <= INTERVAL * 11 / 10, "{pause:?}");
    }
    let distinct: std::collections::BTreeSet<Duration> = one.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(distinct.len() > 40, "{}", distinct.len());
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Connected,
    Secured,
    Packet(ReasonCode),
    Closed,
    Wait(u64),
}

proptest! {
    #[test]
    fn verdicts_alternate_and_no_timer_spins(
        kind in proptest::sample::select(KINDS.to_vec()),
        seed in any::<u64>(),
        steps in proptest::collection::vec(prop_oneof![
            2 => Just(Step::Connected),
            2 => Just(Step::Secured),
            1 => Just(Step::Packet(ReasonCode::Success)),
            1 => Just(Step::Packet(ReasonCode::ServerUnavailable)),
            1 => Just(Step::Closed),
            4 => (0_u64..1500).prop_map(Step::Wait),
        ], 0..200),
    ) {
        let mut now = Instant::now();
        let mut probing = Probing::new(settings(kind), seed, now);
        let mut alive = None;
        let mut open = false;
        for step in steps {
            match step {
                Step::Connected => probing.handle_connected(now),
                Step::Secured => probing.handle_secured(now),
                Step::Packet(reason) => probing.handle_packet(&answer(reason), now),
                Step::Closed => probing.handle_failure(Failure::Closed, now),
                Step::Wait(ms) => {
                    let until = now + Duration::from_millis(ms);
                    while probing.poll_timeout() <= until {
                        now = now.max(probing.poll_timeout());
                        probing.handle_timeout(now);
                        prop_assert!(probing.poll_timeout() > now);
                    }
                    now = until;
                }
            }
            while let Some(action) = probing.poll_action() {
                match action {
                    Action::Open => {
                        prop_assert!(!open);
                        open = true;
                    }
                    Action::Secure | Action::Introduce | Action::Farewell => prop_assert!(open),
                    Action::Close => {
                        prop_assert!(open);
                        open = false;
                    }
                    Action::Alive => {
                        prop_assert_ne!(alive, Some(true));
                        alive = Some(true);
                    }
                    Action::Failed(_) => alive = Some(false),
                    Action::Missed(_) => prop_assert!(!open),
                }
            }
        }
    }
}
