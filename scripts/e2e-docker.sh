#!/usr/bin/env bash
# Tests husk with a real Docker (Debian 13's docker.io and docker-compose), in an emulated machine with a root file system of its
# own. Arguments go to the tests.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/lab-tests.sh
source scripts/lab-tests.sh

run_in_suites docker "$docker_packages" 900 trixie "$@"
