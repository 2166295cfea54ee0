//! Calls of an interface, audited by the ledger.

use std::rc::Rc;
use std::time::Duration;

use moonpool::foundation::{
    SimProviders, SimulationMetrics, SimulationResult, WorkloadTopology, always_assert,
    sometimes_assert,
};
use moonpool::prelude::*;
use moonpool::{Client, Server, SimulationError, define_interface};
use serde::{Deserialize, Serialize};

use super::ledger::{Ledger, Observer, Sightings, any_server};

const CALLS: u32 = 60;
/// What a call may take beyond its deadline: sleeps end up to 150 ms late.
const SLACK: Duration = Duration::from_millis(500);

/// What a server is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Act {
    Answer,
    AnswerAfter { millis: u64 },
    Drop,
    Refuse,
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    call: u64,
    act: Act,
    padding: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Reply {
    call: u64,
    padding: String,
}

define_interface! {
    /// Notes what it is asked.
    Auditor, id 0xA0D1, {
        /// Does as the request says.
        act: Request => Reply,
        /// Answers with the call's number.
        note: u64 => u64,
    }
}

fn boxed<E: std::error::Error + 'static>(error: E) -> SimulationError {
    SimulationError::Other(Box::new(error))
}

fn address(ip: &str) -> SimulationResult<NetworkAddress> {
    format!("{ip}:4500").parse().map_err(boxed)
}

/// Serves on port 4500 until the process is told to end.
pub(crate) async fn serve(
    providers: SimProviders,
    topology: WorkloadTopology,
) -> SimulationResult<()> {
    let ledger = topology.shared::<Ledger>();
    let builder = FlowTransportBuilder::from_providers(&providers);
    let builder = builder.local_address(address(&topology.my_ip)?);
    let transport = builder.build_listening().await.map_err(boxed)?;
    let auditor: Server<Auditor> = Auditor::serve(&transport, JsonCodec).map_err(boxed)?;
    loop {
        moonpool::select! {
            () = topology.shutdown_signal.cancelled() => break,
            Some((request, reply)) = auditor.act.recv() => {
                act(&providers, &ledger, request, reply);
            }
            Some((call, reply)) = auditor.note.recv() => {
                ledger.executes(call);
                reply.send(call);
            }
            else => break,
        }
    }
    ledger.a_server_stopped.set(true);
    drop(auditor);
    transport.shutdown(Duration::from_secs(1)).await;
    Ok(())
}

fn act(
    providers: &SimProviders,
    ledger: &Rc<Ledger>,
    request: Request,
    promise: ReplyPromise<Reply, JsonCodec>,
) {
    let Request { call, act, padding } = request;
    ledger.executes(call);
    match act {
        Act::Answer => promise.send(Reply { call, padding }),
        Act::AnswerAfter { millis } => {
            let time = providers.time().clone();
            providers.task().spawn_task("answer", async move {
                time.sleep(Duration::from_millis(millis)).await;
                promise.send(Reply { call, padding });
            });
        }
        Act::Drop => {
            ledger.drops(call);
            drop(promise);
        }
        Act::Refuse => promise.send_error(ReplyError::application(7, call.to_string())),
    }
}

/// One call: its deadline is kept, and its outcome is true.
async fn call(
    providers: &SimProviders,
    ledger: &Ledger,
    auditor: &Client<Auditor>,
    act: Act,
) -> Result<(), ReplyError> {
    let (number, random) = (ledger.next(), providers.random());
    let deadline = Duration::from_millis(random.random_range(50..6_000));
    let padding = "p".repeat(random.random_range(0..600));
    let began = providers.time().now();
    let outcome = match random.random_bool(0.8) {
        true => {
            let request = Request {
                call: number,
                act,
                padding: padding.clone(),
            };
            let reply = auditor.act(request).timeout(deadline).await;
            reply.map(|reply| {
                let expected = Reply {
                    call: number,
                    padding,
                };
                always_assert!(
                    a_reply_belongs_to_its_request,
                    reply == expected,
                    "{reply:?} came for call {number}"
                );
                always_assert!(
                    only_those_who_answer_answer,
                    matches!(act, Act::Answer | Act::AnswerAfter { .. }),
                    "call {number} was to be met by {act:?}"
                );
            })
        }
        false => auditor.note(number).timeout(deadline).await.map(|noted| {
            always_assert!(
                a_note_belongs_to_its_request,
                noted == number,
                "{noted} came for call {number}"
            );
        }),
    };
    let took = providers.time().now() - began;
    always_assert!(
        a_call_ends_by_its_deadline,
        took <= deadline + SLACK,
        "call {number} took {took:?}, its deadline was {deadline:?}"
    );
    ledger.check_outcome(number, &outcome);
    let error = outcome.as_ref().err();
    let ended = |expected: ReplyError| error == Some(&expected);
    sometimes_assert!(
        a_call_timed_out,
        ended(ReplyError::Timeout),
        "its deadline passed"
    );
    sometimes_assert!(
        a_call_was_uncertain,
        ended(ReplyError::MaybeDelivered),
        "its session ended"
    );
    sometimes_assert!(
        a_promise_was_broken,
        ended(ReplyError::BrokenPromise),
        "by its handler"
    );
    outcome
}

fn draw_act(providers: &SimProviders) -> Act {
    let random = providers.random();
    match random.random_range(0..10) {
        0 => Act::Drop,
        1 => Act::Refuse,
        2..5 => Act::AnswerAfter {
            millis: random.random_range(0..1_500),
        },
        _ => Act::Answer,
    }
}

/// Calls that overlap; at the end each server has to answer one.
pub(crate) async fn client(
    providers: SimProviders,
    topology: WorkloadTopology,
    sightings: Sightings,
) -> SimulationResult<SimulationMetrics> {
    let observer = Rc::new(Observer::new(&providers, "calls", &sightings));
    let ledger = topology.shared::<Ledger>();
    let transport = FlowTransportBuilder::from_providers(&providers).build();
    let mut pending = Vec::new();
    for _ in 0..CALLS {
        let (_, server) = any_server(&providers, &topology);
        let auditor: Client<Auditor> = Auditor::remote(&transport, address(&server)?, JsonCodec);
        let act = draw_act(&providers);
        let (host, ledger, observer) =
            (providers.clone(), Rc::clone(&ledger), Rc::clone(&observer));
        pending.push(providers.task().spawn_task("call", async move {
            let outcome = call(&host, &ledger, &auditor, act).await;
            observer.saw(u64::from(outcome.is_ok()));
        }));
        let pause = providers.random().random_range(0..600);
        providers.time().sleep(Duration::from_millis(pause)).await;
    }
    for call in pending {
        call.await.map_err(boxed)?;
    }
    for (_, server) in topology.get_peers_with_prefix("server-") {
        let auditor: Client<Auditor> = Auditor::remote(&transport, address(&server)?, JsonCodec);
        while call(&providers, &ledger, &auditor, Act::Answer)
            .await
            .is_err()
        {
            providers.time().sleep(Duration::from_millis(200)).await;
        }
        observer.saw(2);
    }
    transport.shutdown(Duration::from_secs(1)).await;
    observer.finish();
    Ok(SimulationMetrics::default())
}
