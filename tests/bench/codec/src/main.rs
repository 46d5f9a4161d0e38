//! Measures each codec: nanoseconds and allocations for each packet, what a header may set aside, which malformed packets are refused and with which code.
//!
//! `evermq-codec-bench [ROUNDS]`: all codecs in turn in each round, medians of the rounds. Prints tables for `docs/adr/0016-codec.md`; with
//! `JSON=FILE` the same as JSON; with `PACKET=WORDS` only packets of that name.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::BytesMut;
use evermq_codec_bench::allocations::{self, Counting};
use evermq_codec_bench::codecs::{
    Codec, EverMq, MqttProto, ProtocolCore, RMqtt, Rumqttc, Version, decode_whole, round_trip,
};
use evermq_codec_bench::inputs::{Input, inputs};
use evermq_codec_bench::malformed::{ROWS, is_exact};
use evermq_codec_bench::{bytes, promises};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Time that one codec gets for one packet, one way, in one round.
const SLICE: Duration = Duration::from_millis(40);
const LIMIT: u32 = 1024 * 1024;

/// Nanoseconds to decode and to encode one packet; `None` where the codec refuses it.
type Times = Option<(f64, f64)>;

/// One codec's figures, behind a table of functions so that all run in turn.
struct Candidate {
    name: &'static str,
    times: fn(&Input) -> Times,
    allocations: fn(&Input) -> Option<[f64; 4]>,
    held: fn(u32) -> i64,
    refuses: fn(&[u8], Version) -> Verdict,
}

enum Verdict {
    Accepted,
    Refused(Option<u8>),
    Waits,
    Panicked,
}

fn candidate<C: Codec>() -> Candidate {
    Candidate {
        name: C::NAME,
        times: times::<C>,
        allocations: allocations::<C>,
        held: promises::held::<C>,
        refuses: verdict::<C>,
    }
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(9_usize);
    let candidates = [
        candidate::<EverMq>(),
        candidate::<ProtocolCore>(),
        candidate::<RMqtt>(),
        candidate::<MqttProto>(),
        candidate::<Rumqttc>(),
    ];
    let only = std::env::var("PACKET").unwrap_or_default();
    let inputs: Vec<_> = inputs().into_iter().filter(|input| input.name.contains(&only)).collect();
    allocations::switch(false);
    let speed = speed(&candidates, &inputs, rounds);
    allocations::switch(true);
    let allocated = allocated(&candidates, &inputs);
    let held = held(&candidates);
    let refused = refused(&candidates);
    let shared = shared(rounds);
    println!("\nPublishFrame of crates/mqtt, QoS 1, 5.0: {shared:.1} ns for each receiver after the first");
    if let Ok(path) = std::env::var("JSON") {
        let all = json!({ "rounds": rounds, "ns": speed, "allocations": allocated, "held": held, "malformed": refused, "frame_ns": shared });
        std::fs::write(&path, format!("{all:#}\n")).expect("JSON can be written");
    }
}

/// CPU time of this thread.
fn cpu() -> Duration {
    nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID.now().expect("Linux has this clock").into()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs `work`, which says how long the measured part took for how many packets, until the slice is over.
fn each(mut work: impl FnMut() -> (Duration, usize)) -> f64 {
    let (mut time, mut count) = (Duration::ZERO, 0);
    work();
    while time < SLICE {
        let (took, packets) = work();
        time += took;
        count += packets;
    }
    time.as_nanos() as f64 / count as f64
}

fn times<C: Codec>(input: &Input) -> Times {
    round_trip::<C>(&input.bytes, input.version).ok()?;
    let (stream, count) = input.stream();
    let decode = each(|| {
        let mut decoder = C::stream(input.version, LIMIT);
        let mut bytes = BytesMut::from(&stream[..]);
        let begin = cpu();
        for _ in 0..count {
            black_box(C::decode(&mut decoder, &mut bytes).ok().flatten().expect("a packet"));
        }
        (cpu() - begin, count)
    });
    let packet = decode_whole::<C>(&input.bytes, input.version).ok()?;
    let mut out = BytesMut::with_capacity(stream.len() + 64);
    let encode = each(|| {
        let packets = vec![packet.clone(); count];
        out.clear();
        let begin = cpu();
        for packet in packets {
            C::encode(packet, input.version, &mut out).expect("a valid packet");
        }
        black_box(&out);
        (cpu() - begin, count)
    });
    Some((decode, encode))
}

/// Calls and bytes for decoding and for encoding one packet.
fn allocations<C: Codec>(input: &Input) -> Option<[f64; 4]> {
    round_trip::<C>(&input.bytes, input.version).ok()?;
    let (stream, count) = input.stream();
    let mut decoder = C::stream(input.version, LIMIT);
    let mut bytes = BytesMut::from(&stream[..]);
    allocations::reset();
    for _ in 0..count {
        black_box(C::decode(&mut decoder, &mut bytes).ok().flatten().expect("a packet"));
    }
    let decoding = allocations::counts();
    let packets = vec![decode_whole::<C>(&input.bytes, input.version).ok()?; count];
    let mut out = BytesMut::with_capacity(stream.len() + 64);
    allocations::reset();
    for packet in packets {
        C::encode(packet, input.version, &mut out).expect("a valid packet");
    }
    let encoding = allocations::counts();
    let each = |value: u64| value as f64 / count as f64;
    Some([each(decoding.calls), each(decoding.bytes), each(encoding.calls), each(encoding.bytes)])
}

fn verdict<C: Codec>(bytes: &[u8], version: Version) -> Verdict {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let decoded = catch_unwind(AssertUnwindSafe(|| decode_whole::<C>(bytes, version).map(|_| ())));
    std::panic::set_hook(hook);
    match decoded {
        Ok(Ok(())) => Verdict::Accepted,
        Ok(Err(refusal)) if refusal.text == "waits for more" => Verdict::Waits,
        Ok(Err(refusal)) => Verdict::Refused(refusal.code),
        Err(_) => Verdict::Panicked,
    }
}

fn header(candidates: &[Candidate], first: &str) {
    let names: Vec<_> = candidates.iter().map(|candidate| candidate.name).collect();
    println!("| {first} | {} |\n|{}", names.join(" | "), "---|".repeat(names.len() + 1));
}

fn speed(candidates: &[Candidate], inputs: &[Input], rounds: usize) -> Value {
    let mut found: BTreeMap<(usize, usize), (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for _ in 0..rounds {
        for (row, input) in inputs.iter().enumerate() {
            for (column, candidate) in candidates.iter().enumerate() {
                if let Some((decode, encode)) = (candidate.times)(input) {
                    let (decodes, encodes) = found.entry((row, column)).or_default();
                    decodes.push(decode);
                    encodes.push(encode);
                }
            }
        }
    }
    println!("CPU nanoseconds for each packet, decode / encode, medians of {rounds}:\n");
    header(candidates, "packet");
    let mut rows = Vec::new();
    for (row, input) in inputs.iter().enumerate() {
        let mut line = format!("| {} |", input.name);
        let mut cells = serde_json::Map::new();
        for (column, candidate) in candidates.iter().enumerate() {
            match found.get_mut(&(row, column)) {
                Some((decodes, encodes)) => {
                    let (decode, encode) = (median(decodes), median(encodes));
                    line += &format!(" {decode:.0} / {encode:.0} |");
                    cells.insert(candidate.name.into(), json!({ "decode": decode, "encode": encode }));
                }
                None => line += " refuses it |",
            }
        }
        println!("{line}");
        rows.push(json!({ "packet": input.name, "bytes": input.bytes.len(), "ns": cells }));
    }
    rows.into()
}

fn allocated(candidates: &[Candidate], inputs: &[Input]) -> Value {
    println!("\nAllocations for each packet (bytes), decode / encode:\n");
    header(candidates, "packet");
    let mut rows = Vec::new();
    for input in inputs {
        let mut line = format!("| {} |", input.name);
        let mut cells = serde_json::Map::new();
        for candidate in candidates {
            match (candidate.allocations)(input) {
                Some([calls, bytes, encode_calls, encode_bytes]) => {
                    line += &format!(" {calls:.1} ({bytes:.0}) / {encode_calls:.1} ({encode_bytes:.0}) |");
                    cells.insert(candidate.name.into(), json!([calls, bytes, encode_calls, encode_bytes]));
                }
                None => line += " refuses it |",
            }
        }
        println!("{line}");
        rows.push(json!({ "packet": input.name, "allocations": cells }));
    }
    rows.into()
}

fn held(candidates: &[Candidate]) -> Value {
    println!("\nBytes set aside for a header that announces 268,435,455, without a limit / with one of {LIMIT}:\n");
    let mut cells = serde_json::Map::new();
    for candidate in candidates {
        let (without, with) = ((candidate.held)(u32::MAX), (candidate.held)(LIMIT));
        println!("- {}: {without} / {with}", candidate.name);
        cells.insert(candidate.name.into(), json!([without, with]));
    }
    cells.into()
}

fn refused(candidates: &[Candidate]) -> Value {
    println!(
        "\nMalformed packets ({}, of which {} of MQTT 5.0):\n",
        ROWS.len(),
        ROWS.iter().filter(|row| row.1 == Version::V5).count()
    );
    header(candidates, "");
    let mut lines = [const { String::new() }; 5];
    let mut all = serde_json::Map::new();
    for candidate in candidates {
        let mut counts = [0; 5];
        let mut details = Vec::new();
        for &(text, version, expected, statement) in ROWS {
            let (index, said) = match (candidate.refuses)(&bytes(text), version) {
                Verdict::Refused(Some(code)) if version == Version::V4 || is_exact(code, expected) => {
                    (0, "exact".to_owned())
                }
                Verdict::Refused(code) => (1, code.map_or("no code".to_owned(), |code| format!("{code:#04x}"))),
                Verdict::Accepted => (2, "accepted".to_owned()),
                Verdict::Waits => (3, "waits".to_owned()),
                Verdict::Panicked => (4, "panicked".to_owned()),
            };
            counts[index] += 1;
            if index > 0 {
                details.push(json!({ "bytes": text, "statement": statement, "expected": format!("{expected:#04x}"), "found": said }));
            }
        }
        for (line, count) in lines.iter_mut().zip(counts) {
            *line += &format!(" {count} |");
        }
        all.insert(candidate.name.into(), json!({ "counts": counts, "other_than_exact": details }));
    }
    let names = ["refused, exact code", "refused, no or another code", "accepted", "taken for incomplete", "panicked"];
    for (name, line) in names.iter().zip(&lines) {
        println!("| {name} |{line}");
    }
    all.into()
}

/// What one receiver more costs a message that was encoded once.
fn shared(rounds: usize) -> f64 {
    use evermq_mqtt::codec::PublishFrame;
    use evermq_mqtt::{Packet, PacketId, QoS, Version as Level};
    let input = inputs().into_iter().find(|input| input.name == "PUBLISH QoS 1, 5.0").expect("it is among them");
    let Ok(Packet::Publish(publish)) = decode_whole::<EverMq>(&input.bytes, input.version) else { panic!("a PUBLISH") };
    let frame = PublishFrame::new(&publish, Level::V5, QoS::AtLeastOnce).expect("a valid packet");
    let (stream, count) = input.stream();
    let mut out = BytesMut::with_capacity(stream.len() + 64);
    let id = Some(PacketId(std::num::NonZeroU16::MIN));
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            each(|| {
                out.clear();
                let begin = cpu();
                for _ in 0..count {
                    black_box(&frame).write(&mut out, false, false, id);
                }
                black_box(&out);
                (cpu() - begin, count)
            })
        })
        .collect();
    median(&mut times)
}
