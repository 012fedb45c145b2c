//! What is counted with: plain atomic numbers, read as JSON.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Serialize, Serializer, ser::SerializeStruct};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `amount` more.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Serialize for Counter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.get())
    }
}

/// How long things took, in powers of two of microseconds: below 1 µs, 2 µs, 4 µs and so on, and all that took longer.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; Histogram::BOUNDS + 1],
    sum_ns: Counter,
}

impl Histogram {
    /// Number of upper bounds; the last one is about half a second.
    const BOUNDS: usize = 20;

    /// Notes something that took `nanoseconds`.
    pub fn record(&self, nanoseconds: u64) {
        let microseconds = nanoseconds / 1000;
        let bucket = (u64::BITS - microseconds.leading_zeros()) as usize;
        self.buckets[bucket.min(Self::BOUNDS)].add(1);
        self.sum_ns.add(nanoseconds);
    }
}

/// `le_us` has the upper bounds and how many took no longer (cumulative, as Prometheus has it), `sum_us` and `count`.
impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut count = 0;
        let mut bounds = Vec::with_capacity(Self::BOUNDS);
        for (power, bucket) in self.buckets.iter().enumerate() {
            count += bucket.get();
            if power < Self::BOUNDS {
                bounds.push((1_u64 << power, count));
            }
        }
        let mut fields = serializer.serialize_struct("Histogram", 3)?;
        fields.serialize_field("le_us", &bounds)?;
        fields.serialize_field("sum_us", &(self.sum_ns.get() / 1000))?;
        fields.serialize_field("count", &count)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_buckets() {
        let histogram = Histogram::default();
        for nanoseconds in [0, 999, 1000, 1999, 2000, 300_000, u64::MAX / 4] {
            histogram.record(nanoseconds);
        }
        let json = serde_json::to_value(&histogram).unwrap();
        assert_eq!(json["le_us"][0], serde_json::json!([1, 2]));
        assert_eq!(json["le_us"][1], serde_json::json!([2, 4]));
        assert_eq!(json["le_us"][2], serde_json::json!([4, 5]));
        assert_eq!(json["le_us"][9], serde_json::json!([512, 6]));
        assert_eq!(json["le_us"][19], serde_json::json!([1 << 19, 6]));
        assert_eq!(json["count"], 7);
    }
}
