# Everything that a developer or CI runs. `make help` lists it.

SHELL := /bin/sh
CARGO ?= cargo
BIN := target/release
PACKAGED := $(shell sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
# Most of what a test does is waiting for time to pass and for other programs.
THREADS := 6

.PHONY: help build packages two-versions hosts demo test test-tools programs unit e2e page format lint soak soak-mesh soak-vip soak-broker bench-failover bench-vip bench-mesh bench-brokers bench-join bench-codec bench-log bench-broker bench-store bench-lb bench-lb-storm bench-lb-upgrade bench-hosts clean-lab

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the four programs, optimised, in target/release
	$(CARGO) build --release --bins

packages: ## .deb, .rpm and .tar.gz for glibc 2.17 and later, in target/packages
	@deploy/packages/install-tools
	deploy/packages/build

two-versions: export ALSO = evermq-load

# The next version first: what target/packages/root holds at the end is this one.
two-versions:
	@deploy/packages/install-tools
	ALSO= VERSION=$(PACKAGED)+next1 deploy/packages/build
	deploy/packages/build

hosts: two-versions ## the package on four hosts with a real systemd: kills, hangs, reboots, pulled plugs, upgrade under load; root; DRILLS="upgrade remove" for less
	tests/hosts/run $(DRILLS)

demo: build ## the whole stack on this machine: lab up, faults, figures, lab down
	$(BIN)/evermq lab demo

# From nothing, what is kept for the next build only costs time, and so does clippy apart: here it is the compiler, once for
# the lints of `make lint` and the programs. Its arguments are separated as cargo-clippy does it.
test: export CARGO_INCREMENTAL = 0
test: export RUSTC_WORKSPACE_WRAPPER = clippy-driver
test: export CLIPPY_ARGS = -D__CLIPPY_HACKERY__warnings
test: test-tools format unit e2e ## every test, and lints; installs what they need and says so

test-tools: ## what the tests need: mosquitto, keepalived, openssl, iproute2, paho-mqtt, MQTT.js
	@tests/install-tools

# One command builds it all: another choice of packages or targets is another choice of features, and builds tokio and all
# that stands on it once more.
programs: ## every test and the programs that tests start, not optimised
	$(CARGO) build --workspace --tests --examples --bin evermq-load

unit: programs ## tests of each crate, with real peers on loopback
	$(CARGO) test --workspace --lib --bins --no-fail-fast -- --test-threads=$(THREADS)
	tests/run --workspace --exclude evermq-e2e --no-fail-fast --test '*' -- --test-threads=$(THREADS)
	$(CARGO) test --workspace --doc

e2e: programs ## tests of the whole stack in the lab
	tests/run --workspace --no-fail-fast --test e2e -- --test-threads=1

format:
	@$(CARGO) fmt --all --check

lint: format ## format and clippy, warnings are errors
	$(CARGO) clippy --workspace --all-targets -- -D warnings

page: programs ## the web page in Chromium during a failover in the lab, on a desk and on a phone; screenshots in target/page
	tests/page/run

soak: programs test-tools ## an hour in the lab: kills, freezes, cables, cuts, full disks, and clients that remember what they were told; SECONDS=600 for less, EVERMQ_SEED=N for the same again
	EVERMQ_SECONDS=$(or $(SECONDS),3600) $(CARGO) test --workspace --test e2e -- history::soak --ignored --nocapture

soak-mesh: ## ten thousand runs of the mesh on a virtual clock: kills, power failures, broken connections, full logs; BRIDGE_SIMULATION_SEED=n replays one
	$(CARGO) test --release -p evermq-bridge --lib simulation::durable::soak -- --ignored --nocapture

soak-vip: test-tools ## a million faults on the virtual clock; then two minutes beside keepalived without a flap
	$(CARGO) test --release -p evermq-vip --test vip soak:: -- --ignored --nocapture --skip keepalived_soak
	$(CARGO) test -p evermq-vip --test vip keepalived_soak:: -- --ignored --nocapture

soak-broker: ## kill -9 and power loss, end to end, from a new seed each time; SECONDS=600 for longer, EVERMQ_SEED=N for the same again
	EVERMQ_SECONDS=$(or $(SECONDS),120) $(CARGO) test -p evermq-broker --test broker history:: -- --ignored --nocapture --test-threads=1

bench-hosts: two-versions ## restart, kill -9, hang and upgrade of each program under 2,000 clients on hosts with a real systemd, beside Debian's haproxy, keepalived and mosquitto; root; STACKS="evermq debian debian-100ms mosquitto" for less, ONLY=kill, JSON=1
	@tests/hosts/figures.py $(STACKS) --only "$(ONLY)" $(if $(JSON),--json)

bench-failover: build ## outage by fault, medians of 5, in the lab
	EVERMQ_BIN_DIR=target/release $(CARGO) run --release -q -p evermq-e2e --bin bench-failover

bench-vip: build ## the virtual IP beside keepalived: each fault, idle subscribers, cost; RUNS=1 FAULT='cable' for less
	EVERMQ_BIN_DIR=target/release $(CARGO) run --release -q -p evermq-e2e --bin bench-vip -- $(or $(RUNS),5) "$(FAULT)"

bench-brokers: ## two, three and five brokers beside mosquitto and bridges: rates, CPU at both ends, times, a broker that was away; WORK=flow ROUNDS=1 BROKERS=2 AWAY=10 for less
	tests/bench/mesh/run

bench-mesh: build ## one publisher to one subscriber through the VIP, beside bridged mosquitto
	EVERMQ_BIN_DIR=target/release $(CARGO) run --release -q -p evermq-e2e --bin bench-mesh

bench-join: build ## a broker joins under 500 clients and 2,000 messages a second: disconnects, losses, time to ready; RUNS=1 for less
	EVERMQ_BIN_DIR=target/release $(CARGO) run --release -q -p evermq-e2e --bin bench-join -- $(or $(RUNS),3)

bench-codec: ## our MQTT codec beside those of the registry, and packets both ways; ROUNDS=3 for less
	cd tests/bench/codec && $(CARGO) run --release -q --bin evermq-codec-bench -- $(or $(ROUNDS),9)
	cd tests/bench/codec && $(CARGO) test -q --test both_ways

bench-log: ## our store beside raft-engine and fjall at a broker's work: appends, releases, a million reopened; DIR=/var/tmp for another disk
	cd tests/bench/log && $(CARGO) run --release -q -- $(DIR)

bench-broker: ## one broker beside mosquitto, rumqttd, FlashMQ, RMQTT: CPU, rates, times, memory, nothing lost; WORK=flow ROUNDS=1 for less
	tests/bench/broker/run

bench-store: ## the broker's store on this disk: messages and syncs per second, time to open a million; DIR=/var/tmp for another one
	$(CARGO) run --release -q -p evermq-store --example bench_store -- $(DIR)

bench-lb: ## the load balancer beside nginx and HAProxy; WORK=echo,paced ROUNDS=1 PEERS=nginx,haproxy for less; HAPROXY_NEW=PATH for one more
	tests/bench/lb/run compare.py

bench-lb-storm: ## 20,000 clients that connect at once, and what the brokers see; CLIENTS=5000 RATE=500 for less
	tests/bench/lb/run storm.py

bench-lb-upgrade: ## a new evermq-lb under 9,000 busy connections, beside reloads of nginx and HAProxy
	tests/bench/lb/run upgrade.py
