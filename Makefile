# Two commands do the main jobs: `make demo` and `make test`. Each sets up what it needs. The work is in scripts/.
# ARGS goes to the command: make demo ARGS="--records 1000000 --loss 0.01"
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
KAFKA := deploy/kafka-dev/kafka.sh
# A full version, or 4 or 3 for the one pinned in scripts/lib.sh.
KAFKA_VERSION ?= 4
.DEFAULT_GOAL := help

.PHONY: help
help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-16s %s\n", $$1, $$2 }'

.PHONY: demo
demo: ## Records cross from one Kafka over a one-way link to another, with nothing to configure
	@scripts/demo.sh $(ARGS)

.PHONY: observe
observe: ## Metrics, logs, alerts and dashboards of a demo that loses datagrams, on loopback, until Ctrl-C
	@scripts/observe.sh $(ARGS)

.PHONY: test
test: ## Every check and test, with real brokers; the last line is the sum
	@scripts/test.sh

.PHONY: check
check: ## The quick loop: formatting, lints and tests of the crates without C
	@scripts/check.sh

.PHONY: test-fresh-root
test-fresh-root: ## make demo and make test in a fresh Debian 12 root (needs root and mmdebstrap)
	@scripts/fresh-root.sh

.PHONY: test-all
test-all: test test-fresh-root ## test, and test-fresh-root

.PHONY: fmt
fmt: ## Formats the Rust code
	@scripts/cargo.sh fmt --all

.PHONY: docs
docs: ## Writes the generated pages, schemas and files again
	@scripts/cargo.sh xtask docs

.PHONY: deny
deny: ## Licences, sources and duplicates of the dependencies
	@scripts/cargo-deny.sh check

.PHONY: kafka-up
kafka-up: ## Two brokers for experiments: source 127.0.0.1:9092, destination 127.0.0.1:9192
	@scripts/setup.sh --for test
	@$(KAFKA) status source >/dev/null || $(KAFKA) start source $(KAFKA_VERSION) 9092
	@$(KAFKA) status destination >/dev/null || $(KAFKA) start destination $(KAFKA_VERSION) 9192

.PHONY: kafka-down
kafka-down: ## Stops both; their data stays in ~/.local/state/ddc/kafka
	@$(KAFKA) stop source
	@$(KAFKA) stop destination
