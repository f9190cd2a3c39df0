# taskhub: what can be done here. `make` alone lists it.
#
#   DIR=     for demo: a folder to digest, instead of the play; its hub keeps its file in DATA= (./data)
#   LISTEN=  for demo: the address of its hub      (default: 127.0.0.1:8080, or the next port that is free)
#   PREFIX=  for install: where                    (default: /usr/local; DESTDIR= goes before it)
#   PROGRAM= for install: a program that was built elsewhere

CARGO ?= cargo
PREFIX ?= /usr/local
OBJCOPY ?= objcopy
export LISTEN DATA DIR

# Where cargo builds, however it was told to build elsewhere.
TARGET = $(or $(CARGO_TARGET_DIR),$(shell $(CARGO) metadata --format-version 1 --no-deps 2>/dev/null | \
    sed 's/.*"target_directory":"\([^"]*\)".*/\1/'),target)
BUILT = $(TARGET)/release/taskhub
TO = $(DESTDIR)$(PREFIX)

.DEFAULT_GOAL := help
.PHONY: help demo build install check deny test test-deps sim autobahn fuzz schemathesis bench clean

help: ## list what can be done
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## build, and show what it does for two minutes; DIR=… digests a folder instead
	@echo "Building taskhub; the first time this takes some minutes." >&2
ifdef DIR
	@exec $(CARGO) run --release --example checksum
else
	@exec $(CARGO) run --release --bin taskhub -- demo $(if $(LISTEN),--listen $(LISTEN))
endif

# cargo strips what it links, and would throw the tables away: here it does not, and they are moved beside the binary,
# where debuggers and backtraces find them.
build: ## the release binary, target/release/taskhub; its debug tables stand beside it as taskhub.debug
	$(CARGO) rustc --release --bin taskhub -- -C strip=none
	@program="$(BUILT)" && if command -v $(OBJCOPY) >/dev/null; then \
	    $(OBJCOPY) --only-keep-debug "$$program" "$$program.debug" && \
	    $(OBJCOPY) --strip-all --add-gnu-debuglink="$$program.debug" "$$program" "$$program.stripped" && \
	    mv "$$program.stripped" "$$program"; \
	fi

# Where there is no cargo (`sudo make install`), what was built before is installed.
install: ## the binary, its manual pages and completions, below PREFIX (/usr/local)
ifndef PROGRAM
	@if command -v $(CARGO) >/dev/null; then $(MAKE) --no-print-directory build; fi
	@$(MAKE) --no-print-directory install PROGRAM="$(BUILT)"
else
	install -d "$(TO)/bin" "$(TO)/share/man/man1" "$(TO)/share/bash-completion/completions" \
	    "$(TO)/share/zsh/site-functions" "$(TO)/share/fish/vendor_completions.d"
	install -m 755 "$(PROGRAM)" "$(TO)/bin/taskhub"
	"$(PROGRAM)" man --to "$(TO)/share/man/man1"
	"$(PROGRAM)" completions bash > "$(TO)/share/bash-completion/completions/taskhub"
	"$(PROGRAM)" completions zsh > "$(TO)/share/zsh/site-functions/_taskhub"
	"$(PROGRAM)" completions fish > "$(TO)/share/fish/vendor_completions.d/taskhub.fish"
endif

check: ## formatting, lints and documentation, with warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --quiet

# Advisories come over the network; where they cannot be had, that is said, and the rest still counts.
deny: ## licences, advisories and duplicates of what we depend on, where cargo-deny is installed
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
	    $(CARGO) deny check licenses bans sources && \
	    if $(CARGO) deny fetch db >/dev/null 2>&1; then $(CARGO) deny check --disable-fetch advisories; \
	    else echo "advisories cannot be fetched: they were not looked at" >&2; fi; \
	else echo "cargo-deny is not installed (cargo install --locked cargo-deny): nothing was looked at" >&2; fi

test: test-deps ## every test: Rust, the page's modules in Node, the page in Chromium
	$(CARGO) build --bin taskhub --examples --quiet
	$(CARGO) test --quiet
	node --test tests/web/*.test.mjs

test-deps: ## install what the tests need (Debian), or say what is missing
	@tests/deps.sh

sim: ## millions of steps of the simulation, and thousands of runs of the model of who sees what
	SIM_SEEDS=$${SIM_SEEDS:-20000} $(CARGO) test --release --test sim -- --nocapture
	TASKHUB_SCOPE_RUNS=$${TASKHUB_SCOPE_RUNS:-10000} $(CARGO) test --release --test scope_model -- --nocapture

autobahn: ## the parser of WebSocket frames against Autobahn's test suite (needs Python 2.7)
	@tests/autobahn/suite.sh
	$(CARGO) test --quiet --test autobahn -- --include-ignored --nocapture

fuzz: ## FUZZ_SECONDS (60) of each fuzz target
	@fuzz/run.sh

schemathesis: ## 20,000 calls that a fuzzer makes of the API's own document, CASES (60) for each route by each role
	@tests/schemathesis/run.sh

bench: ## every number the README quotes, as ratios measured in one run
	$(CARGO) bench

clean: ## remove what was built
	$(CARGO) clean
