//! Rows as the JSON of `GET /query`, piece by piece: an answer of any size is sent from a small buffer.

use crate::{Rows, json};
use model::{LabelSetRef, Sample};

/// Renders rows as one JSON array.
#[derive(Debug)]
pub struct RowsRenderer {
    rows: Rows,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Opening,
    Within,
    Closed,
}

impl RowsRenderer {
    /// Nothing is rendered yet.
    pub fn new(rows: Rows) -> RowsRenderer {
        RowsRenderer { rows, stage: Stage::Opening }
    }

    /// Appends rows until `bytes_about` bytes are passed, which the last row may do by its own length, or
    /// the array is closed. Returns whether more is to be done; afterwards nothing is appended.
    ///
    /// Some pieces append nothing: before the first row, where many series are lined up, and after the last,
    /// where the rows are let go of.
    pub fn next_piece(&mut self, out: &mut Vec<u8>, bytes_about: usize) -> bool {
        if self.stage == Stage::Closed {
            return self.rows.let_go();
        }
        if self.rows.line_up() {
            return true;
        }
        let full = out.len().saturating_add(bytes_about);
        while let Some((labels, sample)) = self.rows.next_row() {
            out.push(if self.stage == Stage::Opening { b'[' } else { b',' });
            self.stage = Stage::Within;
            render_row(labels, sample, out);
            if out.len() >= full {
                return true;
            }
        }
        out.extend_from_slice(if self.stage == Stage::Opening { b"[]" } else { b"]" });
        self.stage = Stage::Closed;
        true
    }

    /// Lets go of some of the rows before all are rendered; `false` when nothing is left. Nothing is rendered any
    /// more.
    pub fn let_go(&mut self) -> bool {
        self.stage = Stage::Closed;
        self.rows.let_go()
    }

    /// Rows that are not rendered yet.
    pub fn remaining(&self) -> usize {
        self.rows.remaining()
    }
}

fn render_row(labels: LabelSetRef<'_>, sample: Sample, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"name\":");
    json::write_text(labels.name(), out);
    out.extend_from_slice(b",\"value\":");
    json::write_number(sample.value, out);
    out.extend_from_slice(b",\"timestamp\":");
    out.extend_from_slice(itoa::Buffer::new().format(sample.timestamp.millis()).as_bytes());
    let mut before: &[u8] = b",\"labels\":{";
    for (name, value) in labels.labels() {
        out.extend_from_slice(before);
        json::write_text(name, out);
        out.push(b':');
        json::write_text(value, out);
        before = b",";
    }
    out.extend_from_slice(if before == b"," { b"}}" } else { b"}" });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Endpoint, Query};
    use model::{Arrival, LabelSet, TICKS_PER_MILLI, Timestamp};
    use std::borrow::Cow;

    const MS: i64 = 1_696_789_234_567;

    fn rows(series: &[(LabelSet, &[f64])]) -> Rows {
        let name = [(Cow::from("name"), Cow::from("cpu_usage"))];
        let query = Query::from_parameters(Endpoint::Query, name.into_iter()).unwrap();
        let mut partial = query.partial();
        let mut ticks = MS * TICKS_PER_MILLI;
        for (labels, values) in series {
            partial.push_series(labels.as_ref(), Arrival::from_bits(0));
            for &value in *values {
                partial.push(Sample { timestamp: Timestamp::from_ticks(ticks), value });
                ticks += 1;
            }
        }
        let Answer::Rows(rows) = query.merge(vec![partial.finish()]) else { panic!("rows were asked for") };
        rows
    }

    fn rendered(rows: Rows) -> String {
        let mut out = Vec::new();
        let mut renderer = RowsRenderer::new(rows);
        while renderer.next_piece(&mut out, usize::MAX) {}
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_bytes_of_the_contract() {
        let plain = LabelSet::new("cpu_usage", &[]).unwrap();
        assert_eq!(
            rendered(rows(&[(plain, &[85.0])])),
            r#"[{"name":"cpu_usage","value":85,"timestamp":1696789234567}]"#
        );
        let labelled = LabelSet::new("cpu_usage", &[("zone", "b\"c"), ("host", "web1")]).unwrap();
        assert_eq!(
            rendered(rows(&[(labelled, &[125.5, f64::NAN])])),
            concat!(
                r#"[{"name":"cpu_usage","value":125.5,"timestamp":1696789234567,"#,
                r#""labels":{"host":"web1","zone":"b\"c"}},"#,
                r#"{"name":"cpu_usage","value":"NaN","timestamp":1696789234567,"#,
                r#""labels":{"host":"web1","zone":"b\"c"}}]"#
            )
        );
        assert_eq!(rendered(rows(&[])), "[]");
    }

    #[test]
    fn pieces_of_any_size_join_to_the_whole() {
        let host = |host| LabelSet::new("cpu_usage", &[("host", host)]).unwrap();
        let series: [(LabelSet, &[f64]); 3] =
            [(host("a"), &[1.0, 2.5, 1e30]), (host("b"), &[0.1; 20]), (host("c"), &[7.0])];
        let whole = rendered(rows(&series));
        assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&whole).unwrap().len(), 24);
        let row_bytes_max = 100;
        for bytes_about in [0, 1, 63, 64, 500, whole.len() - 1, whole.len(), whole.len() + 1] {
            let mut renderer = RowsRenderer::new(rows(&series));
            let mut joined = Vec::new();
            let mut more = true;
            while more {
                let mut piece = Vec::new();
                more = renderer.next_piece(&mut piece, bytes_about);
                assert!(piece.len() <= bytes_about.saturating_add(row_bytes_max), "{bytes_about}");
                joined.extend_from_slice(&piece);
            }
            assert!(!renderer.next_piece(&mut joined, bytes_about), "it stays closed");
            assert_eq!(String::from_utf8(joined).unwrap(), whole, "{bytes_about}");
        }
    }
}
