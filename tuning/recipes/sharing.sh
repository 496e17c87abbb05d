# shellcheck shell=bash disable=SC2154
# cache lines that cores take from each other: false sharing (perf c2c, hardware only)

record() {
    if ! perf c2c record -p "$pid" -o "$out/probe.data" -- true >>"$out/perf.log" 2>&1; then
        fail "this processor does not sample memory accesses here (perf c2c: $(tail -n 1 "$out/perf.log")): false sharing cannot be seen on this machine"
    fi
    perf_window c2c record -p "$pid" -o "$out/perf.data"
    perf c2c report -i "$out/perf.data" --stdio 2>>"$out/perf.log" >"$out/lines"
    say_requests
    sed 80q "$out/lines"
    echo "all of it: $out/lines"
}
