#![no_main]

#[path = "../checks/mqtt_topics.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::run(bytes));
