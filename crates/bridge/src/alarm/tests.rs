use std::net::{Ipv4Addr, SocketAddr};

use super::*;

fn peer(name: &str) -> PeerState {
    PeerState {
        name: name.to_owned(),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8884)),
        answers: true,
        filled: true,
        connected: true,
        receiving: true,
        apart_seconds: 0.0,
        lag: 0,
        lag_bytes: 0,
        lag_seconds: 0.0,
        sent: 0,
        acknowledged: 0,
        resent: 0,
        expired: 0,
        is_losing: false,
        lost: 0,
        gaps: 0,
        received: 0,
        duplicates: 0,
        missed: 0,
        malformed: 0,
        bytes_sent: 0,
        bytes_received: 0,
        taken_over: 0,
        shared_members: 0,
        last_error: Some("connection refused".to_owned()),
    }
}

fn state(peers: Vec<PeerState>) -> BridgeState {
    BridgeState {
        origin: "broker1".to_owned(),
        epoch: 1,
        last_seq: 0,
        log_messages: 0,
        log_bytes: 0,
        log_oldest_seconds: 0.0,
        pressure: false,
        strangers: 0,
        handed_over: 0,
        peers_joined: 0,
        peers_left: 0,
        abandoned: 0,
        peers,
    }
}

#[test]
fn a_peer_that_is_there_or_away_for_a_moment_is_no_alarm() {
    let restarting = PeerState { connected: false, receiving: false, apart_seconds: 9.9, ..peer("broker3") };
    assert_eq!(of(&state(vec![peer("broker2"), restarting])), None);
}

#[test]
fn who_loses_messages_comes_first() {
    let away = PeerState { connected: false, receiving: false, apart_seconds: 12.3, lag: 7, ..peer("broker2") };
    let deaf = PeerState { receiving: false, apart_seconds: 11.0, ..peer("broker3") };
    let losing = PeerState { is_losing: true, connected: false, apart_seconds: 3600.0, ..peer("broker4") };
    let text = of(&state(vec![away, deaf, losing])).unwrap_or_default();
    let parts = [
        "broker4 loses messages: more wait for it than",
        "broker2 is away for 12 s (connection refused); 7 messages wait for it;",
        "broker3 is reached, and its messages do not come for 11 s;",
    ];
    let at: Vec<_> = parts.iter().map(|part| text.find(part)).collect();
    assert!(at.is_sorted() && at.iter().all(Option::is_some), "{text}");
    assert_eq!(text.matches("out of the cluster file").count(), 3, "{text}");
}
