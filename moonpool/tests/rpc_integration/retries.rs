//! Calls that are made again when they end without an answer.

use std::rc::Rc;
use std::time::Duration;

use moonpool::{
    BuildError, Endpoint, FlowTransportBuilder, JsonCodec, NetworkAddress, Providers, ReplyError,
    ReplyFuture, RequestStream, RetryPolicy, TimeProvider, UID, define_interface,
};

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    a_retried_call_is_executed_by_the_next_incarnation: 30;
    a_retried_call_to_a_dynamic_endpoint_ends_with_its_incarnation: 30;
    attempts_are_bounded_and_the_last_outcome_stands: 20;
    a_refusal_after_a_broken_promise_may_have_been_executed: 20;
    refusals_alone_were_surely_not_executed: 20;
    a_call_may_wait_for_its_service_to_be_registered: 20;
    an_answer_of_the_application_is_not_asked_for_again: 20;
    a_call_that_is_given_up_in_its_pause_is_not_made_again: 20;
}

const TOKEN: UID = UID::new(0x4E74, 1);

define_interface! {
    Echo, id 0xEC40, { echo: u32 => u32 }
}

/// Without it a retry that never ends would end with the default deadline.
const LONG: Duration = Duration::from_secs(300);

fn quick() -> RetryPolicy {
    RetryPolicy::new().backoff(Duration::from_millis(1), Duration::from_millis(5))
}

fn ask<P: Providers>(
    transport: &Transport<P>,
    endpoint: &Endpoint,
    policy: RetryPolicy,
) -> ReplyFuture<u32, JsonCodec> {
    let call = transport.call(endpoint, 7, JsonCodec);
    let call = call.timeout(LONG).retry(policy).metadata("key", "value");
    call.send().unwrap()
}

fn register<P: Providers>(transport: &Transport<P>) -> RequestStream<u32, JsonCodec> {
    transport.register_handler::<u32, _>(TOKEN, JsonCodec)
}

fn endpoint_of<P: Providers>(transport: &Transport<P>) -> Endpoint {
    Endpoint::new(transport.local_address().unwrap(), TOKEN)
}

async fn listen_at<P: Providers>(providers: &P, address: NetworkAddress) -> Rc<Transport<P>> {
    loop {
        let builder = FlowTransportBuilder::from_providers(providers).local_address(address);
        match builder.build_listening().await {
            Ok(transport) => return transport,
            Err(BuildError::Bind { .. }) => {
                providers.time().sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The reply, and what drives the server meanwhile.
async fn with<F: Future>(call: ReplyFuture<u32, JsonCodec>, server: F) -> Outcome {
    futures_util::future::join(call, server).await.0
}

type Outcome = Result<u32, ReplyError>;

async fn a_retried_call_is_executed_by_the_next_incarnation<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let echo = Echo::serve(&server, JsonCodec).unwrap();
    let remote = Echo::remote(&client, address, JsonCodec);
    let call = remote
        .echo(7)
        .timeout(LONG)
        .retry(quick().while_not_found());
    let call = call.send().unwrap();
    let host = &hosts.server;
    let serve = async move {
        let (first, held) = echo.echo.recv().await.unwrap();
        shut_down::<P>(&server).await;
        drop((echo, held, server));
        let server = listen_at(host, address).await;
        let echo = Echo::serve(&server, JsonCodec).unwrap();
        let (second, reply) = echo.echo.recv().await.unwrap();
        assert_eq!((first, second), (7, 7));
        reply.send(second);
        server
    };
    let (outcome, server) = futures_util::future::join(call, serve).await;
    assert_eq!(outcome, Ok(7));
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
}

async fn a_retried_call_to_a_dynamic_endpoint_ends_with_its_incarnation<P: Providers>(
    hosts: Hosts<P>,
) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let mut stream = RequestStream::<u32, _>::new(JsonCodec);
    let endpoint = stream.make_dynamic_endpoint(&server).unwrap();
    let call = ask::<P>(&client, &endpoint, quick());
    let host = &hosts.server;
    let serve = async move {
        let taken = stream.recv_with_transport::<_, _, _, u32>(&server).await;
        shut_down::<P>(&server).await;
        drop((stream, taken, server));
        listen_at(host, address).await
    };
    let (outcome, server) = futures_util::future::join(call, serve).await;
    assert_eq!(outcome, Err(ReplyError::MaybeDelivered));
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
}

async fn attempts_are_bounded_and_the_last_outcome_stands<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let stream = register::<P>(&server);
    let call = ask::<P>(&client, &endpoint_of::<P>(&server), quick().max_attempts(3));
    let outcome = with(call, async {
        for _ in 0..3 {
            let (_, reply) = stream
                .recv_with_transport::<_, _, _, u32>(&server)
                .await
                .unwrap();
            assert_eq!(reply.metadata().len(), 1);
        }
    });
    assert_eq!(outcome.await, Err(ReplyError::BrokenPromise));
    assert_eq!(client.stats().requests_sent, 3);
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
}

async fn a_refusal_after_a_broken_promise_may_have_been_executed<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let stream = register::<P>(&server);
    let call = ask::<P>(&client, &endpoint_of::<P>(&server), quick());
    let outcome = with(call, async {
        let taken = stream.recv_with_transport::<_, _, _, u32>(&server).await;
        drop(stream);
        drop(taken);
    });
    assert_eq!(outcome.await, Err(ReplyError::MaybeDelivered));
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
}

async fn refusals_alone_were_surely_not_executed<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let policy = quick().max_attempts(4);
    let nobody = ask::<P>(
        &client,
        &endpoint_of::<P>(&server),
        policy.while_not_found(),
    );
    assert_eq!(nobody.await, Err(ReplyError::EndpointNotFound));
    assert_eq!(client.stats().requests_sent, 4);
    let nobody = ask::<P>(&client, &endpoint_of::<P>(&server), policy);
    assert_eq!(nobody.await, Err(ReplyError::EndpointNotFound));
    assert_eq!(client.stats().requests_sent, 5);
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
}

async fn a_call_may_wait_for_its_service_to_be_registered<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let policy = quick().while_not_found();
    let call = ask::<P>(&client, &endpoint_of::<P>(&server), policy);
    let outcome = with(call, async {
        hosts.until(|| server.stats().endpoint_not_found >= 2).await;
        let stream = register::<P>(&server);
        let (number, reply) = stream.recv_with_transport(&server).await.unwrap();
        reply.send(number);
    });
    assert_eq!(outcome.await, Ok(7));
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
}

async fn an_answer_of_the_application_is_not_asked_for_again<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let stream = register::<P>(&server);
    let call = ask::<P>(&client, &endpoint_of::<P>(&server), quick());
    let no = ReplyError::application(1, "no");
    let outcome = with(call, async {
        let (_, reply) = stream
            .recv_with_transport::<_, _, _, u32>(&server)
            .await
            .unwrap();
        reply.send_error(no.clone());
    });
    assert_eq!(outcome.await, Err(no));
    assert_eq!(client.stats().requests_sent, 1);
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
}

#[cfg(feature = "sim")]
#[test]
fn all_attempts_share_one_deadline() {
    crate::common::in_simulation(20, second_attempt_has_what_the_first_left);
}

/// The first attempt is broken, the second has no answer, and ends with what the first left of the
/// time.
#[cfg(feature = "sim")]
async fn second_attempt_has_what_the_first_left<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let stream = register::<P>(&server);
    let call = client.call(&endpoint_of::<P>(&server), 7, JsonCodec);
    let timeout = Duration::from_millis(400);
    let call = call.timeout(timeout).retry(quick()).send().unwrap();
    let outcome = with(call, async {
        let (_, first) = stream
            .recv_with_transport::<_, _, _, u32>(&server)
            .await
            .unwrap();
        let first_deadline = first.deadline().unwrap();
        hosts.server.time().sleep(Duration::from_millis(200)).await;
        drop(first);
        let (_, second) = stream
            .recv_with_transport::<_, _, _, u32>(&server)
            .await
            .unwrap();
        // Both count from their arrival, so they agree but for the time on the way.
        let second_deadline = second.deadline().unwrap();
        assert!(second_deadline < first_deadline + Duration::from_millis(150));
        second.cancelled().await;
    });
    assert_eq!(outcome.await, Err(ReplyError::Timeout));
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
}

async fn a_call_that_is_given_up_in_its_pause_is_not_made_again<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let long = Duration::from_secs(100);
    let policy = RetryPolicy::new().backoff(long, long).while_not_found();
    let mut call = ask::<P>(&client, &endpoint_of::<P>(&server), policy);
    let refused = hosts.until(|| client.stats().pending_calls == 0);
    futures_util::pin_mut!(refused);
    let first = futures_util::future::select(&mut call, refused).await;
    assert!(matches!(first, futures_util::future::Either::Right(_)));
    assert!(!futures_util::future::FusedFuture::is_terminated(&call));
    drop(call);
    assert_eq!(client.stats().requests_sent, 1);
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
}
