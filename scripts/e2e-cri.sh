#!/usr/bin/env bash
# Tests Kubernetes' side: pods made by the CRI of real containerds, with CNI's plugins, each in an emulated machine with a root file
# system of its own: that of Debian 13 (1.7), if HUSK_TEST_SUITES does not name others. Arguments go to the tests.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/lab-tests.sh
source scripts/lab-tests.sh

packages=containerd,runc,containernetworking-plugins,iptables,iproute2,kmod
run_in_suites cri "$packages" 900 "${HUSK_TEST_SUITES:-trixie}" "$@"
