//! Limits of the process: file descriptors and locked memory.
#![allow(unsafe_code)] // getrlimit and setrlimit

use std::io;

/// A resource limit; `u64::MAX` stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What holds now; the process may raise it up to `hard`.
    pub soft: u64,
    /// What only a privileged process may raise.
    pub hard: u64,
}

/// Raises the soft limit of open file descriptors to the hard one and says what holds then.
///
/// # Errors
/// If the kernel refuses, which a sandbox may make it do; the old limit then still holds.
pub fn raise_descriptor_limit() -> io::Result<Limits> {
    let found = get(libc::RLIMIT_NOFILE)?;
    if found.soft < found.hard {
        let wanted = libc::rlimit { rlim_cur: found.hard, rlim_max: found.hard };
        // SAFETY: the kernel reads one rlimit through a pointer to one.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    get(libc::RLIMIT_NOFILE)
}

/// Bytes that may be locked in memory; rings count against it unless the process is privileged.
///
/// # Errors
/// If the kernel refuses to say.
pub fn locked_memory_limit() -> io::Result<Limits> {
    get(libc::RLIMIT_MEMLOCK)
}

fn get(resource: libc::__rlimit_resource_t) -> io::Result<Limits> {
    let mut found = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit through a pointer to one.
    if unsafe { libc::getrlimit(resource, &mut found) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Limits { soft: found.rlim_cur, hard: found.rlim_max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_descriptor_limit_reaches_the_hard_one() {
        let limits = raise_descriptor_limit().unwrap();
        assert_eq!(limits.soft, limits.hard);
        assert_eq!(raise_descriptor_limit().unwrap(), limits);
    }

    #[test]
    fn locked_memory_is_bounded_by_its_hard_limit() {
        let limits = locked_memory_limit().unwrap();
        assert!(limits.soft <= limits.hard);
    }
}
