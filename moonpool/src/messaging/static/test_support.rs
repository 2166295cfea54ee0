//! What the unit tests of this module share.

use std::future::Future;
use std::rc::Rc;

use moonpool_foundation::{
    Endpoint, NetworkAddress, TokioNetworkProvider, TokioProviders, TokioTaskProvider,
    TokioTimeProvider, UID,
};

use super::flow_transport::FlowTransport;

pub(crate) type TokioTransport =
    FlowTransport<TokioNetworkProvider, TokioTimeProvider, TokioTaskProvider>;

/// An address that is never listened on: messages to it are delivered locally.
pub(crate) fn local_address() -> NetworkAddress {
    "10.0.0.1:4500".parse().unwrap()
}

/// A transport that does not listen and delivers to itself.
pub(crate) fn local_transport() -> Rc<TokioTransport> {
    let providers = TokioProviders::new();
    super::FlowTransportBuilder::from_providers(&providers)
        .local_address(local_address())
        .build()
}

pub(crate) fn local_endpoint(token: UID) -> Endpoint {
    Endpoint::new(local_address(), token)
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .unwrap();
    runtime.block_on(future)
}
