//! Real TCP sockets through tokio.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::network::{NetworkProvider, TcpListenerTrait, TcpStreamTrait};

/// Real TCP. Names are resolved by the operating system, but for those it was given itself.
#[derive(Clone, Debug, Default)]
pub struct TokioNetworkProvider {
    hosts: Option<Rc<BTreeMap<String, String>>>,
}

impl TokioNetworkProvider {
    /// The operating system's network.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The operating system's network, with names and their addresses that go before what it knows:
    /// `name:port` is that address's port, as in a simulation.
    pub fn with_hosts(hosts: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            hosts: Some(Rc::new(hosts.into_iter().collect())),
        }
    }

    fn resolve<'a>(&self, addr: &'a str) -> Cow<'a, str> {
        let known = self.hosts.as_ref().and_then(|hosts| {
            let (name, port) = addr.rsplit_once(':')?;
            Some(Cow::Owned(format!("{}:{port}", hosts.get(name)?)))
        });
        known.unwrap_or(Cow::Borrowed(addr))
    }
}

impl NetworkProvider for TokioNetworkProvider {
    type TcpStream = ::tokio::net::TcpStream;
    type TcpListener = ::tokio::net::TcpListener;

    async fn bind(&self, addr: &str) -> io::Result<Self::TcpListener> {
        ::tokio::net::TcpListener::bind(&*self.resolve(addr)).await
    }

    async fn connect(&self, addr: &str) -> io::Result<Self::TcpStream> {
        ::tokio::net::TcpStream::connect(&*self.resolve(addr)).await
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

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // An error is a read's to report.
        self.poll_read_ready(cx).map(drop)
    }
}
