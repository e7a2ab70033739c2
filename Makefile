# Everything a user or developer runs. Each target makes what it needs first: a virtual environment (the
# active one, or .venv here), the pinned tools, the native build; and none of them twice.

PYTHON ?= python3
# Only if the environment has no torch yet.
TORCH ?= torch==2.13.0
VENV := $(or $(VIRTUAL_ENV),$(CURDIR)/.venv)
PY := $(VENV)/bin/python
READY := $(VENV)/.convext-requirements
# Only for `make tutorial`.
JUPYTER ?= jupyterlab==4.6.6
TUTORIAL ?= tutorial
PEERS := $(VENV)/.convext-peers
DOCS := $(VENV)/.convext-docs
PHOTO ?=
BENCH_ARGS ?=
PYTEST_ARGS ?=
LINKCHECK ?=

# The package is used from this checkout, wherever a program or a test that is started here runs.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

.DEFAULT_GOAL := help
.PHONY: help build demo test bench docs tutorial notebooks wheel install lint format native-test sanitize neon cuda-test clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build  ## the textbook chapter, then a real photograph; PHOTO=file takes your own
	$(PY) -m convext demo $(PHOTO)

test: build  ## run the tests; PYTEST_ARGS="-k conv2d" narrows them
	$(PY) -m pytest tests -n 2 $(PYTEST_ARGS)

bench: build $(PEERS)  ## time the layers of networks beside torch and others, 15 minutes; BENCH_ARGS="--network vgg16" narrows
	$(PY) -m convext bench $(BENCH_ARGS)

docs: build $(DOCS)  ## build the documentation as a site in build/docs/html; LINKCHECK=1 asks the network for external links too
	$(PY) docs/build_site.py build/docs $(if $(LINKCHECK),--linkcheck)

tutorial: build  ## open the tutorial as a notebook in the browser; TUTORIAL=tutorial.zh opens the Chinese one
	@$(PY) -c 'import jupyterlab' 2>/dev/null || $(PY) -m pip install '$(JUPYTER)'
	$(PY) -m jupyterlab docs/$(TUTORIAL).ipynb

notebooks: build $(DOCS)  ## run the tutorial and rewrite its outputs, pictures and notebooks
	$(PY) docs/build_notebooks.py --update

build: $(READY)  ## compile the native part in place (only what has changed)
	@$(PY) setup.py -q build_ext --inplace

install: $(READY)  ## make `import convext` work anywhere in the environment (editable)
	$(PY) -m pip install --no-build-isolation --no-deps -e .

wheel: build  ## one wheel with a manylinux tag in dist/; torch's libraries stay outside
	rm -rf build/wheel build/lib.* build/bdist.* dist
	$(PY) -m pip wheel --no-build-isolation --no-deps -w build/wheel .
	PATH="$(VENV)/bin:$$PATH" $(PY) -m auditwheel repair --exclude 'libtorch*.so' --exclude 'libc10*.so' -w dist build/wheel/*.whl
	@if $(PY) -m zipfile -l dist/*.whl | grep '\.libs/'; then \
	  echo "convext: the wheel bundles shared libraries; none belongs into it" >&2; exit 1; fi
	@ls dist/*.whl

lint: $(READY)  ## formatting and static checks
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' | xargs $(VENV)/bin/clang-format --dry-run -Werror
	$(PY) -m mypy

format: $(READY)  ## rewrite the sources in the project's style
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' | xargs $(VENV)/bin/clang-format -i

native-test:  ## the kernels' own tests, without torch
	$(MAKE) -C tests/native -j $(shell nproc) test

sanitize:  ## the same under Address-, UndefinedBehavior- and ThreadSanitizer
	$(MAKE) -C tests/native -j $(shell nproc) sanitize

neon:  ## the same for aarch64, cross-compiled and run under qemu
	$(MAKE) -C tests/native -j $(shell nproc) neon

cuda-test:  ## the CUDA kernels as plain C++ on the CPU, also under sanitizers; needs no GPU
	$(MAKE) -C tests/cuda_on_cpu -j $(shell nproc) test
	$(MAKE) -C tests/cuda_on_cpu -j $(shell nproc) sanitize

clean:  ## remove what was built; .venv stays
	rm -rf build dist *.egg-info convext/*.so .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "convext: Python 3.10 or newer is needed; name one with PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "convext: this Python cannot make virtual environments; install that part of it (on Debian or Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The compiler is asked for first: better to learn that it is missing before torch has been downloaded.
$(READY): requirements-dev.txt | $(PY)
	@$(PY) -m build_support.toolchain
	$(PY) -c 'import torch' 2>/dev/null || $(PY) -m pip install '$(TORCH)'
	$(PY) -m pip install -r requirements-dev.txt
	@touch $@

$(DOCS): docs/requirements.txt | $(READY)
	$(PY) -m pip install -r $<
	@touch $@

# The benchmark compares with what there is, so it also runs where these cannot be had.
$(PEERS): benchmarks/requirements.txt | $(READY)
	@$(PY) -m pip install -r $< && touch $@ || echo "convext: some libraries to compare with are missing" >&2
