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
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-16s %s\n", $$1, $$2 }'

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

# Of `make chaos`.
SECONDS := 60
SEED := 7

.PHONY: chaos
chaos: ## Faults on a link between two real clusters: make chaos SECONDS=600 SEED=7; the report is in target/chaos (docs/chaos.md)
	@scripts/chaos.sh --seconds $(SECONDS) --seed $(SEED) $(ARGS)

.PHONY: dist
dist: ## Binaries and packages for amd64 and arm64, in dist/
	@scripts/dist.sh $(ARGS)
	@deploy/packages/build.sh
	@scripts/dist.sh --sums

.PHONY: image
image: ## The image for both architectures, by Docker with buildx, as dist/ddc-image.tar (after make dist)
	@env $$(deploy/docker/settings.sh) docker buildx bake -f deploy/docker/docker-bake.hcl $(ARGS)

.PHONY: mirror
mirror: ## Downloads what comes from others, checks it, writes deploy/versions.lock and an offline bundle
	@scripts/mirror.py $(ARGS)

.PHONY: test-arm64
test-arm64: ## The ARM64 binaries under qemu: unit tests, demo with pages of 4, 16 and 64 KiB (after make dist)
	@scripts/test-arm64.sh

.PHONY: test-packages
test-packages: ## Packages and units on hosts that boot: installed, fed, killed, hung, removed (root, after make dist)
	@scripts/setup.sh --for hosts
	@deploy/packages/test.sh

.PHONY: test-one-way
test-one-way: ## Frames that leave the diode interface of a host that boots: none (root)
	@scripts/setup.sh --for hosts
	@deploy/one-way/test.sh

.PHONY: test-images
test-images: ## Images for both architectures, built and run by a real engine (root, after make dist)
	@scripts/setup.sh --for images
	@deploy/docker/test.sh

.PHONY: test-compose
test-compose: ## The single pair of deploy/compose, started by a real engine (root, after make dist)
	@scripts/setup.sh --for images
	@deploy/compose/single-pair/test.sh

.PHONY: test-ansible
test-ansible: ## The roles on two hosts that boot, by two controllers that never meet (root, after make dist)
	@scripts/setup.sh --for hosts
	@ansible/test.sh

.PHONY: test-kubernetes
test-kubernetes: ## The chart against a real API server
	@scripts/setup.sh --for kubernetes
	@scripts/kube-apiserver.sh check
	@helm/test.sh

.PHONY: test-fresh-root
test-fresh-root: ## make demo and make test in a fresh Debian 12 root (needs root and mmdebstrap)
	@scripts/fresh-root.sh

.PHONY: test-kafka-3
test-kafka-3: ## Every end-to-end test that has a variant for Kafka 3.x, with it
	@scripts/test.sh kafka-3

.PHONY: test-all
test-all: test test-kafka-3 dist test-arm64 test-packages test-one-way test-images test-compose test-ansible test-kubernetes test-fresh-root ## All of them

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
