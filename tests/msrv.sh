#!/usr/bin/env bash
# Checks that the code compiles with the oldest Rust that Cargo.toml names, in a target folder of its own.
#
#   tests/msrv.sh [ARGUMENTS OF CARGO CHECK]     such as -p fedplug-plugin-api; --workspace if none are given
#
# The toolchain is installed if rustup can do so. Where it is missing and cannot be installed, that is an error, or with
# FEDPLUG_MSRV=optional a line that says that nothing was checked.
set -euo pipefail
cd "$(dirname "$0")/.."

oldest="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)"

toolchain() {
    rustup toolchain list 2>/dev/null | awk '{ print $1 }' | grep -m1 "^${oldest//./\\.}\(\.[0-9]*\)\?\(-\|$\)"
}

if ! name="$(toolchain)"; then
    timeout 300 rustup toolchain install "$oldest" --profile minimal >&2 || true
    if ! name="$(toolchain)"; then
        reason="Rust $oldest is not installed, and rustup is missing or could not install it"
        if [ "${FEDPLUG_MSRV-required}" = optional ]; then
            echo "NOT CHECKED: whether the code compiles with Rust $oldest: $reason; FEDPLUG_MSRV=required makes this an error" >&2
            exit 0
        fi
        echo "error: $reason" >&2
        exit 1
    fi
fi
[ $# -gt 0 ] || set -- --workspace --all-targets
CARGO_TARGET_DIR="${CARGO_TARGET_DIR-target/msrv}" rustup run "$name" cargo check --locked "$@"
