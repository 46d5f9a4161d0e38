//! The seeds of `tests/fuzz`, by what its targets check: what was found once and mended stays mended.

#[path = "../../../../tests/fuzz/checks/mqtt_packet.rs"]
mod mqtt_packet;
#[path = "../../../../tests/fuzz/checks/replay.rs"]
mod replay;

#[test]
fn packets() {
    replay::replay("mqtt_packet", mqtt_packet::run);
}
