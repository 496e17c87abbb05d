//! Goal: a body for which the present journal file has no room waits for the next one, whatever its door makes of its
//! bytes, and is taken whole.
//! Method: the rig; the test gives journal files when it likes, and decodes what the loop hands over.

use super::*;
use remote_body::{request, series, snappy};

/// Samples of ten series, in a body of remote write of 18 bytes each.
fn remote_write(samples: usize) -> Vec<u8> {
    let start = Now::read().unix_ms - samples as i64;
    let all = (0..10).map(|n| {
        let of_series = (0..samples as i64 / 10).map(|at| ((at % 7) as f64, start + at));
        series(&[("__name__", "a"), ("n", &n.to_string())], &of_series.collect::<Vec<_>>())
    });
    let body = snappy(&request(&all.collect::<Vec<_>>()));
    let head = format!(
        "POST /api/v1/write HTTP/1.1\r\nHost: h\r\nDurability: written\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

fn with_files_of(bytes: u64) -> Rig {
    let (rig, parts) = Rig::laid_with_files(bytes, None, None, (1, &[], Console::default()));
    Rig::run((rig, parts))
}

impl Rig {
    /// Plays the executor until the client has its answer or a body is handed over.
    fn answered_or_handed_over(
        &mut self,
        client: &mut Client,
        samples: &mut usize,
    ) -> Option<(ConnId, LargeBody)> {
        while !client.is_answered() {
            match self.take() {
                Some(ToStore::Share(share)) => *samples += share.len(),
                Some(ToStore::Decode { conn, body, .. }) => return Some((conn, *body)),
                Some(_) => {}
                None => std::thread::yield_now(),
            }
        }
        None
    }
}

/// Method: metrics until a body finds no room; then a small one, for which there would be some. Should the test be kept
/// from its processor for the whole pause, that one is taken without the file.
#[test]
fn samples_wait_for_the_next_journal_file_and_are_taken() {
    let mut rig = Rig::start(None);
    let (mut client, mut other, mut reader) = (rig.client(), rig.client(), rig.client());
    let body = long_body();
    let mut samples = 0;
    let handed_over = loop {
        client.send(post("written", &body)).unwrap();
        if let Some(handed_over) = rig.answered_or_handed_over(&mut client, &mut samples) {
            break handed_over;
        }
        assert_eq!(client.answer().status, 202, "there is room for any body until there is a pause");
    };
    assert_eq!(rig.counters().pauses.get(), 1);
    other.send(post("written", BODY)).unwrap();
    // Once this is answered the loop has seen the other.
    reader.send(get("/-/healthy")).unwrap();
    assert_eq!(reader.answer().status, 200);
    let is_answered = other.is_answered();
    assert!(!is_answered || rig.counters().paused_nanos.get() >= gate::FILE_PAUSE_NANOS_MAX);
    rig.give_file();
    rig.decode(handed_over.0, handed_over.1);
    assert_eq!([rig.answer(&mut client).status, rig.answer(&mut other).status], [202; 2]);
}

/// A sample of remote write takes more of the journal at most than of the body: what is left of the file may be too
/// little for a body that is shorter. Method: bodies until one finds no room; the file comes while it is decoded.
#[test]
fn a_remote_write_that_finds_no_room_in_the_journal_waits_for_the_next_file() {
    const SAMPLES: usize = 20_000;
    let mut rig = with_files_of(FILE_BYTES);
    let mut client = rig.client();
    let (mut sent, mut samples) = (0, 0);
    let (conn, body) = loop {
        client.send(remote_write(SAMPLES)).unwrap();
        sent += SAMPLES;
        if let Some(handed_over) = rig.answered_or_handed_over(&mut client, &mut samples) {
            break handed_over;
        }
        assert_eq!(client.answer().told(), (204, ""), "after {sent} samples");
    };
    assert!(sent > 2 * SAMPLES, "most of the file was filled by then");
    samples += rig.give_file();
    rig.decode(conn, body);
    assert!(rig.answered_or_handed_over(&mut client, &mut samples).is_none());
    assert_eq!(client.answer().told(), (204, ""));
    while samples < sent {
        match rig.take() {
            Some(ToStore::Share(share)) => samples += share.len(),
            _ => std::thread::yield_now(),
        }
    }
    assert_eq!((samples, rig.counters().overload_refusals.get()), (sent, 0));
}

/// Method: journal files of 1 MiB, the smallest, and a body that takes three times as much at most, and half as much in
/// truth.
#[test]
fn a_remote_write_that_may_exceed_any_journal_file_is_taken_in_pieces() {
    const SAMPLES: usize = 55_000;
    let mut rig = with_files_of(1 << 20);
    let mut client = rig.client();
    let mut samples = 0;
    client.send(remote_write(SAMPLES)).unwrap();
    let (conn, body) =
        rig.answered_or_handed_over(&mut client, &mut samples).expect("it is not taken at once");
    rig.decode(conn, body);
    assert!(rig.answered_or_handed_over(&mut client, &mut samples).is_none());
    assert_eq!(client.answer().told(), (204, ""));
    rig.catch_up();
}

/// Settings allow no file that is so small.
#[test]
fn what_no_journal_file_can_hold_is_refused_with_the_setting_to_change() {
    let mut rig = with_files_of(64 << 10);
    let (mut client, mut samples) = (rig.client(), 0);
    client.send(remote_write(20_000)).unwrap();
    let (conn, body) =
        rig.answered_or_handed_over(&mut client, &mut samples).expect("it is not taken at once");
    rig.decode(conn, body);
    let answer = client.answer();
    assert_eq!(answer.status, 413);
    assert!(answer.body.contains("storage.journal_file_bytes"), "{}", answer.body);
}
