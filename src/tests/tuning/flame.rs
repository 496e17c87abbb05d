//! From what perf prints to a drawing: `tuning/flame/fold.awk` and `draw.awk`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Runs one of the two programs with variables, on `input`.
fn awk(program: &str, variables: &[&str], input: &str) -> String {
    let mut command = Command::new("awk");
    for variable in variables {
        command.args(["-v", variable]);
    }
    command.arg("-f").arg(crate::folder().join("flame").join(program));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} failed on:\n{input}");
    String::from_utf8(output.stdout).unwrap()
}

fn folded(variables: &[&str], input: &str) -> BTreeMap<String, u64> {
    let text = awk("fold.awk", variables, input);
    let lines = text.lines().map(|line| line.rsplit_once(' ').unwrap());
    lines.map(|(stack, weight)| (stack.to_owned(), weight.parse().unwrap())).collect()
}

fn expected<const N: usize>(stacks: [(&str, u64); N]) -> BTreeMap<String, u64> {
    stacks.into_iter().map(|(stack, weight)| (stack.to_owned(), weight)).collect()
}

#[test]
fn samples_fold_into_stacks_outermost_first() {
    let input = "\
loop-0 11 5.000100:          1 cpu-clock: \n\
\tffffffff81000001 tcp_sendmsg+0x2b ([kernel.kallsyms])\n\
\t          101829 syscall+0x19 (/usr/lib/libc.so.6)\n\
\t          1e8f3a server::Front::run+0x45a (/bin/server)\n\
\t          1e8f3a run+0x45a (inlined)\n\
\tffffffffffffffff [unknown] ([unknown])\n\
\n\
loop-0 11 5.000200:          1 cpu-clock: \n\
\tffffffff81000001 tcp_sendmsg+0x2c ([kernel.kallsyms])\n\
\t          101829 syscall+0x19 (/usr/lib/libc.so.6)\n\
\t          1e8f3a server::Front::run+0x45a (/bin/server)\n\
\n\
a thread 12 5.000300:          1 cpu-clock: \n\
\t              10 find<u8, fn(&u8) -> Option<usize>>+0x1 (inlined)\n\
\t              20 server::push::h0123456789abcdef+0x1 (/bin/server)\n\
\t              20 map<{closure#0}<T>>::{closure#1}<T>+0x1 (inlined)\n\
\t              20 push+0x1 (inlined)\n";
    let stacks = [
        ("a thread;server::push;map::{closure#1};find", 1),
        ("loop-0;server::Front::run;syscall;tcp_sendmsg_[k]", 2),
    ];
    assert_eq!(folded(&[], input), expected(stacks));
}

/// A thread that waits is told from one that had to give way; one that never came back has no weight.
#[test]
fn departures_and_returns_fold_into_waiting_time() {
    let input = "\
loop-0 11 5.000100:          1 context-switches: \n\
\tffffffff81000001 schedule+0x2b ([kernel.kallsyms])\n\
\t          101829 read+0x19 (/usr/lib/libc.so.6)\n\
\n\
loop-0 11 5.000101: PERF_RECORD_SWITCH OUT         \n\
store-0 12 5.000110: PERF_RECORD_SWITCH IN          \n\
loop-0 11 5.000350: PERF_RECORD_SWITCH IN          \n\
loop-0 11 5.001000:          1 context-switches: \n\
\tffffffff81000001 schedule+0x2b ([kernel.kallsyms])\n\
\t          101829 read+0x19 (/usr/lib/libc.so.6)\n\
\n\
loop-0 11 5.001001: PERF_RECORD_SWITCH OUT preempt \n\
loop-0 11 5.003000: PERF_RECORD_SWITCH IN          \n\
loop-0 11 5.004000:          1 context-switches: \n\
\t          101829 write+0x19 (/usr/lib/libc.so.6)\n";
    let stacks = [
        ("loop-0;read;schedule_[k]", 250),
        ("loop-0;(another thread took the core);read;schedule_[k]", 2000),
    ];
    let folded = folded(&["off_cpu=1"], input);
    for (stack, microseconds) in expected(stacks) {
        let found = folded.get(&stack).unwrap_or_else(|| panic!("no {stack} in {folded:?}"));
        assert!(found.abs_diff(microseconds) <= 1, "{stack}: {found} for {microseconds}");
    }
    assert_eq!(folded.len(), 2, "{folded:?}");
}

struct Frame {
    title: String,
    x: f64,
    y: f64,
    width: f64,
}

fn attribute(line: &str, name: &str) -> f64 {
    let from = line.find("<rect ").unwrap();
    let value = line[from..].split_once(&format!(" {name}=\"")).unwrap().1;
    value.split('"').next().unwrap().parse().unwrap()
}

fn frames(svg: &str) -> Vec<Frame> {
    let lines = svg.lines().filter(|line| line.starts_with("<g>"));
    lines
        .map(|line| {
            let title = line.split_once("<title>").unwrap().1.split_once("</title>").unwrap().0.to_owned();
            let [x, y, width] = ["x", "y", "width"].map(|name| attribute(line, name));
            Frame { title, x, y, width }
        })
        .collect()
}

#[test]
fn a_frame_is_as_wide_as_its_share_and_stands_on_its_parent() {
    // `b` comes back after another stack, `a<b>&"c"` wants escapes, the last is too narrow to draw.
    let input = "t;a;b 20\nt;c_[k] 40\nt;a;b;d 10\nt;a<b>&\"c\" 30\nt;tiny 0\n";
    let svg = awk("draw.awk", &["title=One & two", "unit=samples"], input);
    let frames = frames(&svg);
    let found: Vec<(&str, f64)> = frames.iter().map(|frame| (frame.title.as_str(), frame.width)).collect();
    let all = 1180.0;
    let expected = [
        ("all: 100.00 % (100 samples)", all),
        ("t: 100.00 % (100 samples)", all),
        ("c: 40.00 % (40 samples)", 0.4 * all),
        ("a&lt;b&gt;&amp;&quot;c&quot;: 30.00 % (30 samples)", 0.3 * all),
        ("a: 30.00 % (30 samples)", 0.3 * all),
        ("b: 30.00 % (30 samples)", 0.3 * all),
        ("d: 10.00 % (10 samples)", 0.1 * all),
    ];
    let mut sorted = found.clone();
    sorted.sort_by(|a, b| a.0.cmp(b.0));
    let mut expected_sorted = expected.to_vec();
    expected_sorted.sort_by(|a, b| a.0.cmp(b.0));
    assert_eq!(sorted, expected_sorted, "{svg}");
    for (at, one) in frames.iter().enumerate() {
        for other in frames[at + 1..].iter().filter(|other| other.y == one.y) {
            let apart = one.x + one.width <= other.x + 0.01 || other.x + other.width <= one.x + 0.01;
            assert!(apart, "{} lies over {}", one.title, other.title);
        }
    }
    // Whatever is not at the bottom lies wholly above one frame of the row below.
    for frame in frames.iter().filter(|frame| !frame.title.starts_with("all:")) {
        let parent = frames.iter().find(|below| {
            below.y == frame.y + 17.0
                && below.x <= frame.x + 0.01
                && frame.x + frame.width <= below.x + below.width + 0.01
        });
        assert!(parent.is_some(), "{} hangs in the air", frame.title);
    }
    assert!(svg.starts_with("<svg xmlns=") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert!(svg.contains(">One &amp; two</text>"), "{svg}");
    assert!(!svg.contains("href") && !svg.contains("src="), "it needs no other file");
    for tag in ["g", "title", "text", "style", "script", "svg"] {
        let opened = svg.matches(&format!("<{tag}>")).count() + svg.matches(&format!("<{tag} ")).count();
        assert_eq!(
            opened,
            svg.matches(&format!("</{tag}>")).count(),
            "<{tag}> is not closed as often as opened"
        );
    }
}
