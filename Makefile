# Each target does all the set-up that it needs on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.segbench-setup

.PHONY: setup train test test-slow test-slurm test-faults test-networks lint docs test-tutorials bench bench-large gpu clean

setup: $(STAMP)

# constraints.txt pins what was tested; it also keeps pip from fetching a torch with gigabytes of CUDA beside it.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

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

# Kills small trainings at 120 random moments; each continues to the weights of an uninterrupted one: five minutes.
test-faults: setup
	$(BIN)/python tests/end_to_end/faults.py

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
# installed: PYTHON has a CUDA build of torch, and what else it lacks is told. make gpu ARGS="--list"
gpu:
	$(PYTHON) benchmarks/gpu.py $(ARGS)

clean:
	rm -rf $(VENV) $(NETWORKS) .mypy_cache .ruff_cache .hypothesis dist
