//! Which cores the process may use, and which of them become shards.
//!
//! Owner: the main thread, once, at start.
//! Always: one shard a core; a chosen core is in the affinity mask of the process; nobody gets a core twice.
//! Not here: what runs on a core (`executor.rs`, and the server's loops).

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// A core, by the number the kernel gives it. Numbers of the allowed ones need not be contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub usize);

impl fmt::Display for CoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Cores in the affinity mask, ascending.
    pub allowed: Vec<CoreId>,
    /// Whole cores' worth of time that the control group grants, rounded down and at least one; none if it grants all.
    pub quota_cores: Option<usize>,
}

/// Highest core number that can be listed or pinned to: what an affinity mask of the usual size names.
pub const CORE_NUMBER_MAX: usize = 1_023;

/// Why no layout came about; each says what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyError {
    /// The kernel did not tell the affinity mask.
    NoCoreAllowed,
    /// A core list that cannot be read.
    BadCoreList {
        /// The part of the list that was not understood.
        part: String,
    },
    /// A listed core is outside the affinity mask.
    CoreNotAllowed {
        /// The core asked for.
        core: CoreId,
        /// The mask.
        allowed: Vec<CoreId>,
    },
    /// A core is listed twice.
    CoreRepeated {
        /// That core.
        core: CoreId,
    },
    /// More shards than cores to put them on.
    TooManyShards {
        /// Shards asked for.
        shards: usize,
        /// Cores there are to choose from.
        cores: usize,
    },
    /// No shard, or an empty list of cores.
    NoShard,
}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCoreAllowed => {
                write!(f, "the kernel names no core that this process may use; see `taskset -p $$`")
            }
            Self::BadCoreList { part } => write!(
                f,
                "cannot read {part:?} in the list of cores; write numbers up to {CORE_NUMBER_MAX} and rising ranges, as in 0-3,8"
            ),
            Self::CoreNotAllowed { core, allowed } => {
                write!(
                    f,
                    "core {core} is not among the cores that this process may use ({}); change `cores`, \
                     or start it with another mask (`taskset -c`)",
                    core_list(allowed)
                )
            }
            Self::CoreRepeated { core } => {
                write!(f, "core {core} is listed twice in `cores`; a core carries one shard")
            }
            Self::TooManyShards { shards, cores } => write!(
                f,
                "{shards} shards need {shards} cores and there are {cores}; set `shards` to at most {cores}, \
                 list more `cores`, or widen the affinity mask"
            ),
            Self::NoShard => write!(
                f,
                "at least one shard and one core are needed; leave `shards` and `cores` out for all"
            ),
        }
    }
}

impl std::error::Error for TopologyError {}

/// Asks the kernel for the affinity mask of the calling thread and the quota of its control group.
///
/// # Errors
/// [`TopologyError::NoCoreAllowed`] if it does not answer.
pub fn discover() -> Result<Topology, TopologyError> {
    let mut allowed: Vec<CoreId> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| CoreId(core.id)).collect();
    allowed.sort_unstable();
    if allowed.is_empty() {
        return Err(TopologyError::NoCoreAllowed);
    }
    Ok(Topology { allowed, quota_cores: quota_cores(Path::new("/")) })
}

/// The cores that get a shard, ascending unless `cores` says another order.
///
/// Without `shards`, one on every core, but no more than the quota pays for; an explicit number may exceed the quota
/// and not the cores. With `cores`, only those, in that order.
///
/// # Errors
/// See [`TopologyError`]; nothing is corrected in silence.
pub fn choose_cores(
    topology: &Topology,
    shards: Option<usize>,
    cores: Option<&[CoreId]>,
) -> Result<Vec<CoreId>, TopologyError> {
    let mut chosen = cores.unwrap_or(&topology.allowed).to_vec();
    for (i, core) in chosen.iter().enumerate() {
        if !topology.allowed.contains(core) {
            return Err(TopologyError::CoreNotAllowed { core: *core, allowed: topology.allowed.clone() });
        }
        if chosen[..i].contains(core) {
            return Err(TopologyError::CoreRepeated { core: *core });
        }
    }
    let shards = match (shards, cores) {
        (Some(shards), _) => shards,
        // Naming the cores is naming their number.
        (None, Some(cores)) => cores.len(),
        (None, None) => topology.quota_cores.unwrap_or(chosen.len()).min(chosen.len()),
    };
    if shards > chosen.len() {
        return Err(TopologyError::TooManyShards { shards, cores: chosen.len() });
    }
    if shards == 0 {
        return Err(TopologyError::NoShard);
    }
    chosen.truncate(shards);
    Ok(chosen)
}

/// Reads a list such as `0-3,8`: numbers and rising inclusive ranges, blanks around them allowed.
///
/// # Errors
/// [`TopologyError::BadCoreList`] with the part that was not understood.
pub fn parse_core_list(text: &str) -> Result<Vec<CoreId>, TopologyError> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let bad = || TopologyError::BadCoreList { part: part.trim().to_string() };
        let number = |digits: &str| match digits.trim().parse::<usize>() {
            Ok(core) if core <= CORE_NUMBER_MAX => Ok(core),
            _ => Err(bad()),
        };
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(bad());
        }
        for core in first..=last {
            if cores.contains(&CoreId(core)) {
                return Err(TopologyError::CoreRepeated { core: CoreId(core) });
            }
            cores.push(CoreId(core));
        }
    }
    Ok(cores)
}

/// The shortest list that [`parse_core_list`] reads back as these cores.
pub fn core_list(cores: &[CoreId]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = cores;
    while let Some(first) = rest.first() {
        let len = rest.iter().zip(first.0..).take_while(|(core, expected)| core.0 == *expected).count();
        parts.push(if len == 1 { first.to_string() } else { format!("{first}-{}", first.0 + len - 1) });
        rest = &rest[len..];
    }
    parts.join(",")
}

/// Binds the calling thread to `core`; threads that it starts from then on are bound there too.
/// Returns whether the kernel agreed;
/// it does not if the core is outside what the process may use.
#[must_use]
pub fn pin(core: CoreId) -> bool {
    // core_affinity ends the process on a number that its mask has no bit for.
    core.0 <= CORE_NUMBER_MAX && core_affinity::set_for_current(core_affinity::CoreId { id: core.0 })
}

/// The lowest quota on the way from the process's control group to the root, of version 2 and of version 1.
/// `root` is `/` but in tests.
fn quota_cores(root: &Path) -> Option<usize> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = root.join("sys/fs/cgroup");
    let version_2 = unified_group(&groups).and_then(|group| {
        least_quota(&mounts, group, |at| parse_cpu_max(&fs::read_to_string(at.join("cpu.max")).ok()?))
    });
    let version_1 = cpu_group(&groups).and_then(|group| {
        ["cpu", "cpu,cpuacct"].iter().find_map(|controller| {
            least_quota(&mounts.join(controller), group, |at| {
                let quota = fs::read_to_string(at.join("cpu.cfs_quota_us")).ok()?;
                let period = fs::read_to_string(at.join("cpu.cfs_period_us")).ok()?;
                parse_cfs(&quota, &period)
            })
        })
    });
    version_2.into_iter().chain(version_1).min()
}

/// Walks up from `mount`/`group` to `mount`. A container often sees a group path of its host that does not exist
/// inside; its own group is then the mount itself, which the walk reaches.
fn least_quota(mount: &Path, group: &str, quota: impl Fn(&Path) -> Option<usize>) -> Option<usize> {
    let start: PathBuf = mount.join(group.trim_start_matches('/'));
    start.ancestors().take_while(|at| at.starts_with(mount)).filter_map(quota).min()
}

/// The path in the line `0::/path` of /proc/self/cgroup.
fn unified_group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The path in the line `4:cpu,cpuacct:/path` of /proc/self/cgroup.
fn cpu_group(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|controller| controller == "cpu").then_some(path)
    })
}

/// `cpu.max`: quota or `max`, then the period, both in microseconds.
fn parse_cpu_max(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    parse_cfs(quota, period)
}

/// A quota per period; `max` and -1 stand for none.
fn parse_cfs(quota: &str, period: &str) -> Option<usize> {
    let quota: u64 = quota.trim().parse().ok()?;
    let period: u64 = period.trim().parse().ok()?;
    Some(usize::try_from(quota.checked_div(period)?).unwrap_or(usize::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn cores(numbers: &[usize]) -> Vec<CoreId> {
        numbers.iter().copied().map(CoreId).collect()
    }

    fn topology(numbers: &[usize], quota_cores: Option<usize>) -> Topology {
        Topology { allowed: cores(numbers), quota_cores }
    }

    #[test]
    fn every_allowed_core_gets_a_shard_unless_the_quota_pays_for_fewer() {
        let free = topology(&[0, 1, 4, 5], None);
        assert_eq!(choose_cores(&free, None, None), Ok(cores(&[0, 1, 4, 5])));
        let quota = topology(&[0, 1, 4, 5], Some(2));
        assert_eq!(choose_cores(&quota, None, None), Ok(cores(&[0, 1])));
        assert_eq!(choose_cores(&quota, Some(3), None), Ok(cores(&[0, 1, 4])), "an explicit number wins");
        assert_eq!(choose_cores(&quota, None, Some(&cores(&[5, 0, 1]))), Ok(cores(&[5, 0, 1])));
        assert_eq!(choose_cores(&topology(&[7], Some(16)), None, None), Ok(cores(&[7])));
    }

    #[test]
    fn a_layout_that_cannot_be_is_refused_and_says_what_to_change() {
        let two = topology(&[2, 3], None);
        for (shards, listed, expected) in [
            (Some(3), None, "3 shards need 3 cores and there are 2"),
            (Some(2), Some(cores(&[2])), "set `shards` to at most 1"),
            (None, Some(cores(&[2, 4])), "core 4 is not among the cores that this process may use (2-3)"),
            (None, Some(cores(&[2, 2])), "core 2 is listed twice"),
            (Some(0), None, "at least one shard"),
            (None, Some(vec![]), "at least one shard"),
        ] {
            let error = choose_cores(&two, shards, listed.as_deref()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn core_lists_read_back_as_written() {
        for (text, numbers) in [
            ("0", vec![0]),
            ("0-3,8", vec![0, 1, 2, 3, 8]),
            ("8,0-1", vec![8, 0, 1]),
            ("2,4-5", vec![2, 4, 5]),
        ] {
            assert_eq!(parse_core_list(text), Ok(cores(&numbers)));
            assert_eq!(core_list(&cores(&numbers)), text);
        }
        assert_eq!(parse_core_list(" 1 - 2 , 4 "), Ok(cores(&[1, 2, 4])));
        assert_eq!(core_list(&[]), "");
    }

    #[test]
    fn bad_core_lists_name_the_part() {
        for (text, part) in [
            ("", ""),
            ("a", "a"),
            ("1,", ""),
            ("3-1", "3-1"),
            ("1-2-3", "1-2-3"),
            ("0,-1", "-1"),
            ("0-9999999", "0-9999999"),
        ] {
            assert_eq!(
                parse_core_list(text),
                Err(TopologyError::BadCoreList { part: part.into() }),
                "{text:?}"
            );
        }
        assert_eq!(parse_core_list("1-3,2"), Err(TopologyError::CoreRepeated { core: CoreId(2) }));
    }

    #[test]
    fn quotas_round_down_to_at_least_one_core() {
        for (text, quota) in [
            ("max 100000\n", None),
            ("100000 100000\n", Some(1)),
            ("250000 100000\n", Some(2)),
            ("50000 100000\n", Some(1)),
            ("1 0\n", None),
            ("", None),
            ("x y", None),
        ] {
            assert_eq!(parse_cpu_max(text), quota, "{text:?}");
        }
        assert_eq!(parse_cfs("-1\n", "100000\n"), None);
        assert_eq!(parse_cfs("300000\n", "100000\n"), Some(3));
    }

    #[test]
    fn groups_are_found_in_both_versions() {
        let mixed = "12:cpuset:/a\n4:cpu,cpuacct:/docker/x\n1:name=systemd:/b\n0::/user.slice/c\n";
        assert_eq!(unified_group(mixed), Some("/user.slice/c"));
        assert_eq!(cpu_group(mixed), Some("/docker/x"));
        assert_eq!(cpu_group("12:cpuset:/a\n0::/\n"), None);
    }

    /// The tightest quota on the way to the root holds, wherever it stands.
    /// Method: a tree of files like the kernel's, in a folder.
    #[test]
    fn the_least_quota_of_all_parents_holds() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(quota_cores(root.path()), None, "no control group at all");
        write("proc/self/cgroup", "4:cpu,cpuacct:/pod/x\n0::/slice/service\n");
        assert_eq!(quota_cores(root.path()), None);
        write("sys/fs/cgroup/slice/service/cpu.max", "max 100000\n");
        assert_eq!(quota_cores(root.path()), None);
        write("sys/fs/cgroup/slice/cpu.max", "400000 100000\n");
        assert_eq!(quota_cores(root.path()), Some(4));
        write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "300000\n");
        write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
        assert_eq!(quota_cores(root.path()), Some(3), "the group of the host is not visible, the mount is");
        write("sys/fs/cgroup/slice/service/cpu.max", "200000 100000\n");
        assert_eq!(quota_cores(root.path()), Some(2));
    }

    #[test]
    fn a_pinned_thread_may_use_one_core() {
        let found = discover().unwrap();
        let core = *found.allowed.last().unwrap();
        let (pinned, after) = thread::spawn(move || (pin(core), discover().unwrap().allowed)).join().unwrap();
        assert!(pinned);
        assert_eq!(after, [core]);
        assert_eq!(discover().unwrap(), found, "other threads are not touched");
    }
}
