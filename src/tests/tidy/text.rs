//! What any text of ours keeps to, whatever language it is in.

use crate::lexer::tokens;
use crate::rooms::names_path;
use crate::{Finding, Tree, finding, folder_of, joined};

/// Written by others or by a tool.
const NOT_OURS: &[&str] = &["Cargo.lock", "LICENSE"];

/// These files have to name what they look for.
const THIS_TEST: &str = "src/tests/tidy";

const UNFINISHED_WORDS: &[&str] = &["TODO", "FIXME", "XXX"];
const UNFINISHED_MACROS: &[&str] = &["todo", "unimplemented", "dbg"];
const EMPTY_NAMES: &[&str] = &["utils", "helper", "manager", "common"];
const MACHINE_FOLDERS: &[&str] = &["/work", "/root", "/home"];
/// Where packages come from is the builder's choice, never this tree's.
const REGISTRIES: &[&str] = &[
    "index.crates.io",
    "static.crates.io",
    "registry.npmjs.org",
    "files.pythonhosted.org",
    "proxy.golang.org",
    "deb.debian.org",
    "sparse+http",
    "[source.crates-io]",
];

/// The lines of every file of ours that a person wrote, with their numbers.
fn lines(tree: &Tree) -> impl Iterator<Item = (&str, usize, &str)> {
    let ours = tree.files.iter().filter(|(path, _)| !NOT_OURS.contains(&path.as_str()));
    ours.flat_map(|(path, text)| {
        (1..).zip(text.lines()).map(move |(number, line)| (path.as_str(), number, line))
    })
}

/// A relative link in a Markdown page leads to a file or a folder of the tree.
pub(crate) fn links_lead_somewhere(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".md") {
        let mut fenced = false;
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~") {
                fenced = !fenced;
            }
            if fenced {
                continue;
            }
            for target in link_targets(&without_code(line)) {
                let file = target.split(['#', '?']).next().unwrap_or_default();
                let is_elsewhere = file.split('/').next().is_some_and(|scheme| scheme.ends_with(':'))
                    || file.starts_with("mailto:");
                let from = if file.starts_with('/') { "" } else { folder_of(path) };
                let leads = joined(from, file).is_some_and(|file| tree.holds(&file));
                if !is_elsewhere && !leads {
                    findings.push(finding(
                        path,
                        number,
                        format!("`{target}` leads nowhere: mend or remove the link"),
                    ));
                }
            }
        }
    }
    findings
}

/// `line` with its `code spans` blanked.
fn without_code(line: &str) -> String {
    let mut parts = line.split('`');
    let mut kept = parts.next().unwrap_or_default().to_owned();
    while let (Some(_code), Some(text)) = (parts.next(), parts.next()) {
        kept.push(' ');
        kept.push_str(text);
    }
    kept
}

/// The targets of `[text](target "title")` and of `[name]: target`.
fn link_targets(line: &str) -> Vec<String> {
    let inline = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let defined = line.trim_start().strip_prefix('[').and_then(|rest| Some(rest.split_once("]:")?.1));
    let targets = inline.chain(defined).filter_map(|target| target.split_whitespace().next());
    targets.map(|target| target.trim_matches(['<', '>']).to_owned()).collect()
}

/// No marker of work to come, no macro that stands for code to come, no print for debugging.
pub(crate) fn nothing_is_left_unfinished(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, number, line) in lines(tree).filter(|(path, ..)| !path.starts_with(THIS_TEST)) {
        let mut words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        if let Some(word) = words.find(|word| UNFINISHED_WORDS.contains(word)) {
            findings.push(finding(
                path,
                number,
                format!("{word}: do it now, or open an issue and delete the line"),
            ));
        }
    }
    for (path, text) in tree.ending(".rs") {
        for two in tokens(text).windows(2) {
            let Some(word) = two[0].word().filter(|word| UNFINISHED_MACROS.contains(word) && two[1].is('!'))
            else {
                continue;
            };
            findings.push(finding(
                path,
                two[0].line,
                format!("`{word}!`: write the code, or remove the call"),
            ));
        }
    }
    findings
}

/// A file or folder is named after what it holds.
pub(crate) fn files_are_named_after_nouns(tree: &Tree) -> Vec<Finding> {
    let named = |path: &str| EMPTY_NAMES.iter().find(|name| path.to_lowercase().contains(**name));
    let found = tree.files.keys().filter_map(|path| Some((path, named(path)?)));
    found
        .map(|(path, name)| finding(path, 0, format!("`{name}` names nothing: use the word of the domain")))
        .collect()
}

/// No path of somebody's machine, no address of a package registry.
pub(crate) fn nothing_names_a_machine(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, number, line) in lines(tree).filter(|(path, ..)| !path.starts_with(THIS_TEST)) {
        let below = |folder: &&&str| names_path(line, folder) && line.contains(&format!("{folder}/"));
        if let Some(folder) = MACHINE_FOLDERS.iter().find(below) {
            let says = format!(
                "`{folder}/…` exists on one machine only: say it relative to the tree, or as a setting"
            );
            findings.push(finding(path, number, says));
        }
        if let Some(registry) = REGISTRIES.iter().find(|registry| line.contains(**registry)) {
            findings.push(finding(path, number, format!("`{registry}` is the builder's setting: remove it")));
        }
    }
    findings
}

/// No tab and no space at the end of a line in what we format.
pub(crate) fn lines_end_clean(tree: &Tree) -> Vec<Finding> {
    let is_formatted = |path: &str| [".rs", ".md", ".toml"].iter().any(|end| path.ends_with(end));
    let mut findings = Vec::new();
    for (path, number, line) in lines(tree).filter(|(path, ..)| is_formatted(path)) {
        if line.contains('\t') {
            findings.push(finding(path, number, "a tab: write spaces, or \\t inside a string"));
        }
        if line.ends_with(char::is_whitespace) {
            findings.push(finding(path, number, "ends with white space: remove it"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::found;

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let bad = [
            (
                "README.md",
                "See [one](docs/one.md), [two](docs/two.md#top \"title\") and [there](https://x.org/y).\n[d]: gone.md",
            ),
            (
                "docs/one.md",
                "[up](../README.md) [top](#top) [beside](three.md)\n`[code](no.md)`\n```\n[code](no.md)\n```\n[out](../../x)",
            ),
            ("storage/docs/format/a.md", "[room](../../docs) [root](/docs/one.md) [bad](/no/one.md)"),
        ];
        let expected =
            ["README.md:1", "README.md:2", "docs/one.md:1", "docs/one.md:6", "storage/docs/format/a.md:1"];
        assert_eq!(found(links_lead_somewhere, bad), expected);
    }

    #[test]
    fn unfinished_work_is_found_in_text_and_code() {
        let bad = [
            ("LICENSE", "TODO"),
            ("Makefile", "all:\n\techo x # FIXME"),
            (
                "src/a.rs",
                "fn f() {\n    todo!()\n}\n// XXX\nfn g() { dbg !(1); let s = \"unimplemented!\"; todo(); }",
            ),
            ("tuning/x", "mktemp /tmp/x.XXXXXX; NOTODO=1; # todo"),
        ];
        assert_eq!(
            found(nothing_is_left_unfinished, bad),
            ["Makefile:2", "src/a.rs:4", "src/a.rs:2", "src/a.rs:5"]
        );
    }

    #[test]
    fn a_name_that_says_nothing_is_found() {
        let bad = [
            ("src/string_utils.rs", ""),
            ("src/common/x.rs", ""),
            ("src/ShardManager.rs", ""),
            ("src/store.rs", ""),
        ];
        let expected = ["src/ShardManager.rs:0", "src/common/x.rs:0", "src/string_utils.rs:0"];
        assert_eq!(found(files_are_named_after_nouns, bad), expected);
    }

    #[test]
    fn paths_of_a_machine_and_registries_are_found() {
        let bad = [
            ("README.md", "cd /home/me/ringwatch\nGET /homepage and a/work/b and /work alone"),
            ("bench/run.toml", "out = \"/root/x\"\n\nindex = \"sparse+https://mirror.example/\""),
            ("Cargo.lock", "source = \"registry+https://index.crates.io/\""),
        ];
        assert_eq!(
            found(nothing_names_a_machine, bad),
            ["README.md:1", "bench/run.toml:1", "bench/run.toml:3"]
        );
    }

    #[test]
    fn tabs_and_trailing_space_are_found_where_we_format() {
        let bad = [
            ("Makefile", "\tx "),
            ("a.toml", "a = 1 \nb = 2"),
            ("b.rs", "fn f()\n\t{}"),
            ("c.md", "text  \n\ntext"),
        ];
        assert_eq!(found(lines_end_clean, bad), ["a.toml:1", "b.rs:2", "c.md:1"]);
    }
}
