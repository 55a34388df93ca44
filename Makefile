# What can be done here. Everything but `bench` and `world` uses one cargo profile, `ci`, so that nothing is compiled
# twice.
# Each step prints what it is and how many seconds it took.

.DEFAULT_GOAL := help
.PHONY: help demo test chart world requests replay mutants e2e soak bench cluster crds lint clean

cargo := cargo
profile := --profile ci --locked
step := .ci/step
# Tests against a real API server wait most of the time, for an operator or for their turn with a cluster.
at_once := 8
# Two thousand connections to the webhook are open at a time; a login shell's limit is often 1024.
many_files := .ci/many-files

help: ## this list
	@sed -n 's/^\([a-z0-9]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: ## the whole story on a real cluster, until Ctrl-C; DEMO_ONCE=1 ends by itself, DEMO_SIZE=control-plane needs no root
	@demo/run

test: ## pure tests, a share of the world's faults, and what needs a real control plane (no root)
	@$(step) "build the cluster's programs" tests/cluster/run build
	@$(step) "test the cluster tool" sh -c 'cd tests/cluster && CLUSTER_SELFTEST=control-plane go test ./...'
	@$(step) "build the tests" $(cargo) test $(profile) --no-run
	@$(step) "build the world" $(cargo) test $(profile) --no-run --test world
	@.ci/beside "$(cargo) test $(profile) --test world" '$(step) "test" $(many_files) env RUST_TEST_THREADS=$(at_once) $(cargo) test $(profile)'

chart: ## what of the tests is about the chart: rights, flags, wrong values, a real API server
	@$(step) "test the chart" $(cargo) test $(profile) --test chart

world: ## the whole operator through every fault, pairs of faults and 100,000 random runs; writes docs/faults.md
	@$(cargo) test --profile world --locked --test world -- --all --keep target/world/kept --write docs/faults.md

requests: ## counts the operator's requests to Bags; writes docs/requests.md
	@$(cargo) test --quiet $(profile) --test world -- --requests docs/requests.md

replay: ## tells the story of one run of the world: RUN='--seed 7', or as a violation prints it
	@$(cargo) test --quiet $(profile) --test world -- $(RUN)

mutants: ## puts deliberate bugs into a copy of the project, and expects the world to find each
	@tests/world/mutants/run

e2e: ## what needs a real node (root, Linux): the demo, with the operator installed by helm, asserting all that it shows
	@$(step) "e2e" env DEMO_ONCE=1 DEMO_SIZE=node DEMO_CROWD=4 DEMO_ROTATIONS=10 DEMO_HOLDS=1 demo/run

soak: ## two hundred signatures of the webhook's certificates under twenty calls a second; a hundred of keys (root, Linux)
	@$(step) "soak of certificates" sh -c 'SOAK_ROTATIONS=200 $(cargo) test $(profile) --test operator -- --nocapture certificates_and_authorities >target/soak-certificates.log || { cat target/soak-certificates.log; exit 1; }'
	@$(step) "soak of keys" env DEMO_SIZE=node DEMO_SOAK=100 demo/run

bench: ## how fast and how frugal, beside a baseline
	@$(step) "bench" benches/run

cluster: ## a cluster to play with, until Ctrl-C; SIZE=node as root for one that runs pods
	@demo/cluster

crds: ## writes crds/ and the chart's copy from src/api
	@$(step) "write crds/" $(cargo) run --quiet $(profile) --bin crdgen

lint: ## formats, lints, documentation, chart, generated files; shell scripts and licences where the tools are installed
	@$(step) "rustfmt" $(cargo) fmt --check
	@$(step) "clippy" $(cargo) clippy $(profile) --all-targets -- --deny warnings
	@$(step) "clippy of the world" $(cargo) clippy $(profile) --test world -- --deny warnings
	@$(step) "rustdoc" env RUSTDOCFLAGS="--deny warnings" $(cargo) doc $(profile) --no-deps --document-private-items
	@$(step) "crds/ are what src/api says" $(cargo) run --quiet $(profile) --bin crdgen -- --check
	@$(step) "helm lint" sh -c '"$$(tests/cluster/run which helm)" lint --strict charts/bags-operator'
	@$(step) "gofmt" sh -c 'files=$$(gofmt -l tests/cluster) && { [ -z "$$files" ] || { echo "$$files"; exit 1; }; }'
	@$(step) "go vet" sh -c 'cd tests/cluster && go vet ./...'
	@.ci/optional shellcheck $(step) "shellcheck" shellcheck -a -x -P demo .ci/run .ci/step .ci/beside .ci/optional demo/run demo/cluster .ci/many-files tests/cluster/run tests/world/mutants/run benches/run
	@.ci/optional cargo-deny $(step) "cargo-deny" $(cargo) deny --offline check bans licenses sources

clean: ## removes what was built here; the cluster's programs are kept in the user's cache (docs/cluster.md)
	@$(cargo) clean
