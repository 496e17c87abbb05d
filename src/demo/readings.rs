//! What the kernel tells of this machine: processor, memory, disk and network, from `/proc`.

use std::fs::read_to_string;
use std::time::Instant;

/// Readings that are differences between two moments.
pub struct Readings {
    last: Counters,
    last_at: Instant,
}

#[derive(Clone, Copy, Default)]
struct Counters {
    cpu_busy: u64,
    cpu_all: u64,
    disk_bytes: u64,
    network_bytes: u64,
}

impl Readings {
    /// The first moment.
    pub fn begin() -> Readings {
        Readings { last: Counters::read(), last_at: Instant::now() }
    }

    /// The readings since the last moment, as a body for `POST /metrics`.
    pub fn next_body(&mut self) -> String {
        let now = Counters::read();
        let seconds = self.last_at.elapsed().as_secs_f64().max(1e-3);
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 };
        let per_second = |now: u64, last: u64| now.saturating_sub(last) as f64 / seconds;
        let cpu_usage = share(
            now.cpu_busy.saturating_sub(self.last.cpu_busy),
            now.cpu_all.saturating_sub(self.last.cpu_all),
        );
        let metrics = [
            ("cpu_usage", cpu_usage),
            ("memory_usage", memory_usage(&read_to_string("/proc/meminfo").unwrap_or_default())),
            ("disk_bytes_per_second", per_second(now.disk_bytes, self.last.disk_bytes)),
            ("network_bytes_per_second", per_second(now.network_bytes, self.last.network_bytes)),
        ];
        self.last = now;
        self.last_at = Instant::now();
        let members = metrics.map(|(name, value)| {
            format!(r#"{{"name":"{name}","value":{value:.2},"labels":{{"source":"proc"}}}}"#)
        });
        format!(r#"{{"metrics":[{}]}}"#, members.join(","))
    }
}

impl Counters {
    fn read() -> Counters {
        let text = |path: &str| read_to_string(path).unwrap_or_default();
        let (cpu_busy, cpu_all) = cpu_times(&text("/proc/stat"));
        Counters {
            cpu_busy,
            cpu_all,
            disk_bytes: disk_bytes(&text("/proc/diskstats")),
            network_bytes: network_bytes(&text("/proc/net/dev")),
        }
    }
}

/// Ticks in which all cores together were busy, and all ticks: the first line of `/proc/stat` (proc(5)).
fn cpu_times(stat: &str) -> (u64, u64) {
    let line = stat.lines().next().unwrap_or_default();
    // user nice system idle iowait irq softirq steal; guest time is within user already.
    let ticks: Vec<u64> =
        line.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
    let all: u64 = ticks.iter().sum();
    let idle = ticks.get(3).unwrap_or(&0) + ticks.get(4).unwrap_or(&0);
    (all - idle, all)
}

/// Percent of the memory that is not available.
fn memory_usage(meminfo: &str) -> f64 {
    let of = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    match (of("MemTotal:"), of("MemAvailable:")) {
        (Some(total), Some(available)) if total > 0.0 => 100.0 * (1.0 - available / total),
        _ => 0.0,
    }
}

/// Bytes read and written by whole disks; a sector of `/proc/diskstats` has 512 bytes.
fn disk_bytes(diskstats: &str) -> u64 {
    let of_disk = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let name = fields.get(2)?;
        let is_part = name.starts_with("loop") || name.starts_with("ram") || name.starts_with("dm-");
        let sectors = |at: usize| fields.get(at)?.parse::<u64>().ok();
        if is_part { None } else { Some((sectors(5)? + sectors(9)?) * 512) }
    };
    diskstats.lines().filter_map(of_disk).sum()
}

/// Bytes received and sent by all interfaces, loopback included: the demo's own traffic shows.
fn network_bytes(dev: &str) -> u64 {
    let of_interface = |line: &str| {
        let (_, counters) = line.split_once(':')?;
        let fields: Vec<&str> = counters.split_whitespace().collect();
        Some(fields.first()?.parse::<u64>().ok()? + fields.get(8)?.parse::<u64>().ok()?)
    };
    dev.lines().filter_map(of_interface).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_pages_are_read_as_documented() {
        assert_eq!(cpu_times("cpu  10 0 20 60 10 0 0 5 3 0\ncpu0 1 1 1 1\n"), (35, 105));
        assert_eq!(memory_usage("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB\n"), 75.0);
        assert_eq!(disk_bytes("   8  0 sda 1 0 10 0 1 0 20 0 0\n 7 0 loop0 1 0 99 0 1 0 99 0\n"), 15_360);
        let dev = "Inter-| Receive\n face |bytes\n  lo: 100 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0\n";
        assert_eq!(network_bytes(dev), 300);
        assert_eq!(
            (cpu_times(""), memory_usage(""), disk_bytes("x"), network_bytes("y:")),
            ((0, 0), 0.0, 0, 0)
        );
    }
}
