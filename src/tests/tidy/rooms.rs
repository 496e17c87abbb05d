//! What may stand where in the sources: `unsafe`, calls to the system, clocks.

use crate::graph::SEAM;
use crate::lexer::{Kind, Token, tokens};
use crate::{Finding, Tree, finding};

/// `shard` denies `unsafe` and allows it in these.
const UNSAFE_ROOMS: &[&str] =
    &["shard/src/ring.rs", "shard/src/buf.rs", "shard/src/sys.rs", "shard/src/sys/"];

/// Something by which a program reaches the system, and the rooms that may.
struct Door {
    /// Segments that stand next to each other in a path.
    segments: &'static [&'static str],
    /// The path must begin with them.
    at_start: bool,
    /// Files, or prefixes of files.
    rooms: &'static [&'static str],
    /// Tests and benchmarks of any crate may, too.
    tests_may: bool,
    instead: &'static str,
}

/// `std.rs`, or `std_disk.rs` where a module named `std` would hide the library.
const STD_DISK: &str = "storage/src/disk/std";

const SOCKET_ROOMS: &[&str] = &["shard/", "bench/", "src/tests/", "src/demo", "src/transfer"];
const SOCKETS: &str = "only `shard` opens sockets: take one from `shard::net`";

const DOORS: &[Door] = &[
    Door {
        segments: &["std", "os"],
        at_start: true,
        rooms: &["shard/", STD_DISK, "src/tests/"],
        tests_may: false,
        instead: "what differs by system lives in `shard::sys`",
    },
    Door {
        segments: &["std", "fs"],
        at_start: true,
        rooms: &[
            "shard/",
            STD_DISK,
            "src/config.rs",
            "src/main.rs",
            "src/launch/data_directory.rs",
            "src/demo",
            "src/transfer",
            "bench/",
        ],
        tests_may: true,
        instead: "only a `Disk` opens files",
    },
    Door {
        segments: &["net", "TcpStream"],
        at_start: false,
        rooms: SOCKET_ROOMS,
        tests_may: false,
        instead: SOCKETS,
    },
    Door {
        segments: &["net", "TcpListener"],
        at_start: false,
        rooms: SOCKET_ROOMS,
        tests_may: false,
        instead: SOCKETS,
    },
    Door {
        segments: &["net", "UdpSocket"],
        at_start: false,
        rooms: SOCKET_ROOMS,
        tests_may: false,
        instead: SOCKETS,
    },
    Door {
        segments: &["std", "net", "*"],
        at_start: true,
        rooms: SOCKET_ROOMS,
        tests_may: false,
        instead: SOCKETS,
    },
];

/// The kernel's files, and who may name them.
const KERNEL_FOLDERS: &[&str] = &["/proc", "/sys"];
const KERNEL_FOLDER_ROOMS: &[&str] =
    &["shard/src/", "shard/benches/", "bench/", "tuning/", "src/tests/", "src/demo"];

/// The rooms below the server that take `now` as an argument. (`shard` measures and sets timers.)
const CLOCKLESS: &[&str] = &[
    "src/model/",
    "src/http/",
    "src/ingest/",
    "src/queue/",
    "src/query/",
    "src/alert/",
    "src/ui/",
    "storage/",
];

/// The keyword, and the attributes that would let it in, appear in its rooms only.
pub(crate) fn unsafe_stays_in_its_rooms(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".rs").filter(|(path, _)| !is_in(path, UNSAFE_ROOMS)) {
        let tokens = tokens(text);
        for (at, token) in tokens.iter().enumerate() {
            let says = match token.word() {
                Some("unsafe") => {
                    "`unsafe` lives in shard/src/{ring.rs,buf.rs,sys/}: move it there behind a safe call"
                }
                Some("allow" | "expect" | "warn") if lists_unsafe_code(&tokens[at + 1..]) => {
                    "only shard/src/{ring.rs,buf.rs,sys/} may allow `unsafe_code`: remove the attribute"
                }
                _ => continue,
            };
            findings.push(finding(path, token.line, says));
        }
    }
    findings
}

/// Whether the tokens after `allow` are `( … unsafe_code … )`.
fn lists_unsafe_code(rest: &[Token<'_>]) -> bool {
    rest.first().is_some_and(|token| token.is('('))
        && rest.iter().take_while(|token| !token.is(')')).any(|token| token.word() == Some("unsafe_code"))
}

/// Sockets, files, the kernel's folders and the crates of the seam appear in their rooms only.
pub(crate) fn system_calls_stay_in_their_rooms(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let tokens = tokens(text);
        for named in paths(&tokens) {
            let first = named.segments[0];
            if !path.starts_with("shard/") && named.is_path() && is_seam(first) {
                let says =
                    format!("only `shard` may name `{first}`: use what `shard` offers, or add it there");
                findings.push(finding(path, named.line, says));
            }
            if first == "libc" && named.is_path() && path.starts_with("shard/") && !is_in(path, UNSAFE_ROOMS)
            {
                findings.push(finding(path, named.line, "`libc` is for shard/src/sys/: wrap the call there"));
            }
            for door in DOORS {
                let matches = if door.at_start {
                    named.segments.starts_with(door.segments)
                } else {
                    named.segments.windows(door.segments.len()).any(|window| window == door.segments)
                };
                let may =
                    is_in(path, door.rooms) || (door.tests_may && (named.in_test || is_test_file(path)));
                if matches && !may {
                    let says =
                        format!("`{}` is not for this room: {}", door.segments.join("::"), door.instead);
                    findings.push(finding(path, named.line, says));
                }
            }
        }
        for token in tokens.iter().filter(|_| !is_in(path, KERNEL_FOLDER_ROOMS)) {
            let Some(text) = token.text() else { continue };
            if let Some(folder) = KERNEL_FOLDERS.iter().find(|folder| names_path(text, folder)) {
                let says =
                    format!("`{folder}` is the kernel's: read it in `shard` and hand over what was read");
                findings.push(finding(path, token.line, says));
            }
        }
    }
    findings
}

/// No crate below the server asks what time it is; tests and benchmarks may.
pub(crate) fn clocks_are_read_above(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".rs").filter(|(path, _)| is_in(path, CLOCKLESS) && !is_test_file(path)) {
        for named in paths(&tokens(text)).iter().filter(|named| !named.in_test) {
            let reads = named.segments.windows(2).any(|two| matches!(two, ["SystemTime" | "Instant", "now"]));
            if reads {
                findings.push(finding(path, named.line, "reads a clock: take `now` as an argument"));
            }
        }
    }
    findings
}

fn is_in(path: &str, rooms: &[&str]) -> bool {
    rooms.iter().any(|room| path.starts_with(room))
}

fn is_test_file(path: &str) -> bool {
    ["/tests/", "/benches/", "/fuzz/", "/tests.rs"].iter().any(|part| path.contains(part))
}

fn is_seam(segment: &str) -> bool {
    SEAM.iter().any(|seam| seam.replace('-', "_") == segment)
}

/// Whether `text` names the absolute path `folder` or something below it.
pub(crate) fn names_path(text: &str, folder: &str) -> bool {
    text.match_indices(folder).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + folder.len()..].chars().next();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '}' | ')'))
            && after.is_none_or(|c| c == '/')
    })
}

/// A path as written, `use` groups spelt out.
struct Named<'a> {
    segments: Vec<&'a str>,
    line: usize,
    /// Inside an item under `#[cfg(test)]`.
    in_test: bool,
    /// Follows `use` or `extern crate`, so that even one segment names a crate.
    is_import: bool,
}

impl Named<'_> {
    fn is_path(&self) -> bool {
        self.is_import || self.segments.len() > 1
    }
}

/// Every path in the tokens. Each has at least one segment.
fn paths<'a>(tokens: &[Token<'a>]) -> Vec<Named<'a>> {
    let in_test = under_cfg_test(tokens);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at = match tokens[at].kind {
            Kind::Word(_) => path(tokens, at, &[], &in_test, &mut found),
            _ => at + 1,
        };
    }
    found
}

/// Reads the path at `at`, which continues `prefix`, into `found`; returns where it ends, past `at`.
fn path<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    prefix: &[&'a str],
    in_test: &[bool],
    found: &mut Vec<Named<'a>>,
) -> usize {
    let start = at;
    let mut segments = prefix.to_vec();
    let joins = |at: usize| {
        tokens.get(at).is_some_and(|t| t.is(':')) && tokens.get(at + 1).is_some_and(|t| t.is(':'))
    };
    while let Some(token) = tokens.get(at) {
        if let Some(word) = token.word() {
            segments.push(word);
            at += 1;
            if joins(at) {
                at += 2;
                continue;
            }
        } else if token.is('*') {
            segments.push("*");
            at += 1;
        } else if token.is('{') {
            return group(tokens, at + 1, &segments, in_test, found);
        }
        break;
    }
    let before = start.checked_sub(1).and_then(|before| tokens[before].word());
    if let Some(token) = tokens.get(start).filter(|_| !segments.is_empty()) {
        let is_import = matches!(before, Some("use" | "crate"));
        found.push(Named { segments, line: token.line, in_test: in_test[start], is_import });
    }
    at.max(start + 1)
}

/// Reads the rest of `prefix::{ …`; returns where it ends.
fn group<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    prefix: &[&'a str],
    in_test: &[bool],
    found: &mut Vec<Named<'a>>,
) -> usize {
    while let Some(token) = tokens.get(at) {
        if token.is('}') {
            return at + 1;
        }
        at = match token.word() {
            // `as name`
            Some("as") => at + 2,
            None if token.is(',') => at + 1,
            _ => path(tokens, at, prefix, in_test, found),
        };
    }
    at
}

/// For each token, whether it belongs to an item under `#[cfg(test)]`.
fn under_cfg_test(tokens: &[Token<'_>]) -> Vec<bool> {
    let mut marks = vec![false; tokens.len()];
    let mut at = 0;
    while at < tokens.len() {
        let start = at;
        at += 1;
        if !(tokens[start].is('#') && tokens.get(at).is_some_and(|token| token.is('['))) {
            continue;
        }
        let end = closing(tokens, at);
        let mut words = tokens[at..end].iter().filter_map(Token::word);
        let is_cfg = words.next() == Some("cfg");
        let rest: Vec<&str> = words.collect();
        if is_cfg && rest.contains(&"test") && !rest.contains(&"not") && !rest.contains(&"any") {
            // The item ends with its block, or with `;` when it has none.
            let opens =
                (end..tokens.len()).find(|&at| tokens[at].is('{') || tokens[at].is(';')).unwrap_or(end);
            let item_end = closing(tokens, opens).min(tokens.len());
            marks[start..item_end].fill(true);
            at = item_end;
        }
    }
    marks
}

/// One past the bracket that closes the one at `open`, or one past `open` where none opens.
fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Mark('(' | '[' | '{') => depth += 1,
            Kind::Mark(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth <= 0 {
            return at + 1;
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::found;

    #[test]
    fn unsafe_outside_its_rooms_is_found_whatever_dress_it_wears() {
        let bad = [
            ("shard/src/mesh.rs", "fn f() {\n    unsafe { g() }\n}"),
            ("shard/src/ring.rs", "#![allow(unsafe_code)]\nunsafe fn f() {}"),
            ("shard/src/sys/uring.rs", "unsafe impl Send for X {}"),
            ("src/http/lib.rs", "#![allow(\n    clippy::all, unsafe_code)]"),
            (
                "storage/src/chunk.rs",
                "// unsafe\nconst S: &str = \"unsafe\"; /* unsafe */ #[deny(unsafe_code)] fn f() {}",
            ),
            ("storage/src/lib.rs", "#[unsafe(no_mangle)]\nfn f() {}"),
        ];
        let expected = ["shard/src/mesh.rs:2", "src/http/lib.rs:1", "storage/src/lib.rs:1"];
        assert_eq!(found(unsafe_stays_in_its_rooms, bad), expected);
    }

    #[test]
    fn every_door_to_the_system_is_found_outside_its_rooms() {
        let bad = [
            ("shard/src/mesh.rs", "use libc::c_int;"),
            ("src/api.rs", "use std::{\n    io,\n    fs::{self, File},\n    os::fd::RawFd,\n};"),
            ("src/front.rs", "fn f() { ::std::fs::read(\"x\"); }\nuse glommio;\nuse io_uring::types as t;"),
            ("src/http/lib.rs", "use std::net::{IpAddr, TcpStream};\n\nfn f() { net::UdpSocket::bind(x); }"),
            ("src/model/lib.rs", "fn f() -> i32 {\n    libc::getpid()\n}"),
            ("src/service.rs", "const P: &str = \"/proc/self/stat\";\nconst S: &str = r\"/sys\";"),
            ("storage/src/journal.rs", "use std::net::*;"),
        ];
        let expected = [
            "shard/src/mesh.rs:1",
            "src/api.rs:3",
            "src/api.rs:3",
            "src/api.rs:4",
            "src/front.rs:1",
            "src/front.rs:2",
            "src/front.rs:3",
            "src/http/lib.rs:1",
            "src/http/lib.rs:3",
            "src/model/lib.rs:2",
            "src/service.rs:1",
            "src/service.rs:2",
            "storage/src/journal.rs:1",
        ];
        assert_eq!(found(system_calls_stay_in_their_rooms, bad), expected);
    }

    #[test]
    fn the_same_doors_are_open_in_their_rooms() {
        let good = [
            ("bench/src/main.rs", "use std::net::TcpStream; const P: &str = \"/proc/stat\"; use std::fs;"),
            ("shard/src/file.rs", "use std::os::fd::OwnedFd; use std::fs::File; use io_uring::IoUring;"),
            ("shard/src/sys/limits.rs", "libc::getrlimit(); const P: &str = \"/proc/self/limits\";"),
            ("src/config.rs", "use std::fs; // libc::open\nconst TEXT: &str = \"libc::open src/sys/x\";"),
            ("src/model/lib.rs", "use std::net::IpAddr; struct S { libc: u32 } fn f(s: S) -> u32 { s.libc }"),
            ("src/query/tests/corpus.rs", "use std::fs;"),
            ("src/ingest/lib.rs", "#[cfg(test)]\nmod tests {\n    use std::fs;\n}"),
            ("storage/src/disk/std_disk.rs", "use std::os::unix::fs::FileExt; use std::fs::File;"),
        ];
        assert_eq!(found(system_calls_stay_in_their_rooms, good), [""; 0]);
    }

    #[test]
    fn what_follows_a_test_module_is_no_test() {
        let bad =
            [("src/alert/lib.rs", "#[cfg(test)]\nmod tests;\nuse std::fs;\n#[cfg(not(test))]\nuse std::fs;")];
        assert_eq!(
            found(system_calls_stay_in_their_rooms, bad),
            ["src/alert/lib.rs:3", "src/alert/lib.rs:5"]
        );
    }

    #[test]
    fn a_clock_below_the_server_is_found_except_in_tests() {
        let mixed = [
            ("shard/src/executor.rs", "Instant::now();"),
            ("src/alert/lib.rs", "fn f() {\n    std::time::SystemTime::now();\n}"),
            ("src/front.rs", "Instant::now();"),
            ("src/query/benches/eval.rs", "Instant::now();"),
            (
                "storage/src/store.rs",
                "fn f() { let t = Instant::now(); }\n#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }",
            ),
        ];
        assert_eq!(found(clocks_are_read_above, mixed), ["src/alert/lib.rs:2", "storage/src/store.rs:1"]);
    }

    #[test]
    fn a_path_is_absolute_only_at_its_beginning() {
        assert!(names_path("cat /proc/stat", "/proc") && names_path("/proc", "/proc"));
        assert!(!names_path("src/proc/x", "/proc") && !names_path("/process", "/proc"));
    }
}
