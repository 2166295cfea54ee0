//! `define_interface!`: static and dynamic, with and without an id.

use std::rc::Rc;

use moonpool::{
    Client, Endpoint, Interface, JsonCodec, Providers, RegisterError, ReplyError, Server, UID,
    define_interface, select,
};
use serde::{Deserialize, Serialize};

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    methods_are_routed_by_name: 20;
    a_dynamic_interface_is_reached_by_its_base_endpoint: 20;
    an_interface_of_another_start_is_not_found: 5;
    an_interface_is_served_once_and_again_after_its_drop: 5;
}

#[derive(Debug, Serialize, Deserialize)]
struct AddRequest {
    a: i64,
    b: i64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct AddResponse {
    sum: i64,
}

define_interface! {
    /// Arithmetic.
    Calculator, id 0xCA1C, {
        /// The sum of both.
        add: AddRequest => AddResponse,
        /// The other number.
        negate: i64 => i64,
        /// Also a keyword's name may be a method.
        r#match: (String, String) => bool,
    }
}

define_interface! {
    Echo { echo: String => String }
}

mod elsewhere {
    moonpool::define_interface! {
        pub Echo { echo: String => String }
    }
}

#[test]
fn an_id_is_given_or_derived_from_the_path() {
    assert_eq!(Calculator::ID, 0xCA1C);
    assert_eq!(Calculator::NAME, "Calculator");
    assert_eq!(Calculator::METHODS, ["add", "negate", "r#match"]);
    assert_ne!(Echo::ID, elsewhere::Echo::ID);
    // FNV-1a of "rpc_integration::interfaces::Echo", computed by hand: it is on the wire.
    assert_eq!(Echo::ID, fnv_1a(b"rpc_integration::interfaces::Echo"));
}

fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

async fn calculate(calculator: Server<Calculator>) {
    loop {
        select! {
            Some((AddRequest { a, b }, reply)) = calculator.add.recv() => {
                reply.send(AddResponse { sum: a + b });
            }
            Some((number, reply)) = calculator.negate.recv() => reply.send(-number),
            Some(((left, right), reply)) = calculator.r#match.recv() => reply.send(left == right),
            else => return,
        }
    }
}

async fn ask(calculator: &Client<Calculator>) {
    let sum = calculator.add(AddRequest { a: 1, b: 2 }).await;
    assert_eq!(sum, Ok(AddResponse { sum: 3 }));
    assert_eq!(calculator.negate(7).await, Ok(-7));
    let pair = ("a".to_owned(), "b".to_owned());
    assert_eq!(calculator.r#match(pair).await, Ok(false));
    // Several at once, sent in order.
    let sent: Vec<_> = (0..10)
        .map(|number| calculator.negate(number).send().unwrap())
        .collect();
    for (number, reply) in (0..).zip(sent) {
        assert_eq!(reply.await, Ok(-number));
    }
}

async fn methods_are_routed_by_name<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let calculator = Calculator::serve(&server, JsonCodec).unwrap();
    let base = Endpoint::new(address, UID::new(0xCA1C, 0));
    assert_eq!(calculator.base_endpoint(), Some(base));
    let local = Calculator::remote(&server, address, JsonCodec);
    let serving = hosts.spawn_server(calculate(calculator));

    let transport = hosts.connect();
    let remote = Calculator::remote(&transport, address, JsonCodec);
    assert_eq!(remote.base_endpoint(), base);
    ask(&remote).await;
    ask(&local).await;

    drop((local, remote));
    shut_down::<P>(&transport).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

async fn a_dynamic_interface_is_reached_by_its_base_endpoint<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let first = Calculator::serve_dynamic(&server, JsonCodec).unwrap();
    let second = Calculator::serve_dynamic(&server, JsonCodec).unwrap();
    let bases = [first.base_endpoint(), second.base_endpoint()].map(Option::unwrap);
    assert_ne!(bases[0], bases[1]);
    let serving = [first, second].map(|server| hosts.spawn_server(calculate(server)));

    let transport = hosts.connect();
    for base in bases {
        // It travels as this one endpoint.
        let json = serde_json::to_string(&base).unwrap();
        let received: Endpoint = serde_json::from_str(&json).unwrap();
        ask(&Calculator::at(&transport, received, JsonCodec)).await;
    }

    shut_down::<P>(&transport).await;
    shut_down::<P>(&server).await;
    for task in serving {
        task.await.unwrap();
    }
}

/// A dynamic interface's tokens are never those of another life of the server.
async fn an_interface_of_another_start_is_not_found<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let calculator = Calculator::serve_dynamic(&server, JsonCodec).unwrap();
    let old = calculator.base_endpoint().unwrap();
    drop(calculator);
    shut_down::<P>(&server).await;

    let server = hosts
        .client_builder()
        .local_address(address)
        .build_listening();
    let server: Rc<Transport<P>> = match server.await {
        Ok(server) => server,
        // In the simulation the client's host has another address.
        Err(_) => hosts.server_builder().build_listening().await.unwrap(),
    };
    let calculator = Calculator::serve_dynamic(&server, JsonCodec).unwrap();
    let new = calculator.base_endpoint().unwrap();
    assert_ne!(new.token, old.token);
    let transport = hosts.connect();
    let stale = Calculator::at(&transport, Endpoint::new(new.address, old.token), JsonCodec);
    assert_eq!(stale.negate(1).await, Err(ReplyError::EndpointNotFound));

    shut_down::<P>(&transport).await;
    drop(calculator);
    shut_down::<P>(&server).await;
}

async fn an_interface_is_served_once_and_again_after_its_drop<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let endpoints = || server.stats().endpoints;
    let before = endpoints();
    let calculator = Calculator::serve(&server, JsonCodec).unwrap();
    assert_eq!(endpoints(), before + 3);
    let again = Calculator::serve(&server, JsonCodec);
    assert!(matches!(
        again,
        Err(RegisterError::AlreadyRegistered { .. })
    ));
    drop(again);
    assert_eq!(endpoints(), before + 3);
    drop(calculator);
    assert_eq!(endpoints(), before);
    let dynamic = Calculator::serve_dynamic(&server, JsonCodec).unwrap();
    assert_eq!(endpoints(), before + 3);
    drop(dynamic);
    assert_eq!(endpoints(), before);
    drop(Calculator::serve(&server, JsonCodec).unwrap());

    // A client has no address to be reached at.
    let client = hosts.connect();
    let unreachable = Calculator::serve_dynamic(&client, JsonCodec);
    assert!(matches!(unreachable, Err(RegisterError::NoAddress)));
    let nowhere = Calculator::serve(&client, JsonCodec).unwrap();
    assert_eq!(nowhere.base_endpoint(), None);
    drop(nowhere);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}
