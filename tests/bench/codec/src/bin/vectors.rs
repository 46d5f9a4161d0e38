//! Writes what each other codec makes of the packets of `crates/mqtt/tests/mqtt/other_codecs/packets.rs`, one file for each, into the directory given:
//! `vectors tests/captures/mqtt-codecs`. Each decodes our bytes and encodes what it has read.

#[path = "../../../../../crates/mqtt/tests/mqtt/other_codecs/packets.rs"]
mod packets;

use std::fmt::Write as _;
use std::path::Path;

use bytes::BytesMut;
use evermq_codec_bench::codecs::{
    Codec, EverMq, MqttProto, ProtocolCore, RMqtt, Rumqttc, Version, decode_whole, round_trip,
};
use evermq_mqtt::Version as Level;

fn main() {
    let directory = std::env::args().nth(1).expect("vectors DIRECTORY");
    let directory = Path::new(&directory);
    write::<ProtocolCore>(directory);
    write::<RMqtt>(directory);
    write::<MqttProto>(directory);
    write::<Rumqttc>(directory);
}

fn write<C: Codec>(directory: &Path) {
    let mut text = format!("# {}: version, packet, what it wrote\n", C::NAME);
    let mut count = 0;
    for (name, level, packet) in packets::packets() {
        let version = if level == Level::V5 { Version::V5 } else { Version::V4 };
        let mut ours = BytesMut::new();
        EverMq::encode(packet.clone(), version, &mut ours).expect("a valid packet");
        let said = match round_trip::<C>(&ours, version) {
            Err(refusal) => format!("# refuses {name}: {refusal}"),
            Ok(theirs) => {
                let hex: Vec<String> = theirs.iter().map(|byte| format!("{byte:02x}")).collect();
                let number = if level == Level::V5 { 5 } else { 4 };
                let line = format!("{number} {name} {}", hex.join(" "));
                match decode_whole::<EverMq>(&theirs, version) {
                    Ok(read) if read == packet => {
                        count += 1;
                        line
                    }
                    Ok(_) => format!("# means something else: {line}"),
                    Err(refusal) => format!("# {}: {line}", refusal.text),
                }
            }
        };
        writeln!(text, "{said}").expect("a string");
    }
    let file = C::NAME.split(' ').next().expect("a name");
    std::fs::write(directory.join(format!("{file}.hex")), text).expect("the directory is there");
    println!("{file} {count}");
}
