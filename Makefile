# The table of contents of this repository: `make help`.
#
# Everything that a target needs and that is not Go code (Envoy, generators,
# linters) is a file below .build or test/tools/node_modules, fetched once in
# the version that test/tools pins. All targets use the same Go build flags
# (none), so that they share one build cache.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := bash

# Where the Envoy of demo, tests and benchmarks comes from. `make ENVOY=path`
# uses that one and downloads nothing; then we export it as an absolute path,
# since tests run in their package's folder.
ifdef ENVOY
  envoy_asked := $(ENVOY)
  override ENVOY := $(if $(findstring /,$(ENVOY)),$(abspath $(ENVOY)),$(shell command -v $(ENVOY)))
  export ENVOY
  envoy := check-own-envoy
else
  envoy := .build/envoy/envoy
endif

TESTFLAGS ?= -timeout 10m
FUZZTIME ?= 10s
# Packages where goroutines meet and which build fast with the race detector:
# it would have to build etcd a second time for the others.
RACE ?= ./internal/... ./issuer/... ./dataplane/... ./controlplane/accesslog/... ./controlplane/xds/... ./controlplane/api/... ./controlplane/audit/... ./controlplane/bundle/... ./controlplane/kong/... ./controlplane/transport/...
# Benchmarks beside the code they measure; ./test/bench has those of the whole.
BENCH ?= ./test/bench ./internal/jose ./issuer/sts ./dataplane/... ./controlplane ./controlplane/envoy ./controlplane/ledger ./controlplane/xds
BENCHFLAGS ?= -benchmem -timeout 60m

buf := test/tools/node_modules/.bin/buf
# The file that npm writes last.
buf_installed := test/tools/node_modules/.package-lock.json
go_folders = $(wildcard controlplane dataplane issuer internal proto test)

##@ Use

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## "; print "usage: make TARGET [VARIABLE=value]" } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' Makefile
	@printf '\nVariables\n'
	@printf '  %-16s %s\n' \
		ENVOY 'an Envoy 1.40 of your own; nothing is downloaded then' \
		KEEP 'KEEP=1 leaves the demo running and says what to try next' \
		TESTFLAGS 'flags of go test ($(TESTFLAGS))' \
		FUZZTIME 'how long to run each fuzz target ($(FUZZTIME))' \
		'BENCH, RACE' 'packages of `make bench` and `make race`' \
		N 'cases of `make prove-parity` ($(N))' \
		SEEDS 'seeds of `make prove-simulation` ($(SEEDS))'

.PHONY: build
build: ## build watchword and watchword-sidecar in .build/bin (needs Go alone)
	@mkdir -p .build/bin
	go build -o .build/bin/ ./controlplane/cmd/watchword ./dataplane/cmd/watchword-sidecar

.PHONY: demo
demo: build $(envoy) ## the main job, told on the terminal with real Envoys
	@go build -o .build/bin/demo ./test/demo
	@go build -o .build/bin/demo-plain ./test/demo/plain
	@go build -o .build/bin/demo-linked ./test/demo/linked
	@.build/bin/demo

##@ Check

# In two steps: the second one's packages start processes and measure time, so
# they run one after the other and are never taken from the cache, which knows
# nothing of the processes. It runs even if the first failed, to name all faults.
.PHONY: test
test: build $(envoy) ## all tests, with the real Envoy (first time: some minutes to compile)
	@failed=0; \
	echo 'go test: every package but ./test/...'; \
	go test $(TESTFLAGS) $$(go list ./... | grep -vE '/watchword/test(/|$$)') || failed=1; \
	echo 'go test: ./test/..., one package after the other'; \
	go test $(TESTFLAGS) -count=1 -p 1 ./test/... || failed=1; \
	exit $$failed

# So many made-up cases of which the tests send 20,000.
N ?= 200000

.PHONY: prove-parity
prove-parity: $(envoy) ## N made-up requests: dataplane/ruleset, Envoy, library and sidecar agree on each (about 500 a second)
	@set -o pipefail; go test ./test/parity -run 'TestParity$$' -count=1 -v -timeout 3h -parity.random -parity.cases=$(N) \
		| awk '{ print; fflush() } sub(/^.*: parity: /, "parity: ") { told = $$0 } END { if (told) print told }'

# So many seeds of the simulation, and where they begin.
SEEDS ?= 10000

.PHONY: prove-simulation
prove-simulation: ## SEEDS made-up worlds: rotation and revocation keep their promises, and each broken rule is noticed
	@set -o pipefail; go test ./test/simulation -count=1 -v -timeout 3h -simulation.seeds=$(SEEDS) -simulation.broken=3000 \
		| sed -nE '/^(=== RUN|--- PASS|ok|PASS)/d; s/^ +[a-z_]+_test\.go:[0-9]+: //; p'

.PHONY: race
race: $(envoy) ## tests of the packages named by RACE, with the race detector
	go test $(TESTFLAGS) -race $(RACE)

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME
	@test/tools/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: build $(envoy) ## benchmarks, in Go's benchmark format
	go test -run '^$$' -bench . $(BENCHFLAGS) $(BENCH)

.PHONY: lint
lint: .build/tools.stamp $(buf_installed) ## gofmt, go vet, staticcheck, buf lint, buf breaking
	@unformatted=$$(gofmt -l $(go_folders)); if [ -n "$$unformatted" ]; then \
		printf 'lint: not formatted (run gofmt -w on it): %s\n' $$unformatted >&2; exit 1; fi
	go vet ./...
	.build/bin/staticcheck ./...
	cd proto && ../$(buf) lint
	@test/tools/breaking.sh $(buf)

.PHONY: checkgenerate
checkgenerate: .build/tools.stamp $(buf_installed) ## is the generated code up to date? changes nothing
	@PATH="$(CURDIR)/.build/bin:$$PATH" test/tools/checkgenerate.sh $(buf)

##@ Change

.PHONY: generate
generate: .build/tools.stamp $(buf_installed) ## regenerate the Go code beside the protos
	cd proto && PATH="$(CURDIR)/.build/bin:$$PATH" ../$(buf) generate

.PHONY: setup
setup: .build/tools.stamp $(buf_installed) $(envoy) ## fetch everything that the other targets would fetch on their way

.PHONY: clean
clean: ## remove what was built and fetched
	rm -rf .build test/tools/node_modules

# What the targets above need, as files.

.build/envoy/envoy: test/tools/envoy.txt
	@test/tools/get-envoy.sh $@

.PHONY: check-own-envoy
check-own-envoy:
	@test -x "$(ENVOY)" || { echo 'make: ENVOY=$(envoy_asked) is not an executable file; unset it to download Envoy' >&2; exit 1; }
	@"$(ENVOY)" --version | grep .

.build/tools.stamp: test/tools/go.mod test/tools/go.sum
	@echo 'building the generators and staticcheck (about a minute, once)'
	@mkdir -p .build/bin
	GOBIN="$(CURDIR)/.build/bin" go -C test/tools install tool
	@touch $@

# Without install scripts: the binary comes as a package of its own. Not npm ci:
# it refuses a lock that does not name the binary of every platform in the
# world. This honours what the lock names, with its hashes, and writes nothing.
$(buf_installed): test/tools/package.json test/tools/package-lock.json
	@echo 'fetching buf (npm, once)'
	npm install --prefix test/tools --no-save --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@
