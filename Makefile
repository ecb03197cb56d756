# The targets that people and CI both call; each works in an environment with '.[dev]' installed.
.PHONY: build page axe docs lint format test fuzz bench

build:  ## compile the ops in place, for work in the checkout
	python setup.py build_ext --inplace

page:  ## what pcnn-serve's page runs: needs '.[onnx]', and npm for ONNX Runtime Web
	python -c "from pcnn.serving.site import build_site; build_site()"

AXE = axe-core-4.14.1
axe:  ## axe-core (MPL-2.0), with which tests look for what keeps people out of the page: needs npm
	mkdir -p build
	cd build && npm pack --silent axe-core@$(AXE:axe-core-%=%)
	tar -xzOf build/$(AXE).tgz package/axe.min.js > build/axe.min.js
	rm build/$(AXE).tgz

docs:  ## the site, into build/site: needs '.[docs]'
	sphinx-build -q -W --keep-going -b html -d build/doctrees docs build/site

lint:
	ruff check .
	ruff format --check .
	mypy
	clang-format --dry-run --Werror csrc/* tests/emulated_cuda/*.h tests/native/*

format:
	ruff check --fix .
	ruff format .
	clang-format -i csrc/* tests/emulated_cuda/*.h tests/native/*

test:
	pytest -n auto --dist loadgroup

# Options: FUZZ='--seconds 600', or --executions, --seed, --only, --replay, --keep; see --help.
FUZZ ?= --executions 20000
fuzz:  ## inputs that nobody thought of, for everything that is read from files
	cd tests && OMP_NUM_THREADS=1 python -m fuzz $(FUZZ)

bench:  ## the figures of docs/performance.md
	python benchmarks/bench_predict.py --json benchmarks/predict.json
	pcnn-evaluate --data ../shared/data/ferplus --split valid
	python benchmarks/explanations.py
	python benchmarks/score_detector.py
	python benchmarks/bench_networks.py --weights small --faces 1 8 --rounds 9 --threads 1 --clock cpu --json benchmarks/networks.json
	python benchmarks/bench_scaling.py
	python benchmarks/bench_engines.py files times --files build/engines --json benchmarks/bench_engines.json
	python benchmarks/bench_stream.py --photographs ../shared/data/lfw/lfw_faces.tar --count 1000 --timed 48 --json benchmarks/stream.json
	python benchmarks/bench_ops.py --json benchmarks/ops.json --page docs/ops.md
	python benchmarks/end_to_end.py --faces 1000 --json benchmarks/end_to_end.json --page docs/evaluation.md

include Makefile.native
