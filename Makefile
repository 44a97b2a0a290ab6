# What one does with SteelDB. `make setup` installs what is missing; the targets that need it call it.

CARGO ?= cargo
DEMO_SECONDS ?= 30
DEMO_WAREHOUSES ?= 2
DEMO_TERMINALS ?= 4
DEMO_KINDS ?= local
SECONDS ?= 60
OUT ?= docs/performance
# For the stable toolchain; or FUZZ="cargo +nightly fuzz".
FUZZ ?= RUSTC_BOOTSTRAP=1 $(CARGO) fuzz
FUZZ_VERSION = 0.13.2
MINUTES ?= 2
SEED ?=
FEATURES ?= adversary
SEEDS ?= 0..18446744073709551615

.PHONY: help demo build setup test lint test-ordering test-transactions test-cluster simulate simulate-transactions chaos bench tables bench-ordering docker-demo docker-geo docker-test fuzz nightly clean

help:            ## What there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 24

demo: build      ## A cluster, TPC-C on it, consistency checks, replicas compared: a verdict
	DEMO_SECONDS=$(DEMO_SECONDS) DEMO_WAREHOUSES=$(DEMO_WAREHOUSES) DEMO_TERMINALS=$(DEMO_TERMINALS) \
	    scripts/demo.sh target/release/steeldb

build: setup     ## target/release/steeldb
	$(CARGO) build --release --locked --bin steeldb

setup:           ## Install what is missing: Debian's PostgreSQL server, build needs
	scripts/setup.sh

test: setup lint ## Formatting, lints, all tests
	$(CARGO) test --workspace --locked --no-fail-fast

lint:            ## Formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

test-ordering:   ## The ordering core and its simulation
	$(CARGO) test --locked -p steeldb-ordering -p steeldb-simulation
	$(CARGO) test --locked -p steeldb-simulation --features planted-bugs --test planted_bugs
	$(CARGO) test --locked -p steeldb-ordering --features planted-bugs --test clients --test schedules caught

test-transactions: ## The scheduler, the client shim, and their simulation over an in-memory store
	$(CARGO) test --locked -p steeldb-replica -p steeldb-client-shim -p steeldb-transaction-simulation
	$(CARGO) test --locked -p steeldb-transaction-simulation --features planted-bugs --test planted_bugs

test-cluster: setup ## Four replicas with real PostgreSQL servers, tampering included
	$(CARGO) test --locked -p steeldb-cluster-tests

simulate:        ## Random schedules of ordering clusters, for SECONDS=60, from the first seed of SEEDS=0.. on
	$(CARGO) run --release --locked -p steeldb-simulation --bin steeldb-sim -- --seconds $(SECONDS) --seeds $(SEEDS)

simulate-transactions: ## Random schedules of schedulers, client shims and in-memory stores, likewise
	$(CARGO) run --release --locked -p steeldb-transaction-simulation --bin steeldb-txsim -- --seconds $(SECONDS) --seeds $(SEEDS)

chaos: setup     ## Faults to a whole cluster in processes of its own, for MINUTES=2, by SEED=...
	$(CARGO) build --release --locked -p steeldb-chaos --features "$(FEATURES)" --bins
	target/release/chaos $(if $(SEED),--seed $(SEED)) $(CHAOS) \
	    $(if $(findstring --seconds,$(CHAOS))$(findstring --count,$(CHAOS)),,--seconds $$(($(MINUTES) * 60)))

bench: build     ## Codec, cryptography, ordering core; then TPC-C on a cluster and on one server
	$(CARGO) bench --locked -p steeldb-wire -p steeldb-ordering
	scripts/bench-tpcc.sh target/release/steeldb

tables: build    ## The comparisons of docs/performance.md, an hour: tables and plots into OUT=docs/performance; needs root
	target/release/steeldb bench lan --out $(OUT)
	target/release/steeldb bench scale --small --cpus 0.2 --out $(OUT)
	target/release/steeldb bench geo --small --warehouses 1 --out $(OUT)
	target/release/steeldb bench timeline --small --seconds 28 --out $(OUT)
	$(CARGO) build --release --locked -p steeldb-ordering-load
	target/release/ordering-load geo --json $(OUT)/ordering-geo.json > $(OUT)/ordering-geo.md
	target/release/ordering-load bench --runs 3 --replicas 4,7,10 --clients 1,50,200 --bytes 0 --log on --requests signed \
	    --replies final --faults none --json $(OUT)/ordering-scale.json > $(OUT)/ordering-scale.md

docker-demo: build ## The same in containers: image, cluster, TPC-C, rolling restart; DEMO_KINDS=host: four hosts' parts side by side
	DEMO_KINDS="$(DEMO_KINDS)" DEMO_SECONDS=$(DEMO_SECONDS) DEMO_WAREHOUSES=$(DEMO_WAREHOUSES) DEMO_TERMINALS=$(DEMO_TERMINALS) \
	    docker/engine.sh docker/demo.sh target/release/steeldb

docker-geo: setup ## Five regions in containers, a wide-area network between them: TPC-C, steeldb cluster plan, what it proposes, TPC-C
	$(CARGO) build --release --locked --bin steeldb --bin steeldb-wan
	DEMO_KINDS=geo DEMO_SECONDS=$(DEMO_SECONDS) DEMO_WAREHOUSES=1 DEMO_TERMINALS=2 \
	    docker/engine.sh docker/demo.sh target/release/steeldb target/release/steeldb-wan

docker-test:     ## docker-demo, small, with executables as `make test` builds them; passed over where no Docker engine can be had
	$(CARGO) build --profile test --locked --bin steeldb
	docker/test.sh target/debug/steeldb

bench-ordering:  ## The ordering server without a database: throughput, latency, CPU; overload, slow and killed replicas
	scripts/bench-ordering.sh

fuzz: setup      ## Every fuzz target under libFuzzer for SECONDS each; installs cargo-fuzz
	$(FUZZ) --version >/dev/null 2>&1 || $(CARGO) install cargo-fuzz --version $(FUZZ_VERSION) --locked
	set -e; for target in $$($(FUZZ) list); do \
	    mkdir -p fuzz/target/found/$$target; \
	    $(FUZZ) run --sanitizer none $$target fuzz/target/found/$$target fuzz/corpus/$$target -- \
	        -max_total_time=$(SECONDS) -max_len=4096 -timeout=20 -print_final_stats=1; done

nightly: setup   ## What takes longer than `make test` may
	$(CARGO) test --workspace --locked -- --include-ignored
	$(CARGO) test --locked -p steeldb-simulation --features planted-bugs --test planted_bugs
	$(CARGO) test --locked -p steeldb-ordering --features planted-bugs --test clients --test schedules caught
	$(CARGO) test --locked -p steeldb-transaction-simulation --features planted-bugs --test planted_bugs
	$(CARGO) test --locked -p steeldb-chaos --features adversary,planted-bugs
	$(MAKE) chaos MINUTES=2

clean:           ## Remove what was built
	$(CARGO) clean
