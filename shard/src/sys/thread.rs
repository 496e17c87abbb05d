//! What a thread may ask of the scheduler.
#![allow(unsafe_code)] // std has none of setpriority, getpriority and sched_setscheduler

use std::io;

/// The value of a thread that gets the least.
const NICE_MAX: i32 = 19;

/// Raises the nice value of the calling thread by so much, to 19 at most. Threads that it starts from then on inherit
/// it. Nobody needs a privilege for that.
///
/// # Errors
/// If something like a sandbox forbids the call; then nothing has changed.
pub fn be_nicer_by(steps: u8) -> io::Result<()> {
    let nice = (nice()? + i32::from(steps)).min(NICE_MAX);
    // SAFETY: no pointer goes in. PRIO_PROCESS with 0 means the calling thread on Linux.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Puts the calling thread into the kernel's idle class: it runs while no other thread wants its core, and one that wakes
/// takes the core from it at once, where one that is only nicer keeps it until the next tick (`sched(7)`). Nobody needs a
/// privilege for that.
///
/// # Errors
/// If something like a sandbox forbids the call; then nothing has changed.
pub fn run_when_idle() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live value of the type that the call reads; 0 means the calling thread on Linux.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The calling thread's.
fn nice() -> io::Result<i32> {
    // SAFETY: no pointer goes in. The kernel's own call gives 20 minus the value, which is never negative, where libc's
    // leaves it open whether -1 is a value or a failure.
    let found = unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, 0) };
    if found < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(20 - found as i32)
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

    /// Field 41 of the stat line: 0 is the usual policy, 5 the idle class.
    fn policy_of_this_thread() -> i32 {
        let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(38).unwrap().parse().unwrap()
    }

    #[test]
    fn the_calling_thread_alone_enters_the_idle_class() {
        let before = policy_of_this_thread();
        let idle = thread::spawn(|| {
            run_when_idle().unwrap();
            policy_of_this_thread()
        });
        assert_eq!(idle.join().unwrap(), 5);
        assert_eq!(policy_of_this_thread(), before);
    }

    #[test]
    fn the_calling_thread_alone_becomes_nicer() {
        let before = nice_of_this_thread();
        assert_eq!(nice().unwrap(), before);
        let (nicer, inherited, nicest) = thread::spawn(|| {
            be_nicer_by(3).unwrap();
            let nicer = nice_of_this_thread();
            let inherited = thread::spawn(nice_of_this_thread).join().unwrap();
            be_nicer_by(40).unwrap();
            (nicer, inherited, nice_of_this_thread())
        })
        .join()
        .unwrap();
        assert_eq!((nicer, inherited, nicest), ((before + 3).min(19), (before + 3).min(19), 19));
        assert_eq!(nice_of_this_thread(), before);
    }
}
