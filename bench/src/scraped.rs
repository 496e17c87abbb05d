//! `bench scraped`: what this machine's own metrics take on the disk, beside what a Prometheus takes for the same.
//!
//! A Prometheus scrapes itself and a node_exporter once a second and sends on by remote write, as people do. At the end
//! it is asked for a snapshot, whose block holds all it has scraped; ours is stopped in order, which seals everything
//! once, and then merges, because a delete that hides nothing makes it write its segments anew.
//! Always: ours holds as many samples as Prometheus says it sent, before a byte is counted.

use crate::fetch;
use crate::load::Live;
use crate::metrics_page::MetricsPage;
use crate::peer::{Peer, stores};
use crate::plan::parse_duration;
use crate::setup::Setup;
use crate::table::{Table, figure, thousands};
use crate::{Verdict, record};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// What can be chosen.
#[derive(Args, Debug)]
pub(crate) struct ScrapedArguments {
    /// How long Prometheus scrapes
    #[arg(long, default_value = "30m", value_parser = parse_duration)]
    duration: Duration,
    /// Bytes a sample that are allowed at first seal, without labels and their index
    #[arg(long, default_value_t = 0.48)]
    sealed_max: f64,
    /// … and after merging
    #[arg(long, default_value_t = 0.41)]
    merged_max: f64,
    /// … and as a share of the samples in Prometheus' own block, without its index
    #[arg(long, default_value_t = 1.0 / 3.0)]
    share_max: f64,
    /// Where its data goes while it runs
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    data_parent: PathBuf,
    #[command(flatten)]
    setup: Setup,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Scraped {
    series: u64,
    samples: u64,
    sealed: Sealed,
    merged: Sealed,
    prometheus: Block,
}

/// Our segments together, in bytes a sample.
#[derive(Debug, Serialize)]
struct Sealed {
    segments: u64,
    samples: u64,
    bytes: u64,
    sections: Vec<Section>,
    /// All sections but those of labels.
    without_labels: f64,
}

/// Of `ringwatch storage inspect --json`.
#[derive(Debug, Deserialize)]
struct Inspected {
    segments: u64,
    series: u64,
    samples: u64,
    bytes: u64,
    sections: Vec<Section>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Section {
    name: String,
    bytes: u64,
    bytes_per_sample: f64,
}

/// A snapshot of Prometheus.
#[derive(Debug, Default, Serialize)]
struct Block {
    samples: u64,
    series: u64,
    chunk_bytes: u64,
    index_bytes: u64,
    chunk_bytes_per_sample: f64,
}

/// Of a block's `meta.json`.
#[derive(Deserialize)]
struct BlockMeta {
    stats: BlockStats,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockStats {
    num_samples: u64,
    num_series: u64,
}

#[derive(Deserialize)]
struct Snapshot {
    data: SnapshotName,
}

#[derive(Deserialize)]
struct SnapshotName {
    name: String,
}

/// What grows with series, not with samples, and is not counted. What rows of the directory say of labels is.
const LABEL_SECTIONS: [&str; 1] = ["label index"];

/// For what follows the scraping: sending on, sealing, merging.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);

/// Scrapes, seals, merges, and fails when a figure is above what is allowed.
pub(crate) fn run(arguments: &ScrapedArguments, live: &Live) -> Result<Verdict, Box<dyn Error>> {
    let sets = vec!["enable_admin=true".to_owned()];
    let ours = arguments.setup.ours(None, Some(&arguments.data_parent), sets);
    let mut ours_running = ours.start()?;
    let exporter = stores::start_node_exporter()?;
    let scraper = stores::start_scraping_prometheus(exporter.addr(), ours_running.addr())?;
    eprintln!("scraping for {:?}", arguments.duration);
    let end = Instant::now() + arguments.duration;
    while Instant::now() < end {
        if live.stop.load(Ordering::Relaxed) {
            return Err("stopped".into());
        }
        thread::sleep(POLL);
    }
    let prometheus = snapshot(&scraper)?;
    wait_until_sent(&scraper, &ours_running)?;
    drop(scraper);
    drop(exporter);

    let binary = arguments.setup.binary();
    let data_dir = ours_running.folder().join("data");
    let stored = applied(&ours_running)?;
    ours_running.end(PATIENCE)?;
    let sealed = inspect(&binary, &data_dir)?;
    ours_running.start_again(PATIENCE)?;
    merge(&ours_running, sealed.segments)?;
    ours_running.end(PATIENCE)?;
    let merged = inspect(&binary, &data_dir)?;
    for (when, inspected) in [("sealed", &sealed), ("merged", &merged)] {
        if inspected.samples != stored {
            return Err(format!("{stored} samples were taken, {} are {when}", inspected.samples).into());
        }
    }

    let (series, samples) = (sealed.series, stored);
    let (sealed, merged) = (Sealed::of(sealed), Sealed::of(merged));
    let scraped = Scraped { series, samples, sealed, merged, prometheus };
    print!("{}", table(&scraped));
    if let Some(file) = &arguments.setup.json {
        record::append(file, &scraped)?;
    }
    let share = scraped.merged.without_labels / scraped.prometheus.chunk_bytes_per_sample;
    println!("merged, {} of Prometheus' chunks", figure(Some(share), 3));
    let failed = scraped.sealed.without_labels > arguments.sealed_max
        || scraped.merged.without_labels > arguments.merged_max
        || share > arguments.share_max;
    println!("{}", if failed { "FAILED: more than was allowed" } else { "within what was allowed" });
    Ok(Verdict::from_failed(failed))
}

/// What Prometheus keeps of all this, as one block.
fn snapshot(scraper: &Peer) -> Result<Block, Box<dyn Error>> {
    let (status, body) = fetch::post(scraper.addr(), "/api/v1/admin/tsdb/snapshot", "")?;
    if status != 200 {
        return Err(format!("Prometheus makes no snapshot: {}", String::from_utf8_lossy(&body)).into());
    }
    let Snapshot { data } = serde_json::from_slice(&body)?;
    let folder = scraper.folder().join("data/snapshots").join(data.name);
    let mut all = Block::default();
    for block in fs::read_dir(folder)? {
        let block = block?.path();
        let meta: BlockMeta = serde_json::from_slice(&fs::read(block.join("meta.json"))?)?;
        all.samples += meta.stats.num_samples;
        all.series = all.series.max(meta.stats.num_series);
        all.index_bytes += fs::metadata(block.join("index"))?.len();
        for chunks in fs::read_dir(block.join("chunks"))? {
            all.chunk_bytes += chunks?.metadata()?.len();
        }
    }
    all.chunk_bytes_per_sample = all.chunk_bytes as f64 / all.samples as f64;
    Ok(all)
}

/// Prometheus sends in batches, the last of them some seconds after the scrape. It scrapes on meanwhile, so what has
/// arrived by now is waited for.
fn wait_until_sent(scraper: &Peer, ours: &Peer) -> Result<(), Box<dyn Error>> {
    let (_, page) = fetch::get(scraper.addr(), "/metrics")?;
    let sent = sum_of(&String::from_utf8_lossy(&page), "prometheus_remote_storage_samples_in_total");
    let sent = sent.ok_or("Prometheus does not say how many samples it sends")?;
    wait_for("all samples", || Ok(applied(ours)? as f64 >= sent))
}

fn sum_of(page: &str, name: &str) -> Option<f64> {
    let of_name = page.lines().filter(|line| line.starts_with(name));
    of_name.map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Samples that ours stores; Prometheus repeats none.
fn applied(ours: &Peer) -> Result<u64, Box<dyn Error>> {
    let page = MetricsPage::fetch(ours.addr())?;
    let total = |name| page.total(name).ok_or_else(|| format!("GET /metrics does not show {name}"));
    let stored = total("store_samples_applied_total")? - total("store_samples_repeated_total")?;
    Ok((stored - total("store_samples_replaced_total")?) as u64)
}

/// A delete is carried out by writing anew what it may concern: every segment has the name, and no series the job.
fn merge(ours: &Peer, segments: u64) -> Result<(), Box<dyn Error>> {
    let nothing = "/api/v1/admin/tsdb/delete_series?match[]=up%7Bjob%3D~%22no-such-job.*%22%7D";
    let (status, body) = fetch::post(ours.addr(), nothing, "")?;
    if status != 204 {
        return Err(format!("the delete was answered {status}: {}", String::from_utf8_lossy(&body)).into());
    }
    wait_for("merges", || {
        let merges = MetricsPage::fetch(ours.addr())?.total("store_merges_total");
        Ok(merges.is_some_and(|merges| merges >= segments as f64))
    })
}

fn wait_for(
    what: &str,
    mut is_there: impl FnMut() -> Result<bool, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + PATIENCE;
    while !is_there()? {
        if Instant::now() > deadline {
            return Err(format!("waited {PATIENCE:?} for {what}").into());
        }
        thread::sleep(POLL);
    }
    Ok(())
}

fn inspect(binary: &Path, data_dir: &Path) -> Result<Inspected, Box<dyn Error>> {
    let output = Command::new(binary).args(["storage", "inspect", "--json"]).arg(data_dir).output()?;
    if !output.status.success() {
        return Err(format!("storage inspect: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

impl Sealed {
    fn of(inspected: Inspected) -> Sealed {
        let Inspected { segments, samples, bytes, sections, .. } = inspected;
        let counted = sections.iter().filter(|section| !LABEL_SECTIONS.contains(&&*section.name));
        let without_labels = counted.map(|section| section.bytes).sum::<u64>() as f64 / samples as f64;
        Sealed { segments, samples, bytes, sections, without_labels }
    }
}

fn table(scraped: &Scraped) -> Table {
    let Scraped { sealed, merged, prometheus, .. } = scraped;
    let mut table = Table::new(&["bytes a sample", "sealed", "merged", "Prometheus"]);
    for (section, after) in sealed.sections.iter().zip(&merged.sections) {
        let cell = |section: &Section| figure(Some(section.bytes_per_sample), 4);
        table.row(vec![section.name.clone(), cell(section), cell(after)]);
    }
    let each = |sealed: &Sealed| figure(Some(sealed.without_labels), 4);
    let chunks = figure(Some(prometheus.chunk_bytes_per_sample), 4);
    table.row(vec!["all but label index".to_owned(), each(sealed), each(merged), chunks]);
    let all = |bytes: u64, samples: u64| figure(Some(bytes as f64 / samples as f64), 4);
    table.row(vec![
        "all".to_owned(),
        all(sealed.bytes, sealed.samples),
        all(merged.bytes, merged.samples),
        all(prometheus.chunk_bytes + prometheus.index_bytes, prometheus.samples),
    ]);
    let counted = [sealed.samples, merged.samples, prometheus.samples].map(|count| thousands(count as f64));
    table.row([vec!["samples".to_owned()], counted.to_vec()].concat());
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_their_index_are_shown_and_not_counted() {
        let inspected = r#"{"segments":1,"series":2,"samples":100,"bytes":90,"codecs":[],"sections":[
            {"name":"values","bytes":30,"bytes_per_sample":0.3},{"name":"directory","bytes":5,"bytes_per_sample":0.05},
            {"name":"label index","bytes":40,"bytes_per_sample":0.4},{"name":"filter","bytes":15,"bytes_per_sample":0.15}]}"#;
        let sealed = Sealed::of(serde_json::from_str(inspected).unwrap());
        assert_eq!((sealed.without_labels, sealed.sections.len()), (0.5, 4));
    }

    #[test]
    fn a_metric_of_prometheus_is_added_up_over_its_labels() {
        let page = "# TYPE sent_total counter\nsent_total{queue=\"a\"} 5\nsent_total{queue=\"b\"} 1.5e+01\nother 7\n";
        assert_eq!(sum_of(page, "sent_total"), Some(20.0));
    }
}
