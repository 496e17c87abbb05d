//! The scripts of `tuning/`: knobs that say, change and take back, and the programs that draw a profile.
//!
//! Owner: nobody's crate; it needs bash and awk, which every Debian has, and neither root nor perf.
//! Always: nothing here changes the host; what changes is a copy of its files below a temporary folder.
//! Not here: what perf itself records, which differs by machine.
//! Read next: `tuning/host.rs` for the made-up host, `tuning/flame.rs` for the drawing.

#[path = "tuning/flame.rs"]
mod flame;
#[path = "tuning/host.rs"]
mod host;

use host::Host;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning")
}

/// The scripts that source `knob.sh`.
fn knobs() -> Vec<String> {
    let mut knobs: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .filter(|path| fs::read_to_string(path).unwrap().contains("\n. \"$(dirname \"$0\")/knob.sh\"\n"))
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    knobs.sort();
    assert!(knobs.len() >= 18, "only {} knobs were found", knobs.len());
    knobs
}

fn script(name: &str) -> Command {
    let mut command = Command::new(folder().join(name));
    command.env_remove("container").env_remove("TUNING_ROOT").env_remove("CORES");
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs it and panics with what it said unless it ended with `code`.
fn run(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = text(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?} said:\n{text}");
    text
}

/// What the knobs would change on a usual machine.
const OF_THE_KERNEL: &[&str] = &[
    "/proc/sys/kernel/io_uring_disabled",
    "/proc/sys/kernel/numa_balancing",
    "/proc/sys/net/core/busy_poll",
    "/proc/sys/net/core/somaxconn",
    "/proc/sys/net/ipv4/ip_local_port_range",
    "/proc/sys/net/ipv4/tcp_max_syn_backlog",
    "/proc/sys/net/ipv4/tcp_tw_reuse",
    "/proc/sys/vm/dirty_background_bytes",
    "/proc/sys/vm/dirty_background_ratio",
    "/proc/sys/vm/dirty_bytes",
    "/proc/sys/vm/dirty_ratio",
    "/proc/sys/vm/swappiness",
    "/sys/kernel/mm/transparent_hugepage/defrag",
    "/sys/kernel/mm/transparent_hugepage/enabled",
];

/// On the machine of the test itself, whoever runs it: each knob says what it has to, ends well, changes nothing.
#[test]
fn a_check_says_everything_and_changes_nothing() {
    let values = || OF_THE_KERNEL.iter().map(|path| fs::read_to_string(path).ok()).collect::<Vec<_>>();
    let before = values();
    for knob in knobs() {
        let said = run(&mut script(&knob), 0);
        for word in ["knob", "current", "wanted", "why", "matters", "price", "stands", "source"] {
            let line = said.lines().find(|line| line.split_whitespace().next() == Some(word));
            let value = line.unwrap_or_else(|| panic!("{knob} says no {word}:\n{said}"))[word.len()..].trim();
            assert!(!value.is_empty(), "{knob} has nothing to say for {word}:\n{said}");
        }
        // Current values may move by themselves: free memory does.
        let lasting = |said: &str| -> Vec<String> {
            said.lines().filter(|line| !line.starts_with("current")).map(str::to_owned).collect()
        };
        let checked = run(script(&knob).arg("check"), 0);
        assert_eq!(lasting(&said), lasting(&checked), "{knob}: check is what it does unasked");
        assert!(run(script(&knob).arg("improve"), 2).contains("usage"), "{knob}");
    }
    assert_eq!(values(), before);
}

#[test]
fn the_table_of_all_checks_names_every_knob() {
    let said = run(&mut script("check"), 0);
    let mut lines = said.lines();
    assert!(lines.next().unwrap().starts_with("knob"), "{said}");
    let rows: BTreeMap<&str, &str> = lines
        .take_while(|line| !line.is_empty())
        .map(|line| {
            let mut words = line.split_whitespace();
            (words.next().unwrap(), words.next().unwrap())
        })
        .collect();
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), knobs(), "{said}");
    for (knob, state) in rows {
        assert!(["good", "change", "optional", "absent"].contains(&state), "{knob} is {state}:\n{said}");
    }
    assert!(said.contains(&format!("{} knobs. ", knobs().len())), "{said}");
    let details = run(script("check").arg("-v"), 0);
    for knob in knobs() {
        assert!(format!("\n{details}").contains(&format!("\nknob      {knob}\n")), "{details}");
    }
    assert_eq!(
        details.lines().filter(|line| line.starts_with("knob             state")).count(),
        1,
        "{details}"
    );
}

/// Method: a host on which the second of two values is the one to change.
#[test]
fn the_table_shows_the_value_that_wants_a_change() {
    let host = Host::new();
    host.write("proc/sys/net/core/somaxconn", "4096");
    host.write("proc/sys/net/ipv4/tcp_max_syn_backlog", "2048");
    let said = run(&mut host.script("check", ""), 0);
    for part in
        ["somaxconn 4096, tcp_max_syn_backlog 2048 ", "ip_local_port_range 32768 60999, tcp_tw_reuse 0 "]
    {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
}

#[test]
fn the_page_lists_every_knob_and_every_recipe() {
    let page = fs::read_to_string(folder().join("README.md")).unwrap();
    for knob in knobs() {
        assert!(page.contains(&format!("| [{knob}]({knob}) |")), "tuning/README.md does not list {knob}");
    }
    let page = fs::read_to_string(folder().join("PROFILING.md")).unwrap();
    for entry in fs::read_dir(folder().join("recipes")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        let Some(recipe) = name.strip_suffix(".sh") else { continue };
        assert!(
            page.contains(&format!("`{recipe}`")),
            "tuning/PROFILING.md does not tell how to read {recipe}"
        );
    }
}

/// Apply meets what is wanted, a second one changes nothing, undo leaves the host as it was, to the byte.
#[test]
fn undo_restores_exactly_what_apply_found() {
    let host = Host::new();
    let before = host.files();
    for knob in knobs() {
        assert!(run(&mut host.script(&knob, "undo"), 0).contains("nothing was applied"), "{knob}");
        if knob == "core-pinning" {
            assert!(
                run(&mut host.script(&knob, "apply"), 1).contains("cores=0,1"),
                "it is the server's setting"
            );
            continue;
        }
        assert!(
            ["change", "optional"].contains(&host.state(&knob).as_str()),
            "{knob}: {}",
            host.state(&knob)
        );
        let said = run(&mut host.script(&knob, "apply"), 0);
        assert!(said.contains(&format!("undo with: tuning/{knob} undo")), "{said}");
        assert_ne!(host.files(), before, "{knob} changed nothing");
        let applied = host.files();
        run(&mut host.script(&knob, "apply"), 0);
        assert_eq!(host.files(), applied, "{knob}: a second apply is not the same as one");
        assert!(run(&mut host.script(&knob, "check"), 0).contains("undo with"), "{knob}");
        // What counts from the next login or start on is not in force yet.
        if !["open-files", "locked-memory", "isolated-cores"].contains(&knob.as_str()) {
            assert_eq!(host.state(&knob), "good", "{knob}");
        }
        run(&mut host.script(&knob, "undo"), 0);
        assert_eq!(host.files(), before, "{knob}: undo left something behind");
        assert!(run(&mut host.script(&knob, "undo"), 0).contains("nothing was applied"), "{knob}");
    }
}

/// The kernel lets one of a pair of limits count and shows the other as 0. The one that counted comes back.
#[test]
fn undo_of_dirty_pages_brings_back_shares() {
    let host = Host::new();
    for (name, value) in
        [("background_bytes", "0"), ("background_ratio", "10"), ("bytes", "0"), ("ratio", "20")]
    {
        host.write(&format!("proc/sys/vm/dirty_{name}"), value);
    }
    run(&mut host.script("dirty-pages", "apply"), 0);
    host.write("proc/sys/vm/dirty_background_ratio", "0");
    host.write("proc/sys/vm/dirty_ratio", "0");
    host.write("proc/sys/vm/dirty_bytes", "the kernel's to clear");
    run(&mut host.script("dirty-pages", "undo"), 0);
    assert_eq!(host.read("proc/sys/vm/dirty_background_ratio"), "10");
    assert_eq!(host.read("proc/sys/vm/dirty_ratio"), "20");
    assert_eq!(host.read("proc/sys/vm/dirty_bytes"), "the kernel's to clear", "a 0 is refused there");
}

#[test]
fn values_of_apply_reach_the_next_start() {
    let host = Host::new();
    run(&mut host.script("listen-backlog", "apply"), 0);
    let kept = host.read("etc/sysctl.d/90-ringwatch-listen-backlog.conf");
    assert!(kept.contains("\nnet.core.somaxconn = 4096"), "{kept}");
    run(&mut host.script("huge-pages", "apply"), 0);
    let kept = host.read("etc/tmpfiles.d/90-ringwatch-huge-pages.conf");
    assert!(kept.contains("\nw /sys/kernel/mm/transparent_hugepage/enabled - - - - madvise"), "{kept}");
    let said = run(&mut host.script("irq-affinity", "apply"), 0);
    assert!(said.contains("nothing keeps this over a restart"), "{said}");
}

#[test]
fn a_file_of_somebody_else_is_not_overwritten() {
    let host = Host::new();
    host.write("etc/sysctl.d/90-ringwatch-swappiness.conf", "somebody's");
    let before = host.files();
    assert!(run(&mut host.script("swappiness", "apply"), 1).contains("nothing here wrote it"));
    assert_eq!(host.files(), before);
}

/// A card that is plugged in between two applies is recorded as it was found, the others as before the first.
#[test]
fn a_second_apply_records_only_what_is_new() {
    let host = Host::new();
    run(&mut host.script("cpu-governor", "apply"), 0);
    host.write("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "ondemand");
    host.write("sys/devices/system/cpu/cpu7/cpufreq/scaling_governor", "schedutil");
    run(&mut host.script("cpu-governor", "apply"), 0);
    run(&mut host.script("cpu-governor", "undo"), 0);
    assert_eq!(host.read("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor"), "powersave");
    assert_eq!(host.read("sys/devices/system/cpu/cpu7/cpufreq/scaling_governor"), "schedutil");
}

#[test]
fn a_container_is_told_what_its_host_must_do() {
    let host = Host::new();
    host.write(".dockerenv", "");
    let before = host.files();
    for knob in knobs().iter().filter(|knob| *knob != "core-pinning") {
        assert!(run(&mut host.script(knob, "apply"), 1).contains("on its host: "), "{knob}");
        assert!(run(&mut host.script(knob, "check"), 0).contains("on its host: "), "{knob}");
    }
    assert_eq!(host.files(), before);
    assert!(run(&mut host.script("check", ""), 0).contains("This is a container"));
}

/// A machine that has none of it: no card, no disk, no file of the kernel.
#[test]
fn what_a_machine_lacks_is_said_and_refused() {
    let host = Host::empty();
    let said = run(&mut host.script("check", ""), 0);
    for knob in ["c-states", "cpu-governor", "disk-queue", "huge-pages", "nic-queues", "packet-steering"] {
        assert_eq!(host.state(knob), "absent", "{knob}:\n{said}");
        assert!(run(&mut host.script(knob, "apply"), 1).contains("not on this machine"), "{knob}");
    }
    assert!(!said.contains("failed"), "{said}");
}

#[test]
fn profile_says_what_is_missing() {
    let tools = tempfile::tempdir().unwrap();
    for tool in ["bash", "basename", "dirname", "sed", "awk", "cat", "env"] {
        let found = run(Command::new("sh").args(["-c", &format!("command -v {tool}")]), 0);
        std::os::unix::fs::symlink(found.trim(), tools.path().join(tool)).unwrap();
    }
    let said = run(script("profile").args(["cpu", "--pid", "1"]).env("PATH", tools.path()), 1);
    assert!(said.contains("perf is not here: install it (Debian's package linux-perf)"), "{said}");

    assert!(run(&mut script("profile"), 0).contains("off-cpu"));
    assert!(run(script("profile").arg("everything"), 2).contains("usage"));
    assert!(run(script("profile").args(["cpu", "--seconds"]), 2).contains("usage"));
    assert!(run(script("profile").args(["cpu", "--seconds", "no"]), 1).contains("no number"));
    assert!(run(script("profile").args(["cpu", "--stacks", "lbr"]), 1).contains("dwarf or fp"));
}
