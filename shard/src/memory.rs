//! How much memory the process may count on: the machine's, or its control group's if that is less.
//!
//! Not here: what is done with it; the server divides it once at start.

use std::{fs, path::Path};

/// Bytes the process may use at most, as far as the kernel tells.
pub fn memory_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().filter_map(|line| limit_of_group(Path::new("/sys/fs/cgroup"), line));
    limits.chain(machine).min()
}

/// `MemTotal` of `/proc/meminfo`, which counts in KiB.
fn total_of(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit on the way from a group, as a line of `/proc/self/cgroup` names it, up to the root.
fn limit_of_group(root: &Path, line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (root, file) = match controllers {
        "" => (root.to_path_buf(), "memory.max"),
        "memory" => (root.join("memory"), "memory.limit_in_bytes"),
        _ => return None,
    };
    let group = root.join(path.trim_start_matches('/'));
    let on_the_way = group.ancestors().take_while(|folder| folder.starts_with(&root));
    // A group without a limit says `max`, or in version 1 a number near the largest there is.
    on_the_way.filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_total_is_read_from_meminfo() {
        assert_eq!(total_of("MemFree: 1 kB\nMemTotal:   24576 kB\n"), None.or(Some(24_576 * 1024)));
        assert_eq!(total_of("MemTotal: many\n"), None);
    }

    /// A limit of a group above binds as well; groups without one say so in a word.
    #[test]
    fn the_least_limit_on_the_way_to_the_root_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("service/unit");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("service/memory.max"), "1048576\n").unwrap();
        assert_eq!(limit_of_group(root.path(), "0::/service/unit"), Some(1 << 20));
        assert_eq!(limit_of_group(root.path(), "0::/elsewhere"), None);
        assert_eq!(limit_of_group(root.path(), "3:cpu:/service/unit"), None);
        assert!(memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
