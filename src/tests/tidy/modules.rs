//! Which source files the compiler ever sees: from each target of each package, along its `mod` lines.

use crate::graph::{Package, packages};
use crate::lexer::{Token, tokens};
use crate::{Finding, Tree, finding, folder_of, joined};
use std::collections::BTreeSet;
use toml::Value;

/// The tables of targets, and the folder in which cargo looks for those that are not written down.
const TARGETS: &[(&str, &str)] =
    &[("bin", "src/bin"), ("test", "tests"), ("bench", "benches"), ("example", "examples")];

/// A module file that some `mod` names, and where its own children lie.
struct Module {
    path: String,
    children: String,
}

/// Every `.rs` file is a target or named by a `mod`, and every `mod` names a file.
pub(crate) fn every_file_is_named(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    let mut open: Vec<Module> =
        packages(tree).iter().flat_map(|package| roots(tree, package)).map(as_root).collect();
    while let Some(module) = open.pop() {
        let Some(text) = tree.files.get(&module.path).filter(|_| seen.insert(module.path.clone())) else {
            continue;
        };
        for (line, choices) in named_by(&module, text) {
            match choices.iter().find(|choice| tree.files.contains_key(&choice.path)) {
                Some(choice) => {
                    open.push(Module { path: choice.path.clone(), children: choice.children.clone() })
                }
                None => {
                    let says = format!("this names no file: write {}, or remove the line", choices[0].path);
                    findings.push(finding(&module.path, line, says));
                }
            }
        }
    }
    let dead = tree.ending(".rs").filter(|(path, _)| !seen.contains(*path));
    findings.extend(
        dead.map(|(path, _)| {
            finding(path, 0, "no `mod` and no target names this file: name it or delete it")
        }),
    );
    findings
}

/// A target, or a file given by `#[path]`: its children lie beside it.
fn as_root(path: String) -> Module {
    Module { children: folder_of(&path).to_owned(), path }
}

/// The root file of every target, written down or found where cargo would look.
fn roots(tree: &Tree, package: &Package<'_>) -> Vec<String> {
    let home = folder_of(package.path);
    let settings = package.table.get("package");
    let mut roots = Vec::new();
    let mut add = |path: &str| roots.extend(joined(home, path).filter(|path| tree.files.contains_key(path)));
    let written = |target: &Value| target.get("path").and_then(Value::as_str).map(str::to_owned);
    add(&package.table.get("lib").and_then(written).unwrap_or_else(|| "src/lib.rs".to_owned()));
    let build = settings.and_then(|s| s.get("build")).and_then(Value::as_str);
    add(build.unwrap_or("build.rs"));
    for (kind, folder) in TARGETS {
        for target in package.table.get(*kind).and_then(Value::as_array).into_iter().flatten() {
            let name = target.get("name").and_then(Value::as_str).unwrap_or_default();
            match written(target) {
                Some(path) => add(&path),
                None => {
                    add(&format!("{folder}/{name}.rs"));
                    add(&format!("{folder}/{name}/main.rs"));
                }
            }
        }
        let switch = if *folder == "benches" { "autobenches".to_owned() } else { format!("auto{kind}s") };
        if settings.and_then(|s| s.get(&switch)).and_then(Value::as_bool) == Some(false) {
            continue;
        }
        if *kind == "bin" {
            add("src/main.rs");
        }
        let Some(folder) = joined(home, folder) else { continue };
        for (path, _) in tree.ending(".rs") {
            let below = path.strip_prefix(&folder).and_then(|below| below.strip_prefix('/'));
            if below.is_some_and(|below| {
                !below.contains('/') || (below.ends_with("/main.rs") && below.matches('/').count() == 1)
            }) {
                add(&path[if home.is_empty() { 0 } else { home.len() + 1 }..]);
            }
        }
    }
    roots
}

/// For each `mod x;` and `include!("x.rs")`: its line, and the files that would do, the usual one first.
fn named_by(module: &Module, text: &str) -> Vec<(usize, Vec<Module>)> {
    let tokens = tokens(text);
    let beside = folder_of(&module.path);
    let mut found = Vec::new();
    // The inline modules that are open, each with the depth of braces outside it.
    let mut inline: Vec<(&str, usize)> = Vec::new();
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if token.is('{') {
            depth += 1;
        } else if token.is('}') {
            depth = depth.saturating_sub(1);
            inline.pop_if(|(_, outside)| *outside == depth);
        } else if token.word() == Some("include") {
            let path = tokens.get(at + 3).and_then(Token::text).filter(|path| path.ends_with(".rs"));
            found.extend(
                path.and_then(|path| joined(beside, path)).map(|path| (token.line, vec![as_root(path)])),
            );
        } else if token.word() == Some("mod")
            && let Some(name) = tokens.get(at + 1).and_then(Token::word)
        {
            let end = tokens.get(at + 2);
            if end.is_some_and(|end| end.is('{')) {
                inline.push((name, depth));
            } else if end.is_some_and(|end| end.is(';')) {
                let inner: Vec<&str> = inline.iter().map(|(name, _)| *name).collect();
                let children = joined(&module.children, &inner.join("/")).unwrap_or_default();
                let choices = match path_attribute(&tokens[..at]) {
                    Some(path) => {
                        let from = if inner.is_empty() { beside } else { &children };
                        joined(from, path).map(as_root).into_iter().collect()
                    }
                    None => usual_files(&children, name),
                };
                if !choices.is_empty() {
                    found.push((token.line, choices));
                }
            }
        }
        at += 1;
    }
    found
}

/// `name.rs`, or `name/mod.rs`; either way the children lie in `name/`.
fn usual_files(folder: &str, name: &str) -> Vec<Module> {
    let paths = [format!("{name}.rs"), format!("{name}/mod.rs")];
    let children = joined(folder, name).unwrap_or_default();
    paths
        .iter()
        .filter_map(|path| Some(Module { path: joined(folder, path)?, children: children.clone() }))
        .collect()
}

/// The text of `#[path = "…"]` among the attributes and the visibility that end `before`.
fn path_attribute<'a>(before: &[Token<'a>]) -> Option<&'a str> {
    let item = before
        .iter()
        .rposition(|token| token.is(';') || token.is('{') || token.is('}'))
        .map_or(0, |at| at + 1);
    let attribute = before[item..].windows(5).find(|five| {
        five[0].is('#') && five[1].is('[') && five[2].word() == Some("path") && five[3].is('=')
    })?;
    attribute[4].text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::found;

    const PACKAGE: &str = "[package]\nname = \"x\"\n";

    #[test]
    fn a_file_that_nothing_names_is_found() {
        let bad = [
            ("storage/Cargo.toml", PACKAGE),
            ("storage/src/lib.rs", "mod chunk; // mod old;\n"),
            ("storage/src/chunk.rs", ""),
            ("storage/src/old.rs", "mod older;"),
            ("storage/src/older.rs", ""),
            ("storage/src/chunk/bits.rs", ""),
        ];
        assert_eq!(
            found(every_file_is_named, bad),
            ["storage/src/chunk/bits.rs:0", "storage/src/old.rs:0", "storage/src/older.rs:0",]
        );
    }

    #[test]
    fn a_mod_that_names_no_file_is_found() {
        let bad = [
            ("Cargo.toml", PACKAGE),
            ("src/main.rs", "mod a;\n\nmod gone;\n#[path = \"tidy/lost.rs\"]\nmod lost;"),
            ("src/a.rs", ""),
        ];
        assert_eq!(found(every_file_is_named, bad), ["src/main.rs:3", "src/main.rs:5"]);
    }

    #[test]
    fn modules_are_followed_through_folders_inline_modules_and_paths() {
        let good = [
            ("src/model/Cargo.toml", "[package]\nname = \"model\"\n[lib]\npath = \"lib.rs\""),
            (
                "src/model/lib.rs",
                "pub(crate) mod a;\nmod inner { mod b; mod deep { mod c; } }\nmod d;\ninclude!(\"table.rs\");",
            ),
            ("src/model/a.rs", "#[cfg(test)]\nmod tests;"),
            ("src/model/a/tests.rs", ""),
            ("src/model/inner/b.rs", ""),
            ("src/model/inner/deep/c.rs", ""),
            ("src/model/d/mod.rs", "mod e;\n#[cfg(loom)]\n#[path = \"odd.rs\"]\npub mod f;"),
            ("src/model/d/e.rs", ""),
            ("src/model/d/odd.rs", "mod g;"),
            ("src/model/d/g.rs", ""),
            ("src/model/table.rs", ""),
        ];
        assert_eq!(found(every_file_is_named, good), [""; 0]);
    }

    #[test]
    fn targets_are_those_written_down_and_those_that_cargo_finds() {
        let good = [
            (
                "Cargo.toml",
                "[package]\nname = \"server\"\n[[test]]\nname = \"tidy\"\npath = \"src/tests/tidy.rs\"",
            ),
            ("src/main.rs", ""),
            ("src/tests/tidy.rs", ""),
            (
                "storage/Cargo.toml",
                "[package]\nname = \"storage\"\n[[bench]]\nname = \"chunk\"\nharness = false",
            ),
            ("storage/src/lib.rs", ""),
            ("storage/benches/chunk.rs", ""),
            ("storage/tests/cuts.rs", ""),
            ("storage/tests/long/main.rs", ""),
            ("storage/examples/one.rs", ""),
        ];
        assert_eq!(found(every_file_is_named, good), [""; 0]);
        let switched_off = [
            ("storage/Cargo.toml", "[package]\nname = \"storage\"\nautotests = false"),
            ("storage/tests/cuts.rs", ""),
            ("storage/tests/shared/deep.rs", ""),
        ];
        assert_eq!(
            found(every_file_is_named, switched_off),
            ["storage/tests/cuts.rs:0", "storage/tests/shared/deep.rs:0"]
        );
    }
}
