# shellcheck shell=bash disable=SC2154
# run-queue delay: how long threads that could run had to wait for a core

record() {
    # The kernel keeps this for each thread: nanoseconds on a core, nanoseconds ready and waiting, turns.
    schedstat >"$out/schedstat.before"
    if can_count sched:sched_switch && [ "$(id -u)" = 0 ]; then
        perf_window sched record -a -o "$out/perf.data"
    else
        echo "perf may not see the scheduler here (that wants root): the sums are exact, the longest delay is missing."
        "$here/recipes/window" "$port" "$seconds" "$out/requests"
    fi
    schedstat >"$out/schedstat.after"
    say_requests
    printf '%-18s %12s %12s %10s %14s\n' thread "ran, ms" "waited, ms" turns "a turn, µs"
    awk -F '\t' '
        NR == FNR { ran[$1] = $3; waited[$1] = $4; turns[$1] = $5; next }
        $1 in ran {
            n = $5 - turns[$1]
            if (n > 0) printf "%-18s %12.1f %12.1f %10d %14.1f\n", $2, ($3 - ran[$1]) / 1e6, ($4 - waited[$1]) / 1e6, n, ($4 - waited[$1]) / 1e3 / n
        }' "$out/schedstat.before" "$out/schedstat.after"
    if [ -e "$out/perf.data" ]; then
        perf sched timehist -i "$out/perf.data" -p "$pid" 2>>"$out/perf.log" >"$out/timehist" || true
        # time [cpu] task[tid/pid] wait-time sch-delay run-time
        awk '$NF ~ /^[0-9.]+$/ && $(NF - 1) ~ /^[0-9.]+$/ { print $(NF - 1) * 1000 }' "$out/timehist" | sort -n | awk '
            { delay[NR] = $1 }
            END {
                if (!NR) exit
                printf "delay from ready to running: p50 %.0f µs, p99 %.0f µs, longest %.0f µs\n", delay[int((NR + 1) / 2)], delay[int(NR * 0.99 + 0.999)], delay[NR]
            }'
        echo "every turn, with what ran before: $out/timehist"
    fi
}

schedstat() {
    local task
    for task in /proc/"$pid"/task/*; do
        printf '%s\t%s\t%s\n' "${task##*/}" "$(cat "$task/comm")" "$(tr ' ' '\t' <"$task/schedstat")"
    done
}
