//! capnp-rpc 0.27, two parties over TCP without Nagle's delay.
//!
//! `echo_capnp.rs` was generated from `schema/echo.capnp` by capnpc 0.27, so that nobody needs its compiler.

use std::net::SocketAddr;
use std::rc::Rc;

use bench_common::{Arguments, LARGE, Measurement, Sample, print};
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use futures::io::{AsyncReadExt, BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio_util::compat::TokioAsyncReadCompatExt;

#[allow(warnings, clippy::all, reason = "generated")]
#[rustfmt::skip]
mod echo_capnp;

use echo_capnp::{echo, sample};

fn main() {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let local = LocalSet::new();
    local.block_on(&runtime.unwrap(), async {
        match arguments.work.as_str() {
            "version" => print("version", "0.27"),
            "tcp" => {
                let (listener, address) = listen().await;
                spawn_local(serve(listener));
                measure(connect(address).await, &arguments, None).await;
            }
            "tcp-server" => {
                let (listener, address) = listen().await;
                print("address", address);
                serve(listener).await;
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

struct Service;

fn copy(from: sample::Reader<'_>, mut to: sample::Builder<'_>) -> capnp::Result<()> {
    to.set_id(from.get_id());
    to.set_low(from.get_low());
    to.set_high(from.get_high());
    to.set_name(from.get_name()?);
    Ok(())
}

impl echo::Server for Service {
    async fn echo(
        self: Rc<Self>,
        params: echo::EchoParams,
        mut results: echo::EchoResults,
    ) -> capnp::Result<()> {
        copy(params.get()?.get_sample()?, results.get().init_sample())
    }

    async fn large(
        self: Rc<Self>,
        params: echo::LargeParams,
        mut results: echo::LargeResults,
    ) -> capnp::Result<()> {
        results.get().set_bytes(params.get()?.get_bytes()?);
        Ok(())
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn network(
    stream: TcpStream,
    side: Side,
) -> Box<twoparty::VatNetwork<impl futures::AsyncRead + Unpin>> {
    stream.set_nodelay(true).unwrap();
    let (reader, writer) = stream.compat().split();
    let (reader, writer) = (BufReader::new(reader), BufWriter::new(writer));
    Box::new(twoparty::VatNetwork::new(
        reader,
        writer,
        side,
        Default::default(),
    ))
}

async fn serve(listener: TcpListener) {
    let service: echo::Client = capnp_rpc::new_client(Service);
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let network = network(stream, Side::Server);
        spawn_local(RpcSystem::new(network, Some(service.clone().client)));
    }
}

async fn connect(address: SocketAddr) -> echo::Client {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut system = RpcSystem::new(network(stream, Side::Client), None);
    let client = system.bootstrap(Side::Server);
    spawn_local(system);
    client
}

async fn call(client: &echo::Client, sample: &Sample) {
    let mut request = client.echo_request();
    let mut message = request.get().init_sample();
    message.set_id(sample.id);
    message.set_low(sample.low);
    message.set_high(sample.high);
    message.set_name(&sample.name[..]);
    let answer = request.send().promise.await.unwrap();
    let message = answer.get().unwrap().get_sample().unwrap();
    assert_eq!(message.get_id(), 1_234_567);
    assert_eq!(message.get_name().unwrap().len(), 32);
}

async fn call_many(client: &echo::Client, count: u64, window: u64) {
    let caller = |_| {
        let client = client.clone();
        spawn_local(async move {
            let sample = Sample::new();
            for _ in 0..count / window {
                call(&client, &sample).await;
            }
        })
    };
    let callers: Vec<_> = (0..window).map(caller).collect();
    for caller in callers {
        caller.await.unwrap();
    }
}

async fn measure(client: echo::Client, arguments: &Arguments, other: Option<u32>) {
    let window: u64 = arguments.number("window", 1);
    let count: u64 = arguments.number("n", 20_000);
    call_many(&client, arguments.warm_up(count, window), window).await;
    let measurement = Measurement::begin_with(other);
    call_many(&client, count, window).await;
    measurement.end(count / window * window);
}

async fn large(count: u64) {
    let (listener, address) = listen().await;
    spawn_local(serve(listener));
    let client = connect(address).await;
    let bytes = vec![7; LARGE];
    let mut measurement = Measurement::begin();
    for call in 0..=count {
        if call == 1 {
            measurement = Measurement::begin();
        }
        let mut request = client.large_request();
        request.get().set_bytes(&bytes);
        let answer = request.send().promise.await.unwrap();
        assert_eq!(answer.get().unwrap().get_bytes().unwrap().len(), LARGE);
    }
    measurement.end(count);
}
