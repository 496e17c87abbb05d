//! What a thread may ask of the scheduler.
#![allow(unsafe_code)] // setpriority takes a thread id on Linux, and std has neither

use std::io;

/// Sets the nice value of the calling thread: -20 first, 19 last. Threads that it starts from then on inherit it.
///
/// # Errors
/// If the value is below the present one and the process may not raise its priority.
pub(crate) fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: no pointer goes in. PRIO_PROCESS with 0 means the calling thread on Linux.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, thread};

    /// Field 19 of the thread's stat line, counted behind the name in parentheses.
    fn nice_of_this_thread() -> i32 {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn the_calling_thread_alone_becomes_nice() {
        let before = nice_of_this_thread();
        let (nicer, inherited) = thread::spawn(|| {
            set_nice(19).unwrap();
            (nice_of_this_thread(), thread::spawn(nice_of_this_thread).join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!((nicer, inherited), (19, 19));
        assert_eq!(nice_of_this_thread(), before);
    }
}
