//! The ground that moonpool stands on: provider traits, a deterministic simulator behind them, the
//! wire format, and peers that keep a connection alive.
//!
//! Application code is written against four traits - [`NetworkProvider`], [`TimeProvider`],
//! [`TaskProvider`], [`RandomProvider`], bundled as [`Providers`] - and runs unchanged on real
//! sockets ([`TokioProviders`]) and inside `SimWorld`, where one `u64` seed decides everything:
//! the order of tasks, how long a segment travels, every random number.
//!
//! ```
//! use moonpool_foundation::{
//!     NetworkProvider, Providers, SimWorld, TaskProvider, TcpListenerTrait,
//! };
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! async fn greet<P: Providers>(providers: P) -> std::io::Result<()> {
//!     let listener = providers.network().bind("server:7000").await?;
//!     let (mut stream, _peer) = listener.accept().await?;
//!     stream.write_all(b"hello").await
//! }
//!
//! let world = SimWorld::new_with_seed(42);
//! let server = world.add_process("server").providers();
//! let client = world.add_process("client").network_provider();
//! server.task().spawn_task("greeter", greet(server.clone()));
//! let greeting = world.block_on(async move {
//!     let mut stream = loop {
//!         if let Ok(stream) = client.connect("server:7000").await {
//!             break stream;
//!         }
//!     };
//!     let mut greeting = String::new();
//!     stream.read_to_string(&mut greeting).await.map(|_| greeting)
//! })?;
//! assert_eq!(greeting?, "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a seed does not control
//!
//! Code that reaches past the providers. What can be caught ends the run with
//! [`SimulationError::Escape`], which names the replacement: tokio's timers, sockets and tasks, a
//! wake from another thread, a runtime inside the runtime. What cannot be caught, `docs/determinism.md`
//! lists together with the lints that find it at compile time.
//!
//! # What goes wrong on purpose
//!
//! Latencies, short reads and writes, closes, partitions, loss, flipped bits, drifting clocks, kills: the
//! module `fault_injection` lists every fault, its probability, what it tests and how to switch it off.
//! `NetworkConfiguration::disabled` is a network without any.
//!
//! # Features
//!
//! `sim` (on by default) is the simulator. With `default-features = false` only the traits, their
//! tokio implementations, the wire format, peers and [`TokioRunner`] are compiled. `fuzzing` is
//! internal: it opens the decoders to the fuzz targets.

mod ambient;
pub mod chaos;
pub mod collections;
mod error;
#[cfg(feature = "sim")]
#[doc = include_str!("../fault-injection.md")]
pub mod fault_injection {}
pub mod messaging;
pub mod network;
mod providers;
pub mod random;
pub mod runner;
mod select;
#[cfg(feature = "sim")]
pub mod sim;
pub mod task;
pub mod time;
pub mod turns;
pub mod wait;

#[cfg(feature = "sim")]
pub use chaos::{
    AssertionKind, Attrition, AttritionError, AttritionKind, BuggifyProbabilities,
    BuggifyProbabilityError, ChaosConfiguration, ConnectFailureMode, FaultCounts, FaultId,
    FaultIdError, FaultKind, FaultRecord, FaultTarget, InvariantCheck, InvariantOutcome, Place,
    StateRegistry, States, buggify_init, buggify_reset,
};
pub use error::{SimulationError, SimulationResult};
pub use messaging::{Endpoint, NetworkAddress, UID};
pub use messaging::{
    HEADER_SIZE, MAX_PAYLOAD_SIZE, PacketHeader, WELL_KNOWN_RESERVED_COUNT, WellKnownId,
    WellKnownToken, WireError, deserialize_packet, serialize_packet, try_deserialize_packet,
};
pub use network::peer::{
    AcceptLimits, Acceptance, CloseOutcome, ConnectionError, PacketId, Peer, PeerConfig,
    PeerConfigError, PeerError, PeerHandle, PeerId, PeerMetrics, PeerSink, ProtocolError,
    ReceivedPacket, SendError, SessionAcceptor, SessionEnded, SessionIdentity, SessionMode,
    SessionOwner, Withdrawal,
};
pub use network::tokio::TokioNetworkProvider;
pub use network::{NetworkProvider, TcpListenerTrait, TcpStreamTrait};
pub use providers::{Providers, TokioProviders};
pub use random::{RandomProvider, SystemRandomProvider};
pub use task::{JoinError, JoinHandle, RawTask, TaskProvider, TokioTaskProvider};
pub use time::{Elapsed, TimeProvider, Timeout, TokioTimeProvider};

#[cfg(feature = "sim")]
pub use network::sim::{SimNetworkProvider, SimTcpListener, SimTcpStream};
#[cfg(feature = "sim")]
pub use network::{LatencyModel, NetworkConfigError, NetworkConfiguration};
#[cfg(feature = "sim")]
pub use providers::SimProviders;
#[cfg(feature = "sim")]
pub use random::SimRandomProvider;
#[cfg(feature = "sim")]
pub use runner::{
    AssertionResult, BuggifyResult, Check, IterationControl, Phases, Regressions, RunError,
    SeedReport, SimulationBuilder, SimulationRates, SimulationReport,
};
pub use runner::{
    SimulationMetrics, TokioReport, TokioRunReport, TokioRunner, Verdict, WorkloadTopology,
};
#[cfg(feature = "sim")]
pub use sim::{
    CloseDirection, CloseReason, ConnectionSide, Host, KillKind, Leftovers, PendingTask,
    ProcessAddressError, ProcessId, SchedulePolicy, SimConnection, SimProcess, SimWorld,
    SleepFuture, TraceMode, TraceStep, WeakSimWorld, clog_random_pair, disconnect_pair_for,
    enable_connection_failures, get_current_sim_seed, reset_sim_rng, set_sim_seed, sim_random,
    sim_random_range, sim_random_range_or_default, swizzle,
};
#[cfg(feature = "sim")]
pub use task::SimTaskProvider;
#[cfg(feature = "sim")]
pub use time::SimTimeProvider;
/// What `bench/` measures by itself. Not part of the API.
#[cfg(feature = "sim")]
#[doc(hidden)]
pub use {network::peer::PacketProbe, sim::QueueProbe};

/// The bodies of the fuzz targets. Not part of the API.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use network::peer::fuzzing;

/// What the macros expand to. Not part of the API.
#[doc(hidden)]
pub mod __private {
    #[cfg(feature = "sim")]
    pub use crate::chaos::assertions::{
        AssertionSite, RegisteredAssertion, is_buggified, is_simulated,
    };
    #[cfg(feature = "sim")]
    pub use crate::chaos::buggify::{BuggifySite, RegisteredBuggify};
    #[cfg(not(feature = "sim"))]
    pub use crate::chaos::macros::never;
    #[cfg(feature = "sim")]
    pub use crate::chaos::{AssertionKind, Place};
    pub use crate::select::select_start;
    #[cfg(feature = "sim")]
    pub use inventory;
    pub use tokio;
}
