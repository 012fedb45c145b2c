#!/usr/bin/env bash
# Runs containers from real images, pulled from a real registry, each in a microVM of its own.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

# show CMD...: prints a command as a user would type it, then runs it.
show() {
    printf '\n$ %s\n' "${*//$release\//}"
    "$@"
}

if [ "${1:-}" != --inside ]; then
    step "Running the demo"
    in_machine --timeout 600 -- "$root/scripts/demo.sh" --inside
    exit
fi

with_registry
export HUSK_ROOT=$registry_state/husk
husk=$release/husk
program='import os, platform; print("Hello from Python", platform.python_version(), "on Linux", os.uname().release)'
show "$husk" check
show "$husk" pull "$HUSK_TEST_REGISTRY/debian-python"
echo
echo "# The first run unpacks the image inside a VM; the second finds it unpacked."
show "$husk" run --rm "$HUSK_TEST_REGISTRY/debian-python" python3 -c "$program"
show "$husk" run --rm --timings "$HUSK_TEST_REGISTRY/debian-python" python3 -c "$program"
echo
echo "# A container in the background lives on without the command that started it."
show "$husk" run -d --name sleeper "$HUSK_TEST_REGISTRY/debian-python" python3 -c 'import time; print("awake", flush=True); time.sleep(1000)'
show "$husk" ps
show "$husk" exec sleeper python3 --version
show "$husk" logs sleeper
show "$husk" stop --time 1 sleeper
show "$husk" rm sleeper
show "$husk" images
