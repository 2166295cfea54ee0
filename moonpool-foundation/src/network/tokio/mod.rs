//! Real TCP sockets through tokio.

use std::io;

use crate::network::{NetworkProvider, TcpListenerTrait, TcpStreamTrait};

/// Real TCP. Names are resolved by the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioNetworkProvider;

impl TokioNetworkProvider {
    /// The operating system's network.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl NetworkProvider for TokioNetworkProvider {
    type TcpStream = ::tokio::net::TcpStream;
    type TcpListener = ::tokio::net::TcpListener;

    async fn bind(&self, addr: &str) -> io::Result<Self::TcpListener> {
        ::tokio::net::TcpListener::bind(addr).await
    }

    async fn connect(&self, addr: &str) -> io::Result<Self::TcpStream> {
        ::tokio::net::TcpStream::connect(addr).await
    }
}

impl TcpListenerTrait for ::tokio::net::TcpListener {
    type TcpStream = ::tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<(Self::TcpStream, String)> {
        let (stream, peer) = ::tokio::net::TcpListener::accept(self).await?;
        Ok((stream, peer.to_string()))
    }

    fn local_addr(&self) -> io::Result<String> {
        ::tokio::net::TcpListener::local_addr(self).map(|addr| addr.to_string())
    }
}

impl TcpStreamTrait for ::tokio::net::TcpStream {
    fn local_addr(&self) -> io::Result<String> {
        ::tokio::net::TcpStream::local_addr(self).map(|addr| addr.to_string())
    }

    fn peer_addr(&self) -> io::Result<String> {
        ::tokio::net::TcpStream::peer_addr(self).map(|addr| addr.to_string())
    }

    fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        ::tokio::net::TcpStream::set_nodelay(self, nodelay)
    }
}
