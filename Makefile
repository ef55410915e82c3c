.DEFAULT_GOAL := help
.PHONY: help deps build vet test demo bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install PostgreSQL and a C compiler if they are missing (root or sudo)
	@scripts/deps.sh

build: ## build bin/pgdist
	go build -o bin/pgdist ./cmd/pgdist

vet: ## run go vet
	go vet ./...

test: deps vet ## run every test, with the race detector, on throw-away servers
	go test -race -timeout 20m ./...

demo: deps ## three servers, a mixed load, servers killed: about a minute
	go run ./cmd/pgdist demo

bench: deps ## measure against plain pgx and pgpool-II: ten minutes; BENCH="--only reads --json FILE" says more
	@scripts/bench-deps.sh
	go run ./internal/bench $(BENCH)

clean: ## remove what was built
	rm -rf bin
