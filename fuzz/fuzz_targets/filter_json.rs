#![no_main]

#[path = "../checks/filter_json.rs"]
mod filter_json;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| filter_json::check(bytes));
