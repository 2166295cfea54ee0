//! Bytes, EOF and half-close on connections that end in an orderly way.

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::pin;

use moonpool_foundation::{Providers, TaskProvider, TcpStreamTrait};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Hosts, cases, is_pending, pattern, read_slowly};

/// More than the buffers of a connection can hold, here and there.
const HUGE: usize = 8 << 20;

cases! {
    buffered_bytes_are_read_before_eof => [
        "read: Ok(\"one two three\")",
        "read: Ok(\"\")",
        "read again: Ok(\"\")",
    ];
    a_waiting_reader_sees_bytes_and_then_eof => [
        "read: pending",
        "read: Ok(\"hello\")",
        "read: pending",
        "read: Ok(\"\")",
    ];
    dropping_a_stream_delivers_what_was_written => [
        "some was taken: true",
        "all of it arrived: true",
        "then: Ok(())",
    ];
    the_answer_is_read_after_half_close => [
        "client shuts down: Ok",
        "server reads the request: Ok(\"request\")",
        "server writes: Ok(6)",
        "client reads the answer: Ok(\"answer\")",
    ];
    after_shutdown_writes_fail_and_reads_work => [
        "shutdown: Ok",
        "shutdown again: Ok",
        "write: BrokenPipe",
        "write again: BrokenPipe",
        "write nothing: BrokenPipe",
        "flush: Ok",
        "read: Ok(\"answer\")",
        "read: Ok(\"\")",
        "read: Ok(\"\")",
    ];
    once_both_ends_shut_down_the_connection_is_gone => [
        "client reads: Ok(\"\")",
        "client's local_addr: Ok",
        "client's peer_addr: NotConnected",
        "client shuts down again: Ok",
        "client writes: BrokenPipe",
        "client reads again: Ok(\"\")",
    ];
    empty_reads_and_writes_give_zero => [
        "write nothing: Ok(0)",
        "flush: Ok",
        "read into nothing while bytes wait: Ok(0)",
        "the bytes are still there: Ok(\"abc\")",
        "read into nothing at EOF: Ok(0)",
    ];
    vectored_writes_keep_the_order_of_their_slices => [
        "is_write_vectored: true",
        "write_vectored: Ok(11)",
        "write_vectored of nothing: Ok(0)",
        "read: Ok(\"hello world\")",
    ];
    a_write_larger_than_every_buffer_completes => [
        "before anyone reads: pending",
        "written: Ok",
        "read: Ok",
        "bytes are the same: true",
    ];
    both_directions_are_independent => [
        "client wrote: Ok",
        "server wrote: Ok",
        "client's bytes arrived: true",
        "server's bytes arrived: true",
    ];
    a_stream_that_is_asked_whether_a_read_would_wait_wakes_who_asked => [
        "asked: pending",
        "bytes came: true",
        "read: Ok(\"hello\")",
        "asked again: pending",
        "the end came: true",
        "read: Ok(\"\")",
    ];
    a_dropped_read_loses_no_bytes => [
        "read: pending",
        "read after the first was dropped: Ok(\"hello\")",
    ];
}

async fn buffered_bytes_are_read_before_eof<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    for word in ["one ", "two ", "three"] {
        server.write_all(word.as_bytes()).await.expect("written");
    }
    drop(server);
    table.read_exact("read", &mut client, 13).await;
    table.read("read", &mut client).await;
    table.read("read again", &mut client).await;
}

async fn a_stream_that_is_asked_whether_a_read_would_wait_wakes_who_asked<P: Providers>(
    hosts: Hosts<P>,
) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    {
        let mut asked = pin!(poll_fn(|cx| client.poll_readable(cx)));
        assert!(is_pending(asked.as_mut()));
        table.fact("asked", "pending");
        let ((), written) = futures_util::join!(asked, server.write_all(b"hello"));
        table.fact("bytes came", written.is_ok());
    }
    table.read("read", &mut client).await;
    {
        let mut asked = pin!(poll_fn(|cx| client.poll_readable(cx)));
        assert!(is_pending(asked.as_mut()));
        table.fact("asked again", "pending");
        let ((), ended) = futures_util::join!(asked, server.shutdown());
        table.fact("the end came", ended.is_ok());
    }
    table.read("read", &mut client).await;
}

async fn a_waiting_reader_sees_bytes_and_then_eof<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    {
        let mut read = pin!(table.read("read", &mut client));
        assert!(is_pending(read.as_mut()));
        table.fact("read", "pending");
        server.write_all(b"hello").await.expect("written");
        read.await;
    }
    let mut read = pin!(table.read("read", &mut client));
    assert!(is_pending(read.as_mut()));
    table.fact("read", "pending");
    drop(server);
    read.await;
}

async fn dropping_a_stream_delivers_what_was_written<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    let bytes = pattern(HUGE);
    let taken = server.write(&bytes).await.expect("written");
    table.fact("some was taken", taken > 0);
    drop(server);
    let (received, end) = read_slowly(&hosts.client, &mut client).await;
    table.fact("all of it arrived", received == bytes[..taken]);
    let _eof = table.value("then", end);
}

async fn the_answer_is_read_after_half_close<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    client.write_all(b"request").await.expect("written");
    let _shut = table.step("client shuts down", client.shutdown().await);
    table
        .read_to_end("server reads the request", &mut server)
        .await;
    table.write("server writes", &mut server, "answer").await;
    drop(server);
    table
        .read_to_end("client reads the answer", &mut client)
        .await;
}

async fn after_shutdown_writes_fail_and_reads_work<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    let _shut = table.step("shutdown", client.shutdown().await);
    let _shut = table.step("shutdown again", client.shutdown().await);
    table.write("write", &mut client, "late").await;
    table.write("write again", &mut client, "late").await;
    table.write("write nothing", &mut client, "").await;
    let _flushed = table.step("flush", client.flush().await);
    server.write_all(b"answer").await.expect("written");
    table.read_exact("read", &mut client, 6).await;
    drop(server);
    table.read("read", &mut client).await;
    table.read("read", &mut client).await;
}

async fn once_both_ends_shut_down_the_connection_is_gone<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    client.shutdown().await.expect("shut down");
    let mut rest = Vec::new();
    server.read_to_end(&mut rest).await.expect("EOF");
    server.shutdown().await.expect("shut down");
    table.read("client reads", &mut client).await;
    let _addr = table.step("client's local_addr", client.local_addr());
    let _gone = table.step("client's peer_addr", client.peer_addr());
    let _gone = table.step("client shuts down again", client.shutdown().await);
    table.write("client writes", &mut client, "late").await;
    table.read("client reads again", &mut client).await;
}

async fn empty_reads_and_writes_give_zero<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    table.write("write nothing", &mut server, "").await;
    let _flushed = table.step("flush", server.flush().await);
    server.write_all(b"xabc").await.expect("written");
    drop(server);
    // Reading one byte first makes sure that the others have arrived.
    assert_eq!(client.read_u8().await.expect("a byte"), b'x');
    let none = client.read(&mut []).await;
    let _zero = table.value("read into nothing while bytes wait", none);
    table
        .read_to_end("the bytes are still there", &mut client)
        .await;
    let none = client.read(&mut []).await;
    let _zero = table.value("read into nothing at EOF", none);
}

async fn vectored_writes_keep_the_order_of_their_slices<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    table.fact("is_write_vectored", server.is_write_vectored());
    let slices = [b"hello".as_slice(), b"", b" ", b"world"].map(IoSlice::new);
    let _written = table.value("write_vectored", server.write_vectored(&slices).await);
    let empty = server.write_vectored(&[]).await;
    let _written = table.value("write_vectored of nothing", empty);
    drop(server);
    table.read_to_end("read", &mut client).await;
}

async fn a_write_larger_than_every_buffer_completes<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    let bytes = pattern(HUGE);
    let sent = bytes.clone();
    let mut write = Box::pin(async move {
        let written = server.write_all(&sent).await;
        (server, written)
    });
    assert!(is_pending(write.as_mut()));
    table.fact("before anyone reads", "pending");
    let writer = hosts.server.task().spawn_task("writer", async move {
        let (server, written) = write.await;
        drop(server);
        written
    });
    let (received, end) = read_slowly(&hosts.client, &mut client).await;
    let _written = table.step("written", writer.await.expect("joined"));
    let _eof = table.step("read", end);
    table.fact("bytes are the same", received == bytes);
}

async fn both_directions_are_independent<P: Providers>(hosts: Hosts<P>) {
    async fn write_all<W: AsyncWrite + Unpin>(mut half: W, bytes: &[u8]) -> std::io::Result<()> {
        half.write_all(bytes).await?;
        half.shutdown().await
    }
    let table = &hosts.table;
    let (client, server) = hosts.pair().await;
    let (mut client_reads, client_writes) = tokio::io::split(client);
    let (mut server_reads, server_writes) = tokio::io::split(server);
    let bytes = pattern(HUGE);
    // Nobody reads before both writers are stuck or done.
    let mut client_wrote = pin!(write_all(client_writes, &bytes));
    let mut server_wrote = pin!(write_all(server_writes, &bytes));
    assert!(is_pending(client_wrote.as_mut()));
    assert!(is_pending(server_wrote.as_mut()));
    let (client_wrote, server_wrote, (at_server, _), (at_client, _)) = futures_util::join!(
        client_wrote,
        server_wrote,
        read_slowly(&hosts.server, &mut server_reads),
        read_slowly(&hosts.client, &mut client_reads),
    );
    let _written = table.step("client wrote", client_wrote);
    let _written = table.step("server wrote", server_wrote);
    table.fact("client's bytes arrived", at_server == bytes);
    table.fact("server's bytes arrived", at_client == bytes);
}

async fn a_dropped_read_loses_no_bytes<P: Providers>(hosts: Hosts<P>) {
    let table = &hosts.table;
    let (mut client, mut server) = hosts.pair().await;
    {
        let mut buffer = [0; 8];
        let mut read = pin!(client.read(&mut buffer));
        assert!(is_pending(read.as_mut()));
        table.fact("read", "pending");
        server.write_all(b"hello").await.expect("written");
    }
    table
        .read_exact("read after the first was dropped", &mut client, 5)
        .await;
}
