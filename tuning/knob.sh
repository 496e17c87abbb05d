# shellcheck shell=bash disable=SC2154,SC2317,SC2034,SC2030,SC2031
# (They are about variables and functions that the scripts which source this set, read and call.)
#
# What every knob does alike: check, apply, undo. Sourced by the scripts beside it, never run.
#
# A knob sets these and ends with `turn "$@"`:
#   knob      its name, that of the script
#   wanted    the value to have, in words
#   why       what it costs to go without
#   matters   how much it matters for ringwatch: must, much, some or little, a colon, and why so much
#   price     what one gives for it
#   found_in  where the current value stands
#   source    where this knowledge is from: a page of the kernel's documentation, or our own measurement
#   in_container  what the host must do when this runs inside a container
#   by_hand   set when no script can change it: what to do instead
#   optional  set when it is a trade that not everybody should make: then its state is never "change"
# and takes the rest from one of use_files, use_sysctls, use_limit, or defines it:
#   absent    succeeds, and says why, where this machine has no such knob
#   current   prints the current value, in words
#   good      succeeds when the current value will do
#   remember  prints what `set_back` needs, one setting a line
#   keep      writes the host's configuration that carries the wanted value to the next start, names each file
#   set_now   puts the wanted value into force
#   set_back  reads what `remember` printed and puts it into force again
#   forget    removes what `keep` wrote
#   becomes   prints the value that `apply` led to, and since when
#   kept_files  prints the paths of those files, written or not
#   notes     prints lines that a reader of `check` should see besides
#
# Nothing changes without `apply`. What `apply` found is recorded first; `undo` restores exactly that.
# The record is one file a knob, below /var/lib/ringwatch-tuning.

set -eu -o pipefail

# Every path of the host is taken below this: empty, or a copy that tests may change without being root.
root="${TUNING_ROOT:-}"
record="$root/var/lib/ringwatch-tuning/$knob"

say() { printf '%-9s %s\n' "$1" "$2"; }

refuse() {
    echo "$knob: $1" >&2
    exit 1
}

is_container() {
    [ -e "$root/.dockerenv" ] || [ -e "$root/run/.containerenv" ] || [ -n "${container:-}" ] ||
        grep -qE 'docker|kubepods|containerd|lxc' "$root/proc/1/cgroup" 2>/dev/null
}

# What a knob leaves out.
absent() { return 1; }
keep() { :; }
kept_files() { :; }
forget() { for file in $(kept_files); do rm -f "$root$file"; done; }
notes() { :; }
becomes() { current; }

# One word: good, change, optional or absent.
state() {
    if absent >/dev/null; then
        echo absent
    elif good; then
        echo good
    elif [ -n "${optional:-}" ]; then
        echo optional
    else
        echo change
    fi
}

check() {
    local state
    state=$(state)
    say knob "$knob"
    case $state in
        absent) say current "not on this machine: $(absent)" ;;
        *) say current "$(current)" ;;
    esac
    case $state in
        good) say wanted "$wanted: good" ;;
        change) say wanted "$wanted: NOT MET" ;;
        optional) say wanted "$wanted: not so, and need not be" ;;
        absent) say wanted "$wanted" ;;
    esac
    say why "$why"
    say matters "$matters"
    say price "$price"
    say stands "$found_in"
    say source "$source"
    notes
    if [ -e "$record" ]; then say applied "yes; undo with: tuning/$knob undo"; fi
    case $state in good | absent) return ;; esac
    if is_container; then
        say mend "this is a container, so on its host: $in_container"
    else
        say mend "${by_hand:-sudo tuning/$knob apply}"
    fi
}

# For `tuning/check`: state, current, wanted, and how much it matters, between tabs.
row() {
    local state now
    state=$(state)
    if [ "$state" = absent ]; then now=$(absent); else now=$(current); fi
    printf '%s\t%s\t%s\t%s\n' "$state" "$now" "$wanted" "${matters%%:*}"
}

need_root() {
    [ -n "$root" ] || [ "$(id -u)" = 0 ] || refuse "needs root: sudo tuning/$knob $1"
}

apply() {
    local kept file
    if absent >/dev/null; then refuse "not on this machine: $(absent)"; fi
    if good; then
        echo "$knob: already $(current), nothing to do"
        return
    fi
    if [ -n "${by_hand:-}" ]; then refuse "$by_hand"; fi
    if is_container; then refuse "this is a container, so on its host: $in_container"; fi
    need_root apply
    for file in $(kept_files); do
        if [ -e "$root$file" ] && [ ! -e "$record" ]; then
            refuse "$file exists and nothing here wrote it: look at it, then move it away"
        fi
    done
    mkdir -p "${record%/*}"
    # The first apply saw the host as it was; a later one adds only what is new to the record (a card that was
    # plugged in since), so that our own value is never taken for the old one.
    { if [ -e "$record" ]; then cat "$record"; fi; remember; } | awk -F '\t' '!seen[$1]++' >"$record.new"
    # Under its name only when whole; from here on `undo` works, wherever the next lines may fail.
    mv "$record.new" "$record"
    set_now || refuse "could not be set now; undo with: tuning/$knob undo"
    kept=$(keep | paste -s -d ' ') || refuse "is set but could not be kept; undo with: tuning/$knob undo"
    echo "$knob: now $(becomes); ${kept:+kept in $kept; }what was before is in $record; undo with: tuning/$knob undo"
    if [ -z "$kept" ]; then echo "$knob: nothing keeps this over a restart of the machine: apply it again then"; fi
}

undo() {
    if [ ! -e "$record" ]; then
        echo "$knob: nothing was applied, nothing to undo"
        return
    fi
    need_root undo
    forget
    set_back <"$record" || refuse "could not be set back whole; $record says what was there, undo may be tried again"
    rm "$record"
    echo "$knob: undone, $(becomes_again)"
}
becomes_again() { if absent >/dev/null; then absent; else echo "now $(current)"; fi; }

turn() {
    case "${1:-check}" in
        check) check ;;
        row) row ;;
        apply) apply ;;
        undo) undo ;;
        *)
            echo "usage: tuning/$knob [check|apply|undo]" >&2
            exit 2
            ;;
    esac
}

# The value in a file of the kernel: of "always [madvise] never" the chosen word, white space as one blank.
kernel_value() {
    local words text
    read -r -a words 2>/dev/null <"$root$1" || [ -n "${words:-}" ] || return 1
    text="${words[*]}"
    case $text in *\[*\]*) text=${text#*\[} text=${text%%\]*} ;; esac
    printf '%s\n' "$text"
}

set_kernel_value() { { printf '%s\n' "$2" >"$root$1"; } 2>/dev/null; }

# The CPUs of a list such as 0-2,8, one a line.
cpus_in() {
    local part
    for part in ${1//,/ }; do seq "${part%-*}" "${part#*-}"; done
}

cpus_online() { cpus_in "$(kernel_value /sys/devices/system/cpu/online)"; }

# Interfaces with hardware (or a hypervisor) behind them: neither loopback nor bridges nor tunnels.
cards() {
    local device
    for device in "$root"/sys/class/net/*/device; do
        if [ -e "$device" ]; then basename "${device%/device}"; fi
    done
}

# Disks that may hold data: not those made of memory or of files.
disks() {
    local disk
    for disk in "$root"/sys/block/*; do
        case ${disk##*/} in
            loop* | ram* | zram* | sr* | fd* | dm-* | md* | '*') ;;
            *) basename "$disk" ;;
        esac
    done
}

# A knob that is one or more files of the kernel. The script defines
#   settings  prints "path", a tab, and the wanted value, a line each; paths that do not exist are passed over
# and may define
#   will_do   succeeds when $1, the current value, will do in place of $2, the wanted one; $3 is the path
#   shown     prints the current values in fewer words
# Files below /proc/sys are kept by sysctl.d, others by tmpfiles.d; with `lasting=no` by none, for names that
# the next start may give to something else.
use_files() {
    will_do() { [ "$1" = "$2" ]; }
    present() {
        local path value
        settings | while IFS=$'\t' read -r path value; do
            if [ -e "$root$path" ]; then printf '%s\t%s\n' "$path" "$value"; fi
        done
    }
    absent() {
        if [ -n "$(present)" ]; then return 1; fi
        echo "${none_here:-there is no $(settings | head -n 1 | cut -f 1)}"
    }
    # "key value, key value"; files that differ only by a number stand together when they agree.
    shown() {
        local path wanted_value
        present | while IFS=$'\t' read -r path wanted_value; do
            printf '%s\t%s\n' "$(plain_name "$path")" "$(kernel_value "$path" || echo unreadable)"
        done | sort -u | awk -F '\t' '{
            if ($1 == name) line = line "|" $2
            else { if (name) printf "%s%s", line, ", "; line = $1 " " $2; name = $1 }
        } END { print line }'
    }
    current() { shown; }
    # Settings that are not as wanted.
    short_of() {
        local path value
        present | while IFS=$'\t' read -r path value; do
            will_do "$(kernel_value "$path")" "$value" "$path" 2>/dev/null || printf '%s\t%s\n' "$path" "$value"
        done
    }
    good() { [ -z "$(short_of)" ]; }
    remember_files() {
        local path value
        short_of | while IFS=$'\t' read -r path value; do
            printf '%s\t%s\n' "$path" "$(kernel_value "$path")"
        done
    }
    set_files_now() {
        local path value failed=0
        while IFS=$'\t' read -r path value; do
            set_kernel_value "$path" "$value" || { echo "$knob: $path refuses $value" >&2; failed=1; }
        done < <(short_of)
        return "$failed"
    }
    set_files_back() {
        local path value failed=0
        while IFS=$'\t' read -r path value; do
            if [ ! -e "$root$path" ]; then
                echo "$knob: $path is gone, so its $value is not restored"
                continue
            fi
            set_kernel_value "$path" "$value" || { echo "$knob: $path refuses $value" >&2; failed=1; }
        done
        return "$failed"
    }
    remember() { remember_files; }
    set_now() { set_files_now; }
    set_back() { set_files_back; }
    keep() {
        local sysctls files
        if [ "${lasting:-yes}" = no ]; then return; fi
        # All that the record holds, not only what this call changed: the file is written anew.
        sysctls=$(recorded_settings | sed -n 's:^/proc/sys/::p' | sed 's:/:.:g; s:\t: = :')
        files=$(recorded_settings | grep -v '^/proc/sys/' | awk -F '\t' '{ print "w " $1 " - - - - " $2 }')
        keep_file "$(sysctl_file)" "$sysctls" || return
        keep_file "$(tmpfiles_file)" "$files"
    }
    recorded_settings() { present | awk -F '\t' 'NR == FNR { recorded[$1]; next } $1 in recorded' "$record" -; }
    keep_file() {
        if [ -z "$2" ]; then return; fi
        mkdir -p "$root${1%/*}" || return
        printf '# Written by tuning/%s apply, removed by its undo. %s\n%s\n' "$knob" "$why" "$2" >"$root$1" || return
        echo "$1"
    }
    kept_files() { sysctl_file; tmpfiles_file; }
    sysctl_file() { echo "/etc/sysctl.d/90-ringwatch-$knob.conf"; }
    tmpfiles_file() { echo "/etc/tmpfiles.d/90-ringwatch-$knob.conf"; }
}

# The last part of a path, without the number in it; for a sysctl its key.
plain_name() {
    case $1 in
        /proc/sys/*) echo "${1#/proc/sys/}" | tr / . ;;
        *) echo "${1##*/}" ;;
    esac
}

# A knob that is a hard limit of login sessions: the script sets `limit` (as in limits.conf) and `value`.
# `current` is this shell's, which a new login renews; services take theirs from the unit instead.
use_limit() {
    good() { [ "$(current)" = unlimited ] || [ "$(current)" -ge "$value" ]; }
    limits_file() { echo "/etc/security/limits.d/90-ringwatch-$knob.conf"; }
    remember() { printf '%s\t%s\n' "$(limits_file)" "$(current)"; }
    # pam sets the limit at login, from the file alone.
    set_now() { :; }
    set_back() { echo "$knob: log in again for the old limit"; }
    keep() {
        mkdir -p "$root$(dirname "$(limits_file)")" || return
        # The star does not stand for root.
        printf '# %s\n* hard %s %s\nroot hard %s %s\n' "$why" "$limit" "$value" "$limit" "$value" >"$root$(limits_file)" || return
        limits_file
    }
    kept_files() { limits_file; }
    becomes() { echo "$value from the next login on (a service: $unit_setting in its unit)"; }
}
