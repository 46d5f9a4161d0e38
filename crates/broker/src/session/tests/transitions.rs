//! The whole transition table: every input in every state.

use super::*;
use crate::session::State;
use crate::session::Will;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum In {
    Connect,
    ConnectClean,
    Disconnect,
    DisconnectWithWill,
    Malformed,
    Close,
    Lost,
    Expires,
    End,
    Message,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    New,
    Connected,
    /// Connected, and the session ends with the connection.
    Clean,
    Detached,
    Ended,
}

/// What a test may see: state, whether the will went out, whether End was said.
#[derive(Debug, PartialEq, Eq)]
struct Out(&'static str, bool, bool);

fn client_at(at: At) -> Client {
    let mut client = Client::new(limits());
    let expiry = if at == At::Clean { None } else { Some(100) };
    let will = evermq_mqtt::packet::Will {
        topic: topic("will"),
        payload: Bytes::new(),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Default::default(),
    };
    let mut connect = connect();
    connect.properties.session_expiry = expiry;
    connect.will = Some(will);
    if at != At::New {
        client.connect(connect);
    }
    match at {
        At::New | At::Connected | At::Clean => {}
        // Its will has a delay that is longer than the session lives, so that it is still there.
        At::Detached => {
            let publish = client.session.will.take().unwrap().publish;
            client.session.will = Some(Box::new(Will { publish, delay: Duration::from_secs(1000) }));
            client.lose();
        }
        At::Ended => {
            client.session.handle_end(client.now);
            client.actions();
        }
    }
    client
}

fn feed(client: &mut Client, input: In) -> Out {
    let now = client.now;
    let disconnect = |reason| Packet::Disconnect(evermq_mqtt::packet::Disconnect { reason, properties: None });
    match input {
        In::Connect => {
            client.links += 1;
            let granted = Granted::new(connect(), LinkId(client.links), &client.session.limits, None);
            client.session.handle_connect(granted, now);
        }
        In::ConnectClean => {
            let clean = Connect { properties: ConnectProperties::default(), ..connect() };
            client.links += 1;
            let granted = Granted::new(clean, LinkId(client.links), &client.session.limits, None);
            client.session.handle_connect(granted, now);
        }
        In::Disconnect => client.session.handle_packet(disconnect(ReasonCode::Success), now),
        In::DisconnectWithWill => client.session.handle_packet(disconnect(ReasonCode::DisconnectWithWill), now),
        In::Malformed => client.session.handle_malformed(&evermq_mqtt::codec::DecodeError::Truncated, now),
        In::Close => client.session.handle_close(ReasonCode::ServerShuttingDown, now),
        In::Lost => client.session.handle_lost(now),
        In::Expires => client.session.handle_timeout(now + Duration::from_secs(100)),
        In::End => client.session.handle_end(now),
        In::Message => {
            client.session.deliver(delivery(QoS::AtLeastOnce, 1, now));
        }
    }
    let actions = client.actions();
    let state = match client.session.state {
        State::Connected(_) => "connected",
        State::Detached { .. } => "detached",
        State::Ended => "ended",
    };
    let will = actions.iter().any(|action| matches!(action, Action::Publish(_)));
    let end = actions.iter().any(|action| matches!(action, Action::End { .. }));
    Out(state, will, end)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_input_in_every_state() {
    use At::{Clean, Connected, Detached, Ended, New};
    let table: &[(In, [(At, Out); 5])] = &[
        (
            In::Connect,
            [
                (New, Out("connected", false, false)),
                (Connected, Out("connected", true, false)),
                (Clean, Out("connected", true, false)),
                (Detached, Out("connected", false, false)),
                (Ended, Out("ended", false, false)),
            ],
        ),
        (
            In::ConnectClean,
            [
                (New, Out("connected", false, false)),
                (Connected, Out("connected", true, false)),
                (Clean, Out("connected", true, false)),
                (Detached, Out("connected", false, false)),
                (Ended, Out("ended", false, false)),
            ],
        ),
        (
            In::Disconnect,
            [
                (New, Out("detached", false, false)),
                (Connected, Out("detached", false, false)),
                (Clean, Out("ended", false, true)),
                (Detached, Out("detached", false, false)),
                (Ended, Out("ended", false, false)),
            ],
        ),
        (
            In::DisconnectWithWill,
            [
                (New, Out("detached", false, false)),
                (Connected, Out("detached", true, false)),
                (Clean, Out("ended", true, true)),
                (Detached, Out("detached", false, false)),
                (Ended, Out("ended", false, false)),
            ],
        ),
        (
            In::Malformed,
            [
                (New, Out("detached", false, false)),
                (Connected, Out("detached", true, false)),
                (Clean, Out("ended", true, true)),
                (Detached, Out("detached", false, false)),
                (Ended, Out("ended", false, false)),
            ],
        ),
        (
            In::Close,
            [
                (New, Out("detached", false, false)),
                (Connected, Out("detached", true, false)),
                (Clean, Out("ended", true, true)),
                (Detached, Out("detached", false, false)),
                (Ended, Out("ended", false, false)),
            ],
        ),
        (
            In::Lost,
            [
                (New, Out("detached", false, false)),
                (Connected, Out("detached", true, false)),
                (Clean, Out("ended", true, true)),
                (Detached, Out("detached", false, false)),
                (Ended, Out("ended", false, false)),
            ],
        ),
        // Without keep alive a connection never times out. A session that expires takes its will along.
        (
            In::Expires,
            [
                (New, Out("detached", false, false)),
                (Connected, Out("connected", false, false)),
                (Clean, Out("connected", false, false)),
                (Detached, Out("ended", true, true)),
                (Ended, Out("ended", false, false)),
            ],
        ),
        (
            In::End,
            [
                (New, Out("ended", false, true)),
                (Connected, Out("ended", true, true)),
                (Clean, Out("ended", true, true)),
                (Detached, Out("ended", true, true)),
                (Ended, Out("ended", false, false)),
            ],
        ),
        (
            In::Message,
            [
                (New, Out("detached", false, false)),
                (Connected, Out("connected", false, false)),
                (Clean, Out("connected", false, false)),
                (Detached, Out("detached", false, false)),
                (Ended, Out("ended", false, false)),
            ],
        ),
    ];
    for (input, row) in table {
        for (at, expected) in row {
            assert_eq!(feed(&mut client_at(*at), *input), *expected, "{input:?} at {at:?}");
        }
    }
    assert_eq!(table.len(), 10);
}
