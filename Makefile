# husk: `make help` lists what there is to do. The work is in scripts/, a file per task.

PREFIX  ?= /usr/local
DESTDIR ?=
# What benchmarks in the lab need beside husk.
BENCH_PACKAGES = containerd,e2fsprogs,qemu-system-x86,runc,virtiofsd

.DEFAULT_GOAL := help
.PHONY: help setup build demo test test-engines fuzz lint bench bench-io bench-ctr bench-docker bench-fs gate images install clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build images ## Set up everything, then run a container from a real image, with its timeline
	@scripts/demo.sh

test: build images ## Set up everything, then run every check and test
	@scripts/test.sh

test-engines: build images ## Test with the containerds of three Debians, Kubernetes' CRI, and Docker
	@scripts/e2e-containerd.sh
	@scripts/e2e-cri.sh
	@scripts/e2e-docker.sh

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

bench-ctr: build images ## Measure ctr run, exec and end of containers, with husk and with runc
	@target/release/husk-bench ctr --root "$$(scripts/debian-root.sh trixie $(BENCH_PACKAGES))"

bench-docker: build images ## Measure commands of husk's beside Docker's
	@scripts/bench-docker.sh

bench-fs: build images ## Measure a directory shared with a guest, beside QEMU and virtiofsd
	@target/release/husk-bench fs --root "$$(scripts/debian-root.sh trixie $(BENCH_PACKAGES))"

bench-io: build images ## Measure disk and network of the VMM, beside QEMU's microvm
	@target/release/husk-bench io

gate: build images ## Fail when a start takes longer than the committed figures say
	@target/release/husk-bench gate

install: ## Install what `make build` made to $(DESTDIR)$(PREFIX)
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' scripts/install.sh

clean: ## Remove what was built here; the cache of kernels and images stays
	@scripts/clean.sh
