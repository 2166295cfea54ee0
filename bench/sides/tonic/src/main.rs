//! tonic 0.14: gRPC over HTTP/2 without Nagle's delay, windows that no message here fills, and messages that are bytes:
//! what a generated service does, less the encoding of its fields.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use bench_common::{Arguments, LARGE, Measurement, PAYLOAD, print};
use bytes::{Buf, BufMut, Bytes};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

const WINDOW: u32 = 8 << 20;
const PATH: &str = "/bench.Echo/Echo";

/// Bytes as they are.
#[derive(Clone, Copy, Default)]
struct Raw {
    /// What a call's buffers begin with: room for its message.
    room: usize,
}

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(self.room, 2 * self.room)
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(self.room, 2 * self.room)
    }
}

#[derive(Clone, Copy)]
struct Echo {
    room: usize,
}

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

/// The one method.
struct EchoMethod;

impl UnaryService<Bytes> for EchoMethod {
    type Response = Bytes;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_inner())))
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let room = self.room;
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Raw { room });
            Ok(grpc.unary(EchoMethod, request).await)
        })
    }
}

fn main() {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        match arguments.work.as_str() {
            "version" => print("version", "0.14"),
            "tcp" => {
                let (listener, address) = listen().await;
                tokio::spawn(serve(listener, 256));
                measure(connect(address).await, &arguments, None).await;
            }
            "tcp-server" => {
                let (listener, address) = listen().await;
                print("address", address);
                serve(listener, 256).await;
            }
            "tcp-client" => {
                let address = arguments.text("address", "").parse().unwrap();
                let other = Some(arguments.number("server", 0));
                measure(connect(address).await, &arguments, other).await;
            }
            "tcp-large" => large(arguments.number("n", 100)).await,
            _ => arguments.unknown(),
        }
    });
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn serve(listener: TcpListener, room: usize) {
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(1 << 20)
        .add_service(Echo { room })
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}

async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .connect()
        .await
        .unwrap()
}

async fn call(grpc: &mut Grpc<Channel>, bytes: Bytes, room: usize) -> Bytes {
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static(PATH);
    let answer = grpc.unary(Request::new(bytes), path, Raw { room }).await;
    answer.unwrap().into_inner()
}

async fn call_many(channel: &Channel, count: u64, window: u64) {
    let caller = |_| {
        let mut grpc = Grpc::new(channel.clone());
        tokio::spawn(async move {
            for _ in 0..count / window {
                let bytes = Bytes::from_static(&[7; PAYLOAD]);
                assert_eq!(call(&mut grpc, bytes, 256).await.len(), PAYLOAD);
            }
        })
    };
    let callers: Vec<_> = (0..window).map(caller).collect();
    for caller in callers {
        caller.await.unwrap();
    }
}

async fn measure(channel: Channel, arguments: &Arguments, other: Option<u32>) {
    let window: u64 = arguments.number("window", 1);
    let count: u64 = arguments.number("n", 20_000);
    call_many(&channel, arguments.warm_up(count, window), window).await;
    let measurement = Measurement::begin_with(other);
    call_many(&channel, count, window).await;
    measurement.end(count / window * window);
}

async fn large(count: u64) {
    let room = LARGE + 64;
    let (listener, address) = listen().await;
    tokio::spawn(serve(listener, room));
    let mut grpc = Grpc::new(connect(address).await);
    let mut bytes = Bytes::from(vec![7; LARGE]);
    let mut measurement = Measurement::begin();
    for echo in 0..=count {
        if echo == 1 {
            measurement = Measurement::begin();
        }
        bytes = call(&mut grpc, bytes, room).await;
    }
    measurement.end(count);
    assert_eq!(bytes.len(), LARGE);
}
