#![no_main]

#[path = "../checks/filter_query.rs"]
mod filter_query;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| filter_query::check(bytes));
