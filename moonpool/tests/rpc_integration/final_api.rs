//! The API as users are shown it, compiled and run: one handler, and several in one `select!`.

use std::error::Error;
use std::rc::Rc;

use moonpool::{
    Endpoint, FlowTransportBuilder, JsonCodec, NetworkAddress, Providers, UID, send_request,
};
use serde::{Deserialize, Serialize};

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    single_handler: 20;
    multi_handler: 20;
}

#[derive(Serialize, Deserialize)]
struct PingRequest {
    message: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct PingResponse {
    echo: String,
}

fn ping_token() -> UID {
    UID::new(0x50_49_4e_47, 1)
}

async fn ping_server<P: Providers>(transport: Rc<Transport<P>>) {
    let ping_stream = transport.register_handler::<PingRequest, _>(ping_token(), JsonCodec);
    while let Some((request, reply)) = ping_stream
        .recv_with_transport::<_, _, _, PingResponse>(&transport)
        .await
    {
        reply.send(PingResponse {
            echo: request.message,
        });
    }
}

async fn ping_client<P: Providers>(
    network: P::Network,
    time: P::Time,
    task: P::Task,
    server_addr: NetworkAddress,
) -> Result<PingResponse, Box<dyn Error>> {
    let transport = FlowTransportBuilder::new(network, time, task).build();
    let server_endpoint = Endpoint::new(server_addr, ping_token());
    let request = PingRequest {
        message: "hello".to_owned(),
    };
    let response = send_request(&transport, &server_endpoint, request, JsonCodec)?.await?;
    shut_down::<P>(&transport).await;
    Ok(response)
}

async fn single_handler<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let serving = hosts.spawn_server(ping_server::<P>(server.clone()));
    let response = ping_client::<P>(
        hosts.client.network().clone(),
        hosts.client.time().clone(),
        hosts.client.task().clone(),
        address,
    )
    .await
    .unwrap();
    assert_eq!(
        response,
        PingResponse {
            echo: "hello".to_owned()
        }
    );
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

const CALC: u64 = 0xCA1C_0000;
const METHOD_ADD: u64 = 0;
const METHOD_SUB: u64 = 1;
const METHOD_MUL: u64 = 2;
const METHOD_DIV: u64 = 3;

macro_rules! messages {
    ($($request:ident => $response:ident;)*) => {
        $(#[derive(Serialize, Deserialize)]
        struct $request {
            a: i64,
            b: i64,
        }

        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct $response {
            result: i64,
        })*
    };
}

messages! {
    AddRequest => AddResponse;
    SubRequest => SubResponse;
    MulRequest => MulResponse;
    DivRequest => DivResponse;
}

async fn calculator<P: Providers>(transport: Rc<Transport<P>>) {
    let (add_stream, _) =
        transport.register_handler_at::<AddRequest, _>(CALC, METHOD_ADD, JsonCodec);
    let (sub_stream, _) =
        transport.register_handler_at::<SubRequest, _>(CALC, METHOD_SUB, JsonCodec);
    let (mul_stream, _) =
        transport.register_handler_at::<MulRequest, _>(CALC, METHOD_MUL, JsonCodec);
    let (div_stream, token) =
        transport.register_handler_at::<DivRequest, _>(CALC, METHOD_DIV, JsonCodec);
    assert_eq!(token, UID::new(CALC, METHOD_DIV));
    loop {
        moonpool::select! {
            Some((req, reply)) = add_stream.recv_with_transport(&transport) => {
                reply.send(AddResponse { result: req.a + req.b });
            }
            Some((req, reply)) = sub_stream.recv_with_transport(&transport) => {
                reply.send(SubResponse { result: req.a - req.b });
            }
            Some((req, reply)) = mul_stream.recv_with_transport(&transport) => {
                reply.send(MulResponse { result: req.a * req.b });
            }
            Some((req, reply)) = div_stream.recv_with_transport(&transport) => {
                reply.send(DivResponse { result: req.a / req.b });
            }
            else => break,
        }
    }
}

/// Many requests to all methods at once: each comes back to its own caller.
async fn multi_handler<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let server_addr = server.local_address().unwrap();
    let serving = hosts.spawn_server(calculator::<P>(server.clone()));
    let transport = hosts.connect();
    // The server registers in its own task; a request must not be there first.
    hosts.until(|| server.stats().endpoints == 4).await;

    let add_endpoint = Endpoint::new(server_addr, UID::new(CALC, METHOD_ADD));
    let request = AddRequest { a: 10, b: 5 };
    let response: AddResponse = send_request(&transport, &add_endpoint, request, JsonCodec)
        .unwrap()
        .await
        .unwrap();
    assert_eq!(response, AddResponse { result: 15 });

    let mut replies = Vec::new();
    for a in 0..50_i64 {
        let endpoint = |method| Endpoint::new(server_addr, UID::new(CALC, method));
        let (sub, mul, div) = (
            SubRequest { a, b: 7 },
            MulRequest { a, b: 7 },
            DivRequest { a, b: 7 },
        );
        replies.push((
            send_request(&transport, &endpoint(METHOD_SUB), sub, JsonCodec).unwrap(),
            send_request(&transport, &endpoint(METHOD_MUL), mul, JsonCodec).unwrap(),
            send_request(&transport, &endpoint(METHOD_DIV), div, JsonCodec).unwrap(),
        ));
    }
    for (a, (sub, mul, div)) in (0..).zip(replies) {
        assert_eq!(sub.await, Ok(SubResponse { result: a - 7 }));
        assert_eq!(mul.await, Ok(MulResponse { result: a * 7 }));
        assert_eq!(div.await, Ok(DivResponse { result: a / 7 }));
    }
    shut_down::<P>(&transport).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}
