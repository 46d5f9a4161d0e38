//! The seeds of `tests/fuzz`, by what its targets check: what was found once and mended stays mended.

#[path = "../../../../tests/fuzz/checks/mqtt_broker/mod.rs"]
#[expect(clippy::disallowed_methods, reason = "a story has to begin somewhere")]
mod mqtt_broker;
#[path = "../../../../tests/fuzz/checks/mqtt_retained.rs"]
#[expect(clippy::disallowed_methods, reason = "a story has to begin somewhere")]
mod mqtt_retained;
#[path = "../../../../tests/fuzz/checks/mqtt_session.rs"]
#[expect(clippy::disallowed_methods, reason = "a story has to begin somewhere")]
mod mqtt_session;
#[path = "../../../../tests/fuzz/checks/mqtt_topics.rs"]
mod mqtt_topics;
#[path = "../../../../tests/fuzz/checks/replay.rs"]
mod replay;

use self::replay::replay;

#[test]
fn four_clients_and_a_broker() {
    replay("mqtt_broker", mqtt_broker::run);
}

#[test]
fn sessions() {
    replay("mqtt_session", mqtt_session::run);
}

#[test]
fn retained_messages() {
    replay("mqtt_retained", mqtt_retained::run);
}

#[test]
fn subscriptions() {
    replay("mqtt_topics", mqtt_topics::run);
}
