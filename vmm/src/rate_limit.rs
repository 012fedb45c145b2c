//! Token buckets: how many bytes and operations a device may move in a time, with bursts.
//!
//! A bucket holds `size` tokens at most and is refilled from empty to full in `refill_ms`; a `burst` on top is given once and
//! never refilled. An operation larger than the bucket is let through when the bucket is full, and what it took too much
//! is paid back before the next one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const NS_PER_MS: u64 = 1_000_000;

/// A limit of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketConfig {
    /// Tokens (bytes or operations) that it holds, at least 1.
    pub size: u64,
    /// Tokens that are there once, at the beginning, on top of `size`.
    #[serde(default)]
    pub burst: u64,
    /// Milliseconds in which `size` tokens come back, at least 1.
    pub refill_ms: u64,
}

/// The limits of a device. What is left out is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Bytes of data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<BucketConfig>,
    /// Requests or frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<BucketConfig>,
}

/// A limit makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rate limit's size and refill_ms must be at least 1, and at most 2^53")]
pub struct RateLimitError;

impl RateLimit {
    /// Checks what the types can't say.
    ///
    /// # Errors
    /// When a number is zero or absurd.
    pub fn validate(&self) -> Result<(), RateLimitError> {
        let range = 1..=1_u64 << 53;
        let good = |bucket: BucketConfig| {
            range.contains(&bucket.size) && range.contains(&bucket.refill_ms) && bucket.burst <= *range.end()
        };
        if self.bytes.is_none_or(good) && self.ops.is_none_or(good) { Ok(()) } else { Err(RateLimitError) }
    }
}

#[derive(Debug)]
struct Bucket {
    config: BucketConfig,
    burst: u64,
    /// Tokens left, apart from the burst. Below zero: to be paid back.
    tokens: i128,
    filled_at_ns: u64,
}

impl Bucket {
    fn new(config: BucketConfig, now_ns: u64) -> Self {
        Self { config, burst: config.burst, tokens: config.size.into(), filled_at_ns: now_ns }
    }

    fn refill_ns(&self) -> u128 {
        u128::from(self.config.refill_ms) * u128::from(NS_PER_MS)
    }

    fn fill(&mut self, now_ns: u64) {
        let elapsed = u128::from(now_ns.saturating_sub(self.filled_at_ns));
        let size = u128::from(self.config.size);
        let missing = i128::from(self.config.size) - self.tokens;
        let new = elapsed.saturating_mul(size) / self.refill_ns();
        match i128::try_from(new) {
            Ok(new) if new < missing => {
                self.tokens += new;
                // The time of the tokens given, so that fractions of a token are not lost.
                let used = new.unsigned_abs() * self.refill_ns() / size;
                self.filled_at_ns += u64::try_from(used).unwrap_or(0);
            }
            _ => {
                self.tokens = self.config.size.into();
                self.filled_at_ns = now_ns;
            }
        }
    }

    /// How long until `wanted` tokens can be taken, just after [`Bucket::fill`]; zero if now.
    fn wait(&self, wanted: u64, now_ns: u64) -> Duration {
        let needed = i128::from(wanted.saturating_sub(self.burst).min(self.config.size));
        let Ok(missing) = u128::try_from(needed - self.tokens) else { return Duration::ZERO };
        let nanoseconds = (missing * self.refill_ns()).div_ceil(u128::from(self.config.size));
        if nanoseconds == 0 {
            return Duration::ZERO;
        }
        // A part of the next token's time has passed already.
        let passed = now_ns.saturating_sub(self.filled_at_ns);
        let nanoseconds = u64::try_from(nanoseconds).unwrap_or(u64::MAX);
        Duration::from_nanos(nanoseconds.saturating_sub(passed).max(1))
    }

    fn take(&mut self, wanted: u64) {
        let of_burst = wanted.min(self.burst);
        self.burst -= of_burst;
        self.tokens -= i128::from(wanted - of_burst);
    }
}

#[derive(Debug, Default)]
struct Buckets {
    bytes: Option<Bucket>,
    ops: Option<Bucket>,
}

/// The limits of a device in use, shared by its thread and by whoever changes them.
#[derive(Debug, Clone)]
pub struct RateLimiter {
    buckets: Arc<Mutex<Buckets>>,
    changed: Arc<EventFd>,
}

impl RateLimiter {
    /// Full buckets; `now_ns` is the time by [`crate::time::monotonic_ns`].
    ///
    /// # Errors
    /// When no eventfd can be had.
    pub fn new(limit: RateLimit, now_ns: u64) -> std::io::Result<Self> {
        let limiter = Self { buckets: Arc::default(), changed: Arc::new(EventFd::new(EFD_NONBLOCK)?) };
        limiter.fill(limit, now_ns);
        Ok(limiter)
    }

    fn fill(&self, limit: RateLimit, now_ns: u64) {
        let new = |config: Option<BucketConfig>| config.map(|config| Bucket::new(config, now_ns));
        *self.lock() = Buckets { bytes: new(limit.bytes), ops: new(limit.ops) };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Buckets> {
        // Numbers are whole at every moment.
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the limits, with full buckets.
    pub fn update(&self, limit: RateLimit, now_ns: u64) {
        self.fill(limit, now_ns);
        // Fails only when its counter would overflow, and then it is readable anyway.
        let _ = self.changed.write(1);
    }

    /// Becomes readable when the limits change: who waits should ask again. To be drained by the reader.
    pub fn changed(&self) -> &EventFd {
        &self.changed
    }

    /// Takes one operation of `bytes` bytes.
    ///
    /// # Errors
    /// How long to wait before asking again, when there are not enough tokens; none are taken then.
    pub fn take(&self, bytes: u64, now_ns: u64) -> Result<(), Duration> {
        let mut buckets = self.lock();
        let Buckets { bytes: for_bytes, ops } = &mut *buckets;
        let mut wanted = [(for_bytes.as_mut(), bytes), (ops.as_mut(), 1)];
        let mut wait = Duration::ZERO;
        for (bucket, amount) in &mut wanted {
            if let Some(bucket) = bucket {
                bucket.fill(now_ns);
                wait = wait.max(bucket.wait(*amount, now_ns));
            }
        }
        if !wait.is_zero() {
            return Err(wait);
        }
        for (bucket, amount) in wanted {
            if let Some(bucket) = bucket {
                bucket.take(amount);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limiter(bytes: Option<BucketConfig>, ops: Option<BucketConfig>) -> RateLimiter {
        RateLimiter::new(RateLimit { bytes, ops }, 0).unwrap()
    }

    fn bucket(size: u64, burst: u64, refill_ms: u64) -> Option<BucketConfig> {
        Some(BucketConfig { size, burst, refill_ms })
    }

    const MS: u64 = NS_PER_MS;

    #[test]
    fn a_burst_comes_once_and_tokens_come_back() {
        let limiter = limiter(bucket(100, 50, 10), None);
        assert_eq!(limiter.take(150, 0), Ok(()));
        assert_eq!(limiter.take(10, 0), Err(Duration::from_millis(1)));
        assert_eq!(limiter.take(10, MS), Ok(()));
        assert_eq!(limiter.take(100, 1000 * MS), Ok(()));
        assert_eq!(limiter.take(1, 1000 * MS), Err(Duration::from_micros(100)));
        // Who asks too early waits no longer for it.
        assert_eq!(limiter.take(1, 1000 * MS + 30_000), Err(Duration::from_micros(70)));
    }

    #[test]
    fn an_operation_larger_than_the_bucket_is_paid_back() {
        let limiter = limiter(bucket(100, 0, 10), None);
        assert_eq!(limiter.take(300, 0), Ok(()));
        assert_eq!(limiter.take(1, 10 * MS), Err(Duration::from_micros(10_100)));
        assert_eq!(limiter.take(1, 21 * MS), Ok(()));
    }

    #[test]
    fn both_kinds_count_and_neither_is_taken_alone() {
        let limiter = limiter(bucket(1000, 0, 10), bucket(1, 0, 10));
        assert_eq!(limiter.take(500, 0), Ok(()));
        assert_eq!(limiter.take(500, 0), Err(Duration::from_millis(10)));
        assert_eq!(limiter.take(1000, 10 * MS), Ok(()));
    }

    #[test]
    fn no_limit_never_waits_and_limits_change() {
        let limiter = limiter(None, None);
        assert_eq!(limiter.take(u64::MAX, 0), Ok(()));
        limiter.update(RateLimit { bytes: None, ops: bucket(1, 0, 1) }, 0);
        limiter.changed().read().unwrap();
        assert_eq!(limiter.take(u64::MAX, 0), Ok(()));
        assert_eq!(limiter.take(0, 0), Err(Duration::from_millis(1)));
    }

    #[test]
    fn zeros_are_refused() {
        for (size, refill_ms) in [(0, 1), (1, 0), (u64::MAX, 1)] {
            assert_eq!(
                RateLimit { bytes: bucket(size, 0, refill_ms), ops: None }.validate(),
                Err(RateLimitError)
            );
        }
        assert_eq!(RateLimit { bytes: bucket(1, 0, 1), ops: bucket(1, 1, 1) }.validate(), Ok(()));
    }

    proptest! {
        /// Over any time, no more goes through than the burst, a full bucket, what came back, and one operation that was
        /// larger than the bucket; and who waits as long as told gets through.
        #[test]
        fn no_more_goes_through_than_allowed(
            size in 1_u64..10_000,
            burst in 0_u64..10_000,
            refill_ms in 1_u64..1000,
            steps in prop::collection::vec((0_u64..20_000, 0_u64..50 * MS), 1..50),
        ) {
            let limiter = limiter(bucket(size, burst, refill_ms), None);
            let (mut now, mut passed) = (0, 0);
            for (bytes, pause) in steps {
                now += pause;
                let came_back = u128::from(now) * u128::from(size) / u128::from(refill_ms * MS);
                if let Err(wait) = limiter.take(bytes, now) {
                    now += u64::try_from(wait.as_nanos()).unwrap();
                    prop_assert_eq!(limiter.take(bytes, now), Ok(()));
                } else {
                    prop_assert!(u128::from(passed) <= u128::from(size + burst) + came_back + 20_000);
                }
                passed += bytes;
            }
        }
    }
}
