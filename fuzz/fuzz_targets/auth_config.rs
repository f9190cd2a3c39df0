#![no_main]

#[path = "../checks/auth_config.rs"]
mod auth_config;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| auth_config::check(bytes));
