//! Reproducible random numbers.

use std::time::Duration;

/// A seeded random number generator (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct SeededRandom(u64);

impl SeededRandom {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Derives an independent generator for one of several concurrent tasks, so that their order does not matter.
    pub(crate) fn derive(&self, stream: u64) -> Self {
        let mut random = Self(self.0 ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        Self(random.next())
    }

    /// Returns a number from 0 up to but not including `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Returns true with a probability of `percent` percent.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Returns a duration from `least` to `most` milliseconds.
    pub(crate) fn milliseconds(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least + 1))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Returns the seed of a test: the value of `CODEXD_SOAK_SEED`, or a random one.
///
/// Prints the seed, so that a failure can be reproduced.
#[expect(clippy::print_stderr, reason = "the test runner shows this with the failure of the test")]
pub(crate) fn seed() -> u64 {
    let named = std::env::var("CODEXD_SOAK_SEED").ok();
    let seed = named.map_or_else(
        || uuid::Uuid::new_v4().as_u64_pair().0,
        |text| text.parse().unwrap_or_else(|error| panic!("CODEXD_SOAK_SEED={text}: {error}")),
    );
    eprintln!("CODEXD_SOAK_SEED={seed}");
    seed
}
