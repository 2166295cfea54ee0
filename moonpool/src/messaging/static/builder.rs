//! [`FlowTransportBuilder`].

use std::rc::Rc;
use std::time::Duration;

use moonpool_foundation::network::peer::{AcceptLimits, PeerConfig};
use moonpool_foundation::{
    NetworkAddress, NetworkProvider, Providers, TaskProvider, TcpListenerTrait, TimeProvider, UID,
};

use super::core::{Core, CoreParams, Limits};
use super::flow_transport::FlowTransport;
use super::middleware::{CallChain, CallMiddleware};
use super::peer_info::{PeerInfo, Verify};
use crate::error::BuildError;

/// How long a call to an unreachable address waits before it ends with `ConnectionFailed`.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(3);

/// How long a call may take, unless the builder or the call is told otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls that wait for their replies at one time, unless the builder is told otherwise.
const DEFAULT_MAX_CALLS: usize = 1_048_576;

/// Bytes of answers held for all sessions together, unless the builder is told otherwise.
const DEFAULT_MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// Bytes that all connections read into together, unless the builder is told otherwise.
const DEFAULT_MAX_READ_BYTES: usize = 256 * 1024 * 1024;

/// Makes a [`FlowTransport`], listening or not.
///
/// ```
/// # use moonpool::{FlowTransportBuilder, TokioProviders};
/// # let runtime = tokio::runtime::Builder::new_current_thread()
/// #     .enable_all().build_local(Default::default())?;
/// # runtime.block_on(async {
/// let providers = TokioProviders::new();
/// let server = FlowTransportBuilder::from_providers(&providers)
///     .local_address("127.0.0.1:0".parse()?)
///     .build_listening()
///     .await?;
/// assert_ne!(server.local_address().map(|address| address.port), Some(0));
/// let client = FlowTransportBuilder::from_providers(&providers).build();
/// assert_eq!(client.local_address(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct FlowTransportBuilder<N, T, TP> {
    network: N,
    time: T,
    task: TP,
    local_address: Option<NetworkAddress>,
    public_address: Option<NetworkAddress>,
    peer_config: PeerConfig,
    accept_limits: AcceptLimits,
    default_timeout: Option<Duration>,
    max_calls: usize,
    max_answer_bytes: usize,
    max_read_bytes: usize,
    verify: Verify,
    call_chain: CallChain,
}

impl<N, T, TP> FlowTransportBuilder<N, T, TP>
where
    N: NetworkProvider,
    T: TimeProvider,
    TP: TaskProvider,
{
    /// A builder with the defaults, over these providers.
    pub fn new(network: N, time: T, task: TP) -> Self {
        Self {
            network,
            time,
            task,
            local_address: None,
            public_address: None,
            peer_config: PeerConfig {
                patience: Some(DEFAULT_PATIENCE),
                ..PeerConfig::default()
            },
            accept_limits: AcceptLimits::default(),
            default_timeout: Some(DEFAULT_TIMEOUT),
            max_calls: DEFAULT_MAX_CALLS,
            max_answer_bytes: DEFAULT_MAX_ANSWER_BYTES,
            max_read_bytes: DEFAULT_MAX_READ_BYTES,
            verify: Verify::default(),
            call_chain: CallChain::default(),
        }
    }

    /// The address to listen on, and the one whose messages are delivered locally. Port 0 takes a
    /// free port. `0.0.0.0` and `::` listen everywhere, but are no address that others could send
    /// to: give a [`public_address`](Self::public_address) as well.
    pub fn local_address(mut self, address: NetworkAddress) -> Self {
        self.local_address = Some(address);
        self
    }

    /// The address under which others reach this process, if it is another one than it listens on.
    /// Port 0 stands for the port that is bound.
    pub fn public_address(mut self, address: NetworkAddress) -> Self {
        self.public_address = Some(address);
        self
    }

    /// Limits and times of connections, `PeerConfig::default()` by default. A configuration without
    /// [`patience`](PeerConfig::patience) gets the transport's own, 3 s: without one, a call to an
    /// address that is never reachable would end with its deadline alone, and say less.
    pub fn peer_config(mut self, config: PeerConfig) -> Self {
        self.peer_config = PeerConfig {
            patience: config.patience.or(Some(DEFAULT_PATIENCE)),
            ..config
        };
        self
    }

    /// How many accepted connections there may be at one time, 16,384 by default. Further ones are
    /// closed at once. Sessions that wait for their next connection do not count.
    pub fn max_incoming_connections(mut self, connections: usize) -> Self {
        self.accept_limits.connections = connections;
        self
    }

    /// How many accepted connections may be without a greeting at one time, 1,024 by default, and half
    /// of [`max_incoming_connections`](Self::max_incoming_connections) at most. For one more the oldest of
    /// them is closed and counted (`handshakes_evicted`), so that whoever connects and says nothing keeps
    /// nobody out. Each has `connect_timeout` of the [peers' configuration](Self::peer_config), 2 s.
    pub fn max_handshakes(mut self, connections: usize) -> Self {
        self.accept_limits.handshakes = connections;
        self
    }

    /// How many accepted sessions are kept at one time, 65,536 by default, those without a connection
    /// included, each for 60 s. For one more the one that has been without a connection for longest
    /// ends; while all have one, the new connection is closed.
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.accept_limits.sessions = sessions;
        self
    }

    /// How long a call may take that does not say so itself ([`Call::timeout`](super::Call::timeout)),
    /// 10 s by default. `None` and `Duration::MAX`: without a deadline. Such a call still ends with
    /// its session; a server that keeps its promise and its connection keeps it waiting for ever.
    pub fn default_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.default_timeout = timeout.into();
        self
    }

    /// How many calls may wait for their replies at one time, 1,048,576 by default. Further ones are
    /// refused with `TransportError::TooManyCalls`.
    pub fn max_pending_calls(mut self, calls: usize) -> Self {
        self.max_calls = calls;
        self
    }

    /// How many bytes of answers and refusals may be held for all sessions together, 256 MiB by
    /// default: those that are not written, and those whose arrival the other end has not confirmed.
    /// A session may hold as much as is still free, and not more than
    /// [`PeerConfig::answer_bytes`]: clients that do not read leave room for those that do. Requests
    /// on a session beyond that are answered with `Overloaded`, without being executed; those that
    /// wait in a stream are, too.
    pub fn max_answer_bytes(mut self, bytes: usize) -> Self {
        self.max_answer_bytes = bytes;
        self
    }

    /// How many bytes all connections may read into together, 256 MiB by default: their buffers, of up
    /// to 128 KiB each while they are busy, and packets that are not complete. Beyond half of it
    /// reads are small and nothing is kept for the next; a connection whose packet does not fit is
    /// dropped, and its session goes on with the next connection. Room for 4 KiB per connection is
    /// never refused.
    pub fn max_read_bytes(mut self, bytes: usize) -> Self {
        self.max_read_bytes = bytes;
        self
    }

    /// Who may use private endpoints
    /// ([`register_private_handler`](FlowTransport::register_private_handler)): those for which
    /// `accepts` gives true. It is asked before each of their messages, and must be quick. Without it
    /// no other process may; this process itself always may.
    ///
    /// What it is told about a peer is that peer's own word, its IP excepted: it keeps mistakes out,
    /// not attackers.
    pub fn verify(mut self, accepts: impl Fn(&PeerInfo<'_>) -> bool + 'static) -> Self {
        self.verify = Verify::by(accepts);
        self
    }

    /// Puts code around all calls of the transport; see [`CallMiddleware`]. May be called several
    /// times: what was installed first is outermost.
    ///
    /// With middleware a call is encoded when it is sent and leaves when its future is polled, after
    /// what the middleware does before it; what keeps it from leaving then is the call's outcome.
    pub fn call_middleware(mut self, middleware: impl CallMiddleware) -> Self {
        self.call_chain.push(middleware);
        self
    }

    /// A transport that does not listen. It needs no address: answers to its requests come back on
    /// the connections it opens.
    ///
    /// With a configuration that [`PeerConfig::validate`] refuses it sends nothing: every attempt
    /// gives `TransportError::PeerConfig`, which says what is wrong.
    #[must_use]
    pub fn build(self) -> Rc<FlowTransport<N, T, TP>> {
        if let Err(error) = self.peer_config.validate() {
            tracing::error!(%error, "this transport cannot send: its peer configuration is invalid");
        }
        let address = self.public_address.or(self.local_address);
        let core = self.core(address);
        self.assemble(core)
    }

    /// A transport that listens on its local address.
    ///
    /// # Errors
    /// [`BuildError`]: no address, one that cannot be bound, TLS, or an invalid configuration.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing bound.
    pub async fn build_listening(self) -> Result<Rc<FlowTransport<N, T, TP>>, BuildError> {
        let address = self.local_address.ok_or(BuildError::MissingLocalAddress)?;
        if address.is_tls() {
            return Err(BuildError::TlsNotSupported { address });
        }
        self.peer_config.validate()?;
        let bind_error = |source| BuildError::Bind { address, source };
        let socket = address.socket_addr();
        let listener = self.network.bind(&socket.to_string()).await;
        let listener = listener.map_err(bind_error)?;
        let bound = listener.local_addr().map_err(bind_error)?;
        // Sockets know IP and port only. If what they say is no address, ours still is.
        let bound = bound.parse().map_or(address, |bound: NetworkAddress| {
            bound.with_flags(address.flags)
        });
        let public = self.public_address.map_or(bound, |public| {
            let port = if public.port == 0 {
                bound.port
            } else {
                public.port
            };
            NetworkAddress { port, ..public }
        });
        let core = self.core(Some(public));
        core.listening.set(Some(bound));
        tracing::info!(address = %bound, incarnation = %core.incarnation, "listening");
        let limits = self.accept_limits;
        let transport = self.assemble(core);
        transport.listen(listener, limits);
        Ok(transport)
    }

    fn assemble(self, core: Rc<Core>) -> Rc<FlowTransport<N, T, TP>> {
        FlowTransport::from_parts(
            core,
            self.network,
            self.time,
            self.task,
            self.peer_config,
            self.default_timeout,
            self.call_chain,
        )
    }

    fn core(&self, address: Option<NetworkAddress>) -> Rc<Core> {
        let time = self.time.clone();
        let core = Core::new(CoreParams {
            incarnation: UID::new(self.task.internal_random(), self.task.internal_random()),
            endpoint_nonce: self.task.internal_random(),
            call_nonce: self.task.internal_random(),
            hash_seed: self.task.internal_random(),
            limits: Limits {
                payload_bytes: self.peer_config.max_payload_bytes as usize,
                local_packets: self.peer_config.reliable_packets,
                local_bytes: self.peer_config.reliable_bytes,
                local_answers: self.peer_config.answer_packets,
                calls: self.max_calls,
                answer_bytes: self.max_answer_bytes,
                read_bytes: self.max_read_bytes,
            },
            clock: Box::new(move || time.now()),
            verify: self.verify.clone(),
            config_error: self.peer_config.validate().err(),
        });
        core.address
            .set(address.filter(NetworkAddress::is_canonical));
        core
    }
}

impl<N, T, TP> FlowTransportBuilder<N, T, TP>
where
    N: NetworkProvider,
    T: TimeProvider,
    TP: TaskProvider,
{
    /// A builder with the defaults, over a bundle of providers.
    pub fn from_providers<P>(providers: &P) -> Self
    where
        P: Providers<Network = N, Time = T, Task = TP>,
    {
        Self::new(
            providers.network().clone(),
            providers.time().clone(),
            providers.task().clone(),
        )
    }
}

#[cfg(test)]
mod tests {
    use moonpool_foundation::TokioProviders;

    use super::*;

    #[test]
    fn a_configuration_without_patience_gets_the_transports() {
        let providers = TokioProviders::new();
        let builder = || FlowTransportBuilder::from_providers(&providers);
        let patience = |config| builder().peer_config(config).peer_config.patience;
        let own = Duration::from_secs(7);
        assert_eq!(patience(PeerConfig::default()), Some(DEFAULT_PATIENCE));
        assert_eq!(
            patience(PeerConfig {
                patience: Some(own),
                ..PeerConfig::default()
            }),
            Some(own)
        );
        assert_eq!(builder().peer_config.patience, Some(DEFAULT_PATIENCE));
    }
}
