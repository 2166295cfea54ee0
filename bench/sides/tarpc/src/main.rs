//! tarpc 0.38 with bincode and with JSON, over TCP without Nagle's delay.

use std::net::SocketAddr;

use bench_common::{Arguments, LARGE, Measurement, Sample, print};
use futures::prelude::*;
use serde_bytes::ByteBuf;
use tarpc::server::Channel;
use tarpc::tokio_serde::formats::{Bincode, Json};
use tarpc::{client, context, serde_transport, server};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::LengthDelimitedCodec;

#[tarpc::service]
trait Echo {
    async fn echo(sample: Sample) -> Sample;
    async fn large(bytes: ByteBuf) -> ByteBuf;
}

#[derive(Clone)]
struct Service;

impl Echo for Service {
    async fn echo(self, _: context::Context, sample: Sample) -> Sample {
        sample
    }

    async fn large(self, _: context::Context, bytes: ByteBuf) -> ByteBuf {
        bytes
    }
}

#[derive(Clone, Copy)]
enum Format {
    Bincode,
    Json,
}

fn main() {
    let arguments = Arguments::parse();
    let format = match arguments.text("codec", "bincode") {
        "json" => Format::Json,
        _ => Format::Bincode,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        match arguments.work.as_str() {
            "version" => print("version", "0.38"),
            "tcp" => {
                let (listener, address) = listen().await;
                tokio::spawn(serve(listener, format));
                measure(connect(address, format).await, &arguments, None).await;
            }
            "tcp-server" => {
                let (listener, address) = listen().await;
                print("address", address);
                serve(listener, format).await;
            }
            "tcp-client" => {
                let address = arguments.text("address", "").parse().unwrap();
                let other = Some(arguments.number("server", 0));
                measure(connect(address, format).await, &arguments, other).await;
            }
            "tcp-large" => large(arguments.number("n", 100), format).await,
            _ => arguments.unknown(),
        }
    });
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Frames of up to 16 MiB, for the large echoes.
fn frames() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(16 << 20)
        .new_codec()
}

macro_rules! transport {
    ($stream:expr, $codec:expr) => {
        serde_transport::new(tokio_util::codec::Framed::new($stream, frames()), $codec)
    };
}

/// Requests in flight on a connection: more than any work here has, and what the client keeps to.
const IN_FLIGHT: usize = 1024;

/// Answers a connection's requests where they are read: tarpc's fastest. An answer waits there while
/// the buffer of answers is full, which nobody else empties: with room for fewer than are in flight
/// it waits for ever, so there is room for all. A task for each request, as in tarpc's examples, needs no such
/// care, and takes 0.3 to 0.7 us of CPU more for a call.
macro_rules! answer {
    ($transport:expr) => {{
        let mut config = server::Config::default();
        config.pending_response_buffer = IN_FLIGHT;
        let requests = config.channel($transport).execute(Service.serve());
        tokio::spawn(requests.for_each(|response| response));
    }};
}

async fn serve(listener: TcpListener, format: Format) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        match format {
            Format::Bincode => answer!(transport!(stream, Bincode::default())),
            Format::Json => answer!(transport!(stream, Json::default())),
        }
    }
}

async fn connect(address: SocketAddr, format: Format) -> EchoClient {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut config = client::Config::default();
    config.max_in_flight_requests = IN_FLIGHT;
    config.pending_request_buffer = IN_FLIGHT;
    match format {
        Format::Bincode => EchoClient::new(config, transport!(stream, Bincode::default())).spawn(),
        Format::Json => EchoClient::new(config, transport!(stream, Json::default())).spawn(),
    }
}

async fn call_many(client: &EchoClient, count: u64, window: u64) {
    let caller = |_| {
        let client = client.clone();
        tokio::spawn(async move {
            for _ in 0..count / window {
                let sample = client
                    .echo(context::current(), Sample::new())
                    .await
                    .unwrap();
                assert_eq!(sample.id, 1_234_567);
            }
        })
    };
    let callers: Vec<_> = (0..window).map(caller).collect();
    for caller in callers {
        caller.await.unwrap();
    }
}

async fn measure(client: EchoClient, arguments: &Arguments, other: Option<u32>) {
    let window: u64 = arguments.number("window", 1);
    let count: u64 = arguments.number("n", 20_000);
    call_many(&client, arguments.warm_up(count, window), window).await;
    let measurement = Measurement::begin_with(other);
    call_many(&client, count, window).await;
    measurement.end(count / window * window);
}

async fn large(count: u64, format: Format) {
    let (listener, address) = listen().await;
    tokio::spawn(serve(listener, format));
    let client = connect(address, format).await;
    let mut bytes = ByteBuf::from(vec![7; LARGE]);
    let mut measurement = Measurement::begin();
    for call in 0..=count {
        if call == 1 {
            measurement = Measurement::begin();
        }
        bytes = client.large(context::current(), bytes).await.unwrap();
    }
    measurement.end(count);
    assert_eq!(bytes.len(), LARGE);
}
