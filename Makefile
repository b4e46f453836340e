# A thin door: the work is in scripts/dev.py, which needs nothing but Python.
# Another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
NEEDS = simserve needs Python 3.11 or newer; try: make $@ PYTHON=python3.12

.PHONY: demo test test-all lint site bench compiled bench-compiled clean

demo test test-all lint site bench compiled bench-compiled clean:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "$(NEEDS)")'
	@$(PYTHON) scripts/dev.py $@
