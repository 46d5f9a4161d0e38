//! CONNECT, CONNACK, keep alive, wills, expiry, takeover.

use evermq_mqtt::packet::{ConnAck, Disconnect, Will};
use evermq_mqtt::properties::{DisconnectProperties, WillProperties};

use super::*;
use crate::session::connect::check;

fn will(delay: Option<u32>) -> Option<Will> {
    Some(Will {
        topic: topic("will"),
        payload: Bytes::from_static(b"gone"),
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: WillProperties { delay, ..WillProperties::default() },
    })
}

fn will_message() -> Action {
    Action::Publish(Publish {
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: topic("will"),
        packet_id: None,
        payload: Bytes::from_static(b"gone"),
        ..publish(QoS::AtMostOnce, 0)
    })
}

fn connack(actions: &[Action]) -> ConnAck {
    match actions {
        [Action::Send(Packet::ConnAck(connack))] => (**connack).clone(),
        other => panic!("no CONNACK alone: {other:?}"),
    }
}

#[test]
fn connack_says_what_is_granted() {
    let mut client = Client::new(Limits { max_keep_alive: Duration::from_secs(60), ..limits() });
    let mut asked = connect();
    asked.keep_alive = 100;
    asked.properties.session_expiry = Some(u32::MAX);
    let connack = connack(&client.connect(asked));
    assert!(!connack.session_present);
    assert_eq!(connack.reason, ReasonCode::Success);
    assert_eq!(connack.properties.session_expiry, Some(600));
    assert_eq!(connack.properties.receive_maximum, Some(3));
    assert_eq!(connack.properties.maximum_packet_size, Some(1024));
    assert_eq!(connack.properties.topic_alias_maximum, Some(10));
    assert_eq!(connack.properties.server_keep_alive, Some(60));
    assert_eq!(connack.properties.shared_subscription_available, Some(true));
}

#[test]
fn connack_is_silent_where_the_client_got_what_it_asked() {
    let mut client = Client::new(limits());
    let connack = connack(&client.connect(connect()));
    assert_eq!(connack.properties.session_expiry, None);
    assert_eq!(connack.properties.server_keep_alive, None);
}

#[test]
fn older_clients_get_no_properties_and_keep_their_keep_alive() {
    let mut client = Client::new(Limits { max_keep_alive: Duration::from_secs(60), ..limits() });
    let old = Connect { version: Version::V4, keep_alive: 100, properties: ConnectProperties::default(), ..connect() };
    assert_eq!(connack(&client.connect(old)).properties, Default::default());
    assert_eq!(client.session.poll_timeout(), Some(client.now + Duration::from_secs(150)));
}

#[test]
fn what_a_connect_may_not_be() {
    type Change = fn(&mut Connect);
    let table: &[(&str, Change, ReasonCode)] = &[
        (
            "authentication method",
            |connect| connect.properties.authentication_method = Some(text("x")),
            ReasonCode::BadAuthenticationMethod,
        ),
        (
            "empty identifier in MQTT 3.1",
            |connect| (connect.version, connect.clean_start, connect.client_id) = (Version::V3, true, text("")),
            ReasonCode::ClientIdentifierNotValid,
        ),
        (
            "empty identifier without a clean session",
            |connect| (connect.version, connect.client_id) = (Version::V4, text("")),
            ReasonCode::ClientIdentifierNotValid,
        ),
        (
            "will to the broker's own topics",
            |connect| connect.will = Some(Will { topic: topic("$SYS/x"), ..will(None).unwrap() }),
            ReasonCode::NotAuthorized,
        ),
        (
            "will with too many levels",
            |connect| connect.will = Some(Will { topic: topic("1/2/3/4/5"), ..will(None).unwrap() }),
            ReasonCode::TopicNameInvalid,
        ),
    ];
    assert_eq!(check(&connect(), &limits(), false), Ok(()));
    for (what, change, reason) in table {
        let mut connect = connect();
        change(&mut connect);
        assert_eq!(check(&connect, &limits(), false), Err(*reason), "{what}");
    }
    for (version, clean_start) in [(Version::V4, true), (Version::V5, true), (Version::V5, false)] {
        let connect = Connect { version, clean_start, client_id: text(""), ..connect() };
        assert_eq!(check(&connect, &limits(), false), Ok(()));
    }
}

#[test]
fn keep_alive_ends_after_one_and_a_half_times() {
    let mut client = Client::connected(Connect { keep_alive: 10, ..connect() });
    assert_eq!(client.session.poll_timeout(), Some(client.now + Duration::from_secs(15)));
    assert_eq!(client.after(Duration::from_secs(14)), []);
    assert_eq!(client.packet(Packet::PingReq), [Action::Send(Packet::PingResp)]);
    assert_eq!(client.after(Duration::from_secs(14)), [], "the packet set the time anew");
    let actions = client.after(Duration::from_secs(1));
    assert_eq!(disconnected(&actions), Some(ReasonCode::KeepAliveTimeout));
    assert_eq!(client.session.link(), None);
}

#[test]
fn a_client_that_is_not_read_from_is_not_silent() {
    let mut client = Client::connected(Connect { keep_alive: 10, ..connect() });
    client.now += Duration::from_secs(15);
    client.session.excuse_silence(client.now);
    assert_eq!(client.after(Duration::from_secs(14)), []);
}

#[test]
fn will_at_once_without_delay() {
    let mut client = Client::connected(Connect { will: will(None), ..connect() });
    assert_eq!(client.lose(), [will_message()]);
}

#[test]
fn will_after_its_delay() {
    let mut client = Client::connected(Connect { will: will(Some(30)), ..connect() });
    assert_eq!(client.lose(), []);
    assert_eq!(client.session.poll_timeout(), Some(client.now + Duration::from_secs(30)));
    assert_eq!(client.after(Duration::from_secs(29)), []);
    assert_eq!(client.after(Duration::from_secs(1)), [will_message()]);
    assert_eq!(client.session.poll_timeout(), Some(client.now + Duration::from_secs(70)), "then the session expires");
    assert_eq!(client.after(Duration::from_secs(70)), [Action::End { filters: vec![] }]);
    assert!(client.session.is_ended());
}

#[test]
fn will_not_after_a_return_in_time() {
    let mut client = Client::connected(Connect { will: will(Some(30)), ..connect() });
    client.lose();
    client.now += Duration::from_secs(29);
    assert!(connack(&client.connect(connect())).session_present);
    assert_eq!(client.lose(), []);
    assert_eq!(client.after(Duration::from_secs(50)), [], "the new CONNECT had no will");
}

#[test]
fn will_before_the_session_ends() {
    let mut client = Client::connected(Connect { will: will(Some(300)), ..connect() });
    client.lose();
    assert_eq!(client.after(Duration::from_secs(100)), [will_message(), Action::End { filters: vec![] }]);
}

#[test]
fn no_will_after_a_normal_disconnect_and_one_after_0x04() {
    for (reason, expected) in [
        (ReasonCode::Success, None),
        (ReasonCode::DisconnectWithWill, Some(will_message())),
        (ReasonCode::UnspecifiedError, Some(will_message())),
    ] {
        let mut client = Client::connected(Connect { will: will(None), ..connect() });
        let actions = client.packet(Packet::Disconnect(Disconnect { reason, properties: None }));
        let mut actions = actions.into_iter();
        assert!(matches!(actions.next(), Some(Action::Close { .. })));
        assert_eq!(actions.next(), expected, "{reason:?}");
        assert_eq!(actions.next(), None);
    }
}

#[test]
fn takeover_publishes_the_old_will_unless_delayed() {
    let mut client = Client::connected(Connect { will: will(None), ..connect() });
    let old = client.session.link();
    let actions = client.connect(connect());
    assert_eq!(actions[0], will_message());
    assert!(connack(&actions[1..]).session_present);
    assert_ne!(client.session.link(), old);

    let mut client = Client::connected(Connect { will: will(Some(30)), ..connect() });
    assert!(connack(&client.connect(connect())).session_present);
    assert_eq!(client.after(Duration::from_secs(60)), []);
}

#[test]
fn disconnect_may_change_the_session_expiry_but_not_raise_it_from_zero() {
    let disconnect = |seconds| {
        Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: Some(Box::new(DisconnectProperties {
                session_expiry: Some(seconds),
                ..DisconnectProperties::default()
            })),
        })
    };
    let mut client = Client::connected(connect());
    client.packet(disconnect(5));
    assert_eq!(client.session.poll_timeout(), Some(client.now + Duration::from_secs(5)));

    let mut client = Client::connected(connect());
    client.packet(disconnect(0));
    assert!(client.session.is_ended());

    let mut client = Client::connected(Connect { properties: ConnectProperties::default(), ..connect() });
    assert_eq!(disconnected(&client.packet(disconnect(5))), Some(ReasonCode::ProtocolError));
}

#[test]
fn packets_that_end_the_connection() {
    let auth = evermq_mqtt::packet::Auth {
        reason: ReasonCode::ReAuthenticate,
        properties: evermq_mqtt::properties::AuthProperties {
            authentication_method: Some(text("x")),
            ..Default::default()
        },
    };
    let packets = [Packet::Connect(Box::new(connect())), Packet::Auth(auth), Packet::PingResp];
    for packet in packets {
        let mut client = Client::connected(connect());
        let actions = client.packet(packet.clone());
        assert_eq!(disconnected(&actions), Some(ReasonCode::ProtocolError), "{packet:?}");
        assert_eq!(client.packet(Packet::PingReq), [], "nothing after it is heard");
    }
}

#[test]
fn older_clients_get_no_disconnect() {
    let mut client = Client::connected(Connect { version: Version::V4, ..connect() });
    let actions = client.packet(Packet::PingResp);
    assert!(matches!(actions.as_slice(), [Action::Close { reason: ReasonCode::ProtocolError, .. }]), "{actions:?}");
}

#[test]
fn reason_strings_only_for_those_who_want_them() {
    for (wants, size, expected) in [(None, None, true), (Some(false), None, false), (None, Some(100), false)] {
        let mut asked = connect();
        asked.properties.request_problem_information = wants;
        asked.properties.maximum_packet_size = size;
        let mut client = Client::connected(asked);
        match &client.packet(Packet::PingResp)[0] {
            Action::Send(Packet::Disconnect(disconnect)) => {
                assert_eq!(disconnect.properties.is_some(), expected, "{wants:?} {size:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}
