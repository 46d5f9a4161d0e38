//! Any records in any files as a broker's store, with right checksums and without: it opens or says why not, what it gives is of one piece, the look from outside agrees,
//! and opening it again gives the same.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use evermq_store::{Recovered, Settings, Sync, WallTime, decode_publish, encode_publish, inspect, open};
use libfuzzer_sys::fuzz_target;

const IDENTITY: [u8; 16] = *b"0123456789abcdef";

fuzz_target!(|bytes: &[u8]| {
    if let Ok(publish) = decode_publish(bytes) {
        let mut out = bytes::BytesMut::new();
        encode_publish(&publish, &mut out).expect("what was read can be written");
        assert_eq!(decode_publish(&out), Ok(publish));
    }
    let _ = inspect::segment(bytes, |_| {});
    let directory = fresh();
    write(&directory, bytes);
    if let Ok(checked) = inspect::check(&directory) {
        assert!(!format!("{checked:?}").is_empty());
    }
    let first = recovered(&directory);
    if let Some((first, _)) = &first {
        // What was torn or damaged is not found again as something else.
        let (second, damage) = recovered(&directory).expect("it opened before");
        assert_eq!(first, &second);
        let _ = damage;
    }
    fs::remove_dir_all(&directory).expect("it is ours");
});

/// A directory in memory, one for each process.
fn fresh() -> PathBuf {
    let directory = Path::new("/dev/shm").join(format!("evermq-fuzz-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir(&directory).expect("memory to write to");
    directory
}

/// The input is steps: a record with its frame, bytes without one, a new file.
fn write(directory: &Path, mut input: &[u8]) {
    let (mut number, mut file, mut previous) = (1_u64, Vec::new(), 0_u64);
    file.extend(header(number, previous));
    while let Some((&step, rest)) = input.split_first() {
        input = rest;
        let len = usize::from(input.first().copied().unwrap_or(0)).min(input.len());
        match step {
            0xF0..=0xF7 => {
                // Bytes as they are: garbage, or half a frame.
                file.extend_from_slice(&input[..len]);
                input = &input[len..];
            }
            0xF8..=0xFB => {
                fs::write(directory.join(format!("{number:016x}.log")), &file).expect("memory to write to");
                // Now and then the file before is longer than the next one says, or one is missing.
                previous = (file.len() as u64).saturating_sub(u64::from(step == 0xF9));
                number += 1 + u64::from(step == 0xFA);
                file = header(number, previous);
            }
            0xFC..=0xFF => file.truncate(file.len() - len.min(file.len())),
            kind => {
                let record = input.get(1..len).unwrap_or_default();
                frame(&mut file, kind % 32, record);
                input = &input[len..];
            }
        }
    }
    let _ = inspect::segment(&file, |_| {});
    fs::write(directory.join(format!("{number:016x}.log")), &file).expect("memory to write to");
}

fn header(number: u64, previous: u64) -> Vec<u8> {
    let mut out = vec![0; 96];
    out[..8].copy_from_slice(b"EVERMQLG");
    out[8] = 1;
    out[16..32].copy_from_slice(&IDENTITY);
    for (place, value) in out[32..80].chunks_exact_mut(8).zip([number, previous, 4, 1, 1, 1]) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    let checksum = crc32c::crc32c(&out[..80]);
    out[80..84].copy_from_slice(&checksum.to_le_bytes());
    out
}

fn frame(out: &mut Vec<u8>, kind: u8, record: &[u8]) {
    let [a, b, c, d, e, f, ..] = IDENTITY;
    let seed = u32::from_le_bytes([c, d, e, f]);
    let len = u32::try_from(record.len()).expect("short").to_le_bytes();
    let checked = [&[kind], &len[..]].concat();
    let checksum = crc32c::crc32c_append(crc32c::crc32c_append(seed, &checked), record);
    out.extend([a | 0x80, b | 0x01]);
    out.extend(checked);
    out.extend(checksum.to_le_bytes());
    out.extend(record);
}

/// What comes back, in words that can be compared, and the damage.
fn recovered(directory: &Path) -> Option<(Vec<String>, usize)> {
    let settings = Settings { path: directory.to_owned(), sync: Sync::Never, segment_size: 1 << 16, max_size: 1 << 22 };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
    match open(&settings, WallTime(now)) {
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
        Ok((store, recovered)) => {
            let words = words(&recovered);
            let damage = recovered.report.damage.len();
            drop(recovered);
            store.close();
            Some((words, damage))
        }
    }
}

fn words(recovered: &Recovered) -> Vec<String> {
    let message = |index: usize| {
        let message = recovered.messages.get(index).expect("an index of a message");
        format!("{:?} {} {} {:?}", message.publish, message.stamp_time, message.stamp_origin, message.received)
    };
    let mut all = Vec::new();
    for session in &recovered.sessions {
        all.push(format!(
            "{:?} {} {:?} {} {:?} {} {:?} {:?}",
            session.session,
            session.client_id,
            session.user,
            session.expiry,
            session.will,
            session.connected,
            session.subscriptions,
            session.received
        ));
        let mut out: Vec<_> = session.inflight.iter().map(|(id, _)| id).collect();
        out.sort_unstable();
        out.dedup();
        assert_eq!(out.len(), session.inflight.len(), "a packet identifier is out twice");
        for waiting in &session.waiting {
            all.push(format!(
                "waits {} {:?} {} {:?}",
                message(waiting.message),
                waiting.qos,
                waiting.retain,
                waiting.ids
            ));
        }
        for (id, waiting) in &session.inflight {
            all.push(format!("out {id} {:?}", waiting.as_ref().map(|waiting| message(waiting.message))));
        }
    }
    all.extend(recovered.wills.iter().map(|will| format!("will {will:?}")));
    all.extend(recovered.mesh.forwards.iter().map(|(seq, index)| format!("forward {seq} {}", message(*index))));
    all.extend(recovered.retained.iter().map(|index| format!("retained {}", message(*index))));
    all
}
