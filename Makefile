# One profile (--release) and one feature set per target, always the whole workspace: so that no dependency is built twice.
# `make check` leaves RocksDB out (its C++ takes ten minutes, once); `make test`, `make lint` and `make demo` share the full build.
CARGO ?= cargo
PURE := --release --workspace --no-default-features
FULL := --release --workspace

.DEFAULT_GOAL := help
.PHONY: help setup check lint build test chaos demo sim flink-diff bench fuzz hostile clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what building and testing needs and is missing (Debian packages)
	@scripts/setup

check: ## format, clippy and unit tests without RocksDB and Kafka: the daily loop
	@echo "check: format"
	@$(CARGO) fmt --all --check
	@echo "check: clippy, warnings are errors"
	@$(CARGO) clippy $(PURE) --all-targets -- -D warnings
	@echo "check: unit tests (no RocksDB, no Kafka)"
	@$(CARGO) test $(PURE)

lint: ## format and clippy over everything, RocksDB included; the image's Dockerfile
	@echo "lint: format"
	@$(CARGO) fmt --all --check
	@echo "lint: clippy, warnings are errors"
	@$(CARGO) clippy $(FULL) --all-targets -- -D warnings
	@echo "lint: what building the image would find out"
	@docker/check

build: ## the daemon with all features, in target/release/onceflow
	@echo "build: onceflow (the first build compiles RocksDB: about ten minutes on two cores)"
	@$(CARGO) build $(FULL)

test: setup build ## all tests, those against a real Kafka included
	@echo "test: Kafka's jars (fetched once)"
	@integration-tests/kafka/kafka jars
	@echo "test: unit, property and golden tests, then the daemon against a real Kafka"
	@CARGO="$(CARGO)" scripts/test

chaos: setup build ## a real Kafka and the daemon, hurt in every way, for about an hour and a quarter; SEED=… repeats a run
	@echo "chaos: Kafka's jars (fetched once)"
	@integration-tests/kafka/kafka jars
	@CARGO="$(CARGO)" SEED="$(SEED)" scripts/chaos

demo: setup build ## a pipeline under load, killed again and again, and the proof that nothing is lost or doubled
	@scripts/demo

sim: ## the protocol and the engine against a simulated Kafka, then each planted fault (SEED=n WHAT=protocol|engine replays one seed)
	@scripts/sim $(WHAT) $(SEED)

flink-diff: setup ## random streams through Onceflow and a real Flink, answers compared (CASES=400; SEED=n repeats a run)
	@CARGO="$(CARGO)" scripts/flink-diff

bench: setup build ## CPU per record beside Flink, Kafka Streams and the limit (hours; QUICK=1: one case in ten minutes; CASE=hopping: one)
	@integration-tests/kafka/kafka jars
	@target=$$($(CARGO) metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/') && \
	  $(if $(QUICK)$(filter-out micro,$(CASE)),,CARGO="$(CARGO)" benches/micro/run "$$target" "$$target/bench" $(RELEASE)$(if $(CASE),; exit) &&) \
	  benches/run "$$target/release" "$$target/bench" $(if $(QUICK),--quick) $(if $(CASE),--case $(CASE)) $(if $(ROUNDS),--rounds $(ROUNDS))

fuzz: setup ## hostile bytes, coverage-guided: each target for a minute (FUZZ_TARGET=sql, FUZZ_SECONDS=600)
	@CARGO="$(CARGO)" scripts/fuzz

hostile: setup build ## ten million hostile records through the daemon (takes some minutes and 15 GB of disk)
	@integration-tests/kafka/kafka jars
	@echo "hostile: ten million records, written, read and accounted for"
	@CARGO="$(CARGO)" scripts/test --test main -- --ignored --nocapture ten_million

clean: ## remove what cargo built
	@echo "clean: cargo's target directory"
	@$(CARGO) clean
