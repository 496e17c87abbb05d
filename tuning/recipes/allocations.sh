# shellcheck shell=bash disable=SC2154
# allocations per request, by kind, and a flame graph of who makes them

record() {
    local library name event events="" counted
    library=$(awk '/libc\.so/ { print $6; exit }' "/proc/$pid/maps")
    if [ -z "$library" ]; then fail "the program brings its own allocator: there is no libc in it to watch"; fi
    # Probes live in the kernel until they are removed; perf sets them into this process only.
    group="ringwatch_$$"
    trap 'perf probe -q -d "$group:*" >/dev/null 2>&1 || true' EXIT
    for name in malloc calloc realloc posix_memalign aligned_alloc; do
        if perf probe -q -x "$library" --add "$group:$name=$name" >>"$out/perf.log" 2>&1; then
            events="$events${events:+,}$group:$name"
        fi
    done
    if [ -z "$events" ]; then
        tail -n 3 "$out/perf.log" >&2
        fail "perf may not probe the C library here (that wants root, and a kernel with uprobes)"
    fi
    perf_window stat -x , -o "$out/counters" -e "$events" -p "$pid"
    say_requests
    for event in ${events//,/ }; do
        counted=$(awk -F , -v event="$event" '$3 == event { print $1 + 0 }' "$out/counters")
        per_request "${counted:-0}" "${event#*:}"
    done
    echo "(each one traps into the kernel while this counts, so the load is lower than without it)"
    perf_window record -q -e "$events" -c 1 --call-graph "$call_graph" -p "$pid" -o "$out/perf.data"
    perf script -i "$out/perf.data" -F comm,tid,time,event,ip,sym,dso 2>>"$out/perf.log" |
        awk -f "$here/flame/fold.awk" >"$out/allocations.folded"
    if [ ! -s "$out/allocations.folded" ]; then
        echo "no allocation in $seconds s: nothing to draw"
        return
    fi
    draw allocations "allocations: $(cat "/proc/$pid/comm"), $seconds s" allocations
    echo "flame graph: $out/allocations.svg"
}
