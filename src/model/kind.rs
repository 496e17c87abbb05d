//! What a metric says it is.

/// The type a client gives a metric; kept as metadata, never used to interpret a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MetricKind {
    /// Goes up and down. What a metric is when nothing is said.
    #[default]
    Gauge = 0,
    /// Only rises, or starts again at zero.
    Counter = 1,
    /// One series of a bucketed distribution.
    Histogram = 2,
    /// One series of a distribution that the client summarised.
    Summary = 3,
}

impl MetricKind {
    /// The kind of that name, as clients write it.
    pub fn from_name(name: &str) -> Option<MetricKind> {
        Some(match name {
            "gauge" => MetricKind::Gauge,
            "counter" => MetricKind::Counter,
            "histogram" => MetricKind::Histogram,
            "summary" => MetricKind::Summary,
            _ => return None,
        })
    }

    /// Its name, as clients write it.
    pub const fn name(self) -> &'static str {
        match self {
            MetricKind::Gauge => "gauge",
            MetricKind::Counter => "counter",
            MetricKind::Histogram => "histogram",
            MetricKind::Summary => "summary",
        }
    }

    /// The kind of that byte, as journal and segment hold it.
    pub fn from_byte(byte: u8) -> Option<MetricKind> {
        [MetricKind::Gauge, MetricKind::Counter, MetricKind::Histogram, MetricKind::Summary]
            .get(usize::from(byte))
            .copied()
    }
}
