//! Code around calls and around handlers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use moonpool::{
    Answered, CallMiddleware, Endpoint, JsonCodec, MethodName, NextCall, NextHandler, OutgoingCall,
    Providers, Refusal, ReplyBody, ReplyError, RetryPolicy, ServeMiddleware, ServedRequest,
    Serving, TimeProvider, UID, define_interface, send_request,
};

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    a_call_is_let_in_by_what_its_middleware_adds: 20;
    the_first_installed_is_outermost: 20;
    middleware_sees_each_outcome_and_may_replace_it: 20;
    a_call_that_middleware_refuses_is_never_sent: 20;
    a_deadline_covers_the_time_inside_of_middleware: 20;
    middleware_sees_a_timeout_of_the_call_itself: 20;
    a_dropped_call_drops_its_middleware_and_its_handler: 20;
    all_attempts_are_inside_of_one_run: 20;
    a_handler_that_is_cancelled_takes_its_middleware_along: 20;
    a_call_that_its_middleware_does_not_poll_ends_with_its_deadline: 20;
}

define_interface! {
    Doubling, id 0xD0B1, { double: u32 => u32 }
}

type Log = Rc<RefCell<Vec<String>>>;

/// Says when it begins and what it sees.
struct Named(&'static str, Log);

impl CallMiddleware for Named {
    async fn call(&self, call: OutgoingCall, next: NextCall) -> Result<ReplyBody, ReplyError> {
        let method = call.name().map_or("raw", |name: MethodName| name.method);
        self.1.borrow_mut().push(format!("{} {method}", self.0));
        let outcome = next.run(call).await;
        let seen = outcome.as_ref().map_or_else(ReplyError::name, |_| "ok");
        self.1.borrow_mut().push(format!("{} saw {seen}", self.0));
        outcome
    }
}

impl ServeMiddleware for Named {
    async fn serve(
        &self,
        request: ServedRequest<'_>,
        next: NextHandler<'_>,
    ) -> Result<Answered, ReplyError> {
        let method = request.name().map_or("raw", |name| name.method);
        self.1.borrow_mut().push(format!("{} {method}", self.0));
        let outcome = next.run().await;
        let seen = outcome.as_ref().map_or_else(ReplyError::name, |_| "ok");
        self.1.borrow_mut().push(format!("{} saw {seen}", self.0));
        outcome
    }
}

/// Shows a token, and asks for one.
struct Token(&'static str);

impl CallMiddleware for Token {
    async fn call(&self, mut call: OutgoingCall, next: NextCall) -> Result<ReplyBody, ReplyError> {
        call.add_metadata("authorization", self.0);
        next.run(call).await
    }
}

impl ServeMiddleware for Token {
    async fn serve(
        &self,
        request: ServedRequest<'_>,
        next: NextHandler<'_>,
    ) -> Result<Answered, ReplyError> {
        assert!(request.peer().is_some());
        let mut shown = request.metadata().iter();
        match shown.find(|(key, _)| *key == "authorization") {
            Some((_, token)) if token == self.0.as_bytes() => next.run().await,
            Some(_) => Err(ReplyError::application(403, "another token")),
            None => Err(ReplyError::Refused(Refusal::Unauthorized)),
        }
    }
}

/// Serves with what `install` installs: answers with the double, fails for 0, and sleeps for an hour
/// for 1. Gives how many handlers ran.
fn serve<P: Providers>(
    hosts: &Hosts<P>,
    server: &Rc<Transport<P>>,
    install: impl FnOnce(Serving<P::Time, P::Task>) -> Serving<P::Time, P::Task>,
) -> Rc<Cell<u32>> {
    let doubling = Doubling::serve(server, JsonCodec).unwrap();
    let serving = install(Serving::new(server));
    let handled = Rc::new(Cell::new(0));
    let (count, time) = (handled.clone(), hosts.server.time().clone());
    drop(hosts.spawn_server(async move {
        let handler = async move |number: u32, _: &_| {
            count.set(count.get() + 1);
            match number {
                0 => Err(ReplyError::application(1, "zero")),
                1 => {
                    time.sleep(Duration::from_secs(3600)).await;
                    Ok(2)
                }
                number => Ok(2 * number),
            }
        };
        serving.serve(doubling.double, handler).await;
    }));
    handled
}

async fn a_call_is_let_in_by_what_its_middleware_adds<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let handled = serve(&hosts, &server, |serving| {
        serving.middleware(Token("sesame"))
    });
    let calls = [
        (Some("sesame"), Ok(14)),
        (
            Some("other"),
            Err(ReplyError::application(403, "another token")),
        ),
        (None, Err(ReplyError::Unauthorized)),
    ];
    for (token, outcome) in calls {
        let builder = hosts.client_builder();
        let client = match token {
            Some(token) => builder.call_middleware(Token(token)).build(),
            None => builder.build(),
        };
        let doubling = Doubling::remote(&client, address, JsonCodec);
        assert_eq!(doubling.double(7).await, outcome);
        shut_down::<P>(&client).await;
    }
    assert_eq!(handled.get(), 1);
    shut_down::<P>(&server).await;
}

async fn the_first_installed_is_outermost<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let log = Log::default();
    let of_server = log.clone();
    serve(&hosts, &server, move |serving| {
        let serving = serving.middleware(Named("third", of_server.clone()));
        serving.middleware(Named("fourth", of_server))
    });
    let client = hosts
        .client_builder()
        .call_middleware(Named("first", log.clone()))
        .call_middleware(Named("second", log.clone()))
        .build();
    let doubling = Doubling::remote(&client, address, JsonCodec);
    assert_eq!(doubling.double(4).await, Ok(8));
    assert_eq!(
        log.take(),
        [
            "first double",
            "second double",
            "third double",
            "fourth double",
            "fourth saw ok",
            "third saw ok",
            "second saw ok",
            "first saw ok",
        ]
    );
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// Says "not there" in words of its own.
struct Replacing;

impl CallMiddleware for Replacing {
    async fn call(&self, call: OutgoingCall, next: NextCall) -> Result<ReplyBody, ReplyError> {
        match next.run(call).await {
            Err(ReplyError::EndpointNotFound) => Err(ReplyError::application(404, "not there")),
            outcome => outcome,
        }
    }
}

async fn middleware_sees_each_outcome_and_may_replace_it<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    serve(&hosts, &server, |serving| serving);
    let log = Log::default();
    let client = hosts
        .client_builder()
        .peer_config(hosts.impatient())
        .call_middleware(Replacing)
        .call_middleware(Named("it", log.clone()))
        .build();
    let doubling = Doubling::remote(&client, address, JsonCodec);
    let last = || log.borrow().last().cloned().unwrap();
    assert_eq!(doubling.double(2).await, Ok(4));
    assert_eq!(last(), "it saw ok");
    doubling.double(0).await.unwrap_err();
    assert_eq!(last(), "it saw application");
    let endpoint = Endpoint::new(address, UID::new(0xD0B2, 0));
    let lost: Result<u32, _> = send_request(&client, &endpoint, 1, JsonCodec)
        .unwrap()
        .await;
    assert_eq!(lost, Err(ReplyError::application(404, "not there")));
    assert_eq!(last(), "it saw endpoint_not_found");
    shut_down::<P>(&server).await;
    drop(server);
    assert_eq!(doubling.double(2).await, Err(ReplyError::ConnectionFailed));
    assert_eq!(last(), "it saw connection_failed");
    shut_down::<P>(&client).await;
    assert!(
        doubling.double(2).send().is_err(),
        "the transport is shut down"
    );
}

/// Lets no call through.
struct Refusing;

impl CallMiddleware for Refusing {
    async fn call(&self, _: OutgoingCall, _: NextCall) -> Result<ReplyBody, ReplyError> {
        Err(ReplyError::Overloaded)
    }
}

async fn a_call_that_middleware_refuses_is_never_sent<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let client = hosts.client_builder().call_middleware(Refusing).build();
    let doubling = Doubling::remote(&client, address, JsonCodec);
    assert_eq!(doubling.double(2).await, Err(ReplyError::Overloaded));
    let stats = client.stats();
    assert_eq!((stats.requests_sent, stats.peers), (0, 0));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// Never gets anywhere, before or after the call. Counts those that are gone.
struct Stuck {
    before: bool,
    dropped: Rc<Cell<u32>>,
    log: Log,
}

struct CountDrop(Rc<Cell<u32>>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

impl CallMiddleware for Stuck {
    async fn call(&self, call: OutgoingCall, next: NextCall) -> Result<ReplyBody, ReplyError> {
        let _count = CountDrop(self.dropped.clone());
        if !self.before {
            let outcome = next.run(call).await;
            let seen = outcome.as_ref().map_or_else(ReplyError::name, |_| "ok");
            self.log.borrow_mut().push(seen.to_owned());
        }
        std::future::pending().await
    }
}

impl ServeMiddleware for Stuck {
    async fn serve(
        &self,
        _: ServedRequest<'_>,
        next: NextHandler<'_>,
    ) -> Result<Answered, ReplyError> {
        let _count = CountDrop(self.dropped.clone());
        let _answered = next.run().await;
        std::future::pending().await
    }
}

async fn a_deadline_covers_the_time_inside_of_middleware<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    serve(&hosts, &server, |serving| serving);
    for before in [true, false] {
        let (dropped, log) = (Rc::new(Cell::new(0)), Log::default());
        let stuck = Stuck {
            before,
            dropped: dropped.clone(),
            log,
        };
        let client = hosts.client_builder().call_middleware(stuck).build();
        let doubling = Doubling::remote(&client, address, JsonCodec);
        let call = doubling.double(2).timeout(Duration::from_millis(200));
        assert_eq!(call.await, Err(ReplyError::Timeout));
        assert_eq!(dropped.get(), 1);
        shut_down::<P>(&client).await;
    }
    shut_down::<P>(&server).await;
}

async fn middleware_sees_a_timeout_of_the_call_itself<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    serve(&hosts, &server, |serving| serving);
    let log = Log::default();
    let client = hosts
        .client_builder()
        .call_middleware(Named("it", log.clone()))
        .build();
    let doubling = Doubling::remote(&client, address, JsonCodec);
    let call = doubling.double(1).timeout(Duration::from_millis(100));
    assert_eq!(call.await, Err(ReplyError::Timeout));
    assert_eq!(log.take(), ["it double", "it saw timeout"]);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_dropped_call_drops_its_middleware_and_its_handler<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let handled = serve(&hosts, &server, |serving| serving);
    let dropped = Rc::new(Cell::new(0));
    let stuck = Stuck {
        before: false,
        dropped: dropped.clone(),
        log: Log::default(),
    };
    let client = hosts.client_builder().call_middleware(stuck).build();
    let doubling = Doubling::remote(&client, address, JsonCodec);
    let mut call = doubling.double(1).send().unwrap();
    let started = async {
        hosts.until(|| handled.get() == 1).await;
    };
    moonpool::select! {
        _ = &mut call => panic!("it never ends"),
        () = started => {}
    }
    drop(call);
    assert_eq!(dropped.get(), 1);
    hosts
        .until(|| server.stats().cancellations_received == 1)
        .await;
    assert_eq!(client.stats().pending_calls, 0);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// Is overloaded for the first two requests.
struct Warming(Cell<u32>);

impl ServeMiddleware for Warming {
    async fn serve(
        &self,
        _: ServedRequest<'_>,
        next: NextHandler<'_>,
    ) -> Result<Answered, ReplyError> {
        self.0.set(self.0.get() + 1);
        if self.0.get() < 3 {
            return Err(ReplyError::Refused(Refusal::Overloaded));
        }
        next.run().await
    }
}

async fn all_attempts_are_inside_of_one_run<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let handled = serve(&hosts, &server, |serving| {
        serving.middleware(Warming(Cell::new(0)))
    });
    let log = Log::default();
    let client = hosts
        .client_builder()
        .call_middleware(Named("it", log.clone()))
        .build();
    let doubling = Doubling::remote(&client, address, JsonCodec);
    let call = doubling.double(3).retry(RetryPolicy::default());
    assert_eq!(call.await, Ok(6));
    assert_eq!(log.take(), ["it double", "it saw ok"]);
    assert_eq!((client.stats().requests_sent, handled.get()), (3, 1));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_handler_that_is_cancelled_takes_its_middleware_along<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let dropped = Rc::new(Cell::new(0));
    let stuck = Stuck {
        before: false,
        dropped: dropped.clone(),
        log: Log::default(),
    };
    serve(&hosts, &server, |serving| serving.middleware(stuck));
    let client = hosts.connect();
    let doubling = Doubling::remote(&client, address, JsonCodec);
    let call = doubling.double(2).timeout(Duration::from_millis(100));
    assert_eq!(call.await, Err(ReplyError::Timeout));
    hosts.until(|| dropped.get() == 1).await;
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// Begins the call, and then waits for something else with the call in its hands.
struct Distracted;

impl CallMiddleware for Distracted {
    async fn call(&self, call: OutgoingCall, next: NextCall) -> Result<ReplyBody, ReplyError> {
        let mut run = std::pin::pin!(next.run(call));
        let begun = futures_util::poll!(&mut run);
        assert!(begun.is_pending());
        std::future::pending::<()>().await;
        run.await
    }
}

async fn a_call_that_its_middleware_does_not_poll_ends_with_its_deadline<P: Providers>(
    hosts: Hosts<P>,
) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    serve(&hosts, &server, |serving| serving);
    let client = hosts.client_builder().call_middleware(Distracted).build();
    let doubling = Doubling::remote(&client, address, JsonCodec);
    let call = doubling.double(1).timeout(Duration::from_millis(200));
    let call = async { call.await };
    let ended = hosts.client.time().timeout(Duration::from_secs(5), call);
    assert_eq!(ended.await, Ok(Err(ReplyError::Timeout)));
    assert_eq!(client.stats().pending_calls, 0);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}
