//! The delay between connection attempts, in integer arithmetic so that it is the same everywhere.

use std::time::Duration;

use super::config::PeerConfig;

/// Exponential delays with equal jitter: each is drawn from the upper half of its nominal value, so
/// that many clients of one server that died do not come back in step.
///
/// The shape (multiply, cap, jitter, reset after a time of health) is that of FoundationDB's
/// `connectionKeeper` (FlowTransport.actor.cpp).
#[derive(Debug)]
pub(super) struct Backoff {
    initial: Duration,
    percent: u32,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(config: &PeerConfig) -> Self {
        Self {
            initial: config.initial_backoff,
            percent: config.backoff_percent,
            max: config.max_backoff,
            next: config.initial_backoff,
        }
    }

    /// The delay to wait now; the next one is larger. `jitter` is any random number.
    pub(super) fn next_delay(&mut self, jitter: u64) -> Duration {
        const STEPS: u32 = 1024;
        let nominal = self.next;
        self.next = nominal
            .saturating_mul(self.percent)
            .checked_div(100)
            .unwrap_or(self.max)
            .min(self.max);
        let half = nominal / 2;
        let step = u32::try_from(jitter % u64::from(STEPS)).unwrap_or(0);
        (nominal - half) + half.saturating_mul(step) / STEPS
    }

    /// Begins again with the first delay.
    pub(super) fn reset(&mut self) {
        self.next = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nominal(config: &PeerConfig, steps: usize) -> Vec<u128> {
        let mut backoff = Backoff::new(config);
        (0..steps)
            .map(|_| {
                let nominal = backoff.next;
                backoff.next_delay(0);
                nominal.as_millis()
            })
            .collect()
    }

    #[test]
    fn delays_grow_by_a_fifth_up_to_half_a_second() {
        let delays = nominal(&PeerConfig::default(), 20);
        assert_eq!(&delays[..5], [50, 60, 72, 86, 103]);
        assert_eq!(delays[19], 500);
    }

    #[test]
    fn across_the_world_delays_double_up_to_thirty_seconds() {
        let delays = nominal(&PeerConfig::wan_network(), 8);
        assert_eq!(delays, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    }

    #[test]
    fn a_reset_begins_again() {
        let mut backoff = Backoff::new(&PeerConfig::default());
        let first = backoff.next_delay(7);
        backoff.next_delay(7);
        backoff.reset();
        assert_eq!(backoff.next_delay(7), first);
    }

    proptest! {
        #[test]
        fn a_delay_lies_in_the_upper_half_of_its_nominal_value(jitter: u64, steps in 0usize..30) {
            let mut backoff = Backoff::new(&PeerConfig::default());
            for _ in 0..steps {
                backoff.next_delay(0);
            }
            let nominal = backoff.next;
            let delay = backoff.next_delay(jitter);
            prop_assert!(delay >= nominal / 2 && delay <= nominal);
        }
    }
}
