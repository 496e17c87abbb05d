//! Series that have stopped leave memory, and stay to be found.

use crate::server::{Server, now_ms, poll};
use std::path::Path;
use tempfile::tempdir;

/// As many as are worth a look, and some more.
const SERIES: usize = 20_000;
const SETTINGS: [&str; 4] = ["--set", "shards=1", "--set", "storage.series_stop_after=1s"];

/// Two samples of each of these series.
fn send(server: &Server, series: std::ops::Range<usize>, at_ms: i64) {
    for from in series.clone().step_by(1_000) {
        let member = |(n, at): (usize, i64)| {
            format!(r#"{{"name":"m","value":{n},"timestamp":{},"labels":{{"n":"{n}"}}}}"#, at_ms + at)
        };
        let of_body = (from..series.end.min(from + 1_000)).flat_map(|n| [(n, 0), (n, 100)]);
        let members: Vec<String> = of_body.map(member).collect();
        server.accept(&format!("[{}]", members.join(",")));
    }
}

fn in_memory(server: &Server) -> usize {
    server.counted("store_series", "") as usize
}

fn start(dir: &Path) -> Server {
    Server::start(dir, &SETTINGS)
}

/// One that goes on stays; those that have stopped can be asked for, come again, and are there after a kill.
#[test]
fn series_that_have_stopped_leave_memory_and_are_found() {
    let dir = tempdir().unwrap();
    let mut server = start(dir.path());
    let first_ms = now_ms() - 60_000;
    send(&server, 0..SERIES, first_ms);
    let mut at_ms = first_ms + 1_000;
    poll(|| {
        at_ms += 1;
        send(&server, 7..8, at_ms);
        (in_memory(&server) < SERIES / 10).then_some(())
    });
    let asked = |server: &Server, n: usize| {
        let answer = server.get(&format!("/query?name=m&match=%7Bn%3D%22{n}%22%7D"));
        assert_eq!(answer.status, 200);
        answer.body.matches("\"name\"").count()
    };
    assert_eq!(asked(&server, 19_000), 2);
    let of_one = asked(&server, 7);
    assert!(of_one > 4, "{of_one}");
    // They come again, under numbers of their own.
    send(&server, 18_500..19_500, at_ms);
    assert_eq!((asked(&server, 19_000), asked(&server, 18_000), asked(&server, 7)), (4, 2, of_one));
    server.kill();
    let again = start(dir.path());
    assert_eq!((asked(&again, 19_000), asked(&again, 18_000), asked(&again, 7)), (4, 2, of_one));
}
