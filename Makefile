# Terse. `make` prints this help; a target's text stands behind its ##.
SHELL := /bin/bash
.DEFAULT_GOAL := help

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
# Of the build, such as -trimpath for a binary that leaves the machine. Not by default: with it everything that
# tests and linters need would be compiled a second time.
BUILDFLAGS ?=
BIN     := bin/terse
T       ?= 20s
BASE    ?= main

# Packages with locks, goroutines and lock-free parts. The DuckDB engine is tested without
# the race detector: its concurrency is in another language.
RACE := . ./client/... ./internal/api/... ./internal/auth/... ./internal/cache/... ./internal/clicks/... ./internal/clientip/... \
	./internal/code/... ./internal/destination/... ./internal/domains/... ./internal/geo/... ./internal/agent/... ./internal/limit/... \
	./internal/links/... ./internal/redirect/... ./internal/store/... ./internal/campaigns/... ./internal/clicklimit/... ./internal/rules/... ./internal/outbound/... ./internal/jobs/... ./internal/webhook/... ./internal/inflate/... ./internal/compress/... ./internal/background/... ./internal/changes/... ./internal/redisbus/... ./internal/nodes/... ./internal/fence/... ./internal/live/... ./internal/facts/... ./internal/exports/... ./internal/bucket/... ./internal/edge/... ./internal/inbox/... ./internal/linkcache/... ./internal/peers/... ./internal/clickstream/...

.PHONY: help
help: ## print this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: build
build: ## build bin/terse; BUILDFLAGS=-trimpath for one that leaves the machine
	$(GO) build $(BUILDFLAGS) -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/terse

.PHONY: run
run: build ## build and serve on 127.0.0.1:8080 (short links) and :8081 (API), data in ./data
	$(BIN) serve

.PHONY: dev
dev: build ## serve from a throw-away folder with a verbose log
	@d=$$(mktemp -d) && trap 'rm -rf "$$d"' EXIT && $(BIN) serve --data "$$d" --log-level debug

.PHONY: check
check: ## vet, the rules of internal/lint and all quick tests, no engines, under a minute
	$(GO) vet ./...
	$(GO) test -short -timeout 5m $$($(GO) list ./... | grep -v -e /e2e -e /internal/analytics/duckdb -e /internal/analytics/child)

.PHONY: test
test: ## all tests; installs what they need
	scripts/test

.PHONY: race
race: ## quick tests of the concurrent packages under the race detector
	scripts/engines run $(GO) test -race -short -vet=off -ldflags=-w -timeout 60m $(RACE)

.PHONY: engines
engines: ## start PostgreSQL, Redis, ClickHouse and DynamoDB for tests; scripts/engines says more
	@scripts/engines start && scripts/engines env

.PHONY: crash
crash: ## 200 kill -9 at named places and random moments over bulk, campaigns and jobs; KILLS=n
	TERSE_TORTURE=$(or $(KILLS),200) $(GO) test -count 1 -timeout 60m -v -run '^TestTorture$$' ./e2e

.PHONY: crash-clicks
crash-clicks: ## 200 kill -9 of the server under clicks, for each durability, and 200 of the analytics process; KILLS=n
	TERSE_CLICK_KILLS=$(or $(KILLS),200) $(GO) test -count 1 -timeout 60m -v -run '^(TestClickKills|TestAnalyticsKills)$$' ./e2e

.PHONY: leases
leases: ## eight processes lease 10 M codes from one PostgreSQL while they are killed: none twice; CODES=n
	TERSE_LEASE_CODES=$(or $(CODES),10000000) TERSE_LEASE_PROCESSES=8 scripts/engines run $(GO) test -count 1 -timeout 60m -v -run '^TestLeaseProcesses$$' ./e2e

.PHONY: changes
changes: ## 1,000 changes on three nodes, a third of the messages lost (PostgreSQL and Redis of make engines); N=n
	TERSE_CHANGES=$(or $(N),1000) $(GO) test -count 1 -timeout 60m -v -run '^TestChangesEverywhere$$' ./e2e

.PHONY: outage
outage: ## PostgreSQL, Redis and ClickHouse stopped for ten minutes under visits, then DynamoDB (make engines); MINUTES=n
	TERSE_OUTAGE_MINUTES=$(or $(MINUTES),10) $(GO) test -count 1 -timeout $$((60 + 2 * $(or $(MINUTES),10)))m -v -run '^TestOutage' ./e2e

.PHONY: lint
lint: ## golangci-lint and the rules of internal/lint
	scripts/lint

.PHONY: fuzz
fuzz: ## run every fuzz target for T (default 20s): make fuzz T=1m
	scripts/fuzz $(T)

.PHONY: bench
bench: build ## measure the budgets of docs/performance.md, beside nginx and raw Pebble
	scripts/bench-deps
	$(GO) run ./bench

.PHONY: bench-quick
bench-quick: build ## the same with less of everything, a smoke test of about five minutes
	scripts/bench-deps
	$(GO) run ./bench -quick

.PHONY: benchcmp
benchcmp: ## compare Go benchmarks with another revision: make benchcmp BASE=main PKG=./internal/code
	scripts/benchcmp $(BASE) $(PKG)

.PHONY: stress
stress: ## repeat one test under the race detector: make stress PKG=./internal/cache RUN=TestX
	$(GO) test -race -count 100 -failfast -run '$(RUN)' $(PKG)

.PHONY: ci
ci: ## what CI runs
	bash .ci/run

.PHONY: clean
clean: ## remove what was built
	rm -rf bin bench/out
