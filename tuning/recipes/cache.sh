# shellcheck shell=bash disable=SC2154
# instructions, cache and branch misses per request (hardware counters)

record() {
    local events=cycles,instructions,cache-references,cache-misses,branches,branch-misses,L1-dcache-load-misses,dTLB-load-misses
    if ! can_count cycles; then
        fail "this machine shows no hardware counters (a virtual machine whose host keeps them, or no permission): cache misses cannot be counted here. On real hardware, or with a virtual PMU, this recipe prints them per request"
    fi
    perf_window stat -x , -o "$out/counters" -e "$events" -p "$pid"
    say_requests
    awk -F , '$1 ~ /^[0-9]+$/ { print $1, $3 }' "$out/counters" | while read -r count name; do
        per_request "$count" "$name"
    done
    awk -F , '$3 ~ /^cycles/ { cycles = $1 } $3 ~ /^instructions/ && cycles > 0 { printf "%14.2f instructions a cycle\n", $1 / cycles }' "$out/counters"
}
