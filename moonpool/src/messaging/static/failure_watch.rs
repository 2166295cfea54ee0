//! [`FailureMonitor`], and the futures that it gives.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_core::FusedFuture;
use moonpool_foundation::network::peer::{PeerHandle, PeerWatch};
use moonpool_foundation::wait::{self, WaitReason};
use moonpool_foundation::{Endpoint, NetworkAddress};

use super::core::Core;
use super::failure_monitor::{AddressState, Awaited, EndpointState, Polled};
use super::request::Outgoing;
use super::slot_table::SlotKey;
use crate::error::TransportError;

/// Makes the peer that a watch needs. Implemented by the transport, which has the providers.
pub(crate) trait OpenPeer {
    fn open_peer(&self, address: &NetworkAddress) -> Result<PeerHandle, TransportError>;

    /// The same for what is owed: also while the transport closes.
    fn open_peer_to_answer(&self, address: &NetworkAddress) -> Result<PeerHandle, TransportError>;

    /// For calls that are made again.
    fn outgoing(&self) -> &dyn Outgoing;
}

/// What a transport knows of the addresses and endpoints it talks to. A cheap handle; ask
/// [`FlowTransport::failure_monitor`](super::FlowTransport::failure_monitor) for it.
///
/// Asking for a state costs a look-up and no packet: an address that nobody has tried is available,
/// and one that failed stays so until a connection works, or until nobody has needed it for as long
/// as an idle peer is kept. A watch tries: while it is pending, the transport connects and reconnects
/// to its address, and asks a silent other end for a sign of life each second. In simulation that
/// keeps no run alive.
///
/// The design descends from FoundationDB's `fdbrpc/FailureMonitor.h` (`IFailureMonitor`).
///
/// ```
/// use moonpool::{AddressState, FlowTransportBuilder, NetworkAddress, Providers, TransportError};
///
/// async fn outlive<P: Providers>(
///     providers: P,
///     server: NetworkAddress,
/// ) -> Result<(), TransportError> {
///     let transport = FlowTransportBuilder::from_providers(&providers).build();
///     let monitor = transport.failure_monitor();
///     monitor.on_failed(server).await?;
///     assert_eq!(monitor.state(server), AddressState::Failed);
///     monitor.on_available(server).await
/// }
/// ```
#[derive(Clone)]
pub struct FailureMonitor {
    core: Rc<Core>,
}

impl FailureMonitor {
    pub(crate) fn new(core: Rc<Core>) -> Self {
        Self { core }
    }

    /// What is known of an address. After the transport's shutdown nothing is, so `Available`.
    #[must_use]
    pub fn state(&self, address: NetworkAddress) -> AddressState {
        let failures = self.core.failures.borrow();
        failures.state((address.ip, address.port))
    }

    /// What is known of an endpoint.
    #[must_use]
    pub fn endpoint_state(&self, endpoint: &Endpoint) -> EndpointState {
        let address = endpoint.address;
        let failures = self.core.failures.borrow();
        failures.endpoint_state((address.ip, address.port), endpoint.token)
    }

    /// Resolves when the address has failed: at once, or when there was no working connection for 3 s.
    /// The watch begins with this call, not with the first poll.
    pub fn on_failed(&self, address: NetworkAddress) -> FailureWatch {
        FailureWatch::new(&self.core, address, Awaited::Failed)
    }

    /// Resolves when there is a working connection: at once, or when one was made. That is more than
    /// that the [state](Self::state) is `Available`.
    pub fn on_available(&self, address: NetworkAddress) -> FailureWatch {
        FailureWatch::new(&self.core, address, Awaited::Working)
    }

    /// Resolves when the connection that works, or the next one that does, is lost, or the address
    /// has failed: at once if it has. A process that is restarted quickly is noticed by this, and not
    /// by [`on_failed`](Self::on_failed).
    pub fn on_disconnect(&self, address: NetworkAddress) -> FailureWatch {
        FailureWatch::new(&self.core, address, Awaited::Disconnect)
    }
}

impl fmt::Debug for FailureMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailureMonitor").finish_non_exhaustive()
    }
}

/// Something that a [`FailureMonitor`] waits for.
///
/// # Errors
/// [`TransportError::Closed`] once the transport, or its peer for the address, is closed or has given
/// up; `TlsNotSupported` or `NoDestination` for what is no address to connect to.
///
/// # Cancel safety
/// Polling it in a `select!` by reference loses nothing. Dropping it ends the watch.
///
/// Once it is ready it stays pending for ever, as `is_terminated` says.
#[must_use = "dropping it ends the watch"]
pub struct FailureWatch {
    core: Rc<Core>,
    address: NetworkAddress,
    stage: Stage,
}

enum Stage {
    Waiting {
        key: SlotKey,
        /// Keeps the peer looking. None if the address is this process.
        _peer: Option<PeerWatch>,
    },
    Known(Result<(), TransportError>),
    /// The outcome was given.
    Over,
}

impl FailureWatch {
    fn new(core: &Rc<Core>, address: NetworkAddress, awaited: Awaited) -> Self {
        let stage = match Self::begin(core, address, awaited) {
            Ok(stage) => stage,
            Err(error) => Stage::Known(Err(error)),
        };
        Self {
            core: Rc::clone(core),
            address,
            stage,
        }
    }

    fn begin(
        core: &Core,
        address: NetworkAddress,
        awaited: Awaited,
    ) -> Result<Stage, TransportError> {
        if !core.is_open() {
            return Err(TransportError::Closed);
        }
        let peer = if !core.is_local(&address) {
            let peer = core.open_peer(&address)?;
            if peer.is_finished() {
                return Err(TransportError::Closed);
            }
            Some(peer.watch())
        } else if awaited == Awaited::Working {
            return Ok(Stage::Known(Ok(())));
        } else {
            None
        };
        let destination = (address.ip, address.port);
        let key = core.failures.borrow_mut().watch(destination, awaited);
        let key = key.ok_or(TransportError::TooManyCalls)?;
        Ok(Stage::Waiting { key, _peer: peer })
    }

    fn end(&mut self) {
        if let Stage::Waiting { key, .. } = mem::replace(&mut self.stage, Stage::Over) {
            let waker = self.core.failures.borrow_mut().forget(key);
            drop(waker);
        }
    }
}

impl Future for FailureWatch {
    type Output = Result<(), TransportError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let outcome = match &this.stage {
            Stage::Over => return Poll::Pending,
            Stage::Known(_) => None,
            Stage::Waiting { key, .. } => {
                let polled = this.core.failures.borrow_mut().poll(*key, cx.waker());
                match polled {
                    Polled::Resolved => Some(Ok(())),
                    Polled::Ended => Some(Err(TransportError::Closed)),
                    Polled::Waiting { replaced } => {
                        drop(replaced);
                        let remote = this.address.socket_addr();
                        wait::note(WaitReason::Watch { remote });
                        return Poll::Pending;
                    }
                }
            }
        };
        if let Some(outcome) = outcome {
            this.end();
            return Poll::Ready(outcome);
        }
        match mem::replace(&mut this.stage, Stage::Over) {
            Stage::Known(outcome) => Poll::Ready(outcome),
            Stage::Waiting { .. } | Stage::Over => Poll::Pending,
        }
    }
}

impl FusedFuture for FailureWatch {
    fn is_terminated(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }
}

impl Drop for FailureWatch {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for FailureWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailureWatch")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
