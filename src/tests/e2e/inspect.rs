//! What segments are made of, as the command shows it.

use crate::server::{Server, bare_command, now_ms};
use std::path::Path;
use tempfile::tempdir;

/// What the command prints, or what it says instead.
fn inspect(path: &Path, options: &[&str]) -> Result<String, String> {
    let output = bare_command().args(["storage", "inspect"]).arg(path).args(options).output().unwrap();
    match output.status.code() {
        Some(0) => Ok(String::from_utf8(output.stdout).unwrap()),
        _ => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

#[test]
fn a_segment_and_a_directory_of_them_tell_what_they_are_made_of() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--set", "shards=2"]);
    let first_ms = now_ms() - 3_600_000;
    let member = |i: i64| {
        let (value, at, n) = (i * 7_919 % 997, first_ms + i * 1_000, i % 40);
        format!(r#"{{"name":"m{}","value":{value},"timestamp":{at},"labels":{{"n":"{n}"}}}}"#, n % 3)
    };
    let members: Vec<String> = (0..2_000).map(member).collect();
    server.accept(&format!("[{}]", members.join(",")));
    server.signal("TERM");
    server.wait();

    // While a server uses it, too.
    let _server = Server::start(dir.path(), &["--set", "shards=2"]);
    let all = inspect(dir.path(), &["--json"]).unwrap();
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    assert_eq!((all["segments"].as_u64(), all["series"].as_u64()), (Some(2), Some(40)));
    assert_eq!(all["samples"], 2_000);
    let sum = |part: &str, key: &str| -> u64 {
        all[part].as_array().unwrap().iter().map(|of| of[key].as_u64().unwrap()).sum()
    };
    assert_eq!(sum("sections", "bytes"), all["bytes"].as_u64().unwrap());
    assert_eq!(sum("codecs", "samples"), 2_000);
    assert_eq!(all["series_by_name"][0]["name"], "m0");
    assert_eq!(all["series_by_name"][0]["series"], 14);
    assert_eq!(all["values_by_label"][0]["values"], 40);

    let segment = std::fs::read_dir(dir.path().join("segments")).unwrap().next().unwrap().unwrap().path();
    let text = inspect(&segment, &[]).unwrap();
    for told in ["segments 1,", "values by label", "directory", "clocks", "a sample"] {
        assert!(text.contains(told), "{told}: {text}");
    }
    let no_segment = inspect(&dir.path().join("MANIFEST"), &[]).unwrap_err();
    assert!(no_segment.contains("is no segment: expected DIR/segments/"), "{no_segment}");
    let nothing = inspect(&dir.path().join("segments"), &[]).unwrap_err();
    assert!(nothing.contains("has no MANIFEST"), "{nothing}");
}
