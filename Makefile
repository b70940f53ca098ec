# `make quickstart` and `make test` do everything on a fresh machine with Rust, a C++ compiler, Python 3 with pip, make.
# Nothing outside this folder is touched: libtorch goes to .libtorch, the tests' Python packages to .python, a SuperLink to
# .flower, those of the comparison with PyTorch to .bench-python, the tools of `make deny` to .tools, those of `make wheel` to
# .wheel-tools, mdBook to .mdbook, those of the notebook to .notebook.
#
#   make quickstart   install libtorch, build in release mode, run configs/quickstart.toml
#   make quickstart-sites  the same with each client at a site of its own: installs flwr, starts a SuperLink and six sites
#   make test         install what the tests need, run all tests
#   make test-torch   the plugin in Python that is a transformer; installs PyTorch (5.6 GB) once, as `make bench`
#   make compare      DATA=FLAb/data: the tables and figures of the documentation: heads, algorithms; about an hour on two cores
#   make comparison   DATA=FLAb/data: methods and baselines with seeds and folds; two hours on two cores
#   make bench        fedplug beside PyTorch as ratios; ROWS=step,prepare for some of them, FULL=1 for all, an hour;
#                     installs PyTorch (5.6 GB) once, or uses that of the interpreter FEDPLUG_TORCH_PYTHON
#   make gpu-bundle   all that takes a GPU, built as target/gpu-bundle for a machine with nothing but PyTorch: `run.sh` there
#                     takes ten minutes; see the head of tests/bench/gpu.sh
#   make campaign     KILLS=2000: interrupts and resumes runs in many ways and compares all that they leave; an hour at most
#   make load-matrix  a plugin built in many ways in one host; minutes
#   make wheel        a Python wheel of the program, its plugins and a module that reads runs, as target/wheel/*.whl
#   make install      PREFIX=/usr/local: the program, plugins, libtorch, completions and manual pages; DESTDIR= as usual;
#                     LIBTORCH= leaves out libtorch and `amplify`. `make uninstall` removes what it has put there
#   make wheel-test   install it in an empty venv and run an experiment there; CI does it with a debug build, BUILT=target/debug
#   make setup        install libtorch only        (FEDPLUG_CUDA=1: with CUDA, about 5.6 GB)
#   make fuzz         the fuzzing of all decoders, and their property tests, with TIMES=50 as many cases; minutes
#   make lint         format and clippy, warnings as errors
#   make msrv         check that all compiles with the oldest Rust that Cargo.toml names; needs rustup, minutes.
#                     `make msrv-api`: only what authors of plugins build with, two minutes
#   make doc          the documentation, warnings as errors
#   make docs         the book of docs/src as target/book, and a check of its commands and links; builds mdBook once
#   make notebook     execute docs/src/first-steps.ipynb and store its outputs; installs its packages (0.5 GB) once
#   make deny         what we depend on: licences, sources, duplicates, what nothing uses; the Dockerfile; seconds
#   make audit        that, and known vulnerabilities, where the database of advisories can be reached
#   make soundness    plugin-api's tests under Miri and AddressSanitizer, where there are toolchains for them; minutes.
#                     `make miri`: the first alone
#   make clean        remove builds; `make distclean` removes what was installed as well

PYTHON ?= python3
CARGO ?= cargo
FEDPLUG = target/release/fedplug
QUICKSTART_ARGS ?=

export PYTHON

.PHONY: quickstart quickstart-sites install uninstall wheel wheel-test fuzz compare bench bench-build gpu-bundle campaign load-matrix test test-torch comparison setup build lint msrv msrv-api doc \
	docs notebook deny audit soundness miri clean \
	distclean python

quickstart-sites: build .flower/stamp
	PYTHON=$(PYTHON) FEDPLUG=$(FEDPLUG) configs/quickstart-sites.sh $(QUICKSTART_ARGS)

.flower/stamp: tests/requirements.txt | python
	rm -rf .flower
	$(PYTHON) -m pip install --disable-pip-version-check --no-input --quiet --root-user-action=ignore \
		--target .flower $$(grep '^flwr' tests/requirements.txt)
	touch $@

quickstart: build
	$(FEDPLUG) run configs/quickstart.toml --force $(QUICKSTART_ARGS)
	$(FEDPLUG) plot runs/quickstart --tag RMSE/local_test --window 5 --together --force --output runs/quickstart/figures/rmse
	$(FEDPLUG) plot runs/quickstart --tag Spearman/local_test --window 5 --together --force --output runs/quickstart/figures/spearman

# The comparisons and figures of docs/src/experiments.md and docs/src/algorithms.md. A finished run is not repeated, so an
# interrupted comparison continues.
DATA ?= FLAb/data
COMPARED = runs/compare
SMALL = --output $(COMPARED) --set 'federation.devices=["cpu"]' --set dataset.root=$(DATA) --set dataset.standardise=true --set dataset.max-samples=100
HEADS = local_alltasks fedavg_alltasks fedavg_alltasks_private_regressors
HEADS_ARGS = $(SMALL) --set model.schedule=constant --set model.batch-size=16 \
	--set model.trunk-lr=1e-3 --set 'model.layer-sizes=[32]' \
	--set 'model.pretrained={ hidden-size = 32, layers = 2, heads = 4, intermediate-size = 64 }'
ALGORITHMS = fedavg fedprox fedadam scaffold ditto median dp-low dp-high int8 top-k
SITES = site-1 site-2 site-3 site-4 site-5 site-6
ROUNDS = 25

compare: build
	@for name in $(HEADS); do \
		epochs=1; rounds=$(ROUNDS); [ $$name != local_alltasks ] || { epochs=$(ROUNDS); rounds=1; }; \
		[ -f $(COMPARED)/$$name/summary.json ] || $(FEDPLUG) run configs/$$name.toml --force $(HEADS_ARGS) \
			--set federation.rounds=$$rounds --set federation.local-epochs=$$epochs || exit 1; \
	done
	@for name in $(ALGORITHMS); do \
		[ -f $(COMPARED)/$$name/summary.json ] || $(FEDPLUG) run configs/algorithms/$$name.toml --force $(SMALL) \
			--set federation.rounds=$(ROUNDS) || exit 1; \
	done
	$(FEDPLUG) compare $(HEADS:%=$(COMPARED)/%)
	$(FEDPLUG) compare $(ALGORITHMS:%=$(COMPARED)/%)
	$(FEDPLUG) plot $(HEADS:%=$(COMPARED)/%) --tag Pearson/local_test_immunogenicity --window 5 --together --force \
		$(SITES:%=--client %) --output $(COMPARED)/figures/heads
	$(FEDPLUG) plot $(ALGORITHMS:%=$(COMPARED)/%) --client server --tag Pearson/local_test_immunogenicity --window 5 --force \
		--output $(COMPARED)/figures/algorithms

# The tables of docs/src/comparison.md.
comparison: build
	FEDPLUG=$(FEDPLUG) configs/comparison/run.sh $(DATA) runs/comparison

# PyTorch's side has a Python of its own, since the tests' packages are others.
ROWS ?=
FULL ?=
BENCH_ARGS ?=
BENCH_PYTHON = $(if $(FEDPLUG_TORCH_PYTHON),,.bench-python/stamp)
BENCH_ENV = $(if $(FEDPLUG_TORCH_PYTHON),,PYTHONPATH=.bench-python FEDPLUG_TORCH_PYTHON=$(PYTHON))

# PyTorch is for all rows but those of sites, which take flwr.
bench: bench-build $(if $(filter-out sites,$(or $(ROWS),all)),$(BENCH_PYTHON)) $(if $(findstring sites,$(or $(ROWS),sites)),.flower/stamp)
	$(BENCH_ENV) $(PYTHON) tests/bench/bench.py --rows '$(ROWS)' $(if $(FULL),--full) --output target/bench.md $(BENCH_ARGS)

bench-build: build
	$(CARGO) build --release -p model-amplify --example step
	$(CARGO) build --release -p fixture-bulk

BUNDLE_ARGS ?=
gpu-bundle: setup
	$(PYTHON) tests/bench/bundle.py target/gpu-bundle $(BUNDLE_ARGS)

.bench-python/stamp: tests/bench/requirements.txt | python
	rm -rf .bench-python
	$(PYTHON) -m pip install --disable-pip-version-check --no-input --quiet --root-user-action=ignore \
		--target .bench-python -r tests/bench/requirements.txt
	touch $@

build: setup
	$(CARGO) build --release --workspace --exclude 'fixture-*' --exclude test-support

# BUILT is another folder with what `cargo build` makes.
PREFIX ?= /usr/local
DESTDIR ?=
BUILT ?= target/release
LIBTORCH ?= .libtorch/lib
install: $(if $(filter target/release,$(BUILT)),build)
	$(PYTHON) python/install.py '$(DESTDIR)$(PREFIX)' --built '$(BUILT)' $(if $(LIBTORCH),--libtorch '$(LIBTORCH)')

uninstall:
	$(PYTHON) python/install.py '$(DESTDIR)$(PREFIX)'

# All in one package: see python/. The same commit and compiler give the same bytes. Of a debug build, without its symbols.
WHEEL_ENV = PYTHONPATH=$(CURDIR)/.wheel-tools PATH="$(CURDIR)/.wheel-tools/bin:$$PATH"
wheel: $(if $(filter target/release,$(BUILT)),build) .wheel-tools/stamp
	rm -rf target/wheel
	cd python && SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) FEDPLUG_BUILT='$(abspath $(BUILT))' \
		FEDPLUG_STRIP=$(if $(filter target/release,$(BUILT)),,1) $(WHEEL_ENV) $(PYTHON) -m hatchling build -t wheel -d ../target/wheel
	tag=$$(echo target/wheel/*.whl | sed 's/.*-none-//; s/\.whl//'); $(WHEEL_ENV) $(PYTHON) -m auditwheel repair \
		--exclude libtorch_cpu.so --exclude libc10.so --plat $$tag -w target/wheel/audited target/wheel/*.whl

# In an empty venv, from another folder; WAYS=--all: by every installer.
WAYS ?=
wheel-test: wheel
	$(PYTHON) tests/wheel.py $(WAYS) target/wheel/*.whl

.wheel-tools/stamp: python/tools.txt | python
	rm -rf .wheel-tools
	$(PYTHON) -m pip install --disable-pip-version-check --no-input --quiet --root-user-action=ignore \
		--target .wheel-tools -r python/tools.txt
	touch $@

# Two programs of tests at a time, each with a thread for each core: many tests wait for other programs.
test: export RUST_TEST_THREADS ?= $(shell getconf _NPROCESSORS_ONLN)
test: setup .python/stamp
	$(CARGO) build --workspace --all-targets
	CARGO='$(CARGO)' $(PYTHON) tests/run.py

# The tests with PyTorch as a package of Python, which CI does not install.
test-torch: setup .python/stamp $(BENCH_PYTHON)
	$(CARGO) build --workspace --all-targets
	$(CARGO) test --workspace --test it -- --ignored --nocapture python::

# A plugin built in many ways, and by the toolchains that OTHERS names, in one host: OTHERS=nightly,1.90.0. And plugins built
# of the repository as it was at the commit FREEZE, in this host and in one of the contract to come.
OTHERS ?=
FREEZE ?=
load-matrix: setup .python/stamp
	$(CARGO) build --workspace --all-targets
	FEDPLUG_LOAD_MATRIX=$(OTHERS) FEDPLUG_FREEZE=$(FREEZE) $(CARGO) test --workspace --test it -- --ignored --nocapture \
		plugins_load_and_run

# What others may send or leave: all decoders, each with TIMES as many cases as in `make test`. It changes the files of
# tests/corpus; an input that fails is named, and belongs there.
TIMES ?= 50
fuzz: setup
	FEDPLUG_FUZZ=$(TIMES) $(CARGO) test -p fedplug-superlink -p fedplug-tables -p fedplug-plot -p fedplug -p filter-compress \
		-p model-amplify -p model-python --lib --test suite -- any_ changed_ come_back comes_back

# See docs/src/promise.md. CAMPAIGN_ARGS='--seed 2 --kinds power' and the like are those of campaign.py.
KILLS ?= 2000
CAMPAIGN_ARGS ?=
campaign: setup
	$(CARGO) build --workspace
	$(PYTHON) tests/campaign/campaign.py --kills $(KILLS) $(CAMPAIGN_ARGS)

# An empty file is what a slip of a shell leaves, such as a name cut at its space.
lint: setup
	@! git grep --files-without-match '' -- ':!*/py.typed' || { echo "error: these committed files are empty" >&2; exit 1; }
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# All crates, or those alone that the author of a plugin builds with, which takes no libtorch. See tests/msrv.sh.
msrv: setup
	tests/msrv.sh

msrv-api:
	tests/msrv.sh -p fedplug-abi -p fedplug-plugin-api -p fedplug-testkit

doc: setup
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --exclude 'fixture-*' --exclude test-support

docs: .mdbook/bin/mdbook
	.mdbook/bin/mdbook build docs
	$(CARGO) test --workspace --test it -- docs::

NOTEBOOK = docs/src/first-steps.ipynb
notebook: $(if $(filter target/release,$(BUILT)),build) .notebook/stamp
	PYTHONPATH='$(CURDIR)/.notebook:$(CURDIR)/python' FEDPLUG_PROGRAM='$(abspath $(BUILT))/fedplug' PATH="$(abspath $(BUILT)):$$PATH" \
		$(PYTHON) docs/notebook/execute.py $(NOTEBOOK)

.notebook/stamp: docs/notebook/requirements.txt | python
	rm -rf .notebook
	$(PYTHON) -m pip install --disable-pip-version-check --no-input --quiet --root-user-action=ignore \
		--target .notebook -r docs/notebook/requirements.txt
	touch $@

.mdbook/bin/mdbook:
	$(CARGO) install mdbook --version 0.5.4 --locked --no-default-features --root .mdbook

# See deny.toml.
deny: .tools/stamp
	PATH="$(CURDIR)/.tools/bin:$$PATH" $(CARGO) deny --locked check bans licenses sources
	PATH="$(CURDIR)/.tools/bin:$$PATH" $(CARGO) shear
	.tools/bin/hadolint Dockerfile

audit: deny
	@export PATH="$(CURDIR)/.tools/bin:$$PATH"; \
	if $(CARGO) deny fetch db >/dev/null 2>&1; then $(CARGO) deny --locked check --disable-fetch advisories; \
	else echo "skipped: the database of advisories cannot be reached" >&2; fi

soundness miri:
	CARGO='$(CARGO)' tests/soundness.sh $(filter miri,$@)

# Prebuilt, since to build them takes minutes.
.tools/stamp: tests/tools.txt | python
	rm -rf .tools
	$(PYTHON) -m pip install --disable-pip-version-check --no-input --quiet --root-user-action=ignore \
		--target .tools -r tests/tools.txt
	touch $@

setup: python
	@$(PYTHON) plugins/model-amplify/libtorch.py

# An interrupted install leaves no stamp and is done again.
.python/stamp: tests/requirements.txt | python
	rm -rf .python
	$(PYTHON) -m pip install --disable-pip-version-check --no-input --quiet --root-user-action=ignore \
		--target .python -r tests/requirements.txt
	touch $@

python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "error: there is no \`$(PYTHON)\`; install Python 3.11 or later with pip (Debian, Ubuntu: apt install python3 python3-pip), or name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || { \
		echo "error: \`$(PYTHON)\` has no pip; install it (Debian, Ubuntu: apt install python3-pip; elsewhere: $(PYTHON) -m ensurepip)" >&2; exit 1; }

clean:
	$(CARGO) clean

distclean: clean
	rm -rf .libtorch .libtorch.partial .libtorch.lock .python .bench-python .flower .tools .wheel-tools .mdbook .notebook
