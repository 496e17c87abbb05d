//! The source tree, read as text: who may depend on whom, and what may stand where.
//!
//! Owner: nobody's crate; it runs with the tests of the whole process and needs nothing but the tree.
//! Always: each check is a function from a tree in memory to findings, so each has a test that shows a bad
//! tree failing; a finding names file, line and what to do.
//! Not here: what rustc and clippy already refuse.
//! Read next: `tidy/graph.rs` for the dependency graph and `tidy/rooms.rs` for the rooms, both as tables.

#[path = "tidy/graph.rs"]
mod graph;
#[path = "tidy/layout.rs"]
mod layout;
#[path = "tidy/lexer.rs"]
mod lexer;
#[path = "tidy/modules.rs"]
mod modules;
#[path = "tidy/rooms.rs"]
mod rooms;
#[path = "tidy/text.rs"]
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

/// Every file of the repository that git would track, by its path from the root with `/` between parts.
/// A file that is no UTF-8 text is here with empty text.
struct Tree {
    files: BTreeMap<String, String>,
}

/// One thing that is not tidy.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// From 1; 0 when the finding is about the whole file.
    line: usize,
    says: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.says),
            line => write!(f, "{}:{line}: {}", self.path, self.says),
        }
    }
}

/// A check, with the name under which its findings are printed.
type Check = (&'static str, fn(&Tree) -> Vec<Finding>);

const CHECKS: &[Check] = &[
    ("dependencies point down the graph", graph::dependencies_point_down),
    ("only shard names what talks to the kernel", graph::only_shard_names_the_seam),
    ("every crate keeps the lints of the workspace", graph::lints_are_kept),
    ("unsafe stays in its rooms", rooms::unsafe_stays_in_its_rooms),
    ("calls to the system stay in their rooms", rooms::system_calls_stay_in_their_rooms),
    ("no clock is read below the server", rooms::clocks_are_read_above),
    ("some mod names every file", modules::every_file_is_named),
    ("links in Markdown lead somewhere", text::links_lead_somewhere),
    ("nothing is left unfinished", text::nothing_is_left_unfinished),
    ("files are named after nouns", text::files_are_named_after_nouns),
    ("nothing names a machine", text::nothing_names_a_machine),
    ("lines end clean", text::lines_end_clean),
    ("the top level is as prescribed", layout::top_level_is_as_prescribed),
];

#[test]
fn the_tree_is_tidy() {
    let tree = Tree::read(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(tree.files.contains_key("src/tests/tidy.rs"), "this is not the tree that I belong to");
    let mut report = String::new();
    for (name, check) in CHECKS {
        for finding in check(&tree) {
            report.push_str(&format!("{finding}\n    ({name})\n"));
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

impl Tree {
    /// Everything below `root` that its `.gitignore` does not name. Panics when something cannot be read.
    fn read(root: &Path) -> Tree {
        let ignored = fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
        let ignored: Vec<&str> =
            ignored.lines().chain([".git"]).map(str::trim).filter(|l| !l.is_empty()).collect();
        let mut tree = Tree { files: BTreeMap::new() };
        tree.read_folder(root, "", &ignored);
        tree
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str, ignored: &[&str]) {
        for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("cannot read {}: {e}", folder.display()))
        {
            let entry = entry.expect("a folder that opened can be listed");
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if is_ignored(&path, ignored) {
                continue;
            }
            let kind = entry.file_type().expect("a listed entry has a type");
            if kind.is_dir() {
                self.read_folder(&entry.path(), &format!("{path}/"), ignored);
            } else if kind.is_file() {
                let bytes = fs::read(entry.path()).unwrap_or_else(|e| panic!("cannot read {path}: {e}"));
                self.files.insert(path, String::from_utf8(bytes).unwrap_or_default());
            }
        }
    }

    /// The files whose name ends so.
    fn ending<'a>(&'a self, end: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .filter(move |(path, _)| path.ends_with(end))
    }

    /// Whether a file has this path or lies below it.
    fn holds(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        path.is_empty() || self.files.contains_key(path) || {
            let folder = format!("{path}/");
            self.files.range(folder.clone()..).next().is_some_and(|(below, _)| below.starts_with(&folder))
        }
    }
}

/// The part of git's rules that our `.gitignore` uses: `/name` at the root, `name` or `name/` anywhere,
/// and `*.end`.
fn is_ignored(path: &str, ignored: &[&str]) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    ignored.iter().any(|pattern| {
        let pattern = pattern.trim_end_matches('/');
        match (pattern.strip_prefix('/'), pattern.strip_prefix('*')) {
            (Some(rooted), _) => path == rooted,
            (None, Some(end)) => name.ends_with(end),
            (None, None) => name == pattern,
        }
    })
}

fn finding(path: &str, line: usize, says: impl Into<String>) -> Finding {
    Finding { path: path.to_owned(), line, says: says.into() }
}

/// The folder that holds `path`, empty at the root.
fn folder_of(path: &str) -> &str {
    path.rfind('/').map_or("", |at| &path[..at])
}

/// `path` as seen from `folder`, with `.` and `..` resolved; `None` when it climbs out of the tree.
fn joined(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// A tree made up for a test.
#[cfg(test)]
fn tree<const N: usize>(files: [(&str, &str); N]) -> Tree {
    Tree { files: files.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect() }
}

/// Where `check` finds something in a made-up tree, as `path:line`.
#[cfg(test)]
fn found<const N: usize>(check: fn(&Tree) -> Vec<Finding>, files: [(&str, &str); N]) -> Vec<String> {
    check(&tree(files)).iter().map(|finding| format!("{}:{}", finding.path, finding.line)).collect()
}

#[test]
fn ignored_files_are_those_of_the_patterns() {
    let ignored = ["/target", "data/", "*.orig", ".git"];
    for path in ["target", "bench/data", "data", "src/a.rs.orig", ".git"] {
        assert!(is_ignored(path, &ignored), "{path}");
    }
    for path in ["bench/target", "data.rs", ".gitignore", "src/target.rs"] {
        assert!(!is_ignored(path, &ignored), "{path}");
    }
}

#[test]
fn paths_join_and_never_climb_out() {
    assert_eq!(joined("a/b", "../c.md").as_deref(), Some("a/c.md"));
    assert_eq!(joined("", "./a//b").as_deref(), Some("a/b"));
    assert_eq!(joined("a", "../../b"), None);
}

#[test]
fn a_folder_is_held_when_a_file_lies_below_it() {
    let tree = tree([("a/b/c.md", ""), ("a/bc.md", "")]);
    assert!(tree.holds("a/b") && tree.holds("a/b/") && tree.holds("a/bc.md"));
    assert!(!tree.holds("a/c") && !tree.holds("a/b/c"));
}
