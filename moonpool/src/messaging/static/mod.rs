//! Static messaging: endpoints that are registered, known by their tokens, and stay where they are.
//!
//! A request's way: [`send_request`] encodes it straight into the write buffer of the peer for its
//! address; the other transport finds the receiver of its token in an [`EndpointMap`], whose
//! [`NetNotifiedQueue`] decodes it; a handler gets it from a [`RequestStream`] with a
//! [`ReplyPromise`]; the answer returns on the same connection and ends the [`ReplyFuture`].
//!
//! The design descends from FoundationDB's Flow (Apache-2.0): `fdbrpc/FlowTransport.actor.cpp`
//! (`EndpointMap`, `TransportData`), `fdbrpc/fdbrpc.h` (`RequestStream`, `ReplyPromise`,
//! `NetNotifiedQueue`), `fdbrpc/genericactors.actor.h` (`networkSender`, whose place the reply token
//! in the [envelope] takes).

mod acceptor;
mod answer_sizes;
mod builder;
mod call;
mod call_record;
mod call_table;
mod call_terms;
mod concurrency_limit;
mod core;
mod deadline_queue;
mod deadline_timer;
mod embedded_promise;
mod endpoint_map;
pub mod envelope;
mod failure_monitor;
mod failure_watch;
mod flow_transport;
mod handler_tasks;
mod hooked_call;
mod interface;
mod kept_bodies;
mod local_queue;
mod method_call;
#[cfg(feature = "metrics")]
mod method_metrics;
mod method_name;
mod middleware;
mod net_notified_queue;
mod one_way;
mod open_requests;
mod peer_info;
mod peer_table;
mod per_peer;
mod ping;
mod ready;
mod receivers;
mod registration;
mod reply_error;
mod reply_future;
mod reply_promise;
mod reply_route;
mod request;
mod request_stream;
mod retry;
mod retrying;
mod serving;
mod slot_table;
mod stats;
#[cfg(test)]
mod test_support;

pub use builder::FlowTransportBuilder;
pub use call::Call;
pub use embedded_promise::{EmbeddedPromise, NewPromise};
pub use endpoint_map::{EndpointMap, InvalidToken};
pub use failure_monitor::{AddressState, EndpointState};
pub use failure_watch::{FailureMonitor, FailureWatch};
pub use flow_transport::FlowTransport;
#[doc(hidden)]
pub use interface::{Check, Registrar, checked_interface_id, interface_id};
pub use interface::{Client, Interface, MethodStream, Server};
#[doc(hidden)]
pub use method_call::Target;
pub use method_call::{MethodCall, MethodFuture};
pub use method_name::MethodName;
pub use middleware::{
    Answered, CallMiddleware, NextCall, NextHandler, OutgoingCall, ReplyBody, ServeMiddleware,
    ServedRequest,
};
pub use net_notified_queue::{NetNotifiedQueue, QueueLimits, QueueStats, SharedNetNotifiedQueue};
pub use peer_info::PeerInfo;
pub use ping::PingReply;
pub use receivers::{Incoming, MessageReceiver};
pub use reply_error::{Refusal, ReplyError};
pub use reply_future::ReplyFuture;
pub use reply_promise::ReplyPromise;
pub use reply_route::ReplyRoute;
pub use request::send_request;
pub use request_stream::{FutureStream, Request, RequestStream};
pub use retry::RetryPolicy;
pub use serving::{Serving, ServingStats};
pub use stats::TransportStats;
