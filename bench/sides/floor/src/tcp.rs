//! Length-prefixed frames on tokio's sockets.

use std::net::SocketAddr;

use bench_common::{Arguments, LARGE, Measurement, PAYLOAD, print};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const FRAME: usize = 4 + PAYLOAD;

fn real<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    runtime.unwrap().block_on(future)
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Echoes all whole frames that a read brought with one write.
async fn echo(mut stream: TcpStream) {
    let mut input = Vec::with_capacity(1 << 16);
    while stream.read_buf(&mut input).await.unwrap_or(0) > 0 {
        let whole = input.len() / FRAME * FRAME;
        if stream.write_all(&input[..whole]).await.is_err() {
            return;
        }
        input.drain(..whole);
    }
}

/// Keeps `window` frames in flight until `count` came back.
async fn ask(stream: &mut TcpStream, count: usize, window: usize) {
    let mut frame = [7; FRAME];
    frame[..4].copy_from_slice(&(PAYLOAD as u32).to_le_bytes());
    let frames = frame.repeat(window);
    let mut input = Vec::with_capacity(1 << 16);
    let (mut sent, mut received) = (window, 0);
    stream.write_all(&frames).await.unwrap();
    while received < count {
        stream.read_buf(&mut input).await.unwrap();
        let arrived = input.len() / FRAME;
        for answer in input.chunks_exact(FRAME) {
            assert_eq!(answer[..4], frame[..4]);
        }
        input.drain(..arrived * FRAME);
        received += arrived;
        let next = arrived.min(count - sent);
        stream.write_all(&frames[..next * FRAME]).await.unwrap();
        sent += next;
    }
}

async fn measure(address: SocketAddr, arguments: &Arguments, other: Option<u32>) {
    let window = arguments.number("window", 1);
    let count = arguments.number("n", 100_000_usize).max(window);
    let mut stream = connect(address).await;
    let before = arguments.warm_up(count as u64, window as u64) as usize;
    ask(&mut stream, before, window).await;
    let measurement = Measurement::begin_with(other);
    ask(&mut stream, count, window).await;
    measurement.end(count as u64);
}

/// Both ends on this thread.
pub fn one_process(arguments: &Arguments) {
    real(async {
        let (listener, address) = listen().await;
        tokio::spawn(async move { echo(accept(&listener).await).await });
        measure(address, arguments, None).await;
    });
}

/// Prints its address and serves until it is killed.
pub fn server() {
    real(async {
        let (listener, address) = listen().await;
        print("address", address);
        loop {
            echo(accept(&listener).await).await;
        }
    });
}

pub fn client(arguments: &Arguments) {
    let address = arguments.text("address", "").parse().unwrap();
    real(measure(
        address,
        arguments,
        Some(arguments.number("server", 0)),
    ));
}

/// Reads one frame, with what says its length.
async fn read_frame(stream: &mut TcpStream, frame: &mut Vec<u8>) -> std::io::Result<()> {
    frame.clear();
    loop {
        if stream.read_buf(frame).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(length) = frame.first_chunk::<4>()
            && frame.len() >= 4 + u32::from_le_bytes(*length) as usize
        {
            return Ok(());
        }
    }
}

/// Echoes of 1 MiB, one after the other; each is read whole before it is answered.
pub fn large(count: u64) {
    real(async {
        let (listener, address) = listen().await;
        tokio::spawn(async move {
            let mut stream = accept(&listener).await;
            let mut frame = Vec::with_capacity(4 + LARGE);
            while read_frame(&mut stream, &mut frame).await.is_ok() {
                stream.write_all(&frame).await.unwrap();
            }
        });
        let mut stream = connect(address).await;
        let mut frame = vec![7; 4 + LARGE];
        frame[..4].copy_from_slice(&(LARGE as u32).to_le_bytes());
        let mut measurement = Measurement::begin();
        for echo in 0..=count {
            if echo == 1 {
                measurement = Measurement::begin();
            }
            stream.write_all(&frame).await.unwrap();
            read_frame(&mut stream, &mut frame).await.unwrap();
        }
        measurement.end(count);
    });
}
