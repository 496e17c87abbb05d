//! `GET /metrics`: the server's own metrics in the Prometheus text exposition format 0.0.4, prefix `ringwatch_`,
//! base units; one series per shard, so that a sum is the reader's choice.

use crate::shared::{Counter, LATENCY_QUANTILES, ShardCounters, Shared, queue_depth_of};
use std::fmt::Write as _;

/// Of the text form.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    of: fn(&ShardCounters) -> &Counter,
}

const METRICS: &[Metric] = &[
    counter("http_requests_total", "Requests that were understood.", |s| &s.front.requests),
    counter("ingest_samples_total", "Samples accepted.", |s| &s.front.samples_accepted),
    counter("ingest_bodies_total", "Bodies accepted, single metrics and batches.", |s| {
        &s.front.bodies_accepted
    }),
    counter(
        "ingest_validation_errors_total",
        "Requests refused for what they hold, what is no HTTP included.",
        |s| &s.front.validation_errors,
    ),
    counter(
        "ingest_samples_left_out_total",
        "Samples of remote writes that could not be taken, where the others were.",
        |s| &s.front.samples_left_out,
    ),
    counter("ingest_histograms_skipped_total", "Native histograms that came and are not kept.", |s| {
        &s.front.histograms_skipped
    }),
    counter("ingest_exemplars_skipped_total", "Exemplars that came and are not kept.", |s| {
        &s.front.exemplars_skipped
    }),
    counter("ingest_metadata_skipped_total", "Metadata that came and is not kept.", |s| {
        &s.front.metadata_skipped
    }),
    counter("ingest_texts_skipped_total", "Fields of text in line protocol, which are not kept.", |s| {
        &s.front.texts_skipped
    }),
    counter("ingest_overload_refusals_total", "Bodies refused for want of room, disk or readiness.", |s| {
        &s.front.overload_refusals
    }),
    counter("ingest_memory_refusals_total", "Bodies refused for want of memory.", |s| {
        &s.front.memory_refusals
    }),
    counter(
        "ingest_series_refusals_total",
        "Bodies refused, of remote write in part, because storage.series_max or storage.series_per_name_max was reached.",
        |s| &s.front.series_refusals,
    ),
    counter("ingest_rate_limited_total", "Requests refused for their client's rate limit.", |s| {
        &s.front.rate_limited
    }),
    counter("loop_pauses_total", "Times that samples waited for an executor to catch up.", |s| {
        &s.front.pauses
    }),
    gauge("http_connections", "Open connections.", |s| &s.front.connections),
    counter("http_connections_total", "Connections accepted.", |s| &s.front.connections_accepted),
    counter("http_connections_idle_total", "Connections closed because nothing came on them.", |s| {
        &s.front.connections_idle
    }),
    counter("http_connections_broken_total", "Connections that their client reset, or that failed.", |s| {
        &s.front.connections_broken
    }),
    counter("http_connections_unused_total", "Connections that ended before anything came on them.", |s| {
        &s.front.connections_unused
    }),
    counter(
        "http_connections_unread_total",
        "Connections closed because their client took no answer.",
        |s| &s.front.sends_timed_out,
    ),
    counter(
        "http_accepts_held_total",
        "Times that connections had to wait in the backlog for a slot.",
        |s| &s.front.accepts_held,
    ),
    counter("http_accepts_failed_total", "Accepts that found no descriptor or no memory.", |s| {
        &s.front.accepts_failed
    }),
    counter("loop_enters_total", "System calls of the I/O loop's ring.", |s| &s.front.enters),
    counter(
        "loop_receive_buffers_exhausted_total",
        "Receives that found no buffer and were armed again.",
        |s| &s.front.receive_buffers_exhausted,
    ),
    counter("loop_sends_delayed_total", "Answers that a client was slow to take.", |s| {
        &s.front.sends_delayed
    }),
    counter("journal_bytes_total", "Bytes handed to the kernel for the journal.", |s| &s.front.journal_bytes),
    counter("journal_writes_total", "Writes to the journal.", |s| &s.front.journal_writes),
    counter("journal_syncs_total", "Syncs of the journal.", |s| &s.front.journal_syncs),
    counter("journal_failures_total", "Writes and syncs of the journal that failed.", |s| {
        &s.front.journal_failures
    }),
    counter("store_samples_applied_total", "Samples that executors have taken from their queues.", |s| {
        &s.store.samples_applied
    }),
    counter(
        "store_samples_repeated_total",
        "Samples that were there already: same series, time and value. Late ones may be counted only when memory is flushed.",
        |s| &s.store.samples_repeated,
    ),
    counter(
        "store_samples_replaced_total",
        "Samples that replaced another value at their time. Late ones may be counted only when memory is flushed.",
        |s| &s.store.samples_replaced,
    ),
    counter(
        "store_samples_unknown_total",
        "Samples that came under a number which no series has, a fault of the server's: no query sees them.",
        |s| &s.store.samples_unknown,
    ),
    counter("store_samples_replayed_total", "Samples read back from the journal at start.", |s| {
        &s.store.samples_replayed
    }),
    gauge("store_samples_loaded", "Samples that the start found in a checkpoint.", |s| {
        &s.store.samples_loaded
    }),
    gauge("store_series", "Series in the memtable.", |s| &s.store.series),
    gauge("store_memtable_bytes", "Memory of samples, tables of series and indexes of segments.", |s| {
        &s.store.memtable_bytes
    }),
    gauge("store_segments", "Segments read by this shard.", |s| &s.store.segments),
    counter("store_flushes_total", "Memtables written to a segment.", |s| &s.store.flushes),
    counter("store_flushed_bytes_total", "Bytes of the segments that flushes wrote.", |s| {
        &s.store.flushed_bytes
    }),
    counter("store_flush_failures_total", "Flushes that failed and will be tried again.", |s| {
        &s.store.flush_failures
    }),
    gauge("store_flush_under_way", "1 while memory is on its way to a segment.", |s| {
        &s.store.flush_under_way
    }),
    gauge("store_merge_under_way", "1 while segments are merged.", |s| &s.store.merge_under_way),
    gauge("checkpoint_under_way", "1 while a checkpoint is written.", |s| &s.store.checkpoint_under_way),
    counter("checkpoint_writes_total", "Checkpoints of the memory that a manifest came to name.", |s| {
        &s.store.checkpoints
    }),
    counter("checkpoint_failures_total", "Checkpoints that failed; the one before stays.", |s| {
        &s.store.checkpoint_failures
    }),
    gauge("checkpoint_bytes", "Size of the last checkpoint.", |s| &s.store.checkpoint_bytes),
    gauge("checkpoint_last_success_timestamp_seconds", "When the last checkpoint was complete.", |s| {
        &s.store.checkpoint_unix_seconds
    }),
    counter("store_merges_total", "Times that segments were merged.", |s| &s.store.merges),
    counter("store_merge_failures_total", "Merges that failed and left the segments as they were.", |s| {
        &s.store.merge_failures
    }),
    counter("store_merged_bytes_total", "Bytes of the segments that merges wrote.", |s| {
        &s.store.merged_bytes
    }),
    counter("query_queries_total", "Queries answered.", |s| &s.store.queries),
    counter("query_failures_total", "Queries refused or failed.", |s| &s.store.query_failures),
    gauge("alert_rules_firing", "Rules of this shard that fire.", |s| &s.store.alerts_firing),
];

const fn counter(name: &'static str, help: &'static str, of: fn(&ShardCounters) -> &Counter) -> Metric {
    Metric { name, kind: "counter", help, of }
}

const fn gauge(name: &'static str, help: &'static str, of: fn(&ShardCounters) -> &Counter) -> Metric {
    Metric { name, kind: "gauge", help, of }
}

/// The whole page.
pub fn text(shared: &Shared) -> String {
    let mut page = String::with_capacity(8 * 1024);
    for metric in METRICS {
        head(&mut page, metric.name, metric.kind, metric.help);
        for (shard, counters) in shared.shards.iter().enumerate() {
            let value = (metric.of)(counters).get();
            line(&mut page, metric.name, format_args!("{{shard=\"{shard}\"}} {value}"));
        }
    }
    let paused = "loop_paused_seconds_total";
    head(
        &mut page,
        paused,
        "counter",
        "How long samples waited for executors to catch up, refusals not counted.",
    );
    for (shard, counters) in shared.shards.iter().enumerate() {
        let seconds = counters.front.paused_nanos.get() as f64 / 1e9;
        line(&mut page, paused, format_args!("{{shard=\"{shard}\"}} {seconds}"));
    }
    let taken = "checkpoint_duration_seconds";
    head(&mut page, taken, "gauge", "How long the last checkpoint took.");
    for (shard, counters) in shared.shards.iter().enumerate() {
        let seconds = counters.store.checkpoint_nanos.get() as f64 / 1e9;
        line(&mut page, taken, format_args!("{{shard=\"{shard}\"}} {seconds}"));
    }
    refused_of(&shared.shards, &mut page);
    bad_messages_of(&shared.shards, &mut page);
    let latency = "http_request_duration_seconds";
    head(
        &mut page,
        latency,
        "summary",
        "From the turn that took a request in to its answer's send, since start; quantiles as of the last second.",
    );
    for (shard, counters) in shared.shards.iter().enumerate() {
        let front = &counters.front;
        for (counter, quantile) in front.latency.iter().zip(LATENCY_QUANTILES) {
            let seconds = counter.get() as f64 / 1e9;
            line(&mut page, latency, format_args!("{{shard=\"{shard}\",quantile=\"{quantile}\"}} {seconds}"));
        }
        let sum = front.latency_sum_nanos.get() as f64 / 1e9;
        line(&mut page, latency, format_args!("_sum{{shard=\"{shard}\"}} {sum}"));
        line(&mut page, latency, format_args!("_count{{shard=\"{shard}\"}} {}", front.latency_count.get()));
    }
    let dropped = "console_lines_dropped_total";
    head(&mut page, dropped, "counter", "Lines left out because standard output was not read.");
    line(&mut page, dropped, format_args!(" {}", shared.console.lines_dropped()));
    head(&mut page, "query_memory_bytes", "gauge", "Memory that running queries hold, in portions.");
    line(&mut page, "query_memory_bytes", format_args!(" {}", shared.query_budget.taken()));
    let damaged = "storage_damaged_total";
    head(
        &mut page,
        damaged,
        "counter",
        "Times that a query or the start met a damaged part of a file, and left it out.",
    );
    for (file, count) in shared.damage.by_file() {
        line(&mut page, damaged, format_args!("{{file=\"{file}\"}} {count}"));
    }
    queue_of(&shared.shards, &mut page);
    page
}

/// Connections that were told 503 instead of being served, by the setting that says how many are.
fn refused_of(shards: &[ShardCounters], page: &mut String) {
    let refused = "http_connections_refused_total";
    head(
        page,
        refused,
        "counter",
        "Connections told that there are too many, by the setting that bounds them.",
    );
    for (shard, ShardCounters { front, .. }) in shards.iter().enumerate() {
        for (setting, counter) in [
            ("http.connections_max", &front.connections_refused),
            ("http.connections_per_address_max", &front.connections_refused_address),
        ] {
            let value = counter.get();
            line(page, refused, format_args!("{{shard=\"{shard}\",setting=\"{setting}\"}} {value}"));
        }
    }
}

/// What came instead of requests, and ended its connection.
fn bad_messages_of(shards: &[ShardCounters], page: &mut String) {
    let refused = "http_messages_refused_total";
    head(page, refused, "counter", "Messages that are no acceptable request, by cause.");
    for (shard, ShardCounters { front, .. }) in shards.iter().enumerate() {
        for (cause, counter) in front.bad_messages.refused() {
            let value = counter.get();
            line(page, refused, format_args!("{{shard=\"{shard}\",cause=\"{cause}\"}} {value}"));
        }
    }
    let timeouts = "http_timeouts_total";
    head(page, timeouts, "counter", "Requests that came too slowly, by the part that did.");
    for (shard, ShardCounters { front, .. }) in shards.iter().enumerate() {
        for (part, counter) in front.bad_messages.timed_out() {
            let value = counter.get();
            line(page, timeouts, format_args!("{{shard=\"{shard}\",part=\"{part}\"}} {value}"));
        }
    }
}

/// Depth, peak and total of each shard's queue, as `--stats-interval` prints them for all (SPEC §2.5).
fn queue_of(shards: &[ShardCounters], page: &mut String) {
    let depth = |shard| queue_depth_of(shards, shard);
    // A depth that no drain has found yet counts, too.
    let peak = |shard: usize| shards[shard].store.queue_samples_peak.get().max(depth(shard));
    let total = |shard: usize| shards[shard].store.samples_applied.get();
    let mut series = |name: &str, kind: &str, help: &str, number: &dyn Fn(usize) -> u64| {
        head(page, name, kind, help);
        for shard in 0..shards.len() {
            line(page, name, format_args!("{{shard=\"{shard}\"}} {}", number(shard)));
        }
    };
    series("queue_samples", "gauge", "Samples accepted for the shard and not yet in its store.", &depth);
    series("queue_samples_peak", "gauge", "Most samples that waited for the shard at once.", &peak);
    series("queue_samples_processed_total", "counter", "Samples that left the shard's queue.", &total);
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    page.push_str(&format!("# HELP ringwatch_{name} {help}\n# TYPE ringwatch_{name} {kind}\n"));
}

fn line(page: &mut String, name: &str, rest: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(page, "ringwatch_{name}{rest}");
}

/// The four counters of SPEC §2.4.
pub fn json(shared: &Shared) -> String {
    let sum = |of: fn(&ShardCounters) -> &Counter| -> u64 { shared.shards.iter().map(|s| of(s).get()).sum() };
    format!(
        r#"{{"metrics_received":{},"batches_processed":{},"validation_errors":{},"rate_limited_requests":{}}}"#,
        sum(|s| &s.front.samples_accepted),
        sum(|s| &s.front.bodies_accepted),
        sum(|s| &s.front.validation_errors),
        sum(|s| &s.front.rate_limited),
    )
}
