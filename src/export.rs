//! `GET /export`: which samples, how they are written, and how far an answer has come.
//!
//! An answer is made page by page, each asked for once the one before is sent, but for a small first one, which waits
//! for the next: so it takes the memory of two pages, however long it is and however slowly its client reads, and an
//! executor knows nothing of it between two pages.
//! Series come shard by shard, and of a shard as `storage::store::Walk` gives them.
//! Not here: how a page is made (`service/export.rs`), how it goes out (`front/exchange/export.rs`).

use crate::delete_series::conditions;
use crate::fan_in::Warnings;
use model::{Matcher, MatcherError, Timestamp, parse_matchers};
use query::{ExportFormat, LastOfMilli, ParameterError};
use std::borrow::Cow;
use std::sync::Arc;
use storage::store::{Place, WalkPlan, WalkRange};

/// Selectors in one request.
const SELECTORS_MAX: usize = 16;

/// Bytes of text after which a page ends: with the line that comes to them.
pub const PAGE_BYTES: usize = 1 << 20;

/// What is to be exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportRequest {
    /// As `{__name__="cpu",host=~"a.*"}`; a series that meets one of them is meant, without one all are.
    selectors: Vec<String>,
    start_ms: i64,
    end_ms: i64,
    /// How it is written.
    pub format: ExportFormat,
}

/// What is asked of one executor, and all that it has to know.
#[derive(Clone, Debug)]
pub struct ExportPage {
    /// What is exported.
    pub request: Arc<ExportRequest>,
    /// Whose series are at hand.
    pub shard: usize,
    /// How far these are given.
    pub place: Place,
    /// What was written last there.
    pub last: Option<LastOfMilli>,
    /// What is meant, expressions compiled; absent until the first page is made, which may take milliseconds.
    pub range: Option<Arc<WalkRange>>,
    /// Which series it has in memory; absent until it has looked.
    pub plan: Option<Arc<WalkPlan>>,
    /// Whether nothing was written yet.
    pub is_first: bool,
}

/// A part of the answer.
pub struct ExportedPage {
    /// How it is written.
    pub format: ExportFormat,
    /// Whole lines; often none.
    pub text: Vec<u8>,
    /// What follows; nothing behind the last page.
    pub next: Option<Box<ExportPage>>,
    /// What is missing for it is damaged on the disk.
    pub warnings: Warnings,
}

impl ExportRequest {
    /// Reads percent-decoded parameters: `match[]` any number of times, `start` and `end` in milliseconds, both
    /// included, and `format`. Unknown ones are ignored.
    pub fn from_parameters<'a>(
        pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    ) -> Result<ExportRequest, ParameterError> {
        let mut request = ExportRequest {
            selectors: Vec::new(),
            start_ms: i64::MIN,
            end_ms: i64::MAX,
            format: ExportFormat::default(),
        };
        for (key, value) in pairs {
            match key.as_ref() {
                "match[]" => request.selectors.push(selector(&value)?),
                "start" => request.start_ms = millis("start", &value)?,
                "end" => request.end_ms = millis("end", &value)?,
                "format" => {
                    let expected = "json, iso, csv or openmetrics";
                    let format = ExportFormat::from_name(&value);
                    request.format =
                        format.ok_or(ParameterError::Invalid { parameter: "format", expected })?;
                }
                _ => {}
            }
        }
        if request.selectors.len() > SELECTORS_MAX {
            return Err(ParameterError::Invalid { parameter: "match[]", expected: "16 of them at most" });
        }
        Ok(request)
    }

    /// What a store is to give, of what is not older than `oldest`. Compiles regular expressions, which may take
    /// milliseconds.
    pub fn range(&self, oldest: Timestamp) -> Result<WalkRange, MatcherError> {
        let selectors: Result<Vec<Vec<Matcher>>, MatcherError> =
            self.selectors.iter().map(|selector| parse_matchers(selector)).collect();
        let start = Timestamp::first_of_milli(self.start_ms).max(oldest);
        Ok(WalkRange { selectors: selectors?, start, end: Timestamp::last_of_milli(self.end_ms) })
    }
}

impl ExportPage {
    /// The first page of an answer.
    pub fn first(request: ExportRequest) -> ExportPage {
        let request = Arc::new(request);
        ExportPage {
            request,
            shard: 0,
            place: Place::default(),
            last: None,
            range: None,
            plan: None,
            is_first: true,
        }
    }

    /// The first page of the next executor.
    pub fn of_next_shard(&self, range: Arc<WalkRange>) -> ExportPage {
        let (request, shard, range) = (self.request.clone(), self.shard + 1, Some(range));
        ExportPage { request, shard, place: Place::default(), last: None, range, plan: None, is_first: false }
    }
}

/// What can be looked at in no time is: expressions are compiled where series are selected.
fn selector(text: &str) -> Result<String, ParameterError> {
    let selector = conditions(text)?;
    if selector.is_empty() {
        return Err(ParameterError::Invalid {
            parameter: "match[]",
            expected: "a selector, as cpu{host=\"a\"}",
        });
    }
    if !selector.contains('~') {
        parse_matchers(&selector).map_err(ParameterError::Matchers)?;
    }
    Ok(selector)
}

fn millis(parameter: &'static str, text: &str) -> Result<i64, ParameterError> {
    let expected = "milliseconds since 1970";
    text.parse().map_err(|_| ParameterError::Invalid { parameter, expected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ingest::{ImportDecoder, ImportForm, TimeBounds};
    use model::{Batch, LabelSet, MetricKind, Sample};
    use proptest::prelude::*;
    use query::ExportRenderer;
    use std::collections::BTreeMap;

    type Series = (LabelSet, MetricKind, Vec<Sample>);

    fn write(format: ExportFormat, all: &[Series]) -> String {
        let (mut renderer, mut out) = (ExportRenderer::new(format), format.head().as_bytes().to_vec());
        for (labels, kind, samples) in all {
            renderer.begin_series(labels.as_ref(), *kind, None);
            samples.iter().for_each(|sample| renderer.push(*sample, &mut out));
        }
        out.extend_from_slice(format.foot().as_bytes());
        String::from_utf8(out).expect("labels are text, and so is the rest")
    }

    fn read_back(form: ImportForm, text: &str) -> Vec<Series> {
        let (mut batch, bounds) = (Batch::default(), TimeBounds { oldest: None, newest: i64::MAX });
        let decoded = ImportDecoder::new().decode(text.as_bytes(), (form, &bounds), &mut batch);
        decoded.unwrap_or_else(|error| panic!("{error}: {text}"));
        let mut all: Vec<Series> = Vec::new();
        for row in batch.rows() {
            let sample = Sample { timestamp: row.timestamp.expect("each line has one"), value: row.value };
            match row.labels {
                Some(labels) if all.last().is_none_or(|(last, ..)| last.as_ref() != labels) => {
                    all.push((labels.to_owned(), row.kind, vec![sample]));
                }
                _ => all.last_mut().expect("a series begins").2.push(sample),
            }
        }
        all
    }

    fn series() -> impl Strategy<Value = Vec<Series>> {
        let text = || prop_oneof!["[a-z_]{1,6}", "[ -~\u{e9}\u{1f600}]{1,8}"];
        let labels = proptest::collection::btree_map(text(), text(), 0..4);
        let value = prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            any::<f64>(),
            (-1000i32..1000).prop_map(|n| f64::from(n) / 8.0),
            prop_oneof![Just(f64::NAN), Just(-0.0), Just(f64::INFINITY), Just(f64::NEG_INFINITY)],
            Just(f64::from_bits(0x7ff0_0000_0000_0002)),
        ];
        // Some in one millisecond: the first of them is not always the whole millisecond.
        let ticks = (0i64..4_102_444_800_000, 0i64..5).prop_map(|(ms, fine)| ((ms / 7 * 7) << 20) + fine);
        let near =
            (1_700_000_000_000i64..1_700_000_000_003, 0i64..9).prop_map(|(ms, fine)| (ms << 20) + fine);
        let samples = proptest::collection::btree_map(prop_oneof![ticks, near], value, 1..20);
        let kind = (0u8..4).prop_map(|kind| MetricKind::from_byte(kind).expect("there are four"));
        let one = (text(), labels, kind, samples).prop_map(|(name, labels, kind, samples)| {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(a, b)| (&**a, &**b)).collect();
            let sample = |(ticks, value)| Sample { timestamp: Timestamp::from_ticks(ticks), value };
            let labels = LabelSet::new(&name, &labels).expect("short texts without control characters");
            (labels, kind, samples.into_iter().map(sample).collect::<Vec<_>>())
        });
        proptest::collection::vec(one, 0..5).prop_map(|all| {
            let by_labels = all.into_iter().map(|(labels, kind, samples)| (labels, (kind, samples)));
            let unique: BTreeMap<LabelSet, (MetricKind, Vec<Sample>)> = by_labels.collect();
            unique.into_iter().map(|(labels, (kind, samples))| (labels, kind, samples)).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever a store holds: what is written, read back and written again is the same to the byte, and but for
        /// OpenMetrics the values are the same to the bit.
        #[test]
        fn what_is_written_reads_back(all in series()) {
            for (format, form) in [
                (ExportFormat::Json, ImportForm::Json),
                (ExportFormat::JsonIso, ImportForm::Json),
                (ExportFormat::Csv, ImportForm::Csv),
                (ExportFormat::OpenMetrics, ImportForm::OpenMetrics),
            ] {
                let text = write(format, &all);
                let back = read_back(form, &text);
                prop_assert_eq!(&write(format, &back), &text);
                if format == ExportFormat::OpenMetrics {
                    continue;
                }
                prop_assert_eq!(back.len(), all.len());
                for ((labels, kind, samples), (expected, of, were)) in back.iter().zip(&all) {
                    prop_assert_eq!((labels, kind), (expected, of));
                    let bits = |samples: &[Sample]| -> Vec<(i64, u64)> {
                        samples.iter().map(|s| (s.timestamp.millis(), s.value.to_bits())).collect()
                    };
                    prop_assert_eq!(bits(samples), bits(were));
                }
            }
        }
    }

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<ExportRequest, String> {
        let pairs = pairs.iter().map(|(key, value)| (Cow::from(*key), Cow::from(*value)));
        ExportRequest::from_parameters(pairs).map_err(|error| error.to_string())
    }

    #[test]
    fn parameters_are_read_and_those_that_mean_nothing_refused() {
        let all = read(&[]).unwrap();
        let range = all.range(Timestamp::MIN).unwrap();
        assert!(range.selectors.is_empty() && range.start < range.end);
        let some = read(&[
            ("match[]", r#"cpu{host="a"}"#),
            ("match[]", "{x=~\"y.*\"}"),
            ("start", "5"),
            ("end", "9"),
            ("format", "csv"),
        ]);
        let some = some.unwrap();
        assert_eq!(some.format, ExportFormat::Csv);
        let range = some.range(Timestamp::first_of_milli(7)).unwrap();
        assert_eq!((range.selectors.len(), range.start.millis(), range.end.millis()), (2, 7, 9));
        for (pairs, told) in [
            (("match[]", ""), "invalid parameter: match[]"),
            (("match[]", "cpu{host=}"), "invalid parameter: match"),
            (("start", "soon"), "invalid parameter: start"),
            (("format", "xml"), "invalid parameter: format"),
        ] {
            assert_eq!(read(&[pairs]), Err(told.to_owned()));
        }
        assert!(read(&[("match[]", "{x=~\"(\"}")]).unwrap().range(Timestamp::MIN).is_err());
    }
}
