# taskhub: what can be done here. `make` alone lists it.
#
#   DIR=     the folder that the demo digests       (default: the sources in cargo's registry)
#   LISTEN=  the address of the demo's hub          (default: 127.0.0.1:8080)
#   DATA=    the folder where it keeps its file     (default: ./data)

LISTEN ?= 127.0.0.1:8080
DATA ?= ./data
CARGO ?= cargo
export LISTEN DATA DIR

.DEFAULT_GOAL := help
.PHONY: help demo build check test test-deps sim autobahn fuzz bench clean

help: ## list what can be done
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## build, start a hub and a worker, and watch them digest a folder tree
	@$(CARGO) build --release --quiet --bin taskhub --example checksum
	@exec target/release/examples/checksum

build: ## the release binary: target/release/taskhub
	$(CARGO) build --release --bin taskhub

check: ## formatting, lints and documentation, with warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --quiet

test: test-deps ## every test: Rust, the page's modules in Node, the page in Chromium
	$(CARGO) build --bin taskhub --examples --quiet
	$(CARGO) test --quiet
	node --test tests/web/*.test.mjs

test-deps: ## install what the tests need (Debian), or say what is missing
	@tests/deps.sh

sim: ## millions of steps of the simulation, from fresh seeds
	SIM_SEEDS=$${SIM_SEEDS:-20000} $(CARGO) test --release --test sim -- --nocapture

autobahn: ## the parser of WebSocket frames against Autobahn's test suite (needs Python 2.7)
	@tests/autobahn/suite.sh
	$(CARGO) test --quiet --test autobahn -- --include-ignored --nocapture

fuzz: ## FUZZ_SECONDS (60) of each fuzz target
	@fuzz/run.sh

bench: ## every number the README quotes, as ratios measured in one run
	$(CARGO) bench

clean: ## remove what was built
	$(CARGO) clean
