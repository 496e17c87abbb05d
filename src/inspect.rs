//! `ringwatch storage inspect`: what segments are made of, as tables or as JSON.

use crate::log;
use query::json::write_text;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use storage::column::Codec;
use storage::disk::{StdDisk, ready};
use storage::inspect::Inspected;
use storage::manifest::Manifest;
use storage::segment::{SEGMENTS_FOLDER, SegmentReader, segment_path};

/// Names and labels that are listed.
const LISTED_MAX: usize = 10;

/// Some directories could not be read; they were told.
#[derive(Debug)]
struct Missing(usize);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} directory blocks could not be read; what they tell of is not counted", self.0)
    }
}

impl std::error::Error for Missing {}

/// Prints what a segment is made of, or all segments of a data directory together. A server may use them meanwhile: a
/// segment never changes.
pub fn run(path: &Path, json: bool) -> Result<(), Box<dyn std::error::Error>> {
    let path = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
    let (dir, ids) = if path.is_dir() { segments_of(&path)? } else { segment_of(&path)? };
    let disk = StdDisk::new(&dir);
    let (mut inspected, mut errors) = (Inspected::default(), Vec::new());
    let mut version = 0;
    for id in ids {
        let segment = ready(SegmentReader::open(&disk, id))?;
        version = segment.version();
        ready(inspected.add(&segment, &mut errors));
    }
    let report = if json { as_json(version, &inspected) } else { as_text(version, &inspected) };
    log::say(format_args!("{report}\n"));
    errors.iter().for_each(log::error);
    if errors.is_empty() { Ok(()) } else { Err(Box::new(Missing(errors.len()))) }
}

/// The directory that a segment's file lies in, and its id.
fn segment_of(path: &Path) -> Result<(PathBuf, Vec<u64>), String> {
    let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
    let folder = path.parent().filter(|folder| folder.ends_with(SEGMENTS_FOLDER));
    let found = id.zip(folder.and_then(Path::parent));
    let found = found.filter(|(id, dir)| dir.join(segment_path(*id)) == path);
    let expected = || format!("{} is no segment: expected DIR/{}", path.display(), segment_path(1));
    found.map(|(id, dir)| (dir.to_owned(), vec![id])).ok_or_else(expected)
}

/// The segments that a data directory's manifest names.
fn segments_of(dir: &Path) -> Result<(PathBuf, Vec<u64>), String> {
    let manifest = ready(Manifest::load(&StdDisk::new(dir))).map_err(|error| error.to_string())?;
    let manifest =
        manifest.ok_or_else(|| format!("{} is no data directory: it has no MANIFEST", dir.display()))?;
    Ok((dir.to_owned(), manifest.segments.iter().map(|entry| entry.id).collect()))
}

fn per_sample(bytes: u64, samples: u64) -> f64 {
    if samples == 0 { 0.0 } else { bytes as f64 / samples as f64 }
}

fn date(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| format!("{millis} ms"), |time| time.to_string())
}

fn codecs(inspected: &Inspected) -> impl Iterator<Item = (Codec, storage::inspect::CodecShare)> {
    Codec::ALL.into_iter().zip(inspected.codecs).filter(|(_, share)| share.columns > 0)
}

fn as_text(version: u16, inspected: &Inspected) -> String {
    let Inspected { segments, series, samples, chunks, clocks, bytes, .. } = *inspected;
    let mut out = String::new();
    let mut line = |text: fmt::Arguments<'_>| writeln!(out, "{text}").expect("a string takes every write");
    line(format_args!("segments {segments}, format version {version}"));
    if let Some((first, last)) = inspected.range_ms {
        line(format_args!("from {} to {}", date(first), date(last)));
    }
    line(format_args!("series {series}, samples {samples}, chunks {chunks}, clocks {clocks}"));
    line(format_args!("\n{:<20} {:>14} {:>12}", "section", "bytes", "a sample"));
    let whole = [("all", bytes)];
    for (name, bytes) in inspected.sections.iter().chain(&whole) {
        line(format_args!("{name:<20} {bytes:>14} {:>12.4}", per_sample(*bytes, samples)));
    }
    line(format_args!(
        "\n{:<12} {:>10} {:>14} {:>14} {:>12}",
        "codec", "columns", "samples", "bytes", "a sample"
    ));
    for (codec, share) in codecs(inspected) {
        let each = per_sample(share.bytes, share.samples);
        let (name, columns) = (codec.name(), share.columns);
        line(format_args!("{name:<12} {columns:>10} {:>14} {:>14} {each:>12.4}", share.samples, share.bytes));
    }
    let (names, labels) = inspected.name_and_label_counts();
    line(format_args!("\nseries by name ({names} names)"));
    for (name, count) in inspected.series_by_name(LISTED_MAX) {
        line(format_args!("{count:>10} {name}"));
    }
    line(format_args!("\nvalues by label ({labels} labels)"));
    for (label, count) in inspected.values_by_label(LISTED_MAX) {
        line(format_args!("{count:>10} {label}"));
    }
    out.pop();
    out
}

fn as_json(version: u16, inspected: &Inspected) -> String {
    let Inspected { segments, series, samples, chunks, clocks, bytes, .. } = *inspected;
    let share = |bytes: u64, samples: u64| format!("{:.6}", per_sample(bytes, samples));
    let object = |name: &str, fields: String| {
        let mut text = b"{\"name\":".to_vec();
        write_text(name, &mut text);
        let name = String::from_utf8(text).expect("JSON of a text is text");
        format!("{name},{fields}}}")
    };
    let (first, last) = inspected.range_ms.unzip();
    let millis = |millis: Option<i64>| millis.map_or_else(|| "null".to_owned(), |millis| millis.to_string());
    let sections = inspected.sections.iter().map(|&(name, bytes)| {
        object(name, format!("\"bytes\":{bytes},\"bytes_per_sample\":{}", share(bytes, samples)))
    });
    let codecs = codecs(inspected).map(|(codec, of)| {
        let each = share(of.bytes, of.samples);
        let (columns, samples, bytes) = (of.columns, of.samples, of.bytes);
        object(
            codec.name(),
            format!(
                "\"columns\":{columns},\"samples\":{samples},\"bytes\":{bytes},\"bytes_per_sample\":{each}"
            ),
        )
    });
    let counted = |of: Vec<(&str, u64)>, key: &str| -> Vec<String> {
        of.into_iter().map(|(name, count)| object(name, format!("\"{key}\":{count}"))).collect()
    };
    let names = counted(inspected.series_by_name(LISTED_MAX), "series");
    let labels = counted(inspected.values_by_label(LISTED_MAX), "values");
    format!(
        "{{\"segments\":{segments},\"version\":{version},\"first_ms\":{},\"last_ms\":{},\"series\":{series},\
         \"samples\":{samples},\"chunks\":{chunks},\"clocks\":{clocks},\"bytes\":{bytes},\
         \"bytes_per_sample\":{},\"sections\":[{}],\"codecs\":[{}],\"series_by_name\":[{}],\"values_by_label\":[{}]}}",
        millis(first),
        millis(last),
        share(bytes, samples),
        sections.collect::<Vec<_>>().join(","),
        codecs.collect::<Vec<_>>().join(","),
        names.join(","),
        labels.join(","),
    )
}
