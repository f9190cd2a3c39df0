#![no_main]

#[path = "../checks/submission.rs"]
mod submission;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| submission::check(bytes));
