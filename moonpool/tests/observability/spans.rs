//! The spans of calls and handlers.

use std::rc::Rc;
use std::time::Duration;

use moonpool::{
    Endpoint, JsonCodec, PeerConfig, Providers, Refusal, ReplyError, ReplyFuture, RetryPolicy,
    Serving, TimeProvider, TokioProviders, TraceContext, UID, define_interface, observability,
    send_request,
};

use crate::capture::{captured, parent, spans};
use crate::captured_in_both_worlds;
use crate::common::{Hosts, Transport, on_tokio, shut_down};

captured_in_both_worlds! {
    every_answer_to_a_call_is_in_its_span: 5;
    calls_that_end_without_an_answer_say_so_in_their_spans: 5;
    a_call_inside_a_handler_is_inside_its_span_and_trace: 5;
    a_span_tells_the_attempts: 5;
    handlers_that_fail_or_are_dropped_say_so: 5;
    a_trace_whose_state_does_not_fit_is_passed_on_without_it: 5;
}

define_interface! {
    Words, id 0x0B5E, { repeat: (String, u32) => String, outcome: u32 => u32 }
}

const LOST: UID = UID::new(0x0B5E_0001, 0);
const RAW: UID = UID::new(0x0B5E_0002, 0);

/// The fields of the last call's span.
fn last_call() -> (String, String) {
    let span = spans(observability::CALL_SPAN).pop().unwrap();
    assert_eq!(span.target, observability::RPC_TARGET);
    let field = |name: &str| span.fields.get(name).cloned().unwrap_or_default();
    assert!(
        !field(observability::fields::DURATION).is_empty(),
        "{span:?}"
    );
    assert!(!field(observability::fields::PEER).is_empty(), "{span:?}");
    assert_eq!(field(observability::fields::TOKEN).len(), 32, "{span:?}");
    (
        format!(
            "{}.{}",
            field(observability::fields::INTERFACE),
            field(observability::fields::METHOD)
        ),
        field(observability::fields::OUTCOME),
    )
}

fn serve_words<P: Providers>(hosts: &Hosts<P>, transport: &Rc<Transport<P>>) {
    let words = Words::serve(transport, JsonCodec).unwrap();
    let serving = Serving::new(transport);
    let of_repeat = serving.clone();
    drop(hosts.spawn_server(async move {
        of_repeat
            .serve(words.repeat, async |(text, times): (String, u32), _| {
                Ok(text.repeat(times as usize))
            })
            .await;
    }));
    let time = hosts.server.time().clone();
    drop(hosts.spawn_server(async move {
        serving
            .serve(words.outcome, async move |code: u32, _| match code {
                0 => Ok(0),
                1 => Err(ReplyError::application(1, "no")),
                2 => Err(ReplyError::Refused(Refusal::Overloaded)),
                3 => Err(ReplyError::Refused(Refusal::Unauthorized)),
                _ => {
                    time.sleep(Duration::from_secs(3600)).await;
                    Ok(code)
                }
            })
            .await;
    }));
}

fn named(outcome: &str) -> (String, String) {
    ("Words.outcome".to_owned(), outcome.to_owned())
}

fn raw(outcome: &str) -> (String, String) {
    (".".to_owned(), outcome.to_owned())
}

async fn every_answer_to_a_call_is_in_its_span<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    serve_words(&hosts, &server);
    let address = server.local_address().unwrap();
    let client = hosts.connect();
    let words = Words::remote(&client, address, JsonCodec);
    assert_eq!(words.outcome(0).await, Ok(0));
    assert_eq!(last_call(), named(observability::OK));
    for (code, name) in [(1, "application"), (2, "overloaded"), (3, "unauthorized")] {
        assert_eq!(words.outcome(code).await.unwrap_err().name(), name);
        assert_eq!(last_call(), named(name));
    }
    let ask = |endpoint: Endpoint| -> ReplyFuture<u32, JsonCodec> {
        send_request(&client, &endpoint, "a word", JsonCodec).unwrap()
    };
    let wrong = ask(words.base_endpoint().adjusted(1)).await;
    assert_eq!(wrong.unwrap_err().name(), "serialization");
    assert_eq!(last_call(), raw("serialization"));
    let lost = ask(Endpoint::new(address, LOST)).await;
    assert_eq!(lost, Err(ReplyError::EndpointNotFound));
    assert_eq!(last_call(), raw("endpoint_not_found"));
    let stream = server.register_handler::<String, _>(RAW, JsonCodec);
    let transport = server.clone();
    let breaking = hosts.spawn_server(async move {
        let received = stream.recv_with_transport::<_, _, _, u32>(&transport).await;
        drop(received);
    });
    let broken = ask(Endpoint::new(address, RAW)).await;
    assert_eq!(broken, Err(ReplyError::BrokenPromise));
    assert_eq!(last_call(), raw("broken_promise"));
    breaking.await.unwrap();
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn calls_that_end_without_an_answer_say_so_in_their_spans<P: Providers>(hosts: Hosts<P>) {
    let config = PeerConfig {
        max_payload_bytes: 10_000,
        ..PeerConfig::default()
    };
    let server = hosts.server_builder().peer_config(config);
    let server = server.build_listening().await.unwrap();
    serve_words(&hosts, &server);
    let address = server.local_address().unwrap();
    let client = hosts
        .client_builder()
        .peer_config(hosts.impatient())
        .build();
    let words = Words::remote(&client, address, JsonCodec);
    // The limit of the other end is not known yet.
    let text = "x".repeat(20_000);
    let result = words.repeat((text.clone(), 1)).await;
    assert_eq!(result, Err(ReplyError::PayloadTooLarge));
    assert_eq!(last_call().1, "payload_too_large");
    let result = words.repeat(("x".to_owned(), 20_000)).await;
    assert_eq!(result, Err(ReplyError::ReplyTooLarge));
    assert_eq!(last_call().1, "reply_too_large");
    assert!(words.repeat((text, 1)).send().is_err());
    assert_eq!(last_call().1, observability::NOT_SENT);
    let slow = words.outcome(9).timeout(Duration::from_millis(50));
    assert_eq!(slow.await, Err(ReplyError::Timeout));
    assert_eq!(last_call(), named("timeout"));
    drop(words.outcome(9).send().unwrap());
    assert_eq!(last_call(), named(observability::GIVEN_UP));
    // Answered behind it, so the server has the other one too.
    let waiting = words.outcome(9).send().unwrap();
    assert_eq!(words.outcome(0).await, Ok(0));
    server.shutdown(Duration::ZERO).await;
    assert_eq!(waiting.await, Err(ReplyError::BrokenPromise));
    let spans = spans(observability::CALL_SPAN);
    let before_last = &spans[spans.len() - 2];
    assert_eq!(
        before_last.fields[observability::fields::OUTCOME],
        "broken_promise"
    );
    let result = words.outcome(0).await;
    assert_eq!(result, Err(ReplyError::ConnectionFailed));
    assert_eq!(last_call(), named("connection_failed"));
    shut_down::<P>(&client).await;
}

fn some_trace(state: &[u8]) -> TraceContext<'_> {
    TraceContext {
        trace_id: [0xA7; 16],
        parent_id: [0x1D; 8],
        flags: 1,
        state,
    }
}

const TRACEPARENT: &str = "00-a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7-1d1d1d1d1d1d1d1d-01";

async fn a_call_inside_a_handler_is_inside_its_span_and_trace<P: Providers>(hosts: Hosts<P>) {
    let (server, behind) = (hosts.serve().await, hosts.serve().await);
    let address = server.local_address().unwrap();
    let words = Words::serve(&behind, JsonCodec).unwrap();
    let second = hosts.spawn_server(async move {
        let (code, reply) = words.outcome.recv().await.unwrap();
        let trace = reply.trace_context().map(|trace| trace.to_string());
        assert_eq!(trace.as_deref(), Some(TRACEPARENT));
        assert_eq!(reply.trace_context().unwrap().state, b"vendor=1");
        reply.send(code);
    });
    let words = Words::serve(&server, JsonCodec).unwrap();
    let serving = Serving::new(&server);
    let inner = Words::remote(&server, behind.local_address().unwrap(), JsonCodec);
    let first = hosts.spawn_server(async move {
        let handler = async move |code: u32, reply: &_| inner.outcome(code).within(reply).await;
        serving.serve(words.outcome, handler).await;
    });

    let client = hosts.connect();
    let call = Words::remote(&client, address, JsonCodec).outcome(7);
    assert_eq!(call.trace_context(&some_trace(b"vendor=1")).await, Ok(7));

    let served = spans(observability::SERVE_SPAN).remove(0);
    let field = |name: &str| served.fields.get(name).cloned().unwrap_or_default();
    assert_eq!(served.target, observability::RPC_TARGET);
    assert_eq!(field(observability::fields::INTERFACE), "Words");
    assert_eq!(field(observability::fields::METHOD), "outcome");
    assert_eq!(field(observability::fields::TOKEN).len(), 32);
    assert!(field(observability::fields::PEER).contains(':'));
    assert_eq!(field(observability::fields::TRACEPARENT), TRACEPARENT);
    let inner = spans(observability::CALL_SPAN).pop().unwrap();
    assert_eq!(parent(&inner).unwrap().name, observability::SERVE_SPAN);

    second.await.unwrap();
    for transport in [&client, &server, &behind] {
        shut_down::<P>(transport).await;
    }
    first.await.unwrap();
    let served = spans(observability::SERVE_SPAN).remove(0);
    assert_eq!(served.fields[observability::fields::OUTCOME], "ok");
}

async fn a_span_tells_the_attempts<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    serve_words(&hosts, &server);
    let client = hosts.connect();
    let words = Words::remote(&client, server.local_address().unwrap(), JsonCodec);
    let policy = RetryPolicy::default().max_attempts(3);
    assert_eq!(
        words.outcome(2).retry(policy).await,
        Err(ReplyError::Overloaded)
    );
    let span = spans(observability::CALL_SPAN).pop().unwrap();
    assert_eq!(span.fields[observability::fields::ATTEMPT], "3");
    assert_eq!(span.fields[observability::fields::OUTCOME], "overloaded");
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn handlers_that_fail_or_are_dropped_say_so<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    serve_words(&hosts, &server);
    let client = hosts.connect();
    let words = Words::remote(&client, server.local_address().unwrap(), JsonCodec);
    words.outcome(1).await.unwrap_err();
    let slow = words.outcome(9).timeout(Duration::from_millis(20));
    assert_eq!(slow.await, Err(ReplyError::Timeout));
    let outcomes = || {
        let spans = spans(observability::SERVE_SPAN);
        let outcomes = spans.iter().map(|span| {
            let outcome = span.fields.get(observability::fields::OUTCOME);
            outcome.cloned().unwrap_or_default()
        });
        outcomes.collect::<Vec<_>>()
    };
    hosts
        .until(|| outcomes().iter().all(|name| !name.is_empty()))
        .await;
    assert_eq!(outcomes(), ["application", "cancelled"]);
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
}

/// In the simulator a panic fails the seed.
#[test]
fn a_handler_that_panics_broke_its_promise() {
    async fn body(hosts: Hosts<TokioProviders>) {
        let server = hosts.serve().await;
        let words = Words::serve(&server, JsonCodec).unwrap();
        let serving = Serving::new(&server);
        drop(hosts.spawn_server(async move {
            let handler = async |_: u32, _: &_| panic!("a bug");
            serving.serve(words.outcome, handler).await;
        }));
        let client = hosts.connect();
        let words = Words::remote(&client, server.local_address().unwrap(), JsonCodec);
        assert_eq!(words.outcome(1).await, Err(ReplyError::BrokenPromise));
        let served = spans(observability::SERVE_SPAN).remove(0);
        assert_eq!(
            served.fields[observability::fields::OUTCOME],
            "broken_promise"
        );
        shut_down::<TokioProviders>(&client).await;
        shut_down::<TokioProviders>(&server).await;
    }
    captured(|| on_tokio(body));
}

async fn a_trace_whose_state_does_not_fit_is_passed_on_without_it<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let words = Words::serve(&server, JsonCodec).unwrap();
    let inner = Words::remote(&server, address, JsonCodec);
    let task = hosts.spawn_server(async move {
        let (code, reply) = words.outcome.recv().await.unwrap();
        let call = inner
            .outcome(code)
            .metadata("large", [0; 5000])
            .within(&reply);
        let waiting = call.send().unwrap();
        let (code, second) = words.outcome.recv().await.unwrap();
        let trace = second.trace_context().unwrap();
        assert_eq!(
            (trace.to_string().as_str(), trace.state),
            (TRACEPARENT, &b""[..])
        );
        second.send(code);
        reply.send(waiting.await.unwrap());
    });
    let client = hosts.connect();
    let call = Words::remote(&client, address, JsonCodec).outcome(7);
    assert_eq!(call.trace_context(&some_trace(&[b'x'; 5000])).await, Ok(7));
    task.await.unwrap();
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}
