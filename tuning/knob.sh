# shellcheck shell=bash disable=SC2154,SC2317
# (The two: variables are set and functions are called by the scripts that source this.)
#
# What every knob does alike: check, apply, undo. Sourced by the scripts beside it, never run.
#
# A knob sets these and ends with `turn "$@"`:
#   knob      its name, that of the script
#   wanted    the value to have, in words
#   why       what it costs to go without
#   found_in  where the current value stands
#   in_container  what the host must do when this runs inside a container
# and defines these:
#   current   prints the current value
#   good      succeeds when the current value will do
#   persist   prints "path", the file of the host's configuration that carries the wanted value
#   content   prints what that file says
#   becomes   prints the value that `apply` leads to, and since when
#   set_now   puts the wanted value into force, as far as that is possible without a new login
#   set_back  puts $1, a value that `current` printed, into force again
#
# Nothing changes without `apply`. What `apply` found is recorded first; `undo` restores exactly that.

set -eu

state_folder="${XDG_STATE_HOME:-/var/lib}/ringwatch-tuning"

say() { printf '%-14s %s\n' "$1" "$2"; }

refuse() {
    echo "$knob: $1" >&2
    exit 1
}

is_container() {
    [ -e /.dockerenv ] || [ -e /run/.containerenv ] || [ -n "${container:-}" ] ||
        grep -qE 'docker|kubepods|containerd|lxc' /proc/1/cgroup 2>/dev/null
}

check() {
    say knob "$knob"
    say current "$(current)"
    if good; then say wanted "$wanted: good"; else say wanted "$wanted: NOT MET"; fi
    say why "$why"
    say source "$found_in"
    if [ -e "$state_folder/$knob" ]; then say applied "yes; undo with: tuning/$knob undo"; fi
    if good; then return; fi
    if is_container; then
        say mend "this is a container, so on its host: $in_container"
    else
        say mend "sudo tuning/$knob apply"
    fi
}

apply() {
    if good; then
        echo "$knob: already $(current), nothing to do"
        return
    fi
    [ "$(id -u)" = 0 ] || refuse "needs root: sudo tuning/$knob apply"
    if is_container; then refuse "this is a container, so on its host: $in_container"; fi
    file=$(persist)
    if [ -e "$file" ] && [ ! -e "$state_folder/$knob" ]; then
        refuse "$file exists and nothing here wrote it: look at it, then move it away"
    fi
    mkdir -p "$state_folder" "$(dirname "$file")"
    # The first apply saw the host as it was; a second one must not record our own value as the old one.
    if [ ! -e "$state_folder/$knob" ]; then current >"$state_folder/$knob"; fi
    # From here on `undo` works, wherever the next lines may fail.
    content >"$file"
    set_now || refuse "could not be set now; undo with: tuning/$knob undo"
    echo "$knob: was $(cat "$state_folder/$knob"), now $(becomes); kept in $file; undo with: tuning/$knob undo"
}

undo() {
    if [ ! -e "$state_folder/$knob" ]; then
        echo "$knob: nothing was applied, nothing to undo"
        return
    fi
    [ "$(id -u)" = 0 ] || refuse "needs root: sudo tuning/$knob undo"
    before=$(cat "$state_folder/$knob")
    rm -f "$(persist)"
    set_back "$before"
    rm "$state_folder/$knob"
    echo "$knob: back to $before"
}

turn() {
    case "${1:-check}" in
        check) check ;;
        apply) apply ;;
        undo) undo ;;
        *)
            echo "usage: tuning/$knob [check|apply|undo]" >&2
            exit 2
            ;;
    esac
}

# A knob that is one sysctl: the script sets `key` and `value` beside the rest.
sysctl_file() { echo "/proc/sys/$(echo "$key" | tr . /)"; }
use_sysctl() {
    current() { cat "$(sysctl_file)" 2>/dev/null || echo "absent"; }
    persist() { echo "/etc/sysctl.d/90-ringwatch-$knob.conf"; }
    content() { printf '# %s\n%s = %s\n' "$why" "$key" "$value"; }
    becomes() { current; }
    set_now() { echo "$value" >"$(sysctl_file)"; }
    set_back() { echo "$1" >"$(sysctl_file)"; }
}

# A knob that is a hard limit of login sessions: the script sets `limit` (as in limits.conf) and `value`.
# `current` is this shell's, which a new login renews; services take theirs from the unit instead.
use_limit() {
    persist() { echo "/etc/security/limits.d/90-ringwatch-$knob.conf"; }
    # The star does not stand for root.
    content() { printf '# %s\n* hard %s %s\nroot hard %s %s\n' "$why" "$limit" "$value" "$limit" "$value"; }
    becomes() { echo "$value from the next login on (a service: $unit_setting in its unit)"; }
    # pam sets the limit at login, from the file alone.
    set_now() { :; }
    set_back() { echo "$knob: log in again for the old limit"; }
}
