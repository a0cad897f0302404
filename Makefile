# The two commands: 'make demo' shows reslite at work, 'make test' runs every check.
# Each makes .venv if it is missing and installs what it needs; a second run reuses it.

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test lock refresh networks arm64 web proof clean

demo: .venv/demo
	$(BIN)/reslite ship carn-m --scale 4 --out dist

test: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-fail-under=90
	$(BIN)/reslite gate

# Measures everything that is published of the trained weights again: scores in their metadata,
# tables of scales, the gate's baselines and the tables of docs/results.md.
# Needs RESLITE_DATA, the folder with set5/, set14/, b100/, train/ and valid/.
refresh: .venv/dev
	$(BIN)/python -m tools.refresh $(RUNS)

# Makes docs/networks.md again: which architectures of others become files.
networks: .venv/dev
	$(BIN)/python -m tools.networks_table

# Makes the arm64 Debian that QEMU runs, in the user's cache folder. Debian packages: qemu-user, gcc.
arm64: .venv/dev
	$(BIN)/python -m benchmarks.devices.arm64_root

# Installs the browser's runtimes from npm in the user's cache folder. Debian: npm, chromium.
web: .venv/dev
	$(BIN)/python -m benchmarks.devices.browser

# Makes docs/runtimes.md again: what runtimes of others make of the files, in about half an hour.
# litert-gpu needs Debian's packages chromium and libvulkan1; docs/prove.md names the others.
proof: .venv/dev
	$(BIN)/python -m tools.proof

# Resolves every dependency anew. A local version such as torch's +cpu is cut: it names the build
# of this machine.
lock: .venv/dev
	$(PIP) install --upgrade --upgrade-strategy eager -e '.[dev]'
	$(PIP) freeze --all --exclude pip --exclude-editable | sed 's/+[a-z0-9.]*$$//' > requirements.lock

clean:
	rm -rf .venv dist build *.egg-info

.venv/demo .venv/dev: .venv/%: .venv/pyvenv.cfg requirements.lock pyproject.toml
	$(PIP) install --quiet --constraint requirements.lock --editable '.[$*]'
	touch $@

.venv/pyvenv.cfg:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'reslite needs Python 3.11 or newer as python3'; exit 1; }
	python3 -m venv .venv
