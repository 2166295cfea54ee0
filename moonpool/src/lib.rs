//! RPC for distributed services that are tested in a deterministic simulation and shipped on TCP.
//!
//! A service is written once, generic over [`Providers`]. With [`TokioProviders`] it runs on real
//! sockets; with the simulator's providers (feature `sim`) the same functions run in a simulated
//! world that one seed decides.
//!
//! ```
//! use moonpool::prelude::*;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Ping { message: String }
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Pong { echo: String }
//!
//! const PING: UID = UID::new(0x9176, 0);
//!
//! async fn serve<P: Providers>(providers: P, address: NetworkAddress) -> Result<(), BuildError> {
//!     let transport = FlowTransportBuilder::from_providers(&providers)
//!         .local_address(address)
//!         .build_listening()
//!         .await?;
//!     let pings = transport.register_handler::<Ping, _>(PING, JsonCodec);
//!     while let Some((ping, reply)) = pings.recv_with_transport(&transport).await {
//!         reply.send(Pong { echo: ping.message });
//!     }
//!     Ok(())
//! }
//!
//! async fn ping<P: Providers>(providers: P, server: NetworkAddress) -> Result<Pong, ReplyError> {
//!     let transport = FlowTransportBuilder::from_providers(&providers).build();
//!     let request = Ping { message: "hello".to_owned() };
//!     send_request(&transport, &Endpoint::new(server, PING), request, JsonCodec)?.await
//! }
//! ```
//!
//! What a call's outcome says about its execution is the subject of [`ReplyError`].

mod error;
pub mod messaging;
pub mod observability;

pub use error::{BuildError, NotSent, RegisterError, TransportError};
pub use messaging::envelope::{EnvelopeError, Metadata, TraceContext};
pub use messaging::{
    AddressState, Answered, Call, CallMiddleware, Client, EmbeddedPromise, EndpointMap,
    EndpointState, FailureMonitor, FailureWatch, FlowTransport, FlowTransportBuilder, FutureStream,
    Incoming, Interface, InvalidToken, MessageReceiver, MethodCall, MethodFuture, MethodName,
    MethodStream, NetNotifiedQueue, NewPromise, NextCall, NextHandler, OutgoingCall, PeerInfo,
    PingReply, QueueLimits, QueueStats, Refusal, ReplyBody, ReplyError, ReplyFuture, ReplyPromise,
    ReplyRoute, Request, RequestStream, RetryPolicy, ServeMiddleware, ServedRequest, Server,
    Serving, ServingStats, SharedNetNotifiedQueue, TransportStats, send_request,
};
pub use moonpool_foundation as foundation;
pub use moonpool_foundation::network::peer::{
    ConnectionError, PeerConfig, PeerConfigError, PeerHandle, PeerMetrics,
};
pub use moonpool_foundation::{
    Elapsed, Endpoint, JoinError, JoinHandle, NetworkAddress, NetworkProvider, Providers,
    RandomProvider, RawTask, SimulationError, SimulationResult, SystemRandomProvider, TaskProvider,
    TcpListenerTrait, TcpStreamTrait, TimeProvider, TokioNetworkProvider, TokioProviders,
    TokioTaskProvider, TokioTimeProvider, UID, WellKnownId, WellKnownToken,
};
pub use moonpool_foundation::{
    always_assert, buggify, buggify_with_prob, select, sometimes_assert,
};
#[cfg(feature = "postcard")]
pub use moonpool_traits::PostcardCodec;
pub use moonpool_traits::{Blob, CodecError, JsonCodec, MessageCodec};

/// The body of a fuzz target. Not part of the API.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::messaging::envelope::fuzzing::envelope;
}

/// What most services import.
pub mod prelude {
    pub use crate::{
        BuildError, Client, Endpoint, FlowTransport, FlowTransportBuilder, JoinHandle, JsonCodec,
        MessageCodec, NetworkAddress, NetworkProvider, PeerConfig, Providers, RandomProvider,
        ReplyError, ReplyFuture, ReplyPromise, RequestStream, RetryPolicy, Server, Serving,
        TaskProvider, TimeProvider, TokioProviders, TransportError, UID, WellKnownId,
        define_interface, send_request,
    };
}

/// What the macros expand to. Not part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::messaging::{Check, Registrar, Target, checked_interface_id, interface_id};
    pub use crate::{
        Endpoint, FlowTransport, Interface, MessageCodec, MethodCall, MethodName, MethodStream,
        NetworkAddress, NetworkProvider, RegisterError, TaskProvider, TimeProvider, UID,
    };
}
