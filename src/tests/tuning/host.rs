//! A made-up host: the files of the kernel that knobs read and write, all of them as nobody would want them, and
//! the three programs that knobs call.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

pub(crate) struct Host {
    folder: TempDir,
}

/// Four CPUs, two hardware threads a core, on two nodes.
const CPUS: usize = 4;

impl Host {
    /// A host with everything.
    pub(crate) fn new() -> Host {
        let host = Host::empty();
        for (path, value) in [
            ("proc/sys/kernel/io_uring_disabled", "2"),
            ("proc/sys/kernel/numa_balancing", "1"),
            ("proc/sys/net/core/busy_poll", "0"),
            ("proc/sys/net/core/somaxconn", "128"),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999"),
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", "65536"),
            ("proc/sys/net/ipv4/tcp_tw_reuse", "0"),
            ("proc/sys/vm/dirty_background_bytes", "1073741824"),
            ("proc/sys/vm/dirty_background_ratio", "0"),
            ("proc/sys/vm/dirty_bytes", "1073741824"),
            ("proc/sys/vm/dirty_ratio", "0"),
            ("proc/sys/vm/swappiness", "60"),
            ("proc/swaps", "Filename Type Size Used Priority\n/swap file 1048572 0 -2"),
            ("proc/meminfo", "MemTotal: 67108864 kB\nMemAvailable: 60000000 kB"),
            (
                "proc/interrupts",
                " 30: 1 2 MSI virtio-config\n 31: 3 4 MSI virtio-in\n 32: 5 6 MSI virtio-out",
            ),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always"),
            ("sys/kernel/mm/transparent_hugepage/defrag", "madvise"),
            ("sys/devices/system/node/online", "0-1"),
            ("sys/devices/system/node/node0/cpulist", "0,2"),
            ("sys/devices/system/node/node1/cpulist", "1,3"),
            ("sys/devices/system/cpu/isolated", ""),
            ("sys/devices/system/cpu/nohz_full", ""),
            ("sys/devices/system/cpu/intel_pstate/no_turbo", "0"),
            ("sys/block/nvme0n1/queue/scheduler", "mq-deadline"),
            ("sys/block/nvme0n1/queue/rotational", "0"),
            ("sys/block/nvme0n1/queue/write_cache", "write back"),
            ("sys/block/sda/queue/scheduler", "bfq"),
            ("sys/block/sda/queue/rotational", "1"),
            ("sys/block/loop0/queue/scheduler", "bfq"),
            ("sys/devices/pci/virtio1/net/eth0/queues/rx-0/rps_cpus", "00000000,00000000"),
            ("sys/devices/pci/virtio1/net/eth0/queues/tx-0/xps_cpus", "f"),
            ("proc/irq/30/smp_affinity_list", "0-3"),
            ("proc/irq/31/smp_affinity_list", "0-3"),
            ("proc/irq/32/smp_affinity_list", "0-3"),
        ] {
            host.write(path, value);
        }
        for cpu in 0..CPUS {
            let at = |rest: &str| format!("sys/devices/system/cpu/cpu{cpu}/{rest}");
            host.write(&at("cpufreq/scaling_governor"), "powersave");
            host.write(&at("cpufreq/energy_performance_preference"), "balance_power");
            host.write(&at("topology/thread_siblings_list"), &format!("{},{}", cpu % 2, cpu % 2 + 2));
            for (state, name, latency) in [(0, "POLL", 0), (1, "C1", 2), (2, "C6", 133)] {
                host.write(&at(&format!("cpuidle/state{state}/name")), name);
                host.write(&at(&format!("cpuidle/state{state}/latency")), &latency.to_string());
                host.write(&at(&format!("cpuidle/state{state}/disable")), "0");
            }
        }
        for irq in 30..33 {
            host.write(&format!("sys/devices/pci/msi_irqs/{irq}"), "msi");
        }
        // As sysfs has it: a card is a link to its device's folder, which has the device as `device`.
        let card = host.path("sys/class/net/eth0");
        fs::create_dir_all(card.parent().unwrap()).unwrap();
        symlink("../../devices/pci/virtio1/net/eth0", card).unwrap();
        symlink("../..", host.path("sys/devices/pci/virtio1/net/eth0/device")).unwrap();
        host.program(
            "ethtool",
            "case $1 in
                -l) printf 'Pre-set maximums:\\nRX: n/a\\nCombined: 8\\nCurrent hardware settings:\\nRX: n/a\\nCombined: %s\\n' \"$(cat queues)\" ;;
                -c) printf 'Coalesce parameters for eth0:\\nAdaptive RX: %s  TX: n/a\\n' \"$(cat adaptive)\" ;;
                -L) echo \"$4\" >queues ;;
                -C) echo \"$4\" >adaptive ;;
            esac",
        );
        host.write("state/queues", "1");
        host.write("state/adaptive", "off");
        host.program(
            "systemctl",
            "case \"$1 $3\" in
                'is-active irqbalance') grep -q active balancer ;;
                'disable --now') echo dead >balancer ;;
                'enable --now') echo active >balancer ;;
            esac",
        );
        host.write("state/balancer", "active");
        host.program(
            "update-grub",
            "cat ../etc/default/grub.d/*.cfg >grub.cfg 2>/dev/null || rm -f grub.cfg",
        );
        host
    }

    /// A host that has CPUs and nothing else.
    pub(crate) fn empty() -> Host {
        let host = Host { folder: tempfile::tempdir().unwrap() };
        host.write("sys/devices/system/cpu/online", &format!("0-{}", CPUS - 1));
        host
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// As a file of the kernel has it, with a line's end.
    pub(crate) fn write(&self, path: &str, value: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{value}\n")).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap().trim_end_matches('\n').to_owned()
    }

    /// A program that knobs find before the machine's own; it runs in the folder `state`.
    fn program(&self, name: &str, text: &str) {
        let path = self.path(&format!("programs/{name}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\ncd \"{}\" || exit\n{text}\n", self.path("state").display()))
            .unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// `tuning/NAME ACT` on this host, under limits that are too low.
    pub(crate) fn script(&self, name: &str, act: &str) -> Command {
        let mut command = Command::new("bash");
        let path = crate::folder().join(name);
        command
            .args(["-c", "ulimit -Sn 256; ulimit -Hn 256; ulimit -Sl 64; ulimit -Hl 64; exec \"$0\" $1"])
            .arg(path)
            .arg(act)
            .env("TUNING_ROOT", self.folder.path())
            .env("PATH", format!("{}:{}", self.path("programs").display(), std::env::var("PATH").unwrap()))
            .env_remove("container")
            .env_remove("CORES");
        command
    }

    /// good, change, optional or absent.
    pub(crate) fn state(&self, knob: &str) -> String {
        let row = crate::run(&mut self.script(knob, "row"), 0);
        row.split('\t').next().unwrap().to_owned()
    }

    /// Every file with what it holds. White space within a line counts as one blank, as the kernel has it.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, String> {
        let mut files = BTreeMap::new();
        collect(self.folder.path(), &mut files);
        files
    }
}

fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            collect(&entry.path(), files);
        } else if kind.is_file() {
            let text = fs::read_to_string(entry.path()).unwrap();
            files.insert(entry.path(), text.split([' ', '\t']).collect::<Vec<_>>().join(" "));
        }
    }
}
