# Every entry point of the course. `make` alone lists them; the two that matter: `make run` and `make test`.

PYTHON ?=
WORKERS ?= 2
COURSE_CHECKPOINTS ?= bundled
CHECKPOINTS ?= $(filter-out __pycache__,$(notdir $(patsubst %/,%,$(wildcard checkpoints/*/))))

VENV_PYTHON := .venv/bin/python
# Named after this folder: a moved or copied tree gets its own, because an installed package remembers where it lies.
HERE := $(shell printf '%s' '$(CURDIR)' | cksum | cut -d ' ' -f 1)
READY := .venv/.ready-$(HERE)
DECK_READY := .venv/.deck-$(HERE)
FILMS_READY := .venv/.films-$(HERE)
SITE_READY := .venv/.site-$(HERE)

# Strict: every stored output is compared. loadfile keeps the cells of a notebook together, in order, in one kernel.
PYTEST_FLAGS := --nbval --nbval-current-env --nbval-sanitize-with tests/sanitize.cfg --nbval-cell-timeout 120 \
	-n $(WORKERS) --dist loadfile

export PYTHON COURSE_CHECKPOINTS
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
export JUPYTER_PLATFORM_DIRS := 1
export PYTHONUTF8 := 1
# One thread a process: tests already use every core, and sums depend on the number of threads.
export OMP_NUM_THREADS ?= 1
ifneq ($(COURSE_CHECKPOINTS),hub)
export HF_HUB_OFFLINE := 1
export TRANSFORMERS_OFFLINE := 1
endif

.DEFAULT_GOAL := help
.PHONY: help run test browser lab labs learner colab publish check bench course-time compatibility checkpoints slides slides-8k \
	slides-watch animations film-tools site pack system-packages clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(READY) ## execute every lab in order and show its validation checkpoints
	@$(VENV_PYTHON) -m course_helpers.labs run $(LABS)

test: $(READY) $(DECK_READY) $(SITE_READY) ## everything CI checks: unit tests, and every lab against its stored outputs
	@$(VENV_PYTHON) -m pytest -q $(PYTEST_FLAGS) tests notebooks

browser: $(READY) ## open and run every lab in JupyterLab with a real browser (LABS="M9-LAB-01 ..." for some)
	@env COURSE_BROWSER_LABS="$(or $(LABS),all)" $(VENV_PYTHON) -m pytest -q tests/labs/test_browser.py

lab: $(READY) ## open JupyterLab in notebooks/
	@$(VENV_PYTHON) -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) --LabApp.default_url=/lab/tree/notebooks

labs: $(READY) ## rebuild the .ipynb of every lab from its .py (LABS="M9-LAB-01 ..." for some)
	@$(VENV_PYTHON) -m course_helpers.labs build $(LABS)

learner: $(READY) ## copies of the labs without solutions and outputs, in learner/
	@$(VENV_PYTHON) -m course_helpers.labs copies $(LABS)

colab: $(READY) ## copies for Google Colab, in colab/: ADDRESS=... says where this repository is published
	@$(VENV_PYTHON) -m course_helpers.labs copies $(LABS) --colab "$(or $(ADDRESS),$(error say where the repository is published: make colab ADDRESS=...))"

publish: $(READY) ## what the badges open, in published/, and the badges in README.md; pyproject.toml says where they lead
	@$(VENV_PYTHON) -m course_helpers.labs publish

check: $(READY) ## ruff, and the labs without executing them
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m course_helpers.labs check $(LABS)

bench: $(READY) ## measure against peers; figures go to benchmarks/results (about an hour; close everything else)
	@$(VENV_PYTHON) -m pip install -q --no-deps -r benchmarks/requirements.txt -c constraints.txt
	@$(VENV_PYTHON) -m benchmarks.int8
	@$(VENV_PYTHON) -m benchmarks.loading
	@$(VENV_PYTHON) -m benchmarks.parallel
	@env -u OMP_NUM_THREADS $(VENV_PYTHON) -m benchmarks.planning
	@env -u OMP_NUM_THREADS $(VENV_PYTHON) -m benchmarks.products
	@$(VENV_PYTHON) -m benchmarks.speed

course-time: $(READY) $(DECK_READY) $(SITE_READY) ## time imports, labs, tests, deck, films beside the committed figures (ONLY="imports labs" CHECK=1)
	@$(VENV_PYTHON) -m benchmarks.course $(if $(ONLY),--only $(ONLY)) $(if $(CHECK),--check)

compatibility: $(READY) ## tests with the oldest and newest supported libraries (CASES="oldest ..." for some)
	@$(VENV_PYTHON) tools/compatibility.py $(CASES)

checkpoints: $(READY) ## rebuild the bundled checkpoints (CHECKPOINTS="name ..." for some)
	@set -e; for name in $(CHECKPOINTS); do echo "$$name"; $(VENV_PYTHON) checkpoints/build.py "$$name"; done

slides: $(DECK_READY) ## the deck: page, PDF, handout with notes, PowerPoint, in slides/build/
	@$(VENV_PYTHON) -m slides build

slides-8k: $(DECK_READY) ## one picture of 7680 x 4320 a slide, in slides/build/8k/
	@$(VENV_PYTHON) -m slides page
	@$(VENV_PYTHON) -m slides pictures

slides-watch: $(DECK_READY) ## show the deck in a browser and rebuild it whenever a source changes
	@$(VENV_PYTHON) -m slides watch

animations: $(FILMS_READY) ## render the films, in animations/build/ (QUALITY=480p to 2160p60, FILM=loading or swap)
	@$(VENV_PYTHON) -m animations.render $(if $(QUALITY),--quality $(QUALITY)) $(if $(FILM),--film $(FILM))

site: $(SITE_READY) ## labs, deck, films, runbook, results, reference as one site, in site/build/
	@$(VENV_PYTHON) -m tools.site build

pack: $(SITE_READY) ## a folder for class: deck, films, labs, solutions, timing plan, questions (PACK=folder)
	@$(VENV_PYTHON) -m tools.pack $(or $(PACK),dist/class)

film-tools: $(FILMS_READY) ## what rendering and testing the films needs

system-packages: ## install the programs that pip cannot; run needs none
	@tools/setup.sh system-packages

clean: ## remove caches and build output; .venv and results/ stay
	@rm -rf build dist learner colab screenshots media *.egg-info .pytest_cache .ruff_cache .hypothesis slides/build \
		animations/build site/build
	@find . -path ./.venv -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -exec rm -rf {} +

$(DECK_READY): $(READY) slides/requirements.txt slides/package-lock.json
	@tools/setup.sh deck $@

$(SITE_READY): $(DECK_READY) site/requirements.txt
	@tools/setup.sh site $@

$(FILMS_READY): $(READY) animations/requirements.txt
	@tools/setup.sh films $@

$(READY): requirements.txt constraints.txt pyproject.toml
	@tools/setup.sh environment $@
