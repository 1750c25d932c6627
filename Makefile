# Meridian: `make` lists the targets. Everything is plain go below; the Makefile
# only remembers the flags.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --warn-undefined-variables --no-builtin-rules
.DEFAULT_GOAL := help

VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
BINARIES  := edgeproxy sitecontroller meridian chainagent
# The proxy speaks HTTP/2 with a codec of its own: net/http's serves nobody there, and takes 0.34 MB.
TAGS       = $$([[ $$b != edgeproxy ]] || echo nethttpomithttp2)
ARGS      ?=
TESTFLAGS ?=
BENCH     ?= .
BENCHTIME ?= 1s
FUZZTIME  ?= 5s
SOAK      ?= 10m
SEEDS     ?= 200

# The linter is built once per version and kept: it compiles slowly.
GOLANGCI_VERSION := v2.15.0
GOLANGCI         := .cache/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the binaries into bin/, static and stripped
	@for b in $(BINARIES); do \
		CGO_ENABLED=0 go build -tags "$(TAGS)" -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/$$b ./cmd/$$b; \
	done

ARCHS ?= amd64 arm64

# The same commit gives the same bytes: times are the commit's, or SOURCE_DATE_EPOCH's.
.PHONY: packages
packages: build ## Debian packages of the binaries for ARCHS='amd64 arm64', in bin/packages
	@for arch in $(ARCHS); do mkdir -p bin/$$arch; for b in $(BINARIES); do \
		if [[ $$arch == $$(go env GOARCH) ]]; then ln -f bin/$$b bin/$$arch/$$b; else \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch go build -tags "$(TAGS)" -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/$$arch/$$b ./cmd/$$b; fi; \
	done; done
	@rm -rf bin/packages
	@go build -C deploy/packages -o $(CURDIR)/bin/packaging .
	@bin/packaging -archs "$$(tr ' ' , <<<'$(ARCHS)')"

.PHONY: test-packages
test-packages: packages ## install those packages in a fresh Debian with systemd, use, upgrade and remove them (root; mmdebstrap, systemd-container, curl, qemu-user-static for arm64)
	@cd deploy/packages && MERIDIAN_ARCHS='$(ARCHS)' go test -tags install -count=1 -v $(TESTFLAGS) .

.PHONY: wasm
wasm: ## build the example of a WebAssembly function, bin/function.wasm
	@GOOS=wasip1 GOARCH=wasm go build -trimpath -ldflags "-s -w" -buildmode=c-shared -o bin/function.wasm ./examples/wasm

.PHONY: run
run: build ## build, then run a small mesh on this machine: make run ARGS='--duration 30s'
	@bin/meridian demo $(ARGS)

.PHONY: test
test: ## run all tests; needs only Go
	@go test $(TESTFLAGS) ./...

.PHONY: test-race
test-race: ## run all tests under the race detector (needs a C compiler)
	@CGO_ENABLED=1 go test -race $(TESTFLAGS) ./...

# Root tests carry the build tag root and names that begin with TestRoot. Only the
# test programs run as root; one package at a time, since they load the machine.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,-exec 'sudo --non-interactive --preserve-env')

.PHONY: test-root
test-root: ## run the tests that need root: network namespaces, BPF
	@go test -tags root -p 1 -count=1 -run '^TestRoot' $(AS_ROOT) $(TESTFLAGS) \
		$$(git grep -lE '^//go:build .*\broot\b' -- '*_test.go' | xargs -n1 dirname | sort -u | sed 's|^|./|')

.PHONY: test-edge
test-edge: ## one node under attack and in change, at full length: needs slowhttptest, takes four minutes
	@MERIDIAN_LIFE=60s go test -tags edge -count=1 -v $(TESTFLAGS) -run '^(TestLife|TestSlowHTTPTest|TestHTTP2Floods)$$' ./cmd/edgeproxy

.PHONY: test-clients
test-clients: ## curl, wrk, a browser, npm's ws, h2spec, sslscan and testssl.sh at the proxy: says what is missing
	@npm install --silent --no-audit --no-fund --prefix .cache/npm ws@8.18.3
	@NODE_PATH=$(CURDIR)/.cache/npm/node_modules go test -tags clients -count=1 -v $(TESTFLAGS) -run '^TestClient' ./cmd/edgeproxy

# grpc-go's own client and server are a module of their own, testbed/interop.
.PHONY: test-interop
test-interop: build ## gRPC's interoperability cases through one proxy and through two sites, with grpc-go
	@for program in client server; do \
		go build -C testbed/interop -o ../../bin/interop-$$program google.golang.org/grpc/interop/$$program || exit 1; done
	@go test -C testbed/interop -count=1 $(TESTFLAGS) ./...

.PHONY: test-web
test-web: build ## the controller's web page: types by tsc, then Chromium on a real mesh
	@npm install --silent --no-audit --no-fund --prefix .cache/npm typescript@5.9.3 axe-core@4.11.0
	@node .cache/npm/node_modules/typescript/bin/tsc -p controller/dashboard/assets
	@MERIDIAN_AXE=$(CURDIR)/.cache/npm/node_modules/axe-core/axe.min.js \
		go test -tags web -count=1 -v $(TESTFLAGS) -run '^TestWeb' ./controller/dashboard

.PHONY: test-skew
test-skew: build ## a mesh from the previous version (testbed/skew/previous) to this one and back, process by process, under traffic
	@go test -tags skew -count=1 -v $(TESTFLAGS) -run '^TestSkew$$' ./testbed/skew

.PHONY: soak
soak: ## a node for SOAK=10m with faults by script: every error explained, memory flat
	@MERIDIAN_SOAK=$(SOAK) go test -count=1 -v -timeout 0 $(TESTFLAGS) -run '^TestFaultSoak$$' ./cmd/edgeproxy

# The scheduler's module carries k8s.io/kubernetes: its first compilation takes ten
# minutes on two CPUs, so its tests are apart. vet=off, since vet would look at all of it.
.PHONY: test-kube
test-kube: ## run the scheduler against a real API server and etcd, in process (first time: ten minutes)
	@cd cmd/meridian-scheduler && go test -tags kube -vet=off -count=1 -timeout 20m $(TESTFLAGS) .

.PHONY: cluster-up
cluster-up: ## start a real Kubernetes cluster in namespaces (root; containerd, runc, containernetworking-plugins, nftables)
	@go run ./testbed/cluster up $(ARGS)

.PHONY: cluster-down
cluster-down: ## end it
	@go run ./testbed/cluster down $(ARGS)

.PHONY: test-cluster
test-cluster: ## two real kubelets, our scheduler, two sites and their proxies: scale, rollout, drain and loss of a node under load
	@go test -tags cluster -count=1 -timeout 20m -v $(AS_ROOT) $(TESTFLAGS) -run '^TestCluster$$' ./testbed/cluster

.PHONY: conformance
conformance: ## the Gateway API's conformance suite in that cluster; writes docs/conformance (ten minutes)
	@go test -tags cluster -count=1 -timeout 60m -v $(AS_ROOT) $(TESTFLAGS) -run '^TestConformance$$' ./testbed/cluster

.PHONY: sim-placement
sim-placement: ## compare rules of placement on 200 cases (ten minutes): docs/benchmarks.md has the tables
	@MERIDIAN_PLACEMENT_SEEDS=$(SEEDS) go test -count=1 -v -timeout 60m -run 'SocialNetwork|Generated' ./testbed/sim/placement

.PHONY: bench
bench: ## run the Go benchmarks: make bench BENCH=Route BENCHTIME=3s
	@go test -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME) ./...

.PHONY: bench-peers
bench-peers: build ## compare with HAProxy and nginx, paired rounds: make bench-peers ARGS='--rounds 9'
	@go build -o bin/peers ./testbed/peers
	@bin/peers $(ARGS)

ROUNDS ?= 5

.PHONY: bench-chains
bench-chains: ## what chains cost, in namespaces: make bench-chains ROUNDS=9 (needs root, iperf3)
	@MERIDIAN_ROUNDS=$(ROUNDS) go test -tags root -count=1 -v -run '^TestBenchChain' $(AS_ROOT) ./chaining/datapath
	@go test -run '^$$' -bench 'Enrichment|Policer|Guest' ./edgeproxy/function/...

.PHONY: nemesis
nemesis: ## ten minutes of faults and twenty cuts, one of five minutes, against real sites; needs root
	@MERIDIAN_NEMESIS_SECONDS=600 MERIDIAN_CUTS=20 MERIDIAN_CUT_SECONDS=300 \
		go test -tags root -count=1 -timeout 40m -v -run '^TestRoot(Nemesis|Partition|Line)$$' $(AS_ROOT) $(TESTFLAGS) ./testbed/netns

AGREE ?= ring-step,./testdata/agree-8.yaml,ring-slow,ring-cut,ring-mixed,ring-bus-cut

.PHONY: agree
agree: ## real sites beside the simulator, four times slower, three seeds (half an hour); needs root
	@MERIDIAN_AGREE='$(AGREE)' MERIDIAN_AGREE_SLOWER=4 MERIDIAN_AGREE_SEEDS=3 \
		go test -tags root -count=1 -timeout 60m -v -run '^TestRootAgree$$' $(AS_ROOT) $(TESTFLAGS) ./testbed/netns

.PHONY: bench-haproxy
bench-haproxy: ## the demo's hotspot with HAProxies that follow our weights: ROUNDS=3 (five minutes; needs root, haproxy)
	@MERIDIAN_ROUNDS=$(ROUNDS) go test -tags root -count=1 -timeout 60m -v -run '^TestHAProxyHotspot$$' $(AS_ROOT) $(TESTFLAGS) ./testbed/netns

SIM ?= ring-step,ring-low,ring-high,ring-moving,ring-slow,ring-cut,ring-bus-cut,ring-adjacent,ring-mixed,line,overload,city-12,city-12-uneven,backbone

.PHONY: sim
sim: build ## compare sharing rules in virtual time, whole (half an hour): make sim SIM=ring-step
	@bin/meridian sim compare --scenario '$(SIM)' --seeds 500-503 --delays 0,1,3,5 $(ARGS)

.PHONY: lint
lint: $(GOLANGCI) ## run golangci-lint
	@$(GOLANGCI) run ./...

$(GOLANGCI):
	@echo "building golangci-lint $(GOLANGCI_VERSION), once" >&2
	@GOBIN=$(CURDIR)/$(@D) GOFLAGS= go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

.PHONY: docs
docs: build ## regenerate docs/reference from the types and the binaries' help, render all of it to bin/docs, find dead links
	@go generate ./api/mesh
	@go run ./internal/refgen -bin bin $(BINARIES)
	@go run -C docs/site . -out $(CURDIR)/bin/docs -root $(CURDIR)

.PHONY: generate
generate: docs ## run every generator; BPF objects need clang and llvm-strip, and else stay as they are
	@go generate ./...

.PHONY: verify-generate
verify-generate: ## fail when generated files are not what the generators write
	@.ci/verify-generate

.PHONY: fuzz-smoke
fuzz-smoke: ## run every fuzz target for a few seconds: make fuzz-smoke FUZZTIME=30s
	@.ci/fuzz-smoke $(FUZZTIME)
