//! What the kernel must be able to do for us, asked once at start: everything missing at once, each with its remedy.
//!
//! Owner: the main thread, before any shard starts.
//! Always: after a good answer the loops and executors can make their rings, as far as one can know beforehand.
//! Not here: sizing rings and tables by the limits found (the server does), the taken port, the locked directory.

use crate::sys::{
    limits::{Limits, locked_memory_limit, raise_descriptor_limit},
    probe as kernel,
};
use io_uring::opcode;
use std::{fmt, fs, io};

/// The oldest kernel with everything we use; what came last is DEFER_TASKRUN.
pub const KERNEL_MIN: &str = "6.1";

/// Soft limit of locked memory below which glommio refuses to start, privileged or not.
pub const LOCKED_MEMORY_BYTES_MIN: u64 = 512 << 10;

/// What this process will want of the system, known once its configuration is read.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Descriptors for files, rings and the fewest connections worth starting for.
    pub descriptors: u64,
    /// Bytes of rings and registered buffers of all shards; they count against the locked-memory limit unless the
    /// process is privileged.
    pub locked_memory_bytes: u64,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    /// What was tried and works, in the kernel's own words.
    pub features: Vec<&'static str>,
    /// After the soft limit was raised.
    pub descriptors: Limits,
    /// Bytes; it does not bind a privileged process.
    pub locked_memory: Limits,
    /// Whether the process may lock memory beyond its limit.
    pub locks_freely: bool,
}

/// Something without which the server does not start.
#[derive(Debug)]
pub enum Missing {
    /// The kernel has no io_uring, or was built without it.
    IoUring,
    /// io_uring is there and switched off.
    IoUringForbidden {
        /// `kernel.io_uring_disabled`: 0 for all, 1 for a group only, 2 for nobody; none if there is no such switch.
        sysctl: Option<u8>,
    },
    /// The ring flags of the loops are not known.
    RingFlags,
    /// An operation is not known.
    Operation {
        /// Its name.
        name: &'static str,
        /// The kernel that first had it.
        since: &'static str,
    },
    /// Provided-buffer rings are not known.
    BufferRing,
    /// Tables of direct descriptors made empty are not known.
    SparseFileTable,
    /// Too little memory may be locked.
    LockedMemory {
        /// The soft limit, bytes.
        limit_bytes: u64,
        /// What is needed, bytes.
        needed_bytes: u64,
    },
    /// Too few file descriptors, even after raising the soft limit.
    Descriptors {
        /// What may be open.
        limit: u64,
        /// What is needed.
        needed: u64,
    },
    /// A question that the kernel answered in a way we do not know.
    Unanswered {
        /// What was asked.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IoUring => write!(
                f,
                "this kernel has no io_uring: run Linux {KERNEL_MIN} or later, built with CONFIG_IO_URING=y"
            ),
            Self::IoUringForbidden { sysctl: Some(disabled @ 1..) } => write!(
                f,
                "io_uring is switched off (kernel.io_uring_disabled is {disabled}): `sysctl -w kernel.io_uring_disabled=0`"
            ),
            Self::IoUringForbidden { .. } => write!(
                f,
                "io_uring is forbidden here, most likely by a container's system call filter: let io_uring_setup, \
                 io_uring_enter and io_uring_register through (docker: `--security-opt seccomp=unconfined`, or a profile)"
            ),
            Self::RingFlags => {
                write!(f, "io_uring lacks the flags SINGLE_ISSUER and DEFER_TASKRUN: run Linux 6.1 or later")
            }
            Self::Operation { name, since } => {
                write!(
                    f,
                    "io_uring lacks the operation {name}: run Linux {since} or later (best {KERNEL_MIN})"
                )
            }
            Self::BufferRing => {
                write!(f, "io_uring lacks provided-buffer rings: run Linux 5.19 or later (best {KERNEL_MIN})")
            }
            Self::SparseFileTable => {
                write!(f, "io_uring lacks sparse file tables: run Linux 5.19 or later (best {KERNEL_MIN})")
            }
            Self::LockedMemory { limit_bytes, needed_bytes } => write!(
                f,
                "{} KiB of memory may be locked and {} KiB are needed: `ulimit -l unlimited` before the start, or \
                 `LimitMEMLOCK=infinity` in the systemd unit, or `--ulimit memlock=-1` for docker; fewer `shards` need less",
                limit_bytes / 1024,
                needed_bytes.div_ceil(1024)
            ),
            Self::Descriptors { limit, needed } => write!(
                f,
                "{limit} files may be open and {needed} are needed: `ulimit -n {needed}` before the start, or \
                 `LimitNOFILE={needed}` in the systemd unit"
            ),
            Self::Unanswered { what, error } => write!(
                f,
                "cannot find out about {what}: {error}; if a container's filter is in the way, let io_uring_register through"
            ),
        }
    }
}

/// Everything that is missing, at least one thing.
#[derive(Debug)]
pub struct ProbeError {
    /// The kernel's release.
    pub release: String,
    /// Each with its remedy in its text.
    pub missing: Vec<Missing>,
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this system (Linux {}) lacks what the server needs:", self.release)?;
        self.missing.iter().try_for_each(|missing| write!(f, "\n  - {missing}"))
    }
}

impl std::error::Error for ProbeError {}

/// Operations of the loops: number, name, first kernel.
const OPERATIONS: [(u8, &str, &str); 8] = [
    (opcode::Accept::CODE, "ACCEPT", "5.5"),
    (opcode::Recv::CODE, "RECV", "5.6"),
    (opcode::Send::CODE, "SEND", "5.6"),
    (opcode::Read::CODE, "READ", "5.6"),
    (opcode::Fsync::CODE, "FSYNC", "5.1"),
    (opcode::Timeout::CODE, "TIMEOUT", "5.4"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL", "5.5"),
    (opcode::MsgRingData::CODE, "MSG_RING", "5.18"),
];

/// Tries everything, and raises the soft limit of descriptors on the way.
///
/// # Errors
/// All that is missing, not only the first thing.
pub fn probe(needs: &Needs) -> Result<Kernel, ProbeError> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "of unknown release".to_string(), |text| text.trim().to_string());
    let mut missing = Vec::new();
    let mut features = Vec::new();
    let locks_freely = fs::read_to_string("/proc/self/status").is_ok_and(|status| may_lock_freely(&status));
    let unlimited = Limits { soft: u64::MAX, hard: u64::MAX };
    let descriptors = raise_descriptor_limit().unwrap_or_else(|error| {
        missing.push(Missing::Unanswered { what: "the limit of open files", error });
        unlimited
    });
    let locked_memory = locked_memory_limit().unwrap_or_else(|error| {
        missing.push(Missing::Unanswered { what: "the limit of locked memory", error });
        unlimited
    });
    missing.extend(too_few_descriptors(descriptors, needs));
    let too_little = too_little_locked_memory(locked_memory, locks_freely, needs);
    let memory_is_short = too_little.is_some();
    missing.extend(too_little);
    probe_ring(locked_memory, memory_is_short, &mut features, &mut missing);
    if missing.is_empty() {
        Ok(Kernel { release, features, descriptors, locked_memory, locks_freely })
    } else {
        Err(ProbeError { release, missing })
    }
}

fn probe_ring(
    locked_memory: Limits,
    memory_is_short: bool,
    features: &mut Vec<&'static str>,
    missing: &mut Vec<Missing>,
) {
    // The table and the buffers are asked of a plain ring if need be: a kernel without our flags may lack more.
    let ring = match kernel::loop_ring() {
        Ok(ring) => {
            features.push("SINGLE_ISSUER, DEFER_TASKRUN, SUBMIT_ALL");
            ring
        }
        Err(flags_error) => match kernel::plain_ring() {
            Ok(ring) => {
                missing.push(Missing::RingFlags);
                ring
            }
            Err(_) => {
                // The same limit need not be told twice.
                let told = memory_is_short && flags_error.kind() == io::ErrorKind::OutOfMemory;
                if !told {
                    missing.push(ring_refused(flags_error, io_uring_disabled(), locked_memory));
                }
                return;
            }
        },
    };
    let codes: Vec<u8> = OPERATIONS.iter().map(|(code, ..)| *code).collect();
    match kernel::unknown_opcodes(&ring, &codes) {
        Ok(unknown) => {
            for (code, name, since) in OPERATIONS {
                if unknown.contains(&code) {
                    missing.push(Missing::Operation { name, since });
                } else {
                    features.push(name);
                }
            }
        }
        Err(error) => missing.push(Missing::Unanswered { what: "io_uring's operations", error }),
    }
    let tried = [
        ("sparse file table", kernel::try_sparse_files(&ring), Missing::SparseFileTable),
        ("provided-buffer ring", kernel::try_buffer_ring(&ring), Missing::BufferRing),
    ];
    for (what, result, absent) in tried {
        match result {
            Ok(()) => features.push(what),
            // EINVAL is how the kernel says that it does not know the registration.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => missing.push(absent),
            Err(error) => missing.push(Missing::Unanswered { what, error }),
        }
    }
}

/// What a refused ring means. Both causes of "not permitted" look alike; the switch tells them apart.
fn ring_refused(error: io::Error, sysctl: Option<u8>, locked_memory: Limits) -> Missing {
    match error.kind() {
        io::ErrorKind::Unsupported => Missing::IoUring,
        io::ErrorKind::PermissionDenied => Missing::IoUringForbidden { sysctl },
        io::ErrorKind::OutOfMemory => Missing::LockedMemory {
            limit_bytes: locked_memory.soft,
            needed_bytes: locked_memory.soft.saturating_mul(2).max(LOCKED_MEMORY_BYTES_MIN),
        },
        _ => Missing::Unanswered { what: "io_uring", error },
    }
}

fn too_few_descriptors(found: Limits, needs: &Needs) -> Option<Missing> {
    (found.soft < needs.descriptors)
        .then_some(Missing::Descriptors { limit: found.soft, needed: needs.descriptors })
}

fn too_little_locked_memory(found: Limits, locks_freely: bool, needs: &Needs) -> Option<Missing> {
    let counted = if locks_freely { 0 } else { needs.locked_memory_bytes };
    let needed_bytes = counted.max(LOCKED_MEMORY_BYTES_MIN);
    (found.soft < needed_bytes).then_some(Missing::LockedMemory { limit_bytes: found.soft, needed_bytes })
}

fn io_uring_disabled() -> Option<u8> {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

/// Whether CAP_IPC_LOCK is among the effective capabilities in /proc/self/status.
fn may_lock_freely(status: &str) -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    bits >> CAP_IPC_LOCK & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const LITTLE: Needs = Needs { descriptors: 64, locked_memory_bytes: 1 << 20 };

    #[test]
    fn this_machine_has_what_is_needed() {
        let kernel = probe(&LITTLE).unwrap();
        assert_eq!(kernel.features.len(), OPERATIONS.len() + 3, "{kernel:?}");
        assert_eq!(kernel.descriptors.soft, kernel.descriptors.hard);
    }

    #[test]
    fn everything_missing_is_told_at_once() {
        let limit = raise_descriptor_limit().unwrap().soft;
        let needs = Needs { descriptors: u64::MAX, ..LITTLE };
        let error = probe(&needs).unwrap_err();
        if limit < u64::MAX {
            assert!(error.to_string().contains(&format!("{limit} files may be open")), "{error}");
        }
        let all = ProbeError { release: "4.19".into(), missing: vec![Missing::IoUring, Missing::BufferRing] };
        assert_eq!(all.to_string().lines().count(), 3);
        assert!(all.to_string().contains("Linux 4.19"));
    }

    #[test]
    fn every_text_says_what_to_do() {
        let unanswered =
            Missing::Unanswered { what: "io_uring", error: io::Error::from(io::ErrorKind::TimedOut) };
        for (missing, remedy) in [
            (Missing::IoUring, "run Linux 6.1 or later"),
            (Missing::IoUringForbidden { sysctl: Some(2) }, "sysctl -w kernel.io_uring_disabled=0"),
            (Missing::IoUringForbidden { sysctl: Some(0) }, "seccomp"),
            (Missing::IoUringForbidden { sysctl: None }, "seccomp"),
            (Missing::RingFlags, "6.1"),
            (Missing::Operation { name: "MSG_RING", since: "5.18" }, "MSG_RING: run Linux 5.18"),
            (Missing::BufferRing, "5.19"),
            (Missing::SparseFileTable, "5.19"),
            (
                Missing::LockedMemory { limit_bytes: 65_536, needed_bytes: 1 << 20 },
                "64 KiB of memory may be locked and 1024",
            ),
            (Missing::LockedMemory { limit_bytes: 0, needed_bytes: 1 }, "ulimit -l unlimited"),
            (Missing::LockedMemory { limit_bytes: 0, needed_bytes: 1 }, "LimitMEMLOCK="),
            (Missing::Descriptors { limit: 1_024, needed: 20_000 }, "ulimit -n 20000"),
            (unanswered, "io_uring_register"),
        ] {
            let text = missing.to_string();
            assert!(text.contains(remedy), "{text:?} lacks {remedy:?}");
        }
    }

    #[test]
    fn a_refused_ring_is_told_by_its_cause() {
        let limits = Limits { soft: 4_096, hard: 4_096 };
        let refused = |kind| ring_refused(io::Error::from(kind), Some(1), limits);
        assert!(matches!(refused(io::ErrorKind::Unsupported), Missing::IoUring));
        assert!(matches!(
            refused(io::ErrorKind::PermissionDenied),
            Missing::IoUringForbidden { sysctl: Some(1) }
        ));
        assert!(matches!(
            refused(io::ErrorKind::OutOfMemory),
            Missing::LockedMemory { limit_bytes: 4_096, .. }
        ));
        assert!(matches!(refused(io::ErrorKind::TimedOut), Missing::Unanswered { .. }));
    }

    #[test]
    fn limits_are_held_against_needs() {
        let found = Limits { soft: 1 << 20, hard: 1 << 20 };
        let needs = Needs { descriptors: (1 << 20) + 1, locked_memory_bytes: 2 << 20 };
        assert!(matches!(too_few_descriptors(found, &needs), Some(Missing::Descriptors { .. })));
        assert!(too_few_descriptors(found, &LITTLE).is_none());
        assert!(matches!(too_little_locked_memory(found, false, &needs), Some(Missing::LockedMemory { .. })));
        assert!(
            too_little_locked_memory(found, true, &needs).is_none(),
            "a privileged process is not bound by it"
        );
        let tiny = Limits { soft: 65_536, hard: 65_536 };
        assert!(
            too_little_locked_memory(tiny, true, &LITTLE).is_some(),
            "the executor asks for its minimum all the same"
        );
    }

    #[test]
    fn the_capability_is_read_from_the_status() {
        assert!(may_lock_freely("Name:\tx\nCapPrm:\t0\nCapEff:\t000001ffffffffff\n"));
        assert!(!may_lock_freely("CapEff:\t0000000000003fff\n"));
        assert!(!may_lock_freely("CapEff:\tnonsense\n"));
        assert!(!may_lock_freely(""));
    }
}
