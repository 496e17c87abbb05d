//! What processes used, from `/proc/PID`: processor time to the nanosecond, switches, resident memory, pinning.
//!
//! Always: every thread counts, the kernel's workers for the process' ring too.

use shard::topology::{CoreId, parse_core_list};
use std::collections::BTreeSet;
use std::fs;

/// Run time of all threads in nanoseconds. The kernel brings a running thread's up to date each tick.
pub(crate) fn cpu_ns(pid: u32) -> Option<u64> {
    over_threads(pid, "schedstat", |text| text.split_whitespace().next()?.parse().ok())
}

/// Voluntary and involuntary context switches of all threads.
pub(crate) fn context_switches(pid: u32) -> Option<u64> {
    over_threads(pid, "status", |text| {
        Some(field(text, "voluntary_ctxt_switches:")? + field(text, "nonvoluntary_ctxt_switches:")?)
    })
}

/// Resident bytes: exact where the kernel offers it, else the counter that may lag by some pages a thread.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let exact = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    let exact = exact.and_then(|text| field(&text, "Rss:"));
    let kib = match exact {
        Some(kib) => kib,
        None => field(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:")?,
    };
    Some(kib * 1024)
}

/// The most that was resident since its start.
pub(crate) fn resident_bytes_peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    field(&status, "VmHWM:").map(|kib| kib * 1024)
}

/// The cores to which single threads of the process are bound.
pub(crate) fn pinned_cores(pid: u32) -> BTreeSet<usize> {
    let mut cores = BTreeSet::new();
    for text in threads_files(pid, "status").unwrap_or_default() {
        cores.extend(only_core(&text).map(|core| core.0));
    }
    cores
}

/// The processes and all that descend from them.
pub(crate) fn with_descendants(pids: &[u32]) -> Vec<u32> {
    let mut families: Vec<(u32, u32)> = Vec::new();
    if !pids.is_empty() {
        for pid in all_pids() {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            families.extend(parent(&stat).map(|parent| (pid, parent)));
        }
    }
    descendants(pids, &families)
}

/// Every process there is.
pub(crate) fn all_pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a debugger, such as strace, holds any thread of the process.
pub(crate) fn is_traced(pid: u32) -> bool {
    let threads = threads_files(pid, "status").unwrap_or_default();
    threads.iter().any(|text| field(text, "TracerPid:").is_some_and(|tracer| tracer != 0))
}

fn descendants(pids: &[u32], families: &[(u32, u32)]) -> Vec<u32> {
    let mut found = pids.to_vec();
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        for (pid, of) in families {
            if *of == parent && !found.contains(pid) {
                found.push(*pid);
            }
        }
        next += 1;
    }
    found
}

fn over_threads(pid: u32, file: &str, read: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let texts = threads_files(pid, file)?;
    // A thread may end between the listing and the reading, and takes its share with it.
    (!texts.is_empty()).then(|| texts.iter().filter_map(|text| read(text)).sum())
}

fn threads_files(pid: u32, file: &str) -> Option<Vec<String>> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    Some(threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join(file)).ok()).collect())
}

/// The number behind a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The parent's number: the second field behind the name, which stands in parentheses and may hold any character.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn only_core(status: &str) -> Option<CoreId> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    match parse_core_list(list.trim()).ok()?.as_slice() {
        [core] => Some(*core),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tnginx\nTracerPid:\t0\nVmRSS:\t    5120 kB\nCpus_allowed_list:\t3\n\
        voluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t7\n";

    #[test]
    fn fields_are_found_by_their_whole_name() {
        assert_eq!(field(STATUS, "VmRSS:"), Some(5120));
        assert_eq!(field(STATUS, "voluntary_ctxt_switches:"), Some(150));
        assert_eq!(field(STATUS, "nonvoluntary_ctxt_switches:"), Some(7));
        assert_eq!(field(STATUS, "VmSwap:"), None);
        assert_eq!(field("VmRSS:\tmany\n", "VmRSS:"), None);
    }

    #[test]
    fn a_thread_on_one_core_is_pinned_and_one_on_two_is_not() {
        assert_eq!(only_core(STATUS), Some(CoreId(3)));
        assert_eq!(only_core("Cpus_allowed_list:\t0-1\n"), None);
        assert_eq!(only_core(""), None);
    }

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent("12 (a) b) 3) S 7 12 12 0"), Some(7));
        assert_eq!(parent("12 (a"), None);
    }

    #[test]
    fn descendants_of_descendants_belong_to_the_family() {
        let families = [(2, 1), (3, 2), (4, 1), (9, 8), (1, 0)];
        assert_eq!(descendants(&[2], &families), [2, 3]);
        assert_eq!(descendants(&[1], &families), [1, 2, 4, 3]);
        assert_eq!(descendants(&[], &families), [0_u32; 0]);
    }

    #[test]
    fn this_very_process_can_be_read() {
        let me = std::process::id();
        assert!(cpu_ns(me).is_some());
        assert!(context_switches(me).is_some());
        assert!(resident_bytes(me).is_some_and(|bytes| bytes > 100_000));
        assert!(all_pids().contains(&me));
        assert_eq!(cpu_ns(u32::MAX), None);
    }
}
