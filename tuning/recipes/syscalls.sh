# shellcheck shell=bash disable=SC2154
# system calls and context switches per request

record() {
    local calls="$out/calls"
    if can_count raw_syscalls:sys_enter; then
        # One window for both, so that they share its requests: perf trace counts by name, the threads count switches.
        switches >"$out/switches.before"
        perf_window trace -s -o "$calls" -p "$pid"
        switches >"$out/switches.after"
        # "name calls errors total …" rows; the threads follow one another.
        awk 'NF >= 8 && $2 ~ /^[0-9]+$/ && $4 ~ /^[0-9.]+$/ { n[$1] += $2; ms[$1] += $4 }
            END { for (name in n) print n[name], name, ms[name] }' "$calls" | sort -rn >"$out/by-name"
    elif command -v strace >/dev/null; then
        echo "perf may not see system calls here (that wants root and tracefs), so strace counts: it stops the server at"
        echo "each call, so the load is lower, a turn of the loop takes fewer requests, and most of the switches are strace's own."
        switches >"$out/switches.before"
        strace -q -f -c -U calls,total-time,name -S calls -o "$calls" -p "$pid" 2>>"$out/perf.log" &
        local tracer=$!
        "$here/recipes/window" "$port" "$seconds" "$out/requests"
        kill -INT "$tracer"
        wait "$tracer" || true
        switches >"$out/switches.after"
        awk '$1 ~ /^[0-9]+$/ && $3 != "total" { print $1, $3, $2 * 1000 }' "$calls" >"$out/by-name"
    else
        fail "perf may not see system calls here (that wants root and tracefs), and strace is not installed"
    fi
    say_requests
    per_request "$(awk '{ sum += $1 } END { print sum + 0 }' "$out/by-name")" "system calls"
    while read -r count name milliseconds; do
        per_request "$count" "  $name ($milliseconds ms)"
    done < <(sed 12q "$out/by-name")
    per_request "$(gone_up voluntary_ctxt_switches)" "switches: the thread waited"
    per_request "$(gone_up nonvoluntary_ctxt_switches)" "switches: it was made to"
    echo "The time beside a name includes waiting, so that of io_uring_enter is mostly sleep below saturation."
}

switches() { awk '/ctxt_switches/ { n[$1] += $2 } END { for (kind in n) print kind, n[kind] }' /proc/"$pid"/task/*/status; }
gone_up() {
    awk -v kind="$1:" 'NR == FNR { if ($1 == kind) before = $2; next } $1 == kind { print $2 - before }' \
        "$out/switches.before" "$out/switches.after"
}
