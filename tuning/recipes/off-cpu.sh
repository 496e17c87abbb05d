# shellcheck shell=bash disable=SC2154
# off-CPU flame graph: what the server's threads wait for, and for how long

record() {
    # A sample at each departure from a core, and perf's own record of each return; the time between is the weight.
    perf_window record -q -m 4M -e context-switches -c 1 --switch-events --call-graph "$call_graph" -p "$pid" -o "$out/perf.data"
    perf script -i "$out/perf.data" --show-switch-events -F comm,tid,time,event,ip,sym,dso 2>>"$out/perf.log" |
        awk -v off_cpu=1 -f "$here/flame/fold.awk" >"$out/off-cpu.folded"
    draw off-cpu "off CPU: $(cat "/proc/$pid/comm"), $seconds s" µs
    say_requests
    echo "off the core, by thread and by the program's call that led there (a thread that never came back in this time is not seen):"
    awk -v seconds="$seconds" '
        {
            weight = $NF
            sub(/ [0-9]+$/, "")
            n = split($0, frame, ";")
            key = frame[1]
            if (frame[2] ~ /^\(/) key = key " " frame[2]
            else {
                # The deepest frame that is not the kernel, and the deepest of the kernel before it gives up the core.
                for (i = 2; i <= n && frame[i] !~ /_\[k\]$/; i++) last = frame[i]
                wait = ""
                for (j = n; j >= i; j--)
                    if (frame[j] !~ /^(schedule|__schedule|io_schedule|schedule_timeout)/) { wait = frame[j]; break }
                sub(/_\[k\]$/, "", wait)
                key = key "  " last " -> " wait
            }
            of[key] += weight
        }
        END { for (key in of) printf "%12.1f ms  %5.1f %%  %s\n", of[key] / 1000, of[key] / 10000 / seconds, key }' \
        "$out/off-cpu.folded" | sort -rn | sed 20q
    echo "flame graph: $out/off-cpu.svg"
}
