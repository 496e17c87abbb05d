//! What segments are made of: bytes by section and by codec, and which names and labels have the most series and values.
//!
//! Always: sections add up to the file; only directories are read, so a segment of gigabytes takes what its directory
//! takes. In memory are the names, and the values of each label.
//! Not here: checksums of columns (`verify`), and how a report looks; the server's command has that.

use crate::column::Codec;
use crate::disk::Disk;
use crate::index::most;
use crate::segment::{SegmentError, SegmentReader, ValuesAt};
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};

/// Columns of one codec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodecShare {
    /// How many columns.
    pub columns: u64,
    /// Samples in them.
    pub samples: u64,
    /// Bytes of them; those of a constant stand in the directory and count there.
    pub bytes: u64,
}

/// What some segments are made of.
#[derive(Clone, Debug, Default)]
pub struct Inspected {
    /// Segments.
    pub segments: u64,
    /// Series, those of each segment counted.
    pub series: u64,
    /// Samples.
    pub samples: u64,
    /// Chunks, one column each.
    pub chunks: u64,
    /// Clocks, those of each segment counted.
    pub clocks: u64,
    /// The first and last millisecond.
    pub range_ms: Option<(i64, i64)>,
    /// Parts of the files by name, and their bytes; these add up to the files unless something could not be read.
    pub sections: Vec<(&'static str, u64)>,
    /// Bytes of the files.
    pub bytes: u64,
    /// By the number of the codec.
    pub codecs: [CodecShare; Codec::ALL.len()],
    names: HashMap<Box<str>, u64, RandomState>,
    labels: HashMap<Box<str>, HashSet<Box<str>, RandomState>, RandomState>,
}

impl Inspected {
    /// Adds a segment; what could not be read is told, and missing.
    pub async fn add<D: Disk>(&mut self, segment: &SegmentReader<D>, errors: &mut Vec<SegmentError>) {
        let entry = segment.entry();
        self.segments += 1;
        self.bytes += entry.bytes;
        let (first, last) = self.range_ms.unwrap_or((entry.min_ms, entry.max_ms));
        self.range_ms = Some((first.min(entry.min_ms), last.max(entry.max_ms)));
        let mut values_bytes = 0;
        let mut clocks: HashMap<u64, u64, RandomState> = HashMap::default();
        for block in 0..segment.block_count() {
            for series in segment.series_in_block(block, |_| true, errors).await {
                self.series += 1;
                self.add_labels(series.labels.as_ref());
                for chunk in &series.chunks {
                    self.chunks += 1;
                    self.samples += chunk.count() as u64;
                    clocks.insert(chunk.clock.at.offset, u64::from(chunk.clock.at.len));
                    let codec = match chunk.values {
                        ValuesAt::Here(_) => Codec::Constant,
                        ValuesAt::Column(name, _) => name.codec,
                    };
                    let share = &mut self.codecs[codec as usize];
                    share.columns += 1;
                    share.samples += chunk.count() as u64;
                    share.bytes += chunk.values_len() as u64;
                    values_bytes += chunk.values_len() as u64;
                }
            }
        }
        self.clocks += clocks.len() as u64;
        self.add_section("values", values_bytes);
        self.add_section("clocks", clocks.values().sum());
        segment.sections().into_iter().for_each(|(name, bytes)| self.add_section(name, bytes));
    }

    fn add_section(&mut self, name: &'static str, bytes: u64) {
        match self.sections.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += bytes,
            None => self.sections.push((name, bytes)),
        }
    }

    fn add_labels(&mut self, labels: model::LabelSetRef<'_>) {
        *self.names.entry(labels.name().into()).or_default() += 1;
        for (label, value) in labels.labels() {
            self.labels.entry(label.into()).or_default().insert(value.into());
        }
    }

    /// The metric names with the most series, at most `limit` of them, and how many these are.
    pub fn series_by_name(&self, limit: usize) -> Vec<(&str, u64)> {
        most(self.names.iter().map(|(name, series)| (&**name, *series)), limit)
    }

    /// The labels with the most values, at most `limit` of them, and how many these are.
    pub fn values_by_label(&self, limit: usize) -> Vec<(&str, u64)> {
        most(self.labels.iter().map(|(label, values)| (&**label, values.len() as u64)), limit)
    }

    /// Metric names, and labels.
    pub fn name_and_label_counts(&self) -> (usize, usize) {
        (self.names.len(), self.labels.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{SimDisk, ready};
    use crate::segment::segment_path;
    use crate::store::{Store, StoreOptions};
    use model::{LabelSet, MetricKind, Sample, SeriesNumber, Share, Timestamp};

    const SAMPLES: i64 = 1_500;

    /// Four series on one clock: constant, whole numbers, noise, three levels that are no decimals.
    fn segment() -> (SimDisk, SegmentReader<SimDisk>) {
        let disk = SimDisk::new(1);
        let options = StoreOptions { memory_bytes_max: 16 << 20 };
        let mut store = Store::new(disk.clone(), 0, 1, options, Box::new(|_| 0));
        let mut share = Share::default();
        for n in 0..4u32 {
            let name = if n == 0 { "up" } else { "m" };
            let labels = LabelSet::new(name, &[("n", &n.to_string()), ("job", "a")]).unwrap();
            share.define(SeriesNumber(n), MetricKind::Gauge, labels.as_ref());
            for i in 0..SAMPLES {
                let timestamp = Timestamp::from_millis(1_000 * i).unwrap();
                let scattered = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let value = match n {
                    0 => 1.0,
                    1 => (i * 7_919 % 997) as f64,
                    2 => f64::from_bits(scattered >> 2),
                    _ => f64::from_bits(
                        [0x3ff5_5555_1234_5677, 0x4009_21fb_5444_2d18][(scattered >> 63) as usize],
                    ),
                };
                share.push(SeriesNumber(n), Sample { timestamp, value });
            }
        }
        store.apply(0, &share, &mut |_, _, _| {});
        let flushed = ready(store.begin_flush(1).unwrap().run(&disk)).unwrap();
        let reader = ready(SegmentReader::open(&disk, flushed.entry().id)).unwrap();
        (disk, reader)
    }

    fn inspect(reader: &SegmentReader<SimDisk>) -> (Inspected, Vec<SegmentError>) {
        let (mut inspected, mut errors) = (Inspected::default(), Vec::new());
        ready(inspected.add(reader, &mut errors));
        (inspected, errors)
    }

    #[test]
    fn sections_add_up_to_the_file_and_codecs_to_the_samples() {
        let (_, reader) = segment();
        let (inspected, errors) = inspect(&reader);
        assert!(errors.is_empty(), "{errors:?}");
        let bytes: u64 = inspected.sections.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(bytes, reader.entry().bytes, "{:?}", inspected.sections);
        assert_eq!((inspected.series, inspected.samples), (4, 4 * SAMPLES as u64));
        assert_eq!((inspected.chunks, inspected.clocks), (8, 2), "two chunks a series, on shared clocks");
        assert_eq!(inspected.range_ms, Some((0, 1_000 * (SAMPLES - 1))));
        let codecs = inspected.codecs;
        assert_eq!(codecs.iter().map(|share| share.samples).sum::<u64>(), inspected.samples);
        for codec in [Codec::Constant, Codec::Decimal, Codec::Dictionary] {
            assert_eq!((codecs[codec as usize].columns, codecs[codec as usize].samples), (2, SAMPLES as u64));
        }
        assert_eq!(codecs[Codec::Constant as usize].bytes, 0, "it stands in the directory");
        let values = inspected.sections.iter().find(|(name, _)| *name == "values").unwrap().1;
        assert_eq!(codecs.iter().map(|share| share.bytes).sum::<u64>(), values);
    }

    #[test]
    fn names_and_labels_stand_in_order_of_what_they_have() {
        let (_, reader) = segment();
        let (mut inspected, _) = inspect(&reader);
        ready(inspected.add(&reader, &mut Vec::new()));
        assert_eq!(inspected.series_by_name(10), [("m", 6), ("up", 2)], "of two segments together");
        assert_eq!(inspected.series_by_name(1), [("m", 6)]);
        assert_eq!(inspected.values_by_label(10), [("n", 4), ("job", 1)]);
        assert_eq!((inspected.segments, inspected.series), (2, 8));
        assert_eq!(inspected.bytes, 2 * reader.entry().bytes);
    }

    #[test]
    fn a_damaged_directory_is_told_and_what_lies_around_it_counted() {
        let (disk, sound) = segment();
        let directory = sound.sections().iter().find(|(name, _)| *name == "directory").unwrap().1;
        let around: u64 = sound.sections().iter().map(|(_, bytes)| bytes).sum::<u64>() - directory;
        let (inspected, _) = inspect(&sound);
        let data: u64 = inspected.sections[..2].iter().map(|(_, bytes)| bytes).sum();
        let directory_at = 32 + data;
        assert_eq!(directory_at + directory + around - 32, sound.entry().bytes);
        assert!(disk.flip_bit(&segment_path(1), directory_at * 8 + 3));
        let (inspected, errors) = inspect(&sound);
        assert_eq!((errors.len(), inspected.series, inspected.samples), (1, 0, 0));
        assert_eq!(inspected.sections.iter().map(|(_, bytes)| bytes).sum::<u64>(), around + directory);
    }
}
