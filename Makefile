# Two commands set everything up by themselves: `make demo` and `make test`.
# Every target works on the built wheel, installed into .venv: what is tested is what is shipped.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
SOURCES := $(shell find builder entrypoint templates -type f -not -name '*.pyc')
CODE := builder entrypoint templates benchmarks tests
NATIVE := entrypoint/tiers/snapshot/native
TESTS ?= tests
export TEST_WORKERS ?= 4
TEST_PROGRAMS := docker-registry=docker-registry chromium=chromium chromedriver=chromium-driver \
	promtool=prometheus fusermount3=fuse3 vmtouch=vmtouch gdb=gdb perf=linux-perf \
	/usr/lib/x86_64-linux-gnu/libjemalloc.so.2=libjemalloc2 /usr/lib/x86_64-linux-gnu/libmimalloc.so.2=libmimalloc2.0 \
	/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf=fonts-dejavu-core

.PHONY: help demo test unit coverage lint format typecheck docs golden bench vllm-cpu-base clean

help: ## Say what the targets do
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

demo: $(VENV)/installed ## Build an image for a small model, run it, show the answer and the start-up timelines
	.ci/with-engine $(PY) -m benchmarks.demo

test: lint typecheck ## All that CI runs: lint, types, unit tests, and real images on a real engine
	WITH_ENGINE_ALSO='$(TEST_PROGRAMS)' .ci/with-engine .ci/test $(TESTS)

unit: $(VENV)/installed ## Run the tests that need no Docker
	TEST_PARTS=unit .ci/test $(TESTS)

coverage: $(VENV)/installed ## Measure what the tests without Docker reach; fails below the floor in pyproject.toml
	$(PY) -m coverage erase
	$(PY) -m coverage run -m pytest $(TESTS) -m "not docker and not slow" -n $(TEST_WORKERS) --dist loadgroup
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage report

lint: $(VENV)/installed ## Check style
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)
	$(VENV)/bin/clang-format --dry-run --Werror $(NATIVE)/*.[ch]
	for machine in x86_64 aarch64; do $(VENV)/bin/clang-tidy --quiet $(NATIVE)/*.c -- \
		-std=c11 -ffreestanding -target $$machine-linux-gnu || exit 1; done

format: $(VENV)/installed ## Fix style
	$(VENV)/bin/ruff check --fix $(CODE)
	$(VENV)/bin/ruff format $(CODE)
	$(VENV)/bin/clang-format -i $(NATIVE)/*.[ch]

typecheck: $(VENV)/installed ## Check the types of the installed wheel, of the benchmarks and of the tests
	$(PY) -m mypy -p warmimage -p benchmarks -p tests

docs: $(VENV)/installed ## Write the generated documents anew
	$(PY) tests/docs/generate.py

golden: $(VENV)/installed ## Write the golden Dockerfiles anew
	$(PY) -m tests.builder.golden --write

bench: $(VENV)/installed ## Run warmimage bench on an image of transformers and one of vLLM, into results/
	.ci/with-engine $(PY) -m benchmarks.cpu

vllm-cpu-base: $(VENV)/installed ## Build warmimage-test/vllm-cpu:0.32.0, unmodified vLLM for CPU
	.ci/with-engine $(PY) -m tests.images.vllm_cpu

clean: ## Remove what the other targets made here
	rm -rf $(VENV) build dist *.egg-info .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/requirements: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip "setuptools>=77" wheel ziglang==0.17.1
	$(PY) -m pip install --quiet ".[dev]"
	rm -rf build *.egg-info
	touch $@

$(VENV)/installed: $(VENV)/requirements $(SOURCES) README.md
	rm -rf build *.egg-info
	$(PY) -m pip install --quiet --no-deps --no-build-isolation --force-reinstall .
	rm -rf build *.egg-info
	touch $@
