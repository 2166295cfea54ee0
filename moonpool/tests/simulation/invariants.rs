//! What has to hold between what a client asked, what it was told, and what servers did.

use std::collections::BTreeMap;

use moonpool::{ReplyError, always_assert, sometimes_assert};

use super::messages::{Action, Done};

/// How a request ended, as its client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    Failed(ReplyError),
    /// The client stopped waiting.
    GivenUp,
}

/// One client's requests to one server.
#[derive(Debug, Default)]
pub(crate) struct RpcInvariants {
    sent: BTreeMap<u64, Option<Action>>,
    outcomes: BTreeMap<u64, Outcome>,
    /// Servers die, and drop promises that they were not told to drop.
    servers_die: bool,
}

impl RpcInvariants {
    /// Of a client whose servers may die.
    pub(crate) fn with_dying_servers(servers_die: bool) -> Self {
        Self {
            servers_die,
            ..Self::default()
        }
    }

    /// `None`: to a token that nobody has.
    pub(crate) fn sent(&mut self, id: u64, action: Option<Action>) {
        assert!(self.sent.insert(id, action).is_none(), "id {id} twice");
        sometimes_assert!(rpc_request_sent, true, "a client asked");
    }

    pub(crate) fn ended(&mut self, client: &str, id: u64, result: Result<Done, ReplyError>) {
        let outcome = match result {
            Ok(done) => {
                assert_eq!((done.client.as_str(), done.id), (client, id), "mixed up");
                Outcome::Answered
            }
            Err(error) => Outcome::Failed(error),
        };
        self.resolve(id, outcome);
    }

    pub(crate) fn given_up(&mut self, id: u64) {
        self.resolve(id, Outcome::GivenUp);
    }

    fn resolve(&mut self, id: u64, outcome: Outcome) {
        let sent = self.sent.get(&id).copied();
        always_assert!(
            no_phantom_rpc_response,
            sent.is_some(),
            "a reply came for {id}, which was never sent"
        );
        let is_broken = outcome == Outcome::Failed(ReplyError::BrokenPromise);
        always_assert!(
            no_phantom_broken_promise,
            !is_broken || self.servers_die || sent == Some(Some(Action::DropPromise)),
            "nobody dropped the promise of {id}"
        );
        sometimes_assert!(rpc_broken_promise_path, is_broken, "a client learned of it");
        let is_answered = outcome == Outcome::Answered;
        sometimes_assert!(rpc_success_path, is_answered, "a client got its answer");
        let before = self.outcomes.insert(id, outcome);
        always_assert!(
            rpc_single_resolution,
            before.is_none(),
            "{id} is resolved twice, before as {before:?}"
        );
    }

    /// Without failures, the outcome is what was asked for.
    pub(crate) fn check_undisturbed(&self) {
        for (id, outcome) in &self.outcomes {
            let expected = match self.sent[id] {
                Some(Action::Answer | Action::AnswerAfter { .. }) => Outcome::Answered,
                Some(Action::DropPromise) => Outcome::Failed(ReplyError::BrokenPromise),
                Some(Action::Refuse) => Outcome::Failed(ReplyError::application(1, "refused")),
                None => Outcome::Failed(ReplyError::EndpointNotFound),
            };
            assert!(
                *outcome == expected || *outcome == Outcome::GivenUp,
                "{id}: {outcome:?} instead of {expected:?}"
            );
        }
    }

    /// Against the server's own record of what it executed for this client, in order.
    pub(crate) fn check_against(&self, executed: &[u64]) {
        assert!(
            executed.is_sorted_by(|first, second| first < second),
            "executed twice or out of order: {executed:?}"
        );
        for id in executed {
            let action = self.sent.get(id).copied().flatten();
            assert!(action.is_some(), "{id} was executed and never sent");
        }
        for (id, outcome) in &self.outcomes {
            let was_executed = executed.binary_search(id).is_ok();
            match outcome {
                Outcome::Answered => assert!(was_executed, "{id} was answered, not executed"),
                Outcome::Failed(error) if error.is_surely_not_executed() => {
                    assert!(!was_executed, "{id} was executed: {error}");
                }
                Outcome::Failed(_) | Outcome::GivenUp => {}
            }
        }
        assert_eq!(self.sent.len(), self.outcomes.len(), "a call did not end");
    }

    pub(crate) fn answered(&self) -> usize {
        self.count(|outcome| *outcome == Outcome::Answered)
    }

    pub(crate) fn maybe_delivered(&self) -> usize {
        self.count(|outcome| *outcome == Outcome::Failed(ReplyError::MaybeDelivered))
    }

    fn count(&self, matches: impl Fn(&Outcome) -> bool) -> usize {
        let outcomes = self.outcomes.values();
        outcomes.filter(|outcome| matches(outcome)).count()
    }
}
