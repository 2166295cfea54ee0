//! What callers ask for, and the places where they ask.

use std::time::Duration;

use moonpool::foundation::{
    SimNetworkProvider, SimProviders, SimTaskProvider, SimTimeProvider, SimulationError,
    SimulationResult,
};
use moonpool::prelude::*;
use moonpool::{PeerConfig, define_interface};
use serde::{Deserialize, Serialize};

use super::limits::Narrowness;

pub(crate) type SimTransport = FlowTransport<SimNetworkProvider, SimTimeProvider, SimTaskProvider>;

pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// What the handler of a request is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Act {
    Answer,
    AnswerAfter {
        millis: u64,
    },
    /// Drop the promise, at once or later.
    Drop {
        millis: u64,
    },
    /// Answer with an error of the application's.
    Refuse,
    /// Answer with more than any end takes.
    AnswerTooMuch,
    /// Answer with what has no encoding.
    AnswerUnencodable,
    /// Wait until nobody waits for the answer; then answer all the same.
    AwaitCancellation,
    /// Ask another server first, on the caller's behalf.
    AskAnother,
}

/// A request that carries what its handler has to know to judge it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) call: u64,
    /// Which start of which process calls.
    pub(crate) caller: UID,
    pub(crate) act: Act,
    pub(crate) padding: String,
    /// Whether the call's number travels as metadata, too.
    pub(crate) is_tagged: bool,
}

/// An answer that says what it answers, and who did.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Told {
    pub(crate) call: u64,
    pub(crate) caller: UID,
    /// The life of the server that executed the request.
    pub(crate) life: u64,
    pub(crate) padding: String,
    #[serde(default)]
    pub(crate) is_unencodable: bool,
}

impl Serialize for Told {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::{Error, SerializeStruct};
        if self.is_unencodable {
            return Err(S::Error::custom(UNENCODABLE));
        }
        let mut fields = serializer.serialize_struct("Told", 4)?;
        fields.serialize_field("call", &self.call)?;
        fields.serialize_field("caller", &self.caller)?;
        fields.serialize_field("life", &self.life)?;
        fields.serialize_field("padding", &self.padding)?;
        fields.end()
    }
}

const UNENCODABLE: &str = "made to have no encoding";

/// A request that has no encoding.
#[derive(Debug)]
pub(crate) struct Unencodable;

impl Serialize for Unencodable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom(UNENCODABLE))
    }
}

define_interface! {
    /// Does what it is asked.
    pub(crate) Oracle, id 0x0AC1E, {
        /// Served by handlers of which a few run at a time.
        ask: Ask => Told,
        /// The same, of another method.
        consult: Ask => Told,
    }
}

/// Where a request goes at its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The first method of the interface, by its id.
    Ask,
    /// The second.
    Consult,
    WellKnown,
    /// A well-known token whose queue takes two requests.
    Narrow,
    /// For friends alone.
    Private,
    /// An interface at an endpoint that a server has published.
    Dynamic(Endpoint),
    /// A well-known token that nobody has.
    NobodyWellKnown,
    /// Another that nobody has.
    Nobody,
}

pub(crate) const WELL_KNOWN: u32 = 20;
pub(crate) const NARROW: u32 = 21;
const NOBODY: u32 = 22;
pub(crate) const PRIVATE: UID = UID::new(0x0_AC1F, 7);

impl Place {
    pub(crate) fn endpoint(self, server: NetworkAddress) -> Endpoint {
        let id = <Oracle as moonpool::Interface>::ID;
        let well_known = |id| Endpoint::well_known(server, WellKnownId::user(id).unwrap());
        match self {
            Self::Ask => Endpoint::new(server, UID::new(id, 0)),
            Self::Consult => Endpoint::new(server, UID::new(id, 1)),
            Self::WellKnown => well_known(WELL_KNOWN),
            Self::Narrow => well_known(NARROW),
            Self::Private => Endpoint::new(server, PRIVATE),
            Self::Dynamic(base) => base,
            Self::NobodyWellKnown => well_known(NOBODY),
            Self::Nobody => Endpoint::new(server, UID::new(0xDEAD, 1)),
        }
    }
}

/// How narrow a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Girth {
    Wide,
    Narrow,
}

impl Girth {
    /// Bytes of the largest payload.
    pub(crate) fn payload_limit(self) -> usize {
        match self {
            Self::Wide => 8_000,
            Self::Narrow => 2_000,
        }
    }

    pub(crate) fn peer_config(self, narrowness: Narrowness) -> PeerConfig {
        let max_payload_bytes = u32::try_from(self.payload_limit()).unwrap();
        let wide = PeerConfig {
            max_payload_bytes,
            patience: Some(Duration::from_secs(3)),
            ..PeerConfig::default()
        };
        match self {
            Self::Wide => wide,
            Self::Narrow => narrowness.narrow(wide),
        }
    }
}

/// What is in a message beside its padding, at most.
pub(crate) const OVERHEAD: usize = 400;
/// The padding of a reply that is too large for everyone.
pub(crate) const TOO_MUCH: usize = 9_000;

pub(crate) fn boxed<E: std::error::Error + 'static>(error: E) -> SimulationError {
    SimulationError::Other(Box::new(error))
}

pub(crate) fn address(ip: &str) -> SimulationResult<NetworkAddress> {
    format!("{ip}:4500").parse().map_err(boxed)
}

/// Milliseconds within a range, of which the lower ones are likelier.
pub(crate) fn some_millis(providers: &SimProviders, max: u64) -> u64 {
    let random = providers.random();
    let upper = random.random_range(1..=max);
    random.random_range(0..upper)
}
