#!/usr/bin/env bash
# Tests the containerd runtime with real containerds, each in an emulated machine with a root file system of its own: Debian
# 12's (1.6), Debian 13's (1.7) and that of Debian sid (2.x). HUSK_TEST_SUITES names others; arguments go to the tests.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/lab-tests.sh
source scripts/lab-tests.sh

run_in_suites containerd containerd,dmsetup,e2fsprogs,erofs-utils,kmod,runc 1800 "${HUSK_TEST_SUITES:-bookworm trixie sid}" "$@"
