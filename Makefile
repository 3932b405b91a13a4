# boltmesh: everything that a contributor runs. `make` lists it.

GO       ?= go
FUZZTIME ?= 60s
BENCH    ?= .
SEEDS    ?= 100000
SEED     ?= 1
RUNS     ?= 20
VERSION  ?= dev

GOLANGCI_VERSION := v2.15.0
BIN              := $(CURDIR)/.cache/bin
export BOLTMESH_TOOLS ?= $(CURDIR)/.cache/tools

.DEFAULT_GOAL := help
.PHONY: help build images compose-test test early vet unit raced unraced programs integration tools most-tools lint fmt fuzz sim chaos chaos-short bench bench-micro bench-check bench-curves bench-real clean

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## compile the programs into bin/
	@mkdir -p bin
	$(GO) build -o bin/ $$($(GO) list -f '{{if eq .Name "main"}}{{.ImportPath}}{{end}}' ./...)

images: ## the images of deploy/compose, VERSION=dev
	@set -e; for target in spout convert stat alarm output boltmesh; do \
		docker build -f deploy/compose/Dockerfile --build-arg VERSION=$(VERSION) --target $$target -t boltmesh/$$target:$(VERSION) .; \
	done

compose-test: ## deploy/compose end to end: scale, upgrade and break it under load; Docker is needed, a registry is not
	BOLTMESH_TOOLS=$(BOLTMESH_TOOLS) $(GO) test -tags compose -count 1 -timeout 30m -v ./tests/compose

# In this order: what fails soonest fails first. Some unit tests need the servers too: the adapters' conformance suites.
test: early unit programs integration ## everything: vet, unit tests with -race, programs and services on real servers

# Jaeger takes minutes to build, and nothing needs it until programs: it is built beside what goes before, with what processor time that leaves.
early:
	@if command -v flock >/dev/null; then nice -n 19 tests/tools/build.sh jaeger >/dev/null 2>&1 & fi # without flock two builds would meet

vet: ## go vet
	$(GO) vet ./...

# Two at a time: much of pkg/service's two minutes is waiting. go vet looks at everything once, so that go test need not.
unit: most-tools ## go vet, and tests of pkg and services, with -race, and some thousand simulated worlds
	@$(MAKE) --no-print-directory -j 2 --output-sync=target raced vet unraced

raced:
	$(GO) test -vet=off -race -timeout 10m $$($(GO) list ./pkg/... ./services/... | grep -vE '/pkg/(sqlite|meshtest)$$')

unraced:
	$(GO) test -vet=off -race -timeout 10m -skip 'TestState$$' ./pkg/sqlite # SQLite as Go code takes two minutes for it with -race
	$(GO) test -vet=off -timeout 10m -run 'TestState$$' ./pkg/sqlite
	$(GO) test -vet=off -timeout 10m ./pkg/meshtest # one goroutine at a time has no races to find, and is ten times faster without

programs: tools ## tests of the command line, the examples and the test servers
	$(GO) test -vet=off -p 2 -timeout 15m $$($(GO) list ./... | grep -vE '^[^/]+/[^/]+/[^/]+/(pkg|services|tests/integration)(/|$$)')

integration: tools ## services as processes on real servers, each test starts a mesh: one at a time, but for two that mostly wait
	$(GO) test -vet=off -p 1 -timeout 25m ./tests/integration/...

tools: ## install and build the real servers for integration tests (into BOLTMESH_TOOLS, by default .cache/tools)
	@tests/tools/build.sh

most-tools:
	@tests/tools/build.sh system kafka nats-server ferretdb

lint: $(BIN)/golangci-lint-$(GOLANGCI_VERSION) ## golangci-lint, with .golangci.yml
	$< run ./...

fmt: $(BIN)/golangci-lint-$(GOLANGCI_VERSION) ## format with gofumpt
	$< fmt ./...

$(BIN)/golangci-lint-$(GOLANGCI_VERSION):
	@echo "building golangci-lint $(GOLANGCI_VERSION), about two minutes, once"
	GOBIN=$(BIN) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@mv $(BIN)/golangci-lint $@

fuzz: ## every fuzz target in turn, FUZZTIME=60s each
	@set -e; grep -rl --include='*_test.go' '^func Fuzz' pkg services cmd 2>/dev/null | sort | while read -r file; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file"); do \
			echo "$$file $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")"; \
		done; \
	done

sim: ## the engine in simulated worlds with faults, SEEDS=100000 SEED=1
	$(GO) test ./pkg/meshtest -count 1 -timeout 60m -v -run 'Simulation|Services|Alarms|LateReadings|Calls|CallRules|Counterexamples|EarlyLetters' -seeds $(SEEDS) -seed $(SEED)

chaos-short: tools ## one small run of chaos, about two minutes, on a machine that does nothing else
	$(GO) test -tags chaos -run TestChaosShort -v -timeout 10m ./tests/integration/chaos

chaos: tools ## real servers and three replicas of each service, killed and paused from a seed, RUNS=20 SEED=1 CHAOSFLAGS="-readings 20000"
	$(GO) run ./tests/integration/chaos -runs $(RUNS) -seed $(SEED) $(CHAOSFLAGS)

cut-off: ## one of three NATS servers is cut off from the others, in network namespaces: as root on Linux, with ip of iproute2, about 80 s
	$(GO) test -tags netns -run TestServerCutOff -count 1 -v -timeout 15m ./pkg/service

bench: ## the whole chain beside bare JetStream; BENCHFLAGS="--scenario transport --runs 5"
	$(GO) run ./cmd/boltmesh bench $(BENCHFLAGS)

bench-micro: ## benchmarks beside the code they measure, BENCH=regexp
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./pkg/... ./services/...

bench-check: ## fail when a tuple costs 10 % more CPU than in docs/performance.json, both as ratios to bare JetStream
	$(GO) run ./cmd/boltmesh bench --scenario transport --runs 5 --compare docs/performance.json --limit 10

bench-curves: ## how cost grows, into docs/curves, about 25 minutes; BENCHFLAGS="--curve depth", or --quick: about five minutes
	$(GO) run ./cmd/boltmesh bench curves --out docs/curves $(BENCHFLAGS)

bench-real: tools ## the device scenarios with their state in Redis and their documents in FerretDB, a MongoDB speaker; BENCHFLAGS="--quick"
	$(GO) run ./tests/benchreal -- --scenario device-expr --scenario device-js --scenario store-all $(BENCHFLAGS)

clean: ## remove bin/ and .cache/, the built servers too
	rm -rf bin .cache
