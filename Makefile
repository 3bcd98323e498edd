# Each target does all the set-up that it needs on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.segbench-setup

.PHONY: setup requirements train test test-slow test-slurm test-faults soak fuzz test-networks test-python test-oldest test-next \
	lint docs test-tutorials bench bench-large gpu clean

setup: $(STAMP)

# requirements.txt has everything that was tested but torch, each file by its digest, so nothing that an index serves later
# gets in. torch comes by its version alone: its builds differ by machine. `make requirements` writes the file. setuptools
# comes first, by its digest too: antlr4 has no wheel, and pip would fetch any setuptools to build it.
TORCH = torch==$$(sed -n 's/^torch==//p' constraints.txt)
$(STAMP): pyproject.toml requirements.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	sed -n '/^setuptools==/,/[^\\]$$/p' requirements.txt > $(VENV)/build.txt
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --requirement $(VENV)/build.txt
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --no-build-isolation --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "$(TORCH)"
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(STAMP)

UV := .venv-uv/bin/uv
$(UV):
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python -m pip install --quiet uv

requirements: $(UV)
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--constraint constraints.txt --extra dev --no-emit-package torch pyproject.toml --output-file requirements.txt

train: setup
	$(BIN)/segbench train

test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: setup
	$(BIN)/python -m pytest -m slow

# Starts its own Slurm on the loopback (apt-get install slurmctld slurmd slurm-client munge); skipped, with the reason, if
# it cannot start.
test-slurm: setup
	$(BIN)/python -m pytest -rs tests/slurm

# Kills small trainings at 120 random moments; each continues to the weights of an uninterrupted one: five minutes. Then
# kills export, data prepare, predict, report, reproduce and sweep retry, ten times each: five minutes.
test-faults: setup
	$(BIN)/python tests/end_to_end/faults.py
	$(BIN)/python tests/end_to_end/faults_of_verbs.py

# An hour of training, resuming, scoring, predicting and sweeping in one process, which must not grow:
# make soak ARGS="--minutes 12"
soak: setup
	$(BIN)/python tests/end_to_end/soak.py $(ARGS)

# Damaged files of every format, ten minutes: make fuzz ARGS="--minutes 2 --readers png,tiff"
fuzz: setup
	$(BIN)/python tests/end_to_end/fuzz.py $(ARGS)

# The packages of networks need torchvision, which exists for no CPU build of torch from PyPI: their own environment, with
# torch and torchvision of one release and about 6 GB. What else was tested together comes from constraints.txt.
NETWORKS := .venv-networks
$(NETWORKS)/.setup: pyproject.toml constraints.txt constraints-networks.txt
	$(PYTHON) -m venv $(NETWORKS)
	$(NETWORKS)/bin/python -m pip install --quiet --upgrade pip
	grep -v "^torch==" constraints.txt > $(NETWORKS)/constraints.txt
	cat constraints-networks.txt >> $(NETWORKS)/constraints.txt
	$(NETWORKS)/bin/python -m pip install --quiet --constraint $(NETWORKS)/constraints.txt torch torchvision \
		pytest hypothesis --editable ".[smp,timm,hf,monai,export]"
	touch $@

# Networks of other packages: trained, scored, predicted with and exported, with drawn weights and no network: ten minutes.
test-networks: $(NETWORKS)/.setup
	$(NETWORKS)/bin/python -m pytest -rs -m networks tests/models tests/end_to_end/test_networks.py

# The tests, or TESTS="tests/compare ...", on other versions; deprecations of or in other packages are no faults there.
TESTS ?= tests
OTHERWISE := -m pytest -n 2 --dist worksteal -m "not slow" -W ignore::DeprecationWarning -W ignore::FutureWarning

# Another Python: make test-python PYTHON=python3.13
test-python:
	$(MAKE) setup VENV=.venv-$(notdir $(PYTHON))
	.venv-$(notdir $(PYTHON))/bin/python $(OTHERWISE) $(TESTS)

# The oldest versions that pyproject.toml admits; torch as elsewhere, since older builds are gigabytes of CUDA.
test-oldest: $(UV)
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet "$(TORCH)"
	grep "^torch==" constraints.txt | $(UV) pip install --quiet --python .venv-oldest/bin/python \
		--resolution lowest-direct --constraint - --editable ".[dev]"
	.venv-oldest/bin/python $(OTHERWISE) $(TESTS)

# The release candidate of Hydra, which pyproject.toml does not admit yet.
test-next:
	$(MAKE) setup VENV=.venv-next
	.venv-next/bin/python -m pip install --quiet --upgrade --pre "hydra-core>=1.4.0rc1,<1.5"
	.venv-next/bin/python $(OTHERWISE) -W ignore::UserWarning $(TESTS)

# Builds the documentation site in outputs/site.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Runs every command of the tutorials in full, on ../shared/data if present: over an hour.
test-tutorials: setup
	SEGBENCH_TUTORIALS_IN_FULL=1 $(BIN)/python -m pytest -m slow -s tests/end_to_end/test_docs.py

lint: setup
	$(BIN)/ruff check src tests docs benchmarks
	$(BIN)/ruff format --check src tests docs benchmarks
	$(BIN)/mypy

# make bench ARGS="loader_voc unet_training_step" measures only these.
bench: setup
	$(BIN)/python benchmarks/run.py $(ARGS)

# Predicts images larger than memory, 2,000 to 20,000 pixels a side: ten minutes on one core, four gigabytes of disk.
bench-large: setup
	$(BIN)/python benchmarks/run.py large_image

# Proves and measures everything on the GPUs here, in pieces of up to eight minutes; a second call goes on. Nothing is
# installed: PYTHON has a CUDA build of torch, and what else it lacks is reported. make gpu ARGS="--list"
gpu:
	$(PYTHON) benchmarks/gpu.py $(ARGS)

clean:
	rm -rf $(VENV) .venv-* .mypy_cache .ruff_cache .hypothesis dist
