//! A histogram of durations without a lock (the library's own takes one for each observation).

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// Upper bounds in microseconds; what is longer has a bucket of its own.
const BOUNDS: [u32; 12] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000, 5_000_000];

/// Durations from 50 µs to 5 s, in 13 buckets. Cheap to clone: one pointer.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    buckets: [AtomicU64; BOUNDS.len()],
    longer: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let fits = |(bound, _): &(&u32, _)| duration <= Duration::from_micros(u64::from(**bound));
        let bucket =
            BOUNDS.iter().zip(&self.0.buckets).find(fits).map_or(&self.0.longer, |(_, bucket)| bucket);
        bucket.fetch_add(1, Relaxed);
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS.iter().map(|bound| f64::from(*bound) / 1e6).chain([f64::INFINITY]);
        let counts = self.0.buckets.iter().chain([&self.0.longer]).map(|count| count.load(Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.0.nanoseconds.load(Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for micros in [0, 50, 51, 1_000, 4_999_999, 5_000_001, 60_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut registry = Registry::default();
        registry.register("t", "t", histogram);
        let mut out = String::new();
        text::encode(&mut out, &registry).unwrap();
        for line in [
            "t_sum 70.001101",
            "t_count 7",
            "t_bucket{le=\"0.00005\"} 2",
            "t_bucket{le=\"0.0001\"} 3",
            "t_bucket{le=\"0.0005\"} 3",
            "t_bucket{le=\"0.001\"} 4",
            "t_bucket{le=\"5.0\"} 5",
            "t_bucket{le=\"+Inf\"} 7",
        ] {
            assert!(out.lines().any(|l| l == line), "{line:?} is missing in:\n{out}");
        }
    }
}
