# shellcheck shell=bash disable=SC2154
# on-CPU flame graph: where the time goes while the server runs

record() {
    local event=cycles
    if ! can_count cycles; then
        event=cpu-clock
        echo "no hardware counters here (a virtual machine, or they are in use): sampled by the clock instead."
        echo "Code that runs with interrupts off is then charged to the place that switches them on again."
    fi
    perf_window record -q -F "$rate" -e "$event" --call-graph "$call_graph" -p "$pid" -o "$out/perf.data"
    if perf evlist -v -i "$out/perf.data" 2>>"$out/perf.log" | grep -q 'exclude_kernel: 1'; then
        echo "ONLY THE PROGRAM'S OWN PART: the kernel's, most of this server's time, is hidden from this user"
        echo "(kernel.perf_event_paranoid is $(cat /proc/sys/kernel/perf_event_paranoid); run it as root)."
    fi
    perf script -i "$out/perf.data" -F comm,tid,time,event,ip,sym,dso 2>>"$out/perf.log" |
        awk -f "$here/flame/fold.awk" >"$out/cpu.folded"
    draw cpu "on CPU: $(cat "/proc/$pid/comm") by $event, $seconds s" samples
    say_requests
    # A sample stands for the time between two of them, whichever the event, while the clock of the core is steady.
    awk -v rate="$rate" -v requests="$(requests)" -v seconds="$seconds" '
        {
            weight = $NF; all += weight
            sub(/ [0-9]+$/, "")
            thread = $0; sub(/;.*/, "", thread); of[thread] += weight
            if (/_\[k\]$/) kernel += weight
        }
        END {
            printf "%d samples: %.0f %% of one core", all, 100 * all / rate / seconds
            if (requests > 0) printf ", about %.2f µs a request", 1e6 * all / rate / requests
            printf "; %.0f %% of it inside the kernel\n", 100 * kernel / all
            for (thread in of) printf "  %5.1f %%  thread %s\n", 100 * of[thread] / all, thread
        }' "$out/cpu.folded"
    echo "innermost functions ([k]: the kernel's):"
    innermost cpu
    echo "flame graph: $out/cpu.svg"
}
