# SPDX-License-Identifier: Apache-2.0
#
# The front door. Meson does the work; HACKING.md tells what to call directly.
#
#   make            everything, build/holdfastd and build/holdfast first of all
#   make programs   these two alone
#   make run        install what is missing, build, start with etc/quickstart.conf
#   make primary    beside it: a Postfix in the role of the primary mail server
#   make cluster    as root: three databases and three nodes on this machine, to look at
#   make cluster-drill   another such cluster, under traffic, with one thing broken after the other
#   make test       install what is missing, build, run every test that CI runs
#   make fuzz       every fuzzer for FUZZ_SECONDS (60) each, by FUZZ_ENGINE (libfuzzer or afl)
#   make soak       faults under load for SOAK_SECONDS (600)
#   make bench      the numbers beside Postfix and a null sink, as one table
#   make install    DESTDIR and PREFIX are honoured
#   make format     clang-format on every C file
#   make lint       layers, format, man pages; no build
#   make clean

BUILD ?= build
PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
# Debian's Python modules (pytest, aiosmtpd) belong to Debian's Python.
PYTHON ?= /usr/bin/python3
FUZZ_SECONDS ?= 60
FUZZ_ENGINE ?= libfuzzer
SOAK_SECONDS ?= 600
BENCH ?=

C_FILES = $(shell find src tests tools -name '*.[ch]')

.PHONY: all programs run primary cluster cluster-drill test fuzz soak bench install format lint clean packages-build packages-test \
	packages-fuzz

all: programs
	@ninja -C $(BUILD) -j $(JOBS)

# Who wants to see it run does not wait for its tests.
programs: $(BUILD)/build.ninja
	@ninja -C $(BUILD) -j $(JOBS) src/app/holdfastd src/app/holdfast
	@for program in holdfastd holdfast; do ln -sf src/app/$$program $(BUILD)/$$program; done

$(BUILD)/build.ninja:
	@command -v meson >/dev/null || { \
		echo "meson is missing; as root: tools/install_packages.sh build" >&2; exit 1; }
	@meson setup $(BUILD)

packages-build:
	@tools/install_packages.sh build try

packages-test:
	@tools/install_packages.sh build try test unpack

packages-fuzz:
	@tools/install_packages.sh build try test fuzz

run: packages-build
	@$(MAKE) --no-print-directory programs
	@tools/run_quickstart.sh $(BUILD)

primary:
	@tools/install_packages.sh build try test
	@$(PYTHON) -B tools/primary.py

cluster: packages-test
	@$(MAKE) --no-print-directory programs
	@$(PYTHON) -B tools/cluster.py start

cluster-drill: packages-test
	@$(MAKE) --no-print-directory programs
	@$(PYTHON) -B tools/cluster.py drill $(DRILL)

test: packages-test
	@$(PYTHON) tools/run_tests.py --jobs $(JOBS)

fuzz: packages-fuzz
	@$(PYTHON) tools/run_fuzzers.py --engine $(FUZZ_ENGINE) --jobs $(JOBS) --seconds $(FUZZ_SECONDS)

soak: packages-test
	@$(MAKE) --no-print-directory all
	@HOLDFAST_SOAK_SECONDS=$(SOAK_SECONDS) $(PYTHON) -B -m pytest -p no:cacheprovider -m soak -s tests/e2e

bench: packages-test
	@$(MAKE) --no-print-directory all
	@$(PYTHON) -B bench/run.py $(BENCH)

install: $(BUILD)/build.ninja
	@meson configure $(BUILD) --prefix $(abspath $(PREFIX))
	@ninja -C $(BUILD) -j $(JOBS)
	@meson install -C $(BUILD) --no-rebuild

format:
	@clang-format -i $(C_FILES)

lint:
	@$(PYTHON) tools/check_layers.py
	@$(PYTHON) tools/check_comparison.py
	@clang-format --dry-run -Werror $(C_FILES)
	@for page in $(wildcard man/*.[1-9]); do mandoc -T lint -W warning $$page || exit 1; done

clean:
	@rm -rf build build-*
