# What a person types here. `make` alone lists it.

CARGO ?= cargo

# Debian packages that tests and references call by name: the nginx of the comparison, system call counts,
# the client of the README's examples, and a sender of remote write.
DEBIAN_PACKAGES = nginx-light strace curl prometheus

# The other servers of `bench compare --with`; no test needs them.
BENCH_PACKAGES = victoria-metrics prometheus prometheus-node-exporter

# Empty for root, who may have no sudo.
SUDO = $(if $(filter 0,$(shell id -u)),,sudo)

.DEFAULT_GOAL := help
.PHONY: help run test test-needs bench-needs test-rust test-loom fuzz lint format

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: ## build for release and start the server on 127.0.0.1:8080, data in ./data
	$(CARGO) run --release --locked

test: test-needs test-rust test-loom ## install what the tests need, then run every test

test-needs: ## install the Debian packages that are missing
	@missing=; \
	for package in $(DEBIAN_PACKAGES); do \
		dpkg -s "$$package" 2>/dev/null | grep -q '^Status: .* installed$$' || missing="$$missing $$package"; \
	done; \
	if [ -z "$$missing" ]; then echo "test needs: all installed ($(DEBIAN_PACKAGES))"; exit 0; fi; \
	echo "test needs: installing$$missing"; \
	command -v apt-get >/dev/null || { echo "no apt-get here: install$$missing by hand" >&2; exit 1; }; \
	$(SUDO) apt-get update && \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing

bench-needs: ## install the Debian packages that only comparisons need
	@$(MAKE) --no-print-directory test-needs DEBIAN_PACKAGES="$(BENCH_PACKAGES)"

# Tests that need more than Rust are marked `#[ignore = "why"]`, so that plain `cargo test` passes over them.
# They run here in a call of their own, because --include-ignored would also run ignored documentation.
test-rust: ## every test of the workspace, those that need the packages too
	$(CARGO) test --workspace --all-features --locked
	$(CARGO) test --workspace --all-features --locked --tests -- --ignored

# loom replaces the atomics of the whole build, hence a target folder of its own; its tests lie in the ring's
# module `explored`. A filter that matches no test would pass without a word, so the list is looked at first.
LOOM = RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom \
	$(CARGO) test --package shard --release --locked --lib -- explored

test-loom: ## every interleaving of the rings between cores, under loom
	@$(LOOM) --list | grep -q ': test$$' || { echo "no loom test to run in shard" >&2; exit 1; }
	$(LOOM)

# Coverage leads the guesses; the compiler's flags for it are stable ones, but want a target folder of their own. What
# reached new code is kept in the corpus, from which the next run goes on; a finding is written beside it.
TARGET ?=
SECONDS_MAX ?= 60
FUZZ = target/fuzz
FUZZ_HOST = $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares

fuzz: ## guess at the decoder TARGET for SECONDS_MAX (60); without TARGET list them; needs a C++ compiler
	@if [ -z "$(TARGET)" ]; then exec $(CARGO) run --quiet --locked --package fuzz; fi; \
	set -e; mkdir -p $(FUZZ)/corpus/$(TARGET); \
	$(CARGO) run --quiet --locked --package fuzz -- $(TARGET) $(FUZZ)/corpus/$(TARGET); \
	RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --release --locked --manifest-path bench/fuzz/guided/Cargo.toml \
		--target $(FUZZ_HOST) --target-dir $(FUZZ); \
	FUZZ_TARGET=$(TARGET) $(FUZZ)/$(FUZZ_HOST)/release/guided -max_total_time=$(SECONDS_MAX) -timeout=5 \
		-rss_limit_mb=1024 -max_len=4096 -artifact_prefix=$(FUZZ)/$(TARGET)- $(FUZZ)/corpus/$(TARGET)

lint: ## what the build service checks besides the tests: clippy without warnings, format
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	$(CARGO) fmt --all --check

format: ## format every crate
	$(CARGO) fmt --all
