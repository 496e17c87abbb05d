//! Who may depend on whom: the graph of the house, and the crates that one room alone may name.

use crate::{Finding, Tree, finding, folder_of};
use toml::{Table, Value};

/// Each room, lowest level first, and all that it may depend on, in tests too.
const GRAPH: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("http", &[]),
    ("ui", &[]),
    ("shard", &[]),
    ("storage", &["model"]),
    ("query", &["model"]),
    ("alert", &["model"]),
    ("ingest", &["model"]),
    ("queue", &["model", "storage"]),
    ("server", &["model", "http", "ui", "shard", "storage", "query", "alert", "ingest", "queue"]),
    // It measures any room; nothing outside its folder may depend on it, or on the crates in there.
    (
        "bench",
        &["model", "http", "ui", "shard", "storage", "query", "alert", "ingest", "queue", "server", "fuzz"],
    ),
];

/// The crates by which one talks to the kernel. Replacing any of them should touch `shard` alone.
pub(crate) const SEAM: &[&str] =
    &["glommio", "io-uring", "core_affinity", "libc", "nix", "rustix", "signal-hook"];

const DEPENDENCY_TABLES: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

/// One line of a dependency table.
struct Dependency {
    /// The name under which the crate is published, whatever it is called here.
    package: String,
    /// Lies in this repository.
    is_path: bool,
    line: usize,
}

/// A `Cargo.toml` with a `[package]`.
pub(crate) struct Package<'a> {
    pub(crate) path: &'a str,
    pub(crate) name: String,
    pub(crate) table: Table,
    dependencies: Vec<Dependency>,
}

/// Every package of the tree. A manifest that is no TOML is left to cargo, which refuses it before us.
pub(crate) fn packages(tree: &Tree) -> Vec<Package<'_>> {
    let workspace =
        tree.files.get("Cargo.toml").and_then(|text| text.parse::<Table>().ok()).unwrap_or_default();
    let shared = workspace.get("workspace").and_then(|w| w.get("dependencies")).and_then(Value::as_table);
    let manifests =
        tree.ending("Cargo.toml").filter(|(path, _)| path.rsplit('/').next() == Some("Cargo.toml"));
    let mut packages = Vec::new();
    for (path, text) in manifests {
        let Ok(table) = text.parse::<Table>() else { continue };
        let Some(name) = table.get("package").and_then(|p| p.get("name")).and_then(Value::as_str) else {
            continue;
        };
        let dependencies = dependencies(&table, shared, text);
        packages.push(Package { path, name: name.to_owned(), dependencies, table });
    }
    packages
}

fn dependencies(table: &Table, shared: Option<&Table>, text: &str) -> Vec<Dependency> {
    let for_targets = table.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let sections = [table].into_iter().chain(for_targets.filter_map(Value::as_table));
    let mut found = Vec::new();
    for section in sections {
        let tables = DEPENDENCY_TABLES.iter().filter_map(|name| section.get(*name)?.as_table());
        for (key, value) in tables.flatten() {
            let inherits = value.get("workspace").and_then(Value::as_bool) == Some(true);
            let said = if inherits { shared.and_then(|shared| shared.get(key)) } else { Some(value) };
            let package = said.and_then(|said| said.get("package")).and_then(Value::as_str).unwrap_or(key);
            let is_path = said.is_some_and(|said| said.get("path").is_some());
            found.push(Dependency {
                package: package.to_owned(),
                is_path,
                line: line_of_dependency(text, key),
            });
        }
    }
    found
}

/// The line that names `key` in a dependency table, from 1.
fn line_of_dependency(text: &str, key: &str) -> usize {
    let mut inside = false;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            inside = DEPENDENCY_TABLES.iter().any(|table| header.trim_end_matches(']').ends_with(table));
            if header.trim_end_matches(']').ends_with(&format!("dependencies.{key}")) {
                return number;
            }
        }
        let rest = line.trim_start_matches('"').strip_prefix(key);
        if inside && rest.is_some_and(|rest| rest.starts_with([' ', '=', '.', '"'])) {
            return number;
        }
    }
    0
}

/// A crate depends on rooms below it only, and on those that the graph names for it.
pub(crate) fn dependencies_point_down(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let row = |name: &str| GRAPH.iter().find(|(room, _)| *room == name);
    for package in packages(tree) {
        // A crate inside bench/ (a comparison with peers, a lab) measures, as bench does.
        let room = if package.path.starts_with("bench/") { "bench" } else { package.name.as_str() };
        let Some((_, allowed)) = row(room) else {
            let says =
                format!("crate `{}` has no place in the graph: give it a row in tidy/graph.rs", package.name);
            findings.push(finding(package.path, 1, says));
            continue;
        };
        for dependency in &package.dependencies {
            let name = dependency.package.as_str();
            let is_ours = dependency.is_path || row(name).is_some();
            if is_ours && !allowed.contains(&name) && name != package.name {
                let says = format!(
                    "`{room}` must not depend on `{name}`, only on [{}]: move what it needs down into `model`, \
                     or let `server` bring the two together",
                    allowed.join(", ")
                );
                findings.push(finding(package.path, dependency.line, says));
            }
        }
    }
    findings
}

/// No other crate's manifest names a crate of the seam. (Their sources are read in `rooms.rs`.)
pub(crate) fn only_shard_names_the_seam(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages(tree).iter().filter(|package| package.name != "shard") {
        for dependency in &package.dependencies {
            let name = dependency.package.replace('_', "-");
            if SEAM.iter().any(|seam| seam.replace('_', "-") == name) {
                let says = format!(
                    "only `shard` may name `{}`: use what `shard` offers, or add it there",
                    dependency.package
                );
                findings.push(finding(package.path, dependency.line, says));
            }
        }
    }
    findings
}

/// The workspace forbids `unsafe`; every crate inherits that but `shard`, which denies it and allows it by file.
pub(crate) fn lints_are_kept(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages(tree) {
        let lints = package.table.get("lints");
        let level = |lints: Option<&Value>| {
            let level = lints?.get("rust")?.get("unsafe_code")?;
            level.as_str().or_else(|| level.get("level")?.as_str()).map(str::to_owned)
        };
        let inherits = lints.and_then(|l| l.get("workspace")).and_then(Value::as_bool) == Some(true);
        if package.name == "shard" {
            if level(lints).as_deref() != Some("deny") {
                findings.push(finding(
                    package.path,
                    1,
                    "`shard` says `unsafe_code = \"deny\"` under [lints.rust]",
                ));
            }
        } else if !inherits {
            findings.push(finding(package.path, 1, "add `[lints] workspace = true`: lints are said once"));
        }
        if folder_of(package.path).is_empty() {
            let shared = package.table.get("workspace").and_then(|w| w.get("lints"));
            if level(shared).as_deref() != Some("forbid") {
                let says = "[workspace.lints.rust] must say `unsafe_code = \"forbid\"`";
                findings.push(finding(package.path, 1, says));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::found;

    const WORKSPACE: &str = "[workspace.dependencies]\nmodel = { path = \"src/model\" }\n\
        uring = { package = \"io-uring\", version = \"0.7\" }\n[workspace.lints.rust]\nunsafe_code = \"forbid\"\n";

    #[test]
    fn a_dependency_that_climbs_or_crosses_is_found_in_every_table() {
        let bad = [
            ("Cargo.toml", WORKSPACE),
            (
                "src/model/Cargo.toml",
                "[package]\nname = \"model\"\n[dependencies]\nserde = \"1\"\nhttp.path = \"../http\"",
            ),
            (
                "src/query/Cargo.toml",
                "[package]\nname = \"query\"\n[dev-dependencies]\nstorage = { path = \"../s\" }",
            ),
            (
                "src/alert/Cargo.toml",
                "[package]\nname = \"alert\"\n[target.'cfg(loom)'.dependencies]\nquery.path = \"q\"",
            ),
            (
                "src/http/Cargo.toml",
                "[package]\nname = \"http\"\n[build-dependencies.nouns]\npackage = \"model\"\npath = \"m\"",
            ),
            (
                "storage/Cargo.toml",
                "[package]\nname = \"storage\"\n[dependencies]\nserver = { path = \"..\" }",
            ),
            ("shard/Cargo.toml", "[package]\nname = \"shard\"\n[dependencies]\nmodel.workspace = true"),
            (
                "src/queue/Cargo.toml",
                "[package]\nname = \"queue\"\n[dependencies]\nbench.path = \"../../bench\"",
            ),
        ];
        let expected = [
            "shard/Cargo.toml:4",
            "src/alert/Cargo.toml:4",
            "src/http/Cargo.toml:3",
            "src/model/Cargo.toml:5",
            "src/query/Cargo.toml:4",
            "src/queue/Cargo.toml:4",
            "storage/Cargo.toml:4",
        ];
        assert_eq!(found(dependencies_point_down, bad), expected);
    }

    #[test]
    fn dependencies_that_point_down_pass_and_bench_may_measure_anything() {
        let good = [
            (
                "Cargo.toml",
                "[package]\nname = \"server\"\n[dependencies]\nqueue.path = \"q\"\nshard.path = \"s\"",
            ),
            (
                "src/queue/Cargo.toml",
                "[package]\nname = \"queue\"\n[dependencies]\nstorage.path = \"s\"\nmemchr = \"2\"",
            ),
            ("bench/Cargo.toml", "[package]\nname = \"bench\"\n[dependencies]\nserver.path = \"..\""),
            (
                "bench/compare/Cargo.toml",
                "[package]\nname = \"compare\"\n[dependencies]\nstorage.path = \"..\"",
            ),
        ];
        assert_eq!(found(dependencies_point_down, good), [""; 0]);
    }

    #[test]
    fn the_server_does_not_depend_on_its_bench_and_a_new_crate_needs_a_row() {
        let bad = [
            ("Cargo.toml", "[package]\nname = \"server\"\n[dev-dependencies]\nbench.path = \"bench\""),
            ("src/misc/Cargo.toml", "[package]\nname = \"misc\""),
        ];
        assert_eq!(found(dependencies_point_down, bad), ["Cargo.toml:4", "src/misc/Cargo.toml:1"]);
    }

    #[test]
    fn the_seam_is_found_under_any_name() {
        let bad = [
            ("Cargo.toml", WORKSPACE),
            ("bench/Cargo.toml", "[package]\nname = \"bench\"\n[dependencies]\nuring.workspace = true"),
            ("storage/Cargo.toml", "[package]\nname = \"storage\"\n[dev-dependencies]\nlibc = \"0.2\""),
            (
                "src/http/Cargo.toml",
                "[package]\nname = \"http\"\n[target.'cfg(unix)'.dependencies]\ncore-affinity = \"0\"",
            ),
            (
                "shard/Cargo.toml",
                "[package]\nname = \"shard\"\n[dependencies]\nglommio = \"0.9\"\nuring.workspace = true",
            ),
        ];
        let expected = ["bench/Cargo.toml:4", "src/http/Cargo.toml:4", "storage/Cargo.toml:4"];
        assert_eq!(found(only_shard_names_the_seam, bad), expected);
    }

    #[test]
    fn a_crate_that_leaves_the_lints_is_found() {
        let bad = [
            (
                "Cargo.toml",
                "[package]\nname = \"server\"\n[lints]\nworkspace = true\n[workspace.lints.rust]\nunsafe_code = \"warn\"",
            ),
            ("shard/Cargo.toml", "[package]\nname = \"shard\"\n[lints]\nrust.unsafe_code = \"allow\""),
            ("storage/Cargo.toml", "[package]\nname = \"storage\""),
        ];
        assert_eq!(
            found(lints_are_kept, bad),
            ["Cargo.toml:1", "shard/Cargo.toml:1", "storage/Cargo.toml:1"]
        );
        let good = [
            (
                "Cargo.toml",
                "[package]\nname = \"server\"\n[lints]\nworkspace = true\n[workspace.lints.rust]\nunsafe_code = \"forbid\"",
            ),
            (
                "shard/Cargo.toml",
                "[package]\nname = \"shard\"\n[lints.rust]\nunsafe_code = { level = \"deny\" }",
            ),
            ("storage/Cargo.toml", "[package]\nname = \"storage\"\n[lints]\nworkspace = true"),
        ];
        assert_eq!(found(lints_are_kept, good), [""; 0]);
    }
}
