# Every command of the project. It needs make and Python >= 3.11; tools/setup.py installs the rest into this folder.

PORT ?= 8000
POST ?=
ARGS ?=

# PYTHON=... on the command line wins; tools/setup.py looks further when this one is too old
FOUND := $(or $(PYTHON),$(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell command -v $(name) 2>/dev/null))))
RUN := .venv/bin/python

# a process per core for tests, 2 to 4 of them, one thread each: threads of two processes on one core wait for each other
WORKERS := $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -le 4 ] || n=4; [ $$n -ge 2 ] || n=2; echo $$n)
TEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(WORKERS)

# packages of the caller's other projects stay out
unexport PYTHONPATH
unexport PYTHONHOME
export NO_MKDOCS_2_WARNING := 1

.PHONY: help serve test check test-full site lab relab labs record live new lint format clean setup post

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1 | \2/p' Makefile | awk -F' [|] ' '{ printf "%-18s%s\n", $$1, $$2 }'

serve: ## read the site at http://127.0.0.1:8000, reloaded at every save (PORT=8001 for another port)
	@$(call setup,serve $(PORT))

test: lint ## run every test (ARGS="tests/snippets -k name" runs some)
	@$(TEST) $(or $(ARGS),--complete)

check: ## run the tests that a change touches, within a minute (what they are, the last complete `make test` told)
	@OMP_NUM_THREADS=1 $(RUN) -m tools.check

test-full: lint ## the same with nothing shortened: pages train as long as they say
	@FULL=1 $(TEST) $(or $(ARGS),--complete)

site: test ## test, then build the site into site/ with the Verified panels filled in
	@$(RUN) -m mkdocs build --strict --quiet
	@echo "The site is in site/."

lab: post setup ## run the lab of one post: POST=Diffusion (ARGS="--images DIR --device cuda")
	@$(RUN) -m tools.labs run "$(POST)" $(ARGS)

relab: setup ## after a change of code: do numbers of a lab change? (POST=Diffusion; without it, of any lab)
	@$(RUN) -m tools.labs relab $(POST)

labs: setup ## run the lab of every post
	@$(RUN) -m tools.labs all $(ARGS)

record: setup ## record what a page's program prints: POST=Diffusion (without POST, all whose record is stale)
	@$(RUN) -m tools.record $(POST)

live: setup ## export what a post's live figure computes with: POST=Diffusion (without POST, all)
	@$(RUN) -m tools.live $(POST)

new: post setup ## start a post: POST=LLM/Name makes its module, page, lab and test
	@$(RUN) -m tools.new "$(POST)"

lint: setup ## check style (part of make test)
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check . || { echo "make format mends this." >&2; exit 1; }

format: setup ## mend what ruff can mend
	@$(RUN) -m ruff check --fix --quiet .
	@$(RUN) -m ruff format .

clean: ## remove what builds and tests leave behind (not .venv)
	@rm -rf site .verified .site-cache .pytest_cache .ruff_cache .hypothesis lab-output
	@find snippets tests theme tools -name __pycache__ -prune -exec rm -rf {} +

define setup
$(if $(FOUND),,echo "Python 3.11 or newer is needed, and there is no python3 on PATH." >&2; exit 1;) $(FOUND) tools/setup.py $(1)
endef

setup:
	@$(call setup)

post:
	@$(if $(POST),,echo "Which post? Say POST=Diffusion (its path below docs/posts, without .md)." >&2; exit 1)
