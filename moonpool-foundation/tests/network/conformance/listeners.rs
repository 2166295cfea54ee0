//! Pending connections, and what happens to them when someone gives up.

use std::pin::pin;

use moonpool_foundation::{NetworkProvider, Providers, TcpListenerTrait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Hosts, cases, is_pending};

cases! {
    connections_wait_for_accept_in_order => [
        "connect 0: Ok",
        "connect 1: Ok",
        "connect 2: Ok",
        "connect 3: Ok",
        "connect 4: Ok",
        "accepted: Ok(\"0\")",
        "accepted: Ok(\"1\")",
        "accepted: Ok(\"2\")",
        "accepted: Ok(\"3\")",
        "accepted: Ok(\"4\")",
    ];
    a_connection_closed_before_accept_still_brings_its_bytes => [
        "accept: Ok",
        "read: Ok(\"parting words\")",
        "read: Ok(\"\")",
    ];
    dropping_a_listener_resets_pending_connections => [
        "read: ConnectionReset",
        "read again: Ok(\"\")",
        "write: BrokenPipe",
        "connect: ConnectionRefused",
    ];
    a_dropped_accept_loses_no_connection => [
        "accept before a connection: pending",
        "accept after the first was dropped: Ok",
        "read: Ok(\"hello\")",
    ];
    two_accepts_wait_at_one_listener => [
        "both accepts are pending: true",
        "accept: Ok",
        "accept: Ok",
        "they are different connections: true",
    ];
    a_cancelled_connect_leaves_the_listener_working => [
        "connect: pending",
        "the next connection is served: true",
    ];
}

async fn connections_wait_for_accept_in_order<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (listener, addr) = hosts.listener().await;
    let mut clients = Vec::new();
    for number in 0..5 {
        let connected = hosts.client.network().connect(&addr).await;
        let mut client = table
            .step(&format!("connect {number}"), connected)
            .expect("connected");
        let text = number.to_string();
        client.write_all(text.as_bytes()).await.expect("written");
        clients.push(client);
    }
    for _ in 0..5 {
        let (mut server, _peer) = listener.accept().await.expect("accepted");
        table.read("accepted", &mut server).await;
    }
}

async fn a_connection_closed_before_accept_still_brings_its_bytes<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (listener, addr) = hosts.listener().await;
    let mut client = hosts.connect(&addr).await;
    client.write_all(b"parting words").await.expect("written");
    drop(client);
    let accepted = table.step("accept", listener.accept().await);
    let (mut server, _peer) = accepted.expect("accepted");
    table.read_exact("read", &mut server, 13).await;
    table.read("read", &mut server).await;
}

async fn dropping_a_listener_resets_pending_connections<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (listener, addr) = hosts.listener().await;
    let mut client = hosts.connect(&addr).await;
    drop(listener);
    table.read("read", &mut client).await;
    table.read("read again", &mut client).await;
    table.write("write", &mut client, "hello").await;
    let connected = hosts.client.network().connect(&addr).await;
    let _refused = table.step("connect", connected);
}

async fn a_dropped_accept_loses_no_connection<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (listener, addr) = hosts.listener().await;
    let mut client = {
        let mut accept = pin!(listener.accept());
        assert!(is_pending(accept.as_mut()));
        table.fact("accept before a connection", "pending");
        let mut client = hosts.connect(&addr).await;
        client.write_all(b"hello").await.expect("written");
        client
        // The accept that the connection has woken is dropped here, unpolled.
    };
    let accepted = table.step(
        "accept after the first was dropped",
        listener.accept().await,
    );
    let (mut server, _peer) = accepted.expect("accepted");
    table.read("read", &mut server).await;
    client.shutdown().await.expect("shut down");
}

async fn two_accepts_wait_at_one_listener<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (listener, addr) = hosts.listener().await;
    let mut first = pin!(listener.accept());
    let mut second = pin!(listener.accept());
    let pending = is_pending(first.as_mut()) && is_pending(second.as_mut());
    table.fact("both accepts are pending", pending);
    let _clients = (hosts.connect(&addr).await, hosts.connect(&addr).await);
    let (first, second) = futures_util::join!(first, second);
    let (_first, peer) = table.step("accept", first).expect("accepted");
    let (_second, other) = table.step("accept", second).expect("accepted");
    table.fact("they are different connections", peer != other);
}

async fn a_cancelled_connect_leaves_the_listener_working<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (listener, addr) = hosts.listener().await;
    {
        let mut connect = pin!(hosts.client.network().connect(&addr));
        assert!(is_pending(connect.as_mut()));
        table.fact("connect", "pending");
    }
    let mut client = hosts.connect(&addr).await;
    client.write_all(b"hello").await.expect("written");
    drop(client);
    // The abandoned attempt may have reached the listener or not. If so, it brings no bytes.
    let served = loop {
        let (mut server, _peer) = listener.accept().await.expect("accepted");
        let mut text = String::new();
        let _reset = server.read_to_string(&mut text).await;
        if !text.is_empty() {
            break text;
        }
    };
    table.fact("the next connection is served", served == "hello");
}
