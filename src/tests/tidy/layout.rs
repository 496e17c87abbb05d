//! The top level: what the house prescribes, and the files that tools look for there.

use crate::{Finding, Tree, finding};
use std::collections::BTreeSet;

const PRESCRIBED: &[&str] = &[
    "Cargo.toml",
    "README.md",
    "bench",
    "shard",
    "src",
    "storage",
    "tuning",
    // What cargo, git, make and the build service look for at the top.
    ".ci",
    ".gitignore",
    "Cargo.lock",
    "LICENSE",
    "Makefile",
    "rust-toolchain.toml",
    "rustfmt.toml",
];

/// The top level holds what is prescribed, all of it and nothing else.
pub(crate) fn top_level_is_as_prescribed(tree: &Tree) -> Vec<Finding> {
    let present: BTreeSet<&str> = tree.files.keys().filter_map(|path| path.split('/').next()).collect();
    let extra = present
        .iter()
        .filter(|name| !PRESCRIBED.contains(name))
        .map(|name| finding(name, 0, "does not belong at the top level: put it into a room, or ignore it"));
    let missing = PRESCRIBED
        .iter()
        .filter(|name| !present.contains(**name))
        .map(|name| finding(name, 0, "is missing from the top level: write it"));
    extra.chain(missing).collect()
}

#[test]
fn a_stranger_and_a_gap_at_the_top_level_are_found() {
    let mut tree = crate::tree([]);
    for name in PRESCRIBED {
        let path =
            if name.contains('.') || *name == "LICENSE" { (*name).to_owned() } else { format!("{name}/x") };
        tree.files.insert(path, String::new());
    }
    assert_eq!(top_level_is_as_prescribed(&tree), []);
    tree.files.insert("results.txt".to_owned(), String::new());
    tree.files.insert("scripts/run".to_owned(), String::new());
    tree.files.remove("README.md");
    let names: Vec<String> =
        top_level_is_as_prescribed(&tree).into_iter().map(|finding| finding.path).collect();
    assert_eq!(names, ["results.txt", "scripts", "README.md"]);
}
