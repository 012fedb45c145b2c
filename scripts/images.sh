#!/usr/bin/env bash
# Builds the images for demo and tests (once; then cached) and points build/images at them.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

step "Building test images from Debian packages (once, some minutes; then cached)"
mkdir -p build
ln -sfn "$(tests/images/build.sh)" build/images
