//! Connections that end with a reset, and which step of the other end learns of it.
//!
//! A reset is made by dropping a stream that holds unread bytes.

use moonpool_foundation::{Providers, TaskProvider, TcpStreamTrait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use std::pin::pin;

use super::{Hosts, Stream, cases, is_pending, pattern, read_slowly};

/// More than the buffers of a connection can hold.
const HUGE: usize = 8 << 20;

cases! {
    a_read_reports_a_reset_once => [
        "read: ConnectionReset",
        "read again: Ok(\"\")",
        "write: BrokenPipe",
        "write again: BrokenPipe",
        "shutdown: Ok",
        "local_addr: Ok",
        "peer_addr: NotConnected",
        "set_nodelay: Ok",
    ];
    a_write_reports_a_reset_once => [
        "first write that fails: ConnectionReset",
        "write again: BrokenPipe",
        "write nothing: BrokenPipe",
        "read: Ok(\"\")",
        "shutdown: Ok",
    ];
    a_waiting_reader_is_woken_by_a_reset => [
        "read: pending",
        "read: ConnectionReset",
    ];
    a_waiting_writer_is_woken_by_a_reset => [
        "write: pending",
        "write: ConnectionReset",
        "write again: BrokenPipe",
        "read: Ok(\"\")",
    ];
    a_reset_does_not_wait_for_room => [
        "write: ConnectionReset",
        "a prefix was received: true",
        "read: Ok(())",
    ];
    bytes_that_arrived_before_a_reset_are_read_first => [
        "read: Ok(\"abc\")",
        "read the rest: Ok(\"def\")",
        "read: ConnectionReset",
        "read: Ok(\"\")",
    ];
    bytes_that_arrived_are_read_after_a_write_reported_the_reset => [
        "read: Ok(\"abc\")",
        "first write that fails: ConnectionReset",
        "read the rest: Ok(\"def\")",
        "read: Ok(\"\")",
    ];
    a_reset_discards_what_was_not_sent_yet => [
        "less than everything arrived: true",
        "it is a prefix: true",
        "then: ConnectionReset",
    ];
    writing_to_a_closed_end_is_a_broken_pipe => [
        "read: Ok(\"\")",
        "write: Ok(5)",
        "first write that fails: BrokenPipe",
        "write again: BrokenPipe",
        "read: Ok(\"\")",
        "shutdown: Ok",
        "peer_addr: NotConnected",
    ];
    after_eof_a_reset_shows_in_writes_only => [
        "read: Ok(\"\")",
        "first write that fails: BrokenPipe",
        "read: Ok(\"\")",
        "write again: BrokenPipe",
    ];
    a_reset_does_not_overtake_what_was_sent_before_it => [
        "first write that fails: BrokenPipe",
        "read: Ok(\"goodbye\")",
        "read: Ok(\"\")",
    ];
    a_reset_behind_an_unread_eof_does_not_hide_it => [
        "first write that fails: BrokenPipe",
        "read: Ok(\"bye\")",
        "read: Ok(\"\")",
    ];
}

/// A client whose server has received bytes, left some unread and dropped its stream.
async fn reset_client<P: Providers>(hosts: &Hosts<P>) -> Stream<P> {
    let (mut client, server) = hosts.pair().await;
    reset_from(&mut client, server).await;
    client
}

/// Makes `dropped` hold an unread byte of `stream`, and drops it.
async fn reset_from<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut S, mut dropped: S) {
    stream.write_all(b"xy").await.expect("written");
    // Reading one byte makes sure that the other has arrived.
    assert_eq!(dropped.read_u8().await.expect("a byte"), b'x');
}

async fn a_read_reports_a_reset_once<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let mut client = reset_client(&hosts).await;
    table.read("read", &mut client).await;
    table.read("read again", &mut client).await;
    table.write("write", &mut client, "hello").await;
    table.write("write again", &mut client, "hello").await;
    let _gone = table.step("shutdown", client.shutdown().await);
    let _addr = table.step("local_addr", client.local_addr());
    let _gone = table.step("peer_addr", client.peer_addr());
    let _set = table.step("set_nodelay", client.set_nodelay(true));
}

async fn a_write_reports_a_reset_once<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let mut client = reset_client(&hosts).await;
    table
        .write_until_error("first write that fails", &hosts.client, &mut client)
        .await;
    table.write("write again", &mut client, "hello").await;
    table.write("write nothing", &mut client, "").await;
    table.read("read", &mut client).await;
    let _gone = table.step("shutdown", client.shutdown().await);
}

async fn a_waiting_reader_is_woken_by_a_reset<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    client.write_all(b"xy").await.expect("written");
    let mut read = pin!(table.read("read", &mut client));
    assert!(is_pending(read.as_mut()));
    table.fact("read", "pending");
    assert_eq!(server.read_u8().await.expect("a byte"), b'x');
    drop(server);
    read.await;
}

async fn a_waiting_writer_is_woken_by_a_reset<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    let mut writer = Box::pin(async move {
        let written = client.write_all(&pattern(HUGE)).await;
        (client, written)
    });
    assert!(is_pending(writer.as_mut()));
    table.fact("write", "pending");
    let writer = hosts.client.task().spawn_task("writer", writer);
    assert_eq!(server.read_u8().await.expect("a byte"), 0);
    drop(server);
    let (mut client, written) = writer.await.expect("joined");
    let _reset = table.step("write", written);
    table.write("write again", &mut client, "hello").await;
    table.read("read", &mut client).await;
}

async fn a_reset_does_not_wait_for_room<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    let bytes = pattern(HUGE);
    // The client only writes: what it is sent fills its buffer and stays there.
    let mut writer = Box::pin(async move {
        let written = client.write_all(&pattern(HUGE)).await;
        (client, written)
    });
    assert!(is_pending(writer.as_mut()));
    let writer = hosts.client.task().spawn_task("writer", writer);
    assert!(is_pending(Box::pin(server.write_all(&bytes))));
    assert_eq!(server.read_u8().await.expect("a byte"), 0);
    // More is under way when the reset is sent.
    let _full = is_pending(Box::pin(server.write_all(&bytes)));
    drop(server);
    let (mut client, written) = writer.await.expect("joined");
    let _reset = table.step("write", written);
    let (received, end) = read_slowly(&hosts.client, &mut client).await;
    let prefix = !received.is_empty() && bytes.starts_with(&received[..received.len().min(251)]);
    table.fact("a prefix was received", prefix);
    let _eof = table.value("read", end);
}

async fn bytes_that_arrived_before_a_reset_are_read_first<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    server.write_all(b"abcdef").await.expect("written");
    table.read_exact("read", &mut client, 3).await;
    reset_from(&mut client, server).await;
    table.read_exact("read the rest", &mut client, 3).await;
    table.read("read", &mut client).await;
    table.read("read", &mut client).await;
}

async fn bytes_that_arrived_are_read_after_a_write_reported_the_reset<P: Providers>(
    hosts: Hosts<P>,
) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    server.write_all(b"abcdef").await.expect("written");
    table.read_exact("read", &mut client, 3).await;
    reset_from(&mut client, server).await;
    table
        .write_until_error("first write that fails", &hosts.client, &mut client)
        .await;
    table.read_exact("read the rest", &mut client, 3).await;
    table.read("read", &mut client).await;
}

async fn a_reset_discards_what_was_not_sent_yet<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    let bytes = pattern(HUGE);
    // Fills every buffer on the way: the write is given up half-way.
    assert!(is_pending(Box::pin(server.write_all(&bytes))));
    reset_from(&mut client, server).await;
    let (received, end) = read_slowly(&hosts.client, &mut client).await;
    table.fact("less than everything arrived", received.len() < bytes.len());
    table.fact("it is a prefix", received == bytes[..received.len()]);
    let _reset = table.step("then", end);
}

async fn writing_to_a_closed_end_is_a_broken_pipe<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, server) = hosts.pair().await;
    drop(server);
    table.read("read", &mut client).await;
    table.write("write", &mut client, "hello").await;
    table
        .write_until_error("first write that fails", &hosts.client, &mut client)
        .await;
    table.write("write again", &mut client, "hello").await;
    table.read("read", &mut client).await;
    let _gone = table.step("shutdown", client.shutdown().await);
    let _gone = table.step("peer_addr", client.peer_addr());
}

async fn after_eof_a_reset_shows_in_writes_only<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    server.shutdown().await.expect("shut down");
    table.read("read", &mut client).await;
    reset_from(&mut client, server).await;
    table
        .write_until_error("first write that fails", &hosts.client, &mut client)
        .await;
    table.read("read", &mut client).await;
    table.write("write again", &mut client, "hello").await;
}

async fn a_reset_does_not_overtake_what_was_sent_before_it<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    server.write_all(b"good").await.expect("written");
    server.write_all(b"bye").await.expect("written");
    drop(server);
    // These bytes meet a closed socket, which answers with a reset.
    table
        .write_until_error("first write that fails", &hosts.client, &mut client)
        .await;
    table.read_exact("read", &mut client, 7).await;
    table.read("read", &mut client).await;
}

async fn a_reset_behind_an_unread_eof_does_not_hide_it<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    server.write_all(b"bye").await.expect("written");
    server.shutdown().await.expect("shut down");
    reset_from(&mut client, server).await;
    table
        .write_until_error("first write that fails", &hosts.client, &mut client)
        .await;
    table.read_exact("read", &mut client, 3).await;
    table.read("read", &mut client).await;
}
