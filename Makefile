# husk: `make help` lists what there is to do. The work is in scripts/, a file per task.

PREFIX  ?= /usr/local
DESTDIR ?=

.DEFAULT_GOAL := help
.PHONY: help setup build demo test fuzz lint bench bench-io gate images install clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build images ## Set up everything, then run a container from a real image, with its timeline
	@scripts/demo.sh

test: build images ## Set up everything, then run every check and test
	@scripts/test.sh

fuzz: setup ## Run each fuzz target of the VMM for some seconds
	@scripts/fuzz.sh

build: setup ## Build the guest kernel (once), the agent, the initramfs and husk itself
	@scripts/build.sh

setup: ## Install what is missing of the Debian packages and Rust tools that husk needs
	@scripts/setup.sh

images: setup ## Build the images that demo and tests use (once)
	@scripts/images.sh

lint: setup ## Check formatting and lints
	@scripts/lint.sh

bench: build images ## Measure starts and ends beside QEMU, runc and crun, with a report
	@target/release/husk-bench boot

bench-io: build ## Measure disk and network of the VMM, beside QEMU's microvm
	@scripts/bench-io.sh

gate: build images ## Fail when a start takes longer than the committed figures say
	@target/release/husk-bench gate

install: ## Install what `make build` made to $(DESTDIR)$(PREFIX)
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' scripts/install.sh

clean: ## Remove what was built here; the cache of kernels and images stays
	@scripts/clean.sh
