# make demo   explain the shipped X-ray with the shipped model; leaves pictures and a report in out/demo
# make serve  open the page in the browser; scans and results stay in out/serve
# make test   run the whole suite
# make lint   ruff and mypy, and tsc on the browser's modules where it is installed
# make fuzz   ten minutes of hostile files, names, kills and full disks
# make docs   build the documentation into site/
# make bench  occlusion against Captum and MONAI, how soon a map is useful, how many evaluations methods need
# make release  build, check and try the package as a user would; leaves dist/ and publishes nothing
# make lock   pin the dependencies anew (needed only after a change in pyproject.toml)
#
# Everything is installed into .venv. pip takes the build of PyTorch that it finds first; on a Linux machine without
# an NVIDIA card `make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu` saves some gigabytes.

TORCH_INDEX ?=
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
RUN := .venv/bin/python

.DEFAULT_GOAL := demo
.PHONY: demo serve test fuzz lint docs bench release lock clean env-demo env-test env-docs

demo: env-demo
	$(RUN) -m lucency explain src/lucency/phantom/demo.png --model lucency:phantom --target effusion --out out/demo

serve: env-test
	$(RUN) -m lucency serve --open --data out/serve

test: env-test
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --cov --cov-report=term:skip-covered

fuzz: env-test
	OMP_NUM_THREADS=1 $(RUN) tests/hostile/fuzz.py 600

lint: env-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	@if command -v tsc >/dev/null; then for each in viewer serve/page; do tsc -p src/lucency/$$each/jsconfig.json; done; \
		else echo "tsc is not installed: the types of the browser's modules were not checked"; fi

docs: env-docs
	$(RUN) -m mkdocs build --strict --quiet

bench: env-test
	$(RUN) -m pip install --quiet --disable-pip-version-check "shap>=0.46,<0.52"
	$(RUN) benchmarks/occlusion.py --threads 1
	$(RUN) benchmarks/occlusion.py --threads 1 --whole --sizes 224 --networks resnet18 densenet121 \
		--out out/bench/whole.json
	$(RUN) benchmarks/anytime.py --threads 1
	$(RUN) benchmarks/anytime.py --threads 1 --model lucency:effusion --out out/bench/anytime-effusion.json
	$(RUN) benchmarks/evaluations.py
	$(RUN) docs/scripts/speed.py

release:
	sh tools/release.sh "$(PYTHON)" "$(TORCH_INDEX)"

lock:
	sh tools/lock.sh $(PYTHON)

env-demo env-test env-docs: env-%:
	@test -n "$(PYTHON)" || { echo "Lucency needs Python 3.11 or newer and finds none; install it, or say where it is:" \
		"make demo PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) tools/environment.py $* --index "$(TORCH_INDEX)"

clean:
	rm -rf .venv out site build dist
