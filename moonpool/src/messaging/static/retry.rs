//! [`RetryPolicy`]: when a call is made again, and what its outcome says then. Pure.

use std::time::Duration;

use super::reply_error::ReplyError;

/// How a call is made again that has no answer: see [`Call::retry`](super::Call::retry).
///
/// Between attempts passes a delay that doubles from one to the next, up to a limit; each is drawn
/// from the upper half of its nominal value, so that many clients of one server that died do not
/// come back in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a policy does nothing until a call is given it"]
pub struct RetryPolicy {
    max_attempts: u32,
    initial_backoff: Duration,
    max_backoff: Duration,
    while_not_found: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: u32::MAX,
            initial_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(2),
            while_not_found: false,
        }
    }
}

impl RetryPolicy {
    /// As often as the call's deadline allows, with 50 ms to 2 s between attempts.
    pub fn new() -> Self {
        Self::default()
    }

    /// At most so many attempts, the first included; 0 counts as 1. By default only the deadline
    /// bounds them.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }

    /// The nominal delay before the second attempt, and the one that no later delay exceeds.
    pub fn backoff(mut self, initial: Duration, max: Duration) -> Self {
        self.initial_backoff = initial;
        self.max_backoff = max.max(initial);
        self
    }

    /// Goes on after [`ReplyError::EndpointNotFound`] as well: for a well-known token, or one of an
    /// interface's id, whose service may not be registered yet. Without it that ends the call, as it
    /// has to for a dynamic endpoint, which is never there again.
    pub fn while_not_found(mut self) -> Self {
        self.while_not_found = true;
        self
    }

    /// Whether another attempt may end otherwise.
    fn applies_to(&self, error: &ReplyError) -> bool {
        match error {
            ReplyError::ConnectionFailed
            | ReplyError::MaybeDelivered
            | ReplyError::BrokenPromise
            | ReplyError::Overloaded => true,
            ReplyError::EndpointNotFound => self.while_not_found,
            ReplyError::Timeout
            | ReplyError::Serialization { .. }
            | ReplyError::Unauthorized
            | ReplyError::PayloadTooLarge
            | ReplyError::ReplyTooLarge
            | ReplyError::Cancelled
            | ReplyError::Refused(_)
            | ReplyError::Application { .. } => false,
        }
    }

    /// The delay after this many attempts. `jitter` is any random number.
    fn delay(&self, attempts: u32, jitter: u64) -> Duration {
        const STEPS: u32 = 1024;
        let doublings = attempts.saturating_sub(1).min(31);
        let nominal = self
            .initial_backoff
            .saturating_mul(1 << doublings)
            .min(self.max_backoff);
        let half = nominal / 2;
        let step = u32::try_from(jitter % u64::from(STEPS)).unwrap_or(0);
        (nominal - half).saturating_add(half / STEPS * step)
    }
}

/// The attempts at one call.
#[derive(Debug)]
pub(crate) struct Attempts {
    policy: RetryPolicy,
    ended: u32,
    /// One of them may have been executed.
    may_be_executed: bool,
}

/// What comes after an attempt that failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another one, this much later.
    After(Duration),
    /// The call ends like this.
    End(ReplyError),
}

impl Attempts {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self {
            policy,
            ended: 0,
            may_be_executed: false,
        }
    }

    /// The number of the attempt that is being made, or that the pause is for; from 1.
    pub(crate) fn number(&self) -> u32 {
        self.ended.saturating_add(1)
    }

    /// An attempt failed. `remaining` is the time until the call's deadline: another attempt that
    /// would begin later is not made.
    pub(crate) fn next(
        &mut self,
        error: ReplyError,
        remaining: Option<Duration>,
        jitter: u64,
    ) -> Next {
        self.ended = self.ended.saturating_add(1);
        let delay = self.policy.delay(self.ended, jitter);
        let is_in_time = remaining.is_none_or(|remaining| delay < remaining);
        let is_allowed = self.ended < self.policy.max_attempts;
        if is_in_time && is_allowed && self.policy.applies_to(&error) {
            self.may_be_executed |= !error.is_surely_not_executed();
            return Next::After(delay);
        }
        Next::End(self.outcome(error))
    }

    /// The call's outcome, if this is the last attempt's: "surely not executed" has to be true of
    /// every attempt.
    pub(crate) fn outcome(&self, last: ReplyError) -> ReplyError {
        if self.may_be_executed && last.is_surely_not_executed() {
            ReplyError::MaybeDelivered
        } else {
            last
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn surely_not_executed_has_to_be_true_of_every_attempt() {
        let policy = RetryPolicy::new().max_attempts(3);
        let mut attempts = Attempts::new(policy);
        let overloaded = || ReplyError::Overloaded;
        for _ in 0..2 {
            let next = attempts.next(overloaded(), None, 0);
            assert!(matches!(next, Next::After(_)));
        }
        let end = attempts.next(overloaded(), None, 0);
        assert_eq!(end, Next::End(ReplyError::Overloaded));
        let mut attempts = Attempts::new(policy);
        drop(attempts.next(ReplyError::BrokenPromise, None, 0));
        let end = attempts.next(ReplyError::Unauthorized, None, 0);
        assert_eq!(end, Next::End(ReplyError::MaybeDelivered));
    }

    #[test]
    fn an_attempt_that_would_begin_after_the_deadline_is_not_made() {
        let policy = RetryPolicy::new().backoff(SECOND, SECOND);
        let next = |remaining| {
            Attempts::new(policy).next(ReplyError::ConnectionFailed, Some(remaining), 0)
        };
        assert!(matches!(next(SECOND), Next::After(_)));
        assert_eq!(
            next(SECOND / 2),
            Next::End(ReplyError::ConnectionFailed),
            "it is known earlier"
        );
    }

    #[test]
    fn delays_double_up_to_their_limit_in_the_upper_half() {
        let policy = RetryPolicy::new().backoff(SECOND, SECOND * 5);
        for (attempts, nominal) in [(1, 1), (2, 2), (3, 4), (4, 5), (u32::MAX, 5)] {
            let nominal = SECOND * nominal;
            assert_eq!(policy.delay(attempts, 0), nominal / 2);
            let longest = policy.delay(attempts, 1023);
            assert!(longest < nominal && longest > nominal * 9 / 10);
        }
    }
}
