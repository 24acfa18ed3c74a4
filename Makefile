# Every target needs only Python >= 3.11 and make: it creates the environment that it runs in.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
PARALLEL := --numprocesses=2 --dist=worksteal

# Hundreds of processes of the tests would compile the same sources anew.
unexport PYTHONDONTWRITEBYTECODE

# What depends on the version of JAX.
NEWEST := tests/pallas_kernels tests/ddf_jax/training tests/test_imports.py tests/test_packaging.py

.PHONY: train zoo zoo-all depth depth-all detect robustness bench report check docs test test-newest test-torch test-slow faults format dist clean
.DELETE_ON_ERROR:

train: $(VENV)/.installed
	$(BIN)/ddf train digits
	$(BIN)/ddf train digits_plain
	$(BIN)/python -m experiments.compare runs/digits runs/digits_plain

zoo: train
	$(BIN)/ddf train digits_rednet
	$(BIN)/ddf train digits_binet
	$(BIN)/ddf train digits_dcdc
	$(BIN)/python -m experiments.compare --write experiments/results \
		runs/digits runs/digits_plain runs/digits_rednet runs/digits_binet runs/digits_dcdc

# Also with the networks that the papers compare with; half an hour.
COMPARED := digits_san digits_sasa digits_nat digits_fca digits_odconv
zoo-all: zoo
	printf '%s\n' $(COMPARED) | xargs -n 1 $(BIN)/ddf train
	$(BIN)/python -m experiments.compare --write experiments/results $(addprefix runs/,digits digits_plain \
		digits_rednet digits_binet digits_dcdc $(COMPARED))

# One device per core keeps two cores busier than threads within an operation.
depth: export JAX_NUM_CPU_DEVICES ?= 2
depth: $(VENV)/.installed
	$(BIN)/ddf train joint_depth_4x
	$(BIN)/ddf train joint_depth_4x_pac_net
	$(BIN)/python -m experiments.depth --also validation runs/joint_depth_4x runs/joint_depth_4x_pac_net

# Every network by 4, 8 and 16, one after the other: hours.
depth-all: export JAX_NUM_CPU_DEVICES ?= 2
depth-all: $(VENV)/.installed
	for scale in 4 8 16; do \
		for network in "" _pac_net _djf _djf_plus _dmsg; do \
			$(BIN)/ddf train joint_depth_4x$$network --task.scale $$scale --name joint_depth_$${scale}x$$network || exit; \
		done; \
		$(BIN)/python -m experiments.depth --also validation runs/joint_depth_$${scale}x* || exit; \
	done

# Two at a time: while one compiles, on one core, the other trains.
ROOMS := rooms_mask_rcnn rooms_mask_rcnn_plain rooms_panoptic_fpn
detect: $(VENV)/.installed-detection
	printf '%s\n' $(ROOMS) | xargs -n 1 -P 2 $(BIN)/ddf train
	$(BIN)/python -m experiments.detection $(addprefix runs/,$(ROOMS))

# Two at a time, as above.
FURNITURE := furniture_resnet furniture_ddf furniture_resnext furniture_binet
robustness: $(VENV)/.installed
	printf '%s\n' $(FURNITURE) | tac | xargs -n 1 -P 2 $(BIN)/ddf train
	$(BIN)/python -m experiments.robustness --processes 2 $(addprefix runs/,$(FURNITURE))

# On a quiet machine, about twenty minutes on two cores. New rows replace the old ones when all are there.
bench: $(VENV)/.installed-torch
	rm -rf runs/bench
	$(BIN)/python -m ddf_jax bench all --against torch --out runs/bench
	cp runs/bench/*.csv experiments/results/
	$(BIN)/python -m ddf_jax report

# The page of all results, and every measured number of README and docs, from the rows.
report: $(VENV)/.installed
	$(BIN)/python -m ddf_jax report

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(PYTEST) --doctest-modules ddf_jax pallas_kernels experiments

# The site, in build/docs; it needs no network, and a warning is an error. Then the code of all pages and the examples.
docs: $(VENV)/.installed-docs $(VENV)/.installed-dev
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -c docs . build/docs
	$(PYTEST) $(PARALLEL) tests/docs

test: $(VENV)/.installed-aot
	PYTHONPATH=$(abspath $(VENV)/aot) $(PYTEST) $(PARALLEL)

test-newest: $(VENV)/.installed-aot
	PYTHONPATH=$(abspath $(VENV)/aot) $(PYTEST) $(PARALLEL) $(NEWEST)

test-torch: $(VENV)/.installed-torch
	$(PYTEST) $(PARALLEL) tests/with_torch

test-slow: $(VENV)/.installed-torch $(VENV)/.installed-aot
	PYTHONPATH=$(abspath $(VENV)/aot) $(PYTEST) $(PARALLEL) --dist=load -m slow  # most of them lie in one file
	$(PYTEST) $(PARALLEL) -m slow tests/docs
	$(PYTEST) -m slow tests/with_torch  # up to 11 GB in a process

# SEED=7 repeats the faults of an earlier run.
faults: $(VENV)/.installed-dev
	$(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED))

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Source archive and wheel. The archive must hold the files that Git tracks, and the wheel, built from it, the packages.
dist: $(VENV)/.installed-release
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/check-manifest
	$(BIN)/check-wheel-contents dist/*.whl
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python >= 3.11 is needed, $(PYTHON) is `$(PYTHON) --version`. Try: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet --editable '.[train]'
	touch $@

$(VENV)/.installed-detection: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[detection]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@

# No extra: these need none of the package's dependencies, and only who makes a release needs them.
$(VENV)/.installed-release: $(BIN)/python
	$(BIN)/pip install --quiet build check-manifest check-wheel-contents twine
	touch $@

# The compilers of a GPU target, 420 MB, in a folder that only the tests see: elsewhere JAX would look for a GPU.
# Where they cannot be installed, the tests of machine code are skipped.
$(VENV)/.installed-aot: $(VENV)/.installed-dev
	version=`$(BIN)/python -c 'import jax; print(jax.__version__)'` && $(BIN)/pip install --quiet --no-deps \
		--target $(VENV)/aot triton jax-cuda13-plugin==$$version jax-cuda13-pjrt==$$version || \
		echo "The tests of machine code will be skipped." >&2
	touch $@

# Python 3.11 gets the version of torch that this project is tested with.
$(VENV)/.installed-torch: $(VENV)/.installed-dev
	if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; \
		then $(BIN)/pip install --quiet torch==2.13.0; else $(BIN)/pip install --quiet torch; fi
	touch $@
