//! What is asked: parameters of a query, lists of matchers, label sets as they are kept.

use model::{LabelSet, LabelSetRef, parse_matchers};
use query::{Endpoint, Query};
use storage::fuzz::{Body, Seeds};

pub(crate) const TARGETS: &[(&str, Body, Seeds)] = &[
    ("query-parameters", parameters, parameter_seeds),
    ("matchers", matchers, matcher_seeds),
    ("label-set", label_set, label_set_seeds),
];

/// The query string of `GET /query`.
fn parameters(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let pairs = || http::parameters(text).filter_map(Result::ok);
    let mut taken = false;
    for endpoint in [Endpoint::Query, Endpoint::Percentile] {
        match Query::from_parameters(endpoint, pairs()) {
            Ok(query) => {
                let (first, last) = query.selector.bounds();
                let is_empty = query.selector.start_ms > query.selector.end_ms;
                assert!(is_empty || first <= last, "{query:?}");
                taken |= query.selector.matchers().is_ok();
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    taken
}

fn parameter_seeds() -> Vec<Vec<u8>> {
    [
        "name=cpu_usage&start=1696789200000&end=1696789500000&min_value=80&limit=10",
        "name=a&match=%7Bhost%3D~%22a%7Cb%22%2Czone!%3D%22x%22%7D&percentile=99.9&max_value=-1e3",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// A list of matchers: what it means for a label set is what its conditions mean for its values.
fn matchers(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let set = LabelSet::new("cpu", &[("host", "a"), ("zone", "eu-1")]).expect("labels as they should be");
    match parse_matchers(text) {
        Ok(matchers) => {
            for matcher in &matchers {
                let value = set.as_ref().get(&matcher.label);
                assert_eq!(matcher.matches(set.as_ref()), matcher.meets(value));
                if let Some(required) = matcher.required_value() {
                    assert_eq!(matcher.meets(value), value == required);
                }
            }
            true
        }
        Err(error) => {
            assert!(error.offset <= text.len() && text.is_char_boundary(error.offset), "{error}");
            false
        }
    }
}

fn matcher_seeds() -> Vec<Vec<u8>> {
    [
        r#"{host="a",zone=~"eu-.*|us-[0-9]+",x!="",y!~"(?i)a{2,3}\\d"}"#,
        r#"{ "app.name" = "a\"b\\c\n" , }"#,
        r#"{__name__=~"cpu|mem"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// The canonical bytes of a label set, as journals and segments hold them.
fn label_set(data: &[u8]) -> bool {
    let Ok(set) = LabelSetRef::from_bytes(data) else { return false };
    let labels: Vec<(&str, &str)> = set.labels().collect();
    let again = LabelSet::new(set.name(), &labels).expect("what is a label set can be put together");
    assert_eq!(again.as_ref().bytes(), data);
    assert_eq!(set.pieces().flat_map(|piece| piece.bytes().to_vec()).collect::<Vec<_>>(), data);
    assert!(labels.iter().all(|(name, value)| set.get(name) == *value));
    true
}

fn label_set_seeds() -> Vec<Vec<u8>> {
    let long = "v".repeat(300);
    [LabelSet::new("cpu", &[]), LabelSet::new("app.cpu", &[("host", "a"), ("zone", &*long)])]
        .map(|set| set.expect("labels as they should be").as_ref().bytes().to_vec())
        .to_vec()
}
