#![no_main]

#[path = "../checks/mqtt_broker/mod.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::run(bytes));
