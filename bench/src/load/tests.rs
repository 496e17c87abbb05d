//! Whole runs against a tiny server on loopback: small, and with the right answer known.

use super::*;
use crate::arrivals::Shape;
use crate::check::{self, Check, Expected};
use crate::measure::Subjects;
use crate::plan::{Refusals, Target};
use crate::responder::{Reply, Responder};
use crate::trial::{closed_loop, metric_name};

/// A closed loop until so many requests are accepted, in whatever time that takes, all of it measured.
fn until_accepted(server: &Responder, connections: u32, requests: u64) -> Plan {
    let offer = Offer::Accepted { requests };
    Plan { warmup: Duration::ZERO, duration: Duration::from_secs(60), ..plan(server, connections, offer) }
}

fn plan(server: &Responder, connections: u32, offer: Offer) -> Plan {
    Plan {
        target: Target { addr: server.addr(), path: "/metrics".to_owned() },
        offer,
        warmup: Duration::from_millis(20),
        duration: Duration::from_millis(150),
        idle: Duration::from_millis(5),
        metric: metric_name(),
        ..closed_loop(server.addr(), connections, Subjects::default())
    }
}

fn stored(server: &Responder, outcome: &Outcome) -> Result<u64, check::CheckError> {
    let expected =
        Expected { acknowledged: outcome.acknowledged_samples, unanswered: outcome.unanswered_samples };
    check::check(Check::Stored, server.addr(), "any", 0..=1, expected)
}

#[test]
fn a_closed_loop_counts_exactly_what_is_stored() {
    // By time, in which a busy machine may get little done, and by number.
    for by_number in [false, true] {
        let server = Responder::counting(|_| None);
        let plan = if by_number { until_accepted(&server, 4, 50) } else { plan(&server, 4, Offer::Closed) };
        let outcome = run(&plan, &Live::default()).unwrap();
        assert_eq!(outcome.unanswered_samples, 0);
        assert!(outcome.answered <= outcome.acknowledged_samples);
        if by_number {
            assert_eq!(outcome.acknowledged_samples, 50);
            assert_eq!(outcome.level, Some(Durability::Written));
            assert_eq!(outcome.statuses, BTreeMap::from([(202, 50)]));
            assert!(!outcome.latency.is_empty());
        }
        assert_eq!(stored(&server, &outcome).unwrap(), outcome.acknowledged_samples);
    }
}

#[test]
fn an_open_loop_offers_what_its_clock_says_and_batches_count_by_sample() {
    let server = Responder::counting(|_| None);
    let offer = Offer::evenly(200);
    let plan = Plan { batch: 5, series: 3, ..plan(&server, 3, offer) };
    let outcome = run(&plan, &Live::default()).unwrap();
    let requests: u64 = outcome.statuses.values().sum();
    // 170 ms at 200 a second are 35 arrivals; a busy machine stretches the time and never drops an arrival.
    assert!(requests + outcome.arrivals_unsent >= 35, "{requests} and {}", outcome.arrivals_unsent);
    assert_eq!(outcome.acknowledged_samples, requests * 5);
    stored(&server, &outcome).unwrap();
}

/// Refusals are obeyed and nothing refused is counted as acknowledged.
/// Method: each connection's first request is refused without a time, so it rests for the least pause.
#[test]
fn refusals_are_obeyed_and_counted() {
    let refused = || Some(Reply::Answer(503, "Retry-After: 0\r\n", "{}".to_owned()));
    let server = Responder::counting(move |post| if post < 3 { refused() } else { None });
    let outcome = run(&until_accepted(&server, 3, 30), &Live::default()).unwrap();
    assert_eq!(outcome.statuses.get(&503), Some(&3));
    assert_eq!(outcome.pauses, 3);
    assert_eq!(Some(&outcome.acknowledged_samples), outcome.statuses.get(&202));
    stored(&server, &outcome).unwrap();
}

/// A connection that ends without an answer leaves its samples in doubt, and the client connects again.
#[test]
fn lost_requests_make_a_range_and_the_connection_comes_back() {
    let server = Responder::counting(|post| (post == 5).then_some(Reply::HangUp));
    let outcome = run(&until_accepted(&server, 1, 20), &Live::default()).unwrap();
    assert_eq!((outcome.connections_lost, outcome.unanswered_samples), (1, 1));
    assert_eq!(outcome.acknowledged_samples, 20, "the client did not come back");
    stored(&server, &outcome).unwrap();
}

#[test]
fn a_server_that_closes_after_an_answer_loses_nothing() {
    let closing = || Some(Reply::Answer(404, "Connection: close\r\n", String::new()));
    let server = Responder::counting(move |post| if post % 4 == 1 { closing() } else { None });
    let outcome = run(&until_accepted(&server, 2, 20), &Live::default()).unwrap();
    assert!(outcome.statuses[&404] >= 1 && outcome.statuses[&202] >= 2, "{:?}", outcome.statuses);
    assert_eq!((outcome.connections_lost, outcome.unanswered_samples), (0, 0));
    stored(&server, &outcome).unwrap();
}

/// So many and not one more, though some are refused or lost on the way.
#[test]
fn as_many_requests_are_accepted_as_were_wanted() {
    let server = Responder::counting(|post| match post {
        3 => Some(Reply::HangUp),
        5 => Some(Reply::Answer(503, "Retry-After: 0\r\n", "{}".to_owned())),
        _ => None,
    });
    let plan = Plan { batch: 5, ..until_accepted(&server, 4, 41) };
    let outcome = run(&plan, &Live::default()).unwrap();
    assert_eq!((outcome.acknowledged_samples, outcome.unanswered_samples), (41 * 5, 5));
    stored(&server, &outcome).unwrap();
}

#[test]
fn each_connection_is_used_exactly_once() {
    let server = Responder::counting(|_| None);
    let outcome = run(&plan(&server, 40, Offer::Once), &Live::default()).unwrap();
    assert_eq!(outcome.statuses, BTreeMap::from([(202, 40)]));
    assert_eq!(outcome.answered, 40);
    stored(&server, &outcome).unwrap();
}

#[test]
fn a_level_that_was_not_reached_is_noticed() {
    let server = Responder::counting(|_| None);
    let plan = Plan { durability: Some(Durability::Synced), ..plan(&server, 2, Offer::Once) };
    assert_eq!(run(&plan, &Live::default()).unwrap().levels_missed, 2);
}

#[test]
fn nobody_listening_is_an_error_that_says_so() {
    let server = Responder::counting(|_| None);
    let live = Live::default();
    live.stop.store(true, Ordering::Relaxed);
    assert!(matches!(run(&plan(&server, 1, Offer::Closed), &live), Err(LoadError::Stopped)));
}

/// Every request opens a connection of its own, whoever ends it, and none is lost.
#[test]
fn a_connection_per_request_is_closed_by_the_server_or_by_us() {
    for headers in ["", "Connection: close\r\n"] {
        let reply = move |_| Some(Reply::Accept(headers));
        for (offer, exactly) in
            [(Offer::Accepted { requests: 40 }, Some(40)), (Offer::evenly(300), None), (Offer::Once, Some(5))]
        {
            let server = Responder::counting(reply);
            let patient = matches!(offer, Offer::Accepted { .. }).then(|| until_accepted(&server, 5, 40));
            let plan = patient.unwrap_or_else(|| plan(&server, 5, offer));
            let outcome = run(&Plan { lifetime: Lifetime::PerRequest, ..plan }, &Live::default()).unwrap();
            assert_eq!((outcome.connections_lost, outcome.unanswered_samples), (0, 0), "{offer:?}");
            let answered = outcome.statuses.get(&202).copied().unwrap_or(0);
            assert!(exactly.is_none_or(|exactly| answered == exactly), "{answered} of {offer:?}");
            assert_eq!(server.connections(), answered, "{offer:?}");
            stored(&server, &outcome).unwrap();
        }
    }
}

#[test]
fn refusals_may_be_ignored_and_are_still_not_acknowledged() {
    let server = Responder::counting(|post| {
        (post % 2 == 0).then(|| Reply::Answer(503, "Retry-After: 60\r\n", "{}".to_owned()))
    });
    let plan = Plan { refusals: Refusals::Ignored, ..until_accepted(&server, 2, 20) };
    let outcome = run(&plan, &Live::default()).unwrap();
    assert!(outcome.statuses[&503] >= 19 && outcome.pauses == 0);
    assert_eq!(Some(&outcome.acknowledged_samples), outcome.statuses.get(&202));
    stored(&server, &outcome).unwrap();
}

/// Arrivals that wait for longer than their clients do are counted apart, and none of them is left at the end.
/// Method: the one connection is lost again and again, and each time it rests for a tenth of a second.
#[test]
fn arrivals_that_find_no_connection_in_time_are_given_up() {
    let server = Responder::counting(|_| Some(Reply::HangUp));
    let plan = plan(&server, 1, Offer::evenly(1_000));
    let plan = Plan { patience: Some(Duration::from_millis(5)), ..plan };
    let outcome = run(&plan, &Live::default()).unwrap();
    let lost = outcome.unanswered_samples;
    assert!(outcome.arrivals_given_up > 0, "{outcome:?}");
    assert_eq!(outcome.arrivals_unsent, 0);
    assert!(outcome.arrivals_given_up + lost >= 165, "{} and {lost}", outcome.arrivals_given_up);
}

/// Whatever the shape, each arrival is answered or counted as unsent.
#[test]
fn every_shape_is_offered_whole() {
    for shape in [Shape::Poisson, Shape::Ramp { from_per_s: 100 }, Shape::Burst { size: 20 }] {
        let server = Responder::counting(|_| None);
        let offer = Offer::Open { requests_per_s: 400, shape };
        let outcome = run(&plan(&server, 3, offer), &Live::default()).unwrap();
        let requests: u64 = outcome.statuses.values().sum();
        assert!(requests + outcome.arrivals_unsent >= 20, "{shape:?}: {requests}");
        assert_eq!(outcome.acknowledged_samples, requests, "{shape:?}");
        stored(&server, &outcome).unwrap();
    }
}
