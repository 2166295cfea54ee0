//! What a network is to application code: listeners, streams, and nothing about who made them.

use std::future::Future;
use std::io;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

/// Opens listeners and connections, on real sockets or inside the simulator.
///
/// Addresses are `ip:port`, `[v6]:port` or `name:port`; port 0 binds a free port. Behaviour and
/// error kinds are the same in both worlds: the conformance suite (`tests/network/conformance.rs`)
/// runs one body over both and compares what each step gave.
pub trait NetworkProvider: Clone + 'static {
    /// A connected stream.
    type TcpStream: AsyncRead + AsyncWrite + TcpStreamTrait + Unpin + 'static;
    /// A bound listener.
    type TcpListener: TcpListenerTrait<TcpStream = Self::TcpStream> + 'static;

    /// Binds a listener.
    ///
    /// # Errors
    /// `AddrInUse` if the port is taken, `AddrNotAvailable` if the address is not this host's,
    /// `InvalidInput` if it is no address at all.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing bound.
    fn bind(&self, addr: &str) -> impl Future<Output = io::Result<Self::TcpListener>>;

    /// Connects to a listener.
    ///
    /// # Errors
    /// `ConnectionRefused` if nobody listens there, `HostUnreachable` or `TimedOut` if the host does
    /// not answer, `InvalidInput` if it is no address at all.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up; a connection it had made is closed.
    fn connect(&self, addr: &str) -> impl Future<Output = io::Result<Self::TcpStream>>;
}

/// A listener that hands out accepted connections.
pub trait TcpListenerTrait {
    /// A connected stream.
    type TcpStream: AsyncRead + AsyncWrite + TcpStreamTrait + Unpin + 'static;

    /// Waits for the next connection and returns it with its peer's address.
    ///
    /// # Errors
    /// Whatever the operating system reports for one connection; the listener stays usable.
    ///
    /// # Cancel safety
    /// A connection is never lost: it stays queued when the future is dropped.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::TcpStream, String)>>;

    /// The bound address, with the port that was chosen for port 0.
    ///
    /// # Errors
    /// Whatever the operating system reports for a socket that is gone.
    fn local_addr(&self) -> io::Result<String>;
}

/// What a stream knows of itself beside its bytes. Half-close is `AsyncWrite::shutdown`.
pub trait TcpStreamTrait {
    /// This end's address.
    ///
    /// # Errors
    /// Whatever the operating system reports for a socket that is gone.
    fn local_addr(&self) -> io::Result<String>;

    /// The other end's address. Of an accepted connection this may be no address to connect to.
    ///
    /// # Errors
    /// `NotConnected` once the connection is gone.
    fn peer_addr(&self) -> io::Result<String>;

    /// Sends small writes at once (true) or lets the kernel collect them (false). The simulator
    /// accepts it and always sends at once.
    ///
    /// # Errors
    /// Whatever the operating system reports for a socket that is gone.
    fn set_nodelay(&self, nodelay: bool) -> io::Result<()>;

    /// Whether a read may find something: bytes, the end or an error. Pending while a read would be
    /// pending: the task is then woken as by that read. After `Ready` a read may be pending all the
    /// same. It is asked where nothing is expected, to save a read.
    ///
    /// A stream that cannot tell leaves this as it is: always ready.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Ready(())
    }
}
