#!/usr/bin/env bash
# plugin-api's unit tests under Miri, which finds undefined behaviour that happens to do no harm, and under
# AddressSanitizer, which finds what does. What there is no toolchain for is skipped, and said so.
#
#   tests/soundness.sh [miri|encoder|sanitizer]     miri and sanitizer, if none is named
#
# `encoder` runs model-amplify's encoder on the CPU under Miri, which takes long.
#
# Miri knows no foreign functions to speak of, so it gets the tests of what handles memory, in smaller pieces. Leaks are not
# looked for: what a panic carries is leaked on purpose if it panics in turn.
set -euo pipefail
cd "$(dirname "$0")/.."
CARGO="${CARGO:-cargo}"

under_miri() {
    with_miri="$(rustup toolchain list 2>/dev/null | awk '{ print $1 }' | while read -r name; do
        if "$CARGO" "+$name" miri --version >/dev/null 2>&1; then echo "$name"; break; fi
    done)"
    if [ -n "$with_miri" ]; then
        MIRIFLAGS="${MIRIFLAGS:--Zmiri-disable-isolation -Zmiri-ignore-leaks}" CARGO_TARGET_DIR=target/miri \
            "$CARGO" "+$with_miri" miri test "$@"
    else
        echo "skipped: no installed toolchain has Miri (rustup toolchain install nightly --component miri)" >&2
    fi
}

miri() {
    under_miri -p fedplug-plugin-api --lib -- numeric:: buffer:: boundary::guard:: data:: params::
}

# Rayon's queues (crossbeam-epoch) break a rule of Stacked Borrows, Miri's default, but none of Tree Borrows.
encoder() {
    MIRIFLAGS="${MIRIFLAGS:--Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-tree-borrows}" \
        under_miri -p fedplug-amplify-cpu --lib
}

sanitizer() {
    # A release compiler takes the flag as well if it is told to; it has the sanitizer's runtime on these systems.
    host="$("${RUSTC:-rustc}" -vV | sed -n 's/^host: //p')"
    case "$host" in
    x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu | x86_64-apple-darwin | aarch64-apple-darwin)
        # With a target, so that build scripts and macros, which the compiler loads, are built without it.
        ASAN_OPTIONS=detect_leaks=0 RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=target/sanitizer \
            "$CARGO" test -p fedplug-plugin-api --lib --target "$host"
        ;;
    *) echo "skipped: no AddressSanitizer for $host" >&2 ;;
    esac
}

if [ $# = 0 ]; then set -- miri sanitizer; fi
for part in "$@"; do "$part"; done
