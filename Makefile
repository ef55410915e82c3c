.DEFAULT_GOAL := help
.PHONY: help deps build vet test browser versions mutants model torture soak demo bench hardcases clients regress clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install PostgreSQL and a C compiler if they are missing (root or sudo)
	@scripts/deps.sh

build: ## build bin/pgdist
	go build -o bin/pgdist ./cmd/pgdist

vet: ## run go vet
	go vet ./...

test: deps vet ## run every test, with the race detector, on throw-away servers
	PGDIST_IN_MEMORY=1 go test -race -timeout 24m -p 3 ./internal/mirror ./driver ./gateway ./... # the longest first

browser: deps ## look at the gateway's status page with a real browser (chromium, if it is installed)
	go test -tags browser -count=1 -timeout 120s -run Browser ./gateway

versions: deps ## run what depends on PostgreSQL's version on 13 to 18, fetched by npm; VERSIONS="13 18" takes some, VERSIONS=all-tests every test
	@scripts/test-versions.sh $(VERSIONS)

mutants: deps ## break the rules of the mirror one by one and see that a test notices; MUTANTS="name …" takes some
	@scripts/mutants.sh $(MUTANTS)

model: ## check every state of the models of the agreement with Spin, and that each broken rule is found: hours, 6 GB; MODEL="name …" takes some
	@scripts/model.sh $(MODEL)

torture: deps ## random statements, a fixed workload and recorded histories under faults, for an hour; TORTURE="-random.for=10m", MIRRORED=…, AGREEMENT="-agreement.for=8h -agreement.seed=7" say otherwise
	go test -v -count=1 -timeout 0 ./internal/torture/random -random.seed=0 -random.for=15m -random.ops=300 $(TORTURE)
	go test -v -count=1 -timeout 0 -run Faults ./internal/torture/mirrored -torture.for=15m $(MIRRORED)
	go test -v -count=1 -timeout 0 ./internal/torture/agreement -agreement.for=15m -agreement.members=5 -agreement.programs=3 -agreement.clients=24 -agreement.all $(AGREEMENT)

soak: deps ## many kinds of clients at a gateway while servers are killed, for an hour: nothing grows, nothing is lost; SOAK="-soak.for=8h -soak.seed=7" says otherwise
	go test -v -count=1 -timeout 0 ./internal/torture/soak -soak.for=1h -soak.round=2m $(SOAK)

demo: deps ## three servers, a mixed load, servers killed: about a minute
	go run ./cmd/pgdist demo

bench: deps ## measure against plain pgx and pgpool-II: ten minutes; BENCH="--only reads --json FILE" says more
	@scripts/bench-deps.sh
	go run ./internal/bench $(BENCH)

hardcases: deps ## what such systems get wrong, against pgpool-II and pgdist: ten minutes; prints internal/mirror/HARD-CASES.md
	@scripts/bench-deps.sh
	@go run ./internal/bench/hardcases

clients: deps ## real clients on a plain server and through the gateway, their output compared: ten minutes; CLIENTS="-only psql,jdbc -show"
	@scripts/clients.sh $(CLIENTS)

regress: deps ## PostgreSQL's own regression tests on a plain server and through the gateway, answers and servers compared: an hour; REGRESS="create_index triggers" takes some
	@scripts/regress.sh $(REGRESS)

clean: ## remove what was built
	rm -rf bin
