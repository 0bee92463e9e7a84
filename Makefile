# Plain `make` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help

BIN := bin
# Packages whose tests need nothing but Go and may run beside each other. Those below test/ run on the lab, one after another; its SQS
# server needs npm.
UNIT = $$(go list ./... | grep -v -e '/test/e2e' -e '/test/lab' -e '/adapter/cluster$$')
TOOL := go tool -modfile=tools/go.mod

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# $(call compile,WHAT,ARGUMENTS) runs go build and shows how far it is: with an empty cache it takes minutes. Only the race detector
# needs cgo; without it what one target compiles is not compiled again for the next.
define compile
@set -o pipefail; echo "compiling $(1)"; CGO_ENABLED=$(if $(findstring -race,$(2)),1,0) go build -v $(2) 2>&1 | awk -v tty="$$([ -t 1 ] && echo 1)" ' \
  NF == 1 || /^go: downloading/ { n++; if (tty) printf "\r\033[K  %d: %s", n, $$0; else if (n % 100 == 0) print "  " n " packages"; fflush(); next } \
  { print } END { if (tty && n) printf "\r\033[K" }'
endef

define build_demo
$(call compile,lab,-o $(BIN)/lab ./test/lab/cmd/lab)
$(call compile,demo,-o $(BIN)/demo ./test/demo)
@$(BIN)/demo -list $(CHAPTER) >/dev/null # a name that is not known is told before the rest is compiled
$(call compile,demo-shop,-o $(BIN)/demo-shop ./test/demo/shop)
$(call compile,kubetide,-o $(BIN)/kubetide ./cmd/kubetide)
endef

CHAPTER ?=
.PHONY: demo
demo: ## Tell what Kubetide does in five chapters, on a real control plane (CHAPTER="gray cluster" for some; the first build takes minutes)
	$(build_demo)
	@$(BIN)/demo $(CHAPTER)

.PHONY: test-demo
test-demo: ## The demo's whole story, and beside it each of its chapters alone
	$(build_demo)
	@{ echo story; $(BIN)/demo -list; } | xargs -P 2 -I{} bash -o pipefail -c \
	  'chapter={}; $(BIN)/demo -keep=false -name demo-{} $${chapter#story} 2>&1 | sed -u "s/^/{}: /"'

.PHONY: test
test: lab-build test-unit test-e2e test-demo ## Everything: unit, property, integration and end-to-end tests, and the demo

.PHONY: test-unit
test-unit: ## Unit, property and fuzz-seed tests, with the race detector
	$(call compile,everything with the race detector,-race ./...)
	go test -race -timeout 25m $(UNIT)
	go test -race -timeout 10m ./adapter/cluster # alone: its bounds are of real time
	CGO_ENABLED=0 go test -timeout 10m -run '^TestSimulation$$' ./scaler/ihpa # all its 100,000 steps
	CGO_ENABLED=0 go test -timeout 10m ./adapter/cluster/ownership # with 10,000 queries

.PHONY: test-e2e
test-e2e: lab-build ## Tests on the lab, with the race detector
	go test -race -count=1 -p 1 -parallel 12 -timeout 70m ./test/lab/... ./test/e2e/...

SWITCHES ?= 200
.PHONY: traffic
traffic: lab-build ## Switch traffic SWITCHES times (200) at random under load, with Kubetide killed in between: no request may be lost
	KUBETIDE_TRAFFIC_SWITCHES=$(SWITCHES) go test -race -count=1 -timeout 60m -v -run '^TestTrafficIsNeverLost$$' ./test/e2e

SOAK ?= 30m
.PHONY: soak
soak: ## Disturb a cluster in one process for SOAK (30m): nodes killed, joined, leaving, standing still, cut off, packets lost (the unit tests do it for 2m)
	KUBETIDE_SOAK=$(SOAK) go test -race -count=1 -timeout 0 -v -run '^TestSoak$$' ./adapter/cluster

.PHONY: build
build: ## Build kubetide and the plugin kubectl-tide into bin/
	$(call compile,kubetide and kubectl-tide,-o $(BIN)/ ./cmd/...)

NAME ?= default

.PHONY: $(BIN)/lab
$(BIN)/lab:
	$(call compile,lab,-o $(BIN)/lab ./test/lab/cmd/lab)

.PHONY: lab-build
lab-build: $(BIN)/lab ## Build the lab's control plane and servers into the user's cache (minutes, once; needs npm)
	$(BIN)/lab build

.PHONY: lab-up
lab-up: $(BIN)/lab ## Start a lab in the background and print its kubeconfig's path (NAME=default)
	$(BIN)/lab up --name $(NAME)

.PHONY: lab-down
lab-down: $(BIN)/lab ## End the lab that lab-up left running (NAME=demo: the demo's)
	$(BIN)/lab down --name $(NAME)

.PHONY: bench
bench: ## Benchmarks: the store at 100,000 series, the collection of 10,000 queries
	go test -run '^$$' -bench . -benchmem ./adapter/... ./internal/... ./collectors/...

.PHONY: performance
performance: lab-build ## 10,000 HPAs, changes and reads on the lab; the figures go to docs/performance.md (about 10 minutes)
	$(call compile,the load,-o $(BIN)/performance ./test/bench)
	$(BIN)/performance -write docs/performance.md

.PHONY: performance-engine
performance-engine: lab-build ## 5,000 IHPAs on the lab: changes, a common cron boundary, reaction, rest, a killed leader; the figures go to docs/performance.md
	$(call compile,the load,-o $(BIN)/performance ./test/bench)
	$(BIN)/performance -engine -changes 2 -write docs/performance.md

STACKSETS ?= 1000
.PHONY: performance-stacksets
performance-stacksets: lab-build ## 1,000 StackSets with 5 Stacks each on the lab (STACKSETS=N): changes of traffic, new versions, rest; the figures go to docs/performance.md
	$(call compile,the load,-o $(BIN)/performance ./test/bench)
	$(BIN)/performance -stacksets $(STACKSETS) -changes 2 -write docs/performance.md

QUERIES ?= 10000
.PHONY: performance-cluster
performance-cluster: lab-build ## Three servers that share 10,000 queries (QUERIES=N), then without sharing; the figures go to docs/performance.md
	$(call compile,the load,-o $(BIN)/performance ./test/bench)
	$(BIN)/performance -cluster -hpas $(QUERIES) -write docs/performance.md

FUZZTIME ?= 30s
.PHONY: fuzz
fuzz: ## Fuzz each parser of foreign input for FUZZTIME (30s)
	@set -e; go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | while read -r pkg; do \
	  for f in $$(go test -list '^Fuzz' $$pkg | grep ^Fuzz || true); do \
	    echo "$$pkg $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg; done; done

.PHONY: generate
generate: ## Regenerate deep copies, CRDs, what is rendered from the Helm chart, the dashboards and the reference
	go generate ./api/...
	go run ./deploy/helm/generate
	go run ./deploy/grafana/generate
	go run ./docs/reference/generate

.PHONY: lint
lint: ## golangci-lint at its pinned version
	$(TOOL) golangci-lint run

VULNDB ?= https://vuln.go.dev
.PHONY: vulncheck
vulncheck: ## Known vulnerabilities in what the commands call, by the Go vulnerability database (VULNDB=URL)
	@$(TOOL) govulncheck -db $(VULNDB) ./cmd/... || { rc=$$?; test $$rc -eq 3 || \
	  echo "make vulncheck: nothing was checked: $(VULNDB) must be reachable, or VULNDB=file:///DIR a copy of it" >&2; exit $$rc; }

.PHONY: verify
verify: generate lint ## Generated files current, lint, vet, tidy, clean tree
	go vet ./...
	go mod tidy -diff
	@git diff --exit-code || { echo "make verify: the tree changed: commit what generate wrote"; exit 1; }
	@test -z "$$(git status --porcelain)" || { git status --short; echo "make verify: the tree is not clean"; exit 1; }
