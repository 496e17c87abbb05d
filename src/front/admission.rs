//! What the owners of series let in just now, checked before a body touches the journal.
//!
//! Always: while every owner takes everything and no limit is set, this costs one comparison a body. The owners
//! say it by messages, so what was published before a loop heard of it still goes in: what lies in the rings is
//! bounded by [`crate::shared::Shared::ring_bytes_max`].

use super::numbers::Numbers;
use crate::api::IntakeError;
use crate::service::{Admission, Admitted};
use crate::shared::SeriesLimit;
use model::{Batch, BatchRow, LabelSetRef, SeriesHash};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use storage::journal::Writer;

/// See the head of this file.
pub struct Admissions {
    of: Vec<Admission>,
    restricted: bool,
    limit: Option<Arc<SeriesLimit>>,
    /// `storage.series_per_name_max`.
    series_per_name_max: u64,
    /// New series that may still be met; taken from the limit beforehand.
    allowance: u64,
    /// Rows of new series in the body that was checked last: whose, and of which series.
    new: Vec<(usize, SeriesHash)>,
    /// New series of the body that was checked last, by owner; where there is room for all of its rows, these.
    new_series: Vec<u32>,
}

impl Admissions {
    /// Everything goes in, up to the limit.
    pub fn new(owners: usize, limit: Option<Arc<SeriesLimit>>, series_per_name_max: u64) -> Admissions {
        Admissions {
            of: vec![Admission::default(); owners],
            restricted: limit.is_some(),
            limit,
            series_per_name_max,
            allowance: 0,
            new: Vec::new(),
            new_series: vec![0; owners],
        }
    }

    /// An owner says what it lets in from now on.
    pub fn set(&mut self, owner: usize, admission: Admission) {
        self.of[owner] = admission;
        let is_open = |admission: &Admission| {
            matches!(admission.admitted, Admitted::Everything) && admission.full_names.is_empty()
        };
        self.restricted = self.limit.is_some() || !self.of.iter().all(is_open);
    }

    /// Why some owner takes nothing, if one does.
    pub fn closed(&self) -> Option<&str> {
        self.of.iter().find_map(|admission| match &admission.admitted {
            Admitted::Nothing(cause) => Some(&**cause),
            Admitted::Everything | Admitted::KnownSeries(_) => None,
        })
    }

    /// Whether these rows may go in, all of them; counts which are new series and takes the allowance for them.
    ///
    /// Rows without labels are of series that have a number: `numbers` says whose they are.
    pub fn check(
        &mut self,
        writer: &Writer,
        numbers: &Numbers,
        batch: &Batch,
        rows: Range<usize>,
    ) -> Result<(), IntakeError> {
        if !self.restricted {
            return Ok(());
        }
        self.new.clear();
        for row in batch.rows_in(rows) {
            if let Some(new) = self.judge(writer, numbers, &row)? {
                self.new.push(new);
            }
        }
        if self.new.len() as u64 > self.allowance {
            // A series that comes in many rows has no number before the first is taken, and is one all the same.
            self.new.sort_unstable_by_key(|(_, hash)| hash.0);
            self.new.dedup();
        }
        self.new_series.fill(0);
        self.new.iter().for_each(|(owner, _)| self.new_series[*owner] += 1);
        self.spend()
    }

    /// Which of these rows, by their places, are of a new series that a limit refuses, all rows of it. The others pass
    /// [`Self::check`], for as many new series as the limit still takes are set aside for it, whichever body comes next.
    pub fn beyond_limits(
        &mut self,
        writer: &Writer,
        numbers: &Numbers,
        batch: &Batch,
        rows: Range<usize>,
    ) -> Vec<usize> {
        let (mut refused, mut new) = (Vec::new(), Vec::new());
        for (at, row) in rows.clone().zip(batch.rows_in(rows)) {
            match self.judge(writer, numbers, &row) {
                Ok(Some((_, hash))) => new.push((at, hash)),
                Err(IntakeError::NameLimit { .. }) => refused.push(at),
                Ok(None) | Err(_) => {}
            }
        }
        if let Some(limit) = &self.limit {
            let wanted = new.iter().map(|(_, hash)| hash).collect::<HashSet<_>>().len() as u64;
            self.allowance += limit.take(wanted.saturating_sub(self.allowance));
            let mut taken = HashSet::new();
            for (at, hash) in new {
                if (taken.len() as u64) < self.allowance {
                    taken.insert(hash);
                } else if !taken.contains(&hash) {
                    refused.push(at);
                }
            }
        }
        refused.sort_unstable();
        refused
    }

    /// Whose new series the row is of, and which, if it is of one that may go in.
    fn judge(
        &self,
        writer: &Writer,
        numbers: &Numbers,
        row: &BatchRow<'_>,
    ) -> Result<Option<(usize, SeriesHash)>, IntakeError> {
        if row.goes_on {
            return Ok(None);
        }
        let numbered = match row.labels {
            Some(labels) => writer.owner(labels),
            None => numbers.get(row.repeat).map(|(_, owner)| owner),
        };
        let numbered = numbered.map(usize::from);
        let hash = row.labels.map(LabelSetRef::hash);
        let owner = numbered.or_else(|| hash.map(|hash| ingest::owner(hash, self.of.len())));
        let Some(owner) = owner else { return Ok(None) };
        let Admission { admitted, known, full_names } = &self.of[owner];
        if let Admitted::Nothing(cause) = admitted {
            return Err(IntakeError::MemoryFull(cause.to_string()));
        }
        let is_known = |hash| known.as_ref().is_some_and(|known| known.holds(hash));
        if numbered.is_some() || hash.is_some_and(is_known) {
            return Ok(None);
        }
        if let Admitted::KnownSeries(cause) = admitted {
            return Err(IntakeError::MemoryFull(cause.to_string()));
        }
        if let Some(name) = row.labels.map(LabelSetRef::name).filter(|name| full_names.contains(*name)) {
            return Err(IntakeError::NameLimit { name: name.to_owned(), max: self.series_per_name_max });
        }
        // What has no number has labels.
        Ok(hash.map(|hash| (owner, hash)))
    }

    /// What is more than an allowance is for others again.
    fn keep_no_more(&mut self) {
        let Some(limit) = &self.limit else { return };
        let beyond = self.allowance.saturating_sub(limit.allowance_max);
        self.allowance -= beyond;
        limit.give(beyond as i64);
    }

    fn spend(&mut self) -> Result<(), IntakeError> {
        let Some(limit) = &self.limit else { return Ok(()) };
        let needed: u64 = self.new_series.iter().map(|new| u64::from(*new)).sum();
        if self.allowance < needed {
            self.allowance += limit.take(needed + limit.allowance_max - self.allowance);
        }
        if self.allowance >= needed {
            self.allowance -= needed;
            self.keep_no_more();
            return Ok(());
        }
        let told = self.of.iter().all(|admission| admission.known.is_some());
        let refusal =
            if told { IntakeError::SeriesLimit { max: limit.max } } else { IntakeError::Overloaded };
        // What is too little for this body is not kept from others.
        self.keep_no_more();
        Err(refusal)
    }

    /// The new series of the body that was checked last, of one owner; said once, for its share.
    pub fn take_new(&mut self, owner: usize) -> u32 {
        if self.limit.is_none() { 0 } else { std::mem::take(&mut self.new_series[owner]) }
    }

    /// A share is lost before its owner saw it, and its new series with it.
    pub fn give_back(&self, new_series: u32) {
        if let Some(limit) = &self.limit {
            limit.give(i64::from(new_series));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::KnownSeries;
    use ingest::{MetricsDecoder, Repeat};
    use model::{LabelSet, MetricKind};
    use storage::journal::{JournalLimits, Resume};

    fn batch(series: Range<usize>) -> Batch {
        let members: Vec<String> =
            series.map(|n| format!(r#"{{"name":"a","value":1,"labels":{{"n":"{n}"}}}}"#)).collect();
        let mut batch = Batch::default();
        let body = format!("[{}]", members.join(","));
        MetricsDecoder::new(0).decode(body.as_bytes(), &mut batch, &mut Repeat::default()).unwrap();
        batch
    }

    fn check(admissions: &mut Admissions, series: Range<usize>) -> Result<(), IntakeError> {
        // A writer that knows no series.
        let writer = Writer::new(0, 1, Resume::default(), JournalLimits::default());
        admissions.check(&writer, &Numbers::new(1), &batch(series.clone()), 0..series.len())
    }

    fn knowing(admitted: Admitted, series: Range<usize>) -> Admission {
        let known = KnownSeries::with_capacity(100);
        batch(series).rows().for_each(|row| known.note(row.labels.unwrap().hash()));
        Admission { admitted, known: Some(Arc::new(known)), ..Admission::default() }
    }

    /// A name that an owner calls full takes no new series, and its known ones go on.
    #[test]
    fn a_full_name_takes_no_new_series() {
        let mut admissions = Admissions::new(1, None, 5);
        let full = |names: &[&str]| Admission {
            full_names: Arc::new(names.iter().map(|name| (*name).into()).collect()),
            ..knowing(Admitted::Everything, 0..5)
        };
        admissions.set(0, full(&["a", "b"]));
        assert_eq!(check(&mut admissions, 0..5), Ok(()));
        assert_eq!(check(&mut admissions, 4..6), Err(IntakeError::NameLimit { name: "a".into(), max: 5 }));
        admissions.set(0, full(&["b"]));
        assert_eq!(check(&mut admissions, 4..6), Ok(()));
    }

    #[test]
    fn known_series_go_on_where_new_ones_are_refused() {
        let mut admissions = Admissions::new(1, None, 0);
        assert_eq!(check(&mut admissions, 0..5), Ok(()));
        admissions.set(0, knowing(Admitted::KnownSeries("why".into()), 0..5));
        assert_eq!(check(&mut admissions, 0..5), Ok(()));
        assert_eq!(check(&mut admissions, 4..6), Err(IntakeError::MemoryFull("why".into())));
        assert_eq!(admissions.closed(), None);
        let nothing = Admitted::Nothing("full".into());
        admissions.set(0, Admission { admitted: nothing, ..Admission::default() });
        assert_eq!(check(&mut admissions, 0..5), Err(IntakeError::MemoryFull("full".into())));
        assert_eq!(admissions.closed(), Some("full"));
        admissions.set(0, Admission::default());
        assert_eq!(check(&mut admissions, 0..9), Ok(()));
    }

    /// Of a body with too many new series, as many as the limit takes go in, and what is known.
    #[test]
    fn what_no_limit_refuses_can_be_told_apart() {
        let limit = Arc::new(SeriesLimit::new(8, 1));
        let mut admissions = Admissions::new(1, Some(limit.clone()), 5);
        limit.give(-5);
        admissions.set(0, knowing(Admitted::Everything, 0..5));
        let writer = Writer::new(0, 1, Resume::default(), JournalLimits::default());
        let mut body = batch(0..10);
        assert_eq!(check(&mut admissions, 0..10), Err(IntakeError::SeriesLimit { max: 8 }));
        let refused = admissions.beyond_limits(&writer, &Numbers::new(1), &body, 0..10);
        assert_eq!(refused, [8, 9]);
        body.retain(|row| !refused.contains(&row));
        assert_eq!(admissions.check(&writer, &Numbers::new(1), &body, 0..8), Ok(()));
        assert_eq!((admissions.take_new(0), limit.take(1)), (3, 0));
        let full_names = Arc::new(["a".into()].into());
        admissions.set(0, Admission { full_names, ..knowing(Admitted::Everything, 0..5) });
        let refused = admissions.beyond_limits(&writer, &Numbers::new(1), &batch(3..7), 1..4);
        assert_eq!(refused, [2, 3]);
        // What is set aside and not come for is given back.
        limit.give(2);
        admissions.set(0, knowing(Admitted::Everything, 0..5));
        assert_eq!(admissions.beyond_limits(&writer, &Numbers::new(1), &batch(5..9), 0..4), [2, 3]);
        assert_eq!(limit.take(1), 0);
        assert_eq!(check(&mut admissions, 0..5), Ok(()), "known");
        assert_eq!(limit.take(9), 2);
    }

    /// A sender with a backlog sends a series once for each sample: it takes the room of one, and goes in or stays out whole.
    #[test]
    fn a_new_series_in_many_rows_takes_the_room_of_one() {
        let limit = Arc::new(SeriesLimit::new(4, 1));
        let mut admissions = Admissions::new(1, Some(limit.clone()), 0);
        admissions.set(0, knowing(Admitted::Everything, 90..91));
        let writer = Writer::new(0, 1, Resume::default(), JournalLimits::default());
        let repeated = |series: usize| {
            let mut body = Batch::default();
            for n in (0..series).chain(0..series) {
                let labels = LabelSet::new("a", &[("n", &n.to_string())]).unwrap();
                body.push_repeat(labels.as_ref(), None, MetricKind::Gauge, None, 1.0);
            }
            body
        };
        let body = repeated(4);
        assert_eq!(admissions.check(&writer, &Numbers::new(1), &body, 0..8), Ok(()));
        assert_eq!((admissions.take_new(0), limit.take(1)), (4, 0));
        limit.give(2);
        let mut body = repeated(3);
        let refused = admissions.check(&writer, &Numbers::new(1), &body, 0..6);
        assert_eq!(refused, Err(IntakeError::SeriesLimit { max: 4 }));
        let beyond = admissions.beyond_limits(&writer, &Numbers::new(1), &body, 0..6);
        assert_eq!(beyond, [2, 5]);
        body.retain(|row| !beyond.contains(&row));
        assert_eq!(admissions.check(&writer, &Numbers::new(1), &body, 0..4), Ok(()));
        assert_eq!((admissions.take_new(0), limit.take(1)), (2, 0));
    }

    /// The limit of 200 among two loops: exact but for the allowance of one series that the other may hold.
    #[test]
    fn new_series_beyond_the_limit_are_refused_and_what_comes_back_is_used() {
        let limit = Arc::new(SeriesLimit::new(200, 2));
        let mut loops =
            [Admissions::new(1, Some(limit.clone()), 0), Admissions::new(1, Some(limit.clone()), 0)];
        assert_eq!(check(&mut loops[0], 0..90), Ok(()));
        assert_eq!(loops[0].take_new(0), 90);
        assert_eq!(
            check(&mut loops[1], 100..300),
            Err(IntakeError::Overloaded),
            "what is known was not told yet"
        );
        loops.iter_mut().for_each(|of| of.set(0, knowing(Admitted::Everything, 0..90)));
        assert_eq!(check(&mut loops[1], 100..300), Err(IntakeError::SeriesLimit { max: 200 }));
        assert_eq!(check(&mut loops[1], 0..90), Ok(()), "known");
        assert_eq!(loops[1].take_new(0), 0);
        assert_eq!(
            check(&mut loops[1], 100..209),
            Ok(()),
            "what was too little for another body was given back"
        );
        assert_eq!(check(&mut loops[0], 300..303), Err(IntakeError::SeriesLimit { max: 200 }));
        limit.give(10);
        assert_eq!(check(&mut loops[0], 300..303), Ok(()));
    }

    /// A loop that meets few new series holds an allowance, which the other one's refusal does not take away: it may
    /// spend that, and not more.
    #[test]
    fn what_is_refused_over_one_loop_another_may_still_take_and_both_together_keep_the_limit() {
        let limit = Arc::new(SeriesLimit::new(1_000, 2));
        let mut loops =
            [Admissions::new(1, Some(limit.clone()), 0), Admissions::new(1, Some(limit.clone()), 0)];
        loops.iter_mut().for_each(|of| of.set(0, knowing(Admitted::Everything, 9_000..9_001)));
        let mut news = 0..2_000;
        let mut admit = |of: &mut Admissions| {
            let admits = |n: &usize| check(of, *n..n + 1) == Ok(()) && of.take_new(0) == 1;
            news.by_ref().take_while(admits).count()
        };
        assert_eq!((check(&mut loops[1], 5_000..5_001), loops[1].take_new(0)), (Ok(()), 1));
        let first = admit(&mut loops[0]);
        let second = admit(&mut loops[1]);
        assert!(second > 0 && second as u64 <= limit.allowance_max, "{second}");
        assert_eq!(admit(&mut loops[0]), 0);
        assert_eq!(1 + first + second, 1_000);
    }
}
