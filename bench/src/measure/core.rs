//! How long cores were idle, from `/proc/stat`, which counts in ticks of usually 10 ms.

use std::fs;

/// The clock of some cores together, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CoreTime {
    all: u64,
    idle: u64,
}

impl CoreTime {
    /// The share that was not idle from here to `later`, 0..=1; nothing when no tick passed.
    pub(crate) fn busy_until(&self, later: &CoreTime) -> Option<f64> {
        let all = later.all.checked_sub(self.all).filter(|ticks| *ticks > 0)?;
        let idle = later.idle.saturating_sub(self.idle).min(all);
        Some((all - idle) as f64 / all as f64)
    }
}

/// The clock of these cores; nothing without cores, or when one of them is unknown.
pub(crate) fn read(cores: &[usize]) -> Option<CoreTime> {
    parse(&fs::read_to_string("/proc/stat").ok()?, cores)
}

fn parse(stat: &str, cores: &[usize]) -> Option<CoreTime> {
    let mut sum = CoreTime { all: 0, idle: 0 };
    for core in cores {
        let name = format!("cpu{core}");
        let line = stat.lines().find(|line| line.split(' ').next() == Some(&name))?;
        // user nice system idle iowait irq softirq steal; guest time is part of user and would count twice.
        let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).map_while(|t| t.parse().ok()).collect();
        sum.all += ticks.iter().sum::<u64>();
        sum.idle += ticks.get(3)? + ticks.get(4)?;
    }
    (!cores.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  30 0 30 300 30 0 0 0 0 0\n\
        cpu0 10 1 20 100 10 2 3 4 50 0\n\
        cpu1 1 0 1 7 1 0 0 0 0 0\n\
        cpu10 5 0 5 5 5 0 0 0 0 0\n\
        intr 1 2 3\n";

    #[test]
    fn guest_time_counts_once_and_waiting_for_the_disk_is_idle() {
        assert_eq!(parse(STAT, &[0]), Some(CoreTime { all: 150, idle: 110 }));
    }

    #[test]
    fn cores_add_up_and_are_told_apart_by_their_whole_number() {
        assert_eq!(parse(STAT, &[1]), Some(CoreTime { all: 10, idle: 8 }));
        assert_eq!(parse(STAT, &[1, 10]), Some(CoreTime { all: 30, idle: 18 }));
        assert_eq!(parse(STAT, &[2]), None);
        assert_eq!(parse(STAT, &[]), None);
    }

    #[test]
    fn busy_is_what_is_not_idle() {
        let at = |all, idle| CoreTime { all, idle };
        assert_eq!(at(100, 50).busy_until(&at(200, 55)), Some(0.95));
        assert_eq!(at(100, 50).busy_until(&at(100, 50)), None);
        assert_eq!(at(100, 50).busy_until(&at(110, 90)), Some(0.0), "idle runs ahead by a tick at times");
    }
}
