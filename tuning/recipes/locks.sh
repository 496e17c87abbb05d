# shellcheck shell=bash disable=SC2154
# contended locks: the kernel's by place, the program's by futex calls

record() {
    if ! can_count lock:contention_begin; then
        fail "perf may not see lock contention here (that wants root, tracefs and kernel 5.19 or newer)"
    fi
    perf_window lock record -p "$pid" -o "$out/perf.data"
    say_requests
    echo "locks of the kernel that the server's threads waited for:"
    perf lock contention -i "$out/perf.data" 2>>"$out/perf.log" | tee "$out/contention" | sed 20q
    if ! grep -q '[0-9]' "$out/contention"; then echo "  none"; fi
    # A thread of the program that waits for a lock does so in futex; threads that hold none make no such call.
    rm -f "$out/requests"
    perf_window stat -x , -o "$out/futex" -e syscalls:sys_enter_futex -p "$pid"
    per_request "$(awk -F , '/futex/ { print $1 + 0 }' "$out/futex")" "futex calls"
}
