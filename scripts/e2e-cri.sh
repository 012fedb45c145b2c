#!/usr/bin/env bash
# Tests Kubernetes' side: pods made by the CRI of real containerds, with CNI's plugins, each in an emulated machine with a root file
# system of its own: those of Debian 12 (1.6), 13 (1.7) and sid (2.x), if HUSK_TEST_SUITES does not name others; with 2.x both by pause
# containers and by the Sandbox API. HUSK_TEST_SANDBOXERS names one of the two. Arguments go to the tests.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/lab-tests.sh
source scripts/lab-tests.sh

packages=containerd,runc,containernetworking-plugins,iptables,iproute2,kmod
read -ra suites <<<"${HUSK_TEST_SUITES:-bookworm trixie sid}"
for sandboxer in ${HUSK_TEST_SANDBOXERS:-podsandbox shim}; do
    lab_env=(--env "HUSK_TEST_SANDBOXER=$sandboxer")
    for suite in "${suites[@]}"; do
        # Older ones know no other way.
        [ "$sandboxer" = podsandbox ] || [ "$suite" = sid ] || continue
        step "Pods by $sandboxer"
        run_in_suites cri "$packages" 900 "$suite" "$@"
    done
done
