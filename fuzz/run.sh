#!/bin/sh
# Each fuzz target for FUZZ_SECONDS, or those that are named. With the stable compiler and nothing but Cargo: what
# `cargo fuzz` does, without the sanitizers, which need a nightly one.
#
# What is found new is kept in target/fuzz/corpus. What fails is written to target/fuzz/artifacts; put it into
# fuzz/corpus/TARGET, and `cargo test --test fuzz` shows the failure until it is mended.
set -eu
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-60}
host=$(rustc -vV | sed -n 's/^host: //p')

# For the targets and not for build scripts, which is why the host is named: those would not link.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
${CARGO:-cargo} build --quiet --release --manifest-path fuzz/Cargo.toml --target "$host" --target-dir target/fuzz

for target in ${*:-inbound filter_json filter_query submission token claims auth_config}; do
    echo "$target: $seconds seconds"
    mkdir -p "target/fuzz/corpus/$target" target/fuzz/artifacts
    log=target/fuzz/$target.log
    if RUST_BACKTRACE=0 "target/fuzz/$host/release/$target" -max_total_time="$seconds" -max_len=4096 -rss_limit_mb=1024 -timeout=5 \
        -print_final_stats=1 -artifact_prefix="target/fuzz/artifacts/$target-" \
        "target/fuzz/corpus/$target" "fuzz/corpus/$target" >"$log" 2>&1; then
        grep -E 'DONE|number_of_executed_units|peak_rss_mb' "$log"
    else
        grep -vE 'NEW|REDUCE|RELOAD|pulse' "$log" | tail -n 40 >&2
        exit 1
    fi
done
