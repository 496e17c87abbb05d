# Folds what `perf script -F comm,tid,time,event,ip,sym,dso` prints into one line per distinct stack:
#
#   thread;outermost;...;innermost weight
#
# A frame of the kernel ends in _[k]. Weights are samples; with -v off_cpu=1 they are microseconds, from the
# moment at which a thread left its core (a sample of context-switches) to its return (perf's record of it).
# Any POSIX awk will do.

BEGIN {
    if (!off_cpu) off_cpu = 0
    sample = 0
}

# Lines that are no frames name a thread and a time: "loop-0 1234 5678.901234:  1 context-switches: ".
/^[^\t]/ && match($0, / +[0-9]+ +[0-9]+\.[0-9]+: /) {
    finish()
    thread = substr($0, 1, RSTART - 1)
    sub(/^ +/, "", thread)
    split(substr($0, RSTART, RLENGTH), at, " ")
    tid = at[1]
    now = at[2] + 0
    if (/PERF_RECORD_SWITCH/) {
        if (/ IN/) came_back()
        else if (/preempt/ && tid in left_at) preempted[tid] = 1
        next
    }
    sample = 1
    frames = 0
    next
}

# A frame, innermost first: a tab, blanks, the address, the name, where it lies in brackets.
sample && /^[ \t]+[0-9a-f]+ / {
    address = $1
    if (address ~ /^f+$/) next
    name = $0
    sub(/^[ \t]+[0-9a-f]+ /, "", name)
    object = ""
    if (match(name, / \([^()]*\)$/)) {
        object = substr(name, RSTART + 2, RLENGTH - 3)
        name = substr(name, 1, RSTART - 1)
    }
    sub(/\+0x[0-9a-f]+$/, "", name)
    push(address, plain(name) (object ~ /^\[(kernel|guest)|\.ko/ ? "_[k]" : ""), object == "inlined")
    next
}

END {
    finish()
    for (stack in weight) printf "%s %d\n", stack, weight[stack]
}

# Without type parameters and the hash of the build, and with no character that means something here.
function plain(name) {
    sub(/::h[0-9a-f]+$/, "", name)
    gsub(/->/, "", name)
    while (match(name, /[A-Za-z0-9_:}#]<[^<>]*>/))
        name = substr(name, 1, RSTART) substr(name, RSTART + RLENGTH)
    gsub(/::::/, "::", name)
    gsub(/;/, ":", name)
    return name
}

# perf tells inlined functions at the same address as the function that holds them, which it names first; it is
# the outermost of them, and the last inlined one is often itself under its short name.
function push(address, name, inlined,    holder) {
    if (inlined && frames && addresses[frames] == address) {
        holder = names[frames]
        if (name == last_part(holder)) return
        names[frames] = name
        addresses[frames] = ""
        frames++
        names[frames] = holder
        addresses[frames] = address
        return
    }
    frames++
    names[frames] = name
    addresses[frames] = address
}

function last_part(name) {
    sub(/^.*::/, "", name)
    return name
}

function finish(    stack, i) {
    if (!sample) return
    stack = thread
    for (i = frames; i >= 1; i--) stack = stack ";" names[i]
    if (off_cpu) {
        left_at[tid] = now
        left_from[tid] = stack
        delete preempted[tid]
    } else weight[stack]++
    sample = 0
}

function came_back(    stack) {
    if (!(tid in left_at)) return
    stack = left_from[tid]
    if (tid in preempted) sub(/;|$/, ";(another thread took the core);", stack)
    sub(/;$/, "", stack)
    weight[stack] += (now - left_at[tid]) * 1000000
    delete left_at[tid]
}
