# shellcheck shell=bash disable=SC2154
# latency of the block devices, by operation, and who asked

record() {
    if ! can_count block:block_rq_issue || [ "$(id -u)" != 0 ]; then
        echo "perf may not see the block devices here (that wants root and tracefs): means of the kernel's own sums follow."
        cat /proc/diskstats >"$out/diskstats.before"
        "$here/recipes/window" "$port" "$seconds" "$out/requests"
        cat /proc/diskstats >"$out/diskstats.after"
        say_requests
        awk 'NR == FNR { reads[$3] = $4; rms[$3] = $7; writes[$3] = $8; wms[$3] = $11; flushes[$3] = $19; fms[$3] = $20; next }
            { told($3, "read", $4 - reads[$3], $7 - rms[$3]); told($3, "write", $8 - writes[$3], $11 - wms[$3]); told($3, "flush", $19 - flushes[$3], $20 - fms[$3]) }
            function told(disk, what, n, ms) { if (n > 0) printf "%-12s %-6s %8d  mean %8.0f µs\n", disk, what, n, 1000 * ms / n }' \
            "$out/diskstats.before" "$out/diskstats.after"
        return
    fi
    perf_window record -q -a -e block:block_rq_issue,block:block_rq_complete -o "$out/perf.data"
    say_requests
    # thread tid [cpu] time: event: major,minor operation bytes () sector + sectors …
    perf script -i "$out/perf.data" 2>>"$out/perf.log" | awk -v tids="$(echo "/proc/$pid/task"/*)" '
        BEGIN { split(tids, tid, " "); for (i in tid) { sub(/.*\//, "", tid[i]); ours[tid[i]] } }
        match($0, / +[0-9]+ +\[[0-9]+\] +[0-9]+\.[0-9]+: +block:block_rq_(issue|complete): /) {
            thread = substr($0, 1, RSTART - 1)
            sub(/^ +/, "", thread)
            issued = /block_rq_issue/
            split(substr($0, RSTART, RLENGTH), part, " ")
            asker = part[1]
            time = part[3] + 0
            n = split(substr($0, RSTART + RLENGTH), part, " ")
            for (i = 3; i < n && part[i] != "+"; i++);
            key = part[1] " " part[i - 1]
            if (issued) { at[key] = time; who[key] = name(thread, asker); what[key] = part[2]; sectors[key] = part[i + 1] }
            else if (key in at) {
                printf "%s\t%s\t%s\t%.0f\t%d\n", part[1], what[key], who[key], (time - at[key]) * 1e6, sectors[key] * 512
                delete at[key]
            }
        }
        function name(thread, asker,    owner) {
            owner = thread
            sub(/^iou-wrk-/, "", owner)
            if (asker in ours) return thread
            if (owner in ours) return "iou-wrk"
            return thread ~ /^kworker/ ? "kworker" : "(others)"
        }' | sort -t '	' -k 1,3 -k 4n | awk -F '\t' '
        function told() {
            if (n) printf "%-8s %-6s %-18s %8d %10.0f %8d %8d %8d\n", device, operation, thread, n, bytes / n, took[int((n + 1) / 2)], took[int(n * 0.99 + 0.999)], took[n]
        }
        BEGIN { printf "%-8s %-6s %-18s %8s %10s %8s %8s %8s\n", "device", "kind", "asked by", "number", "bytes", "p50 µs", "p99 µs", "max µs" }
        $1 != device || $2 != operation || $3 != thread { told(); n = bytes = 0; device = $1; operation = $2; thread = $3 }
        { took[++n] = $4; bytes += $5 }
        END { told() }'
    echo "kinds: R read, W write, F flush, D discard; S synchronous, A read ahead, M of the file system itself."
    echo "kworker writes back what others wrote; a loop's own name beside R or W means that the loop itself waited."
}
