#![no_main]

#[path = "../checks/inbound.rs"]
mod inbound;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| inbound::check(bytes));
