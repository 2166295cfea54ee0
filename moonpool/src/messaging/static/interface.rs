//! [`define_interface!`](crate::define_interface): several methods under one name, and what it
//! expands to.
//!
//! An interface is one base endpoint; the method at index `i` is `base.adjusted(i)`. So it travels
//! as that one endpoint, as FoundationDB's interfaces do (`fdbclient/StorageServerInterface.h`,
//! `initEndpoints` and `getAdjustedEndpoint`; `fdbserver/ServerDBInfo.h` for how they are passed
//! on).

use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use moonpool_foundation::{Endpoint, NetworkProvider, TaskProvider, TimeProvider, UID};
use moonpool_traits::{JsonCodec, MessageCodec};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::core::{Core, OnConflict};
use super::flow_transport::FlowTransport;
use super::method_name::MethodName;
use super::receivers::MessageReceiver;
use super::reply_promise::ReplyPromise;
use super::request_stream::RequestStream;
use crate::error::RegisterError;

/// What [`define_interface!`](crate::define_interface) declares. Implemented by it alone.
pub trait Interface: Sized + 'static {
    /// The upper half of the tokens that a server has under `serve`.
    const ID: u64;
    /// The interface's name, as declared.
    const NAME: &'static str;
    /// The methods' names, by index.
    const METHODS: &'static [&'static str];
    /// A stream per method.
    type Server<C: MessageCodec>;
    /// A function per method.
    type Client<C: MessageCodec>;
}

/// The server's side of an interface: a [`MethodStream`] per method.
pub type Server<I, C = JsonCodec> = <I as Interface>::Server<C>;

/// The client's side of an interface: a function per method, each giving a
/// [`MethodCall`](super::MethodCall).
pub type Client<I, C = JsonCodec> = <I as Interface>::Client<C>;

/// The requests of one method. As [`RequestStream`], with the response's type known.
pub struct MethodStream<Req, Resp, C>
where
    Req: DeserializeOwned + 'static,
    C: MessageCodec,
{
    requests: RequestStream<Req, C>,
    name: Option<MethodName>,
    response: PhantomData<fn(Resp)>,
}

impl<Req, Resp, C> MethodStream<Req, Resp, C>
where
    Req: DeserializeOwned + 'static,
    C: MessageCodec,
{
    /// Waits for the next request. `None` when the stream is closed and empty.
    ///
    /// # Cancel safety
    /// Dropping the future loses no request: several streams may be received from in one `select!`.
    pub async fn recv(&self) -> Option<(Req, ReplyPromise<Resp, C>)> {
        self.requests.recv().await
    }

    /// The next request, if one is there.
    pub fn try_recv(&self) -> Option<(Req, ReplyPromise<Resp, C>)> {
        self.requests.try_recv()
    }

    /// The names that spans, metrics and middleware of a [`Serving`](super::Serving) show. For
    /// `define_interface!` alone.
    #[doc(hidden)]
    #[must_use]
    pub fn named(self, name: MethodName) -> Self {
        let name = Some(name);
        Self { name, ..self }
    }

    /// The method's names. `None` for the stream of a raw endpoint.
    #[must_use]
    pub fn name(&self) -> Option<MethodName> {
        self.name
    }

    /// The stream without the response's type.
    #[must_use]
    pub fn requests(&self) -> &RequestStream<Req, C> {
        &self.requests
    }

    /// The stream without the response's type.
    #[must_use]
    pub fn into_requests(self) -> RequestStream<Req, C> {
        self.requests
    }
}

impl<Req, Resp, C> From<RequestStream<Req, C>> for MethodStream<Req, Resp, C>
where
    Req: DeserializeOwned + 'static,
    C: MessageCodec,
{
    fn from(requests: RequestStream<Req, C>) -> Self {
        Self {
            requests,
            name: None,
            response: PhantomData,
        }
    }
}

impl<Req, Resp, C> fmt::Debug for MethodStream<Req, Resp, C>
where
    Req: DeserializeOwned + 'static,
    C: MessageCodec,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MethodStream").field(&self.requests).finish()
    }
}

/// Registers an interface's methods under chosen tokens, or under adjacent ones of the transport's
/// choice. For `define_interface!` alone.
#[doc(hidden)]
pub struct Registrar {
    core: Rc<Core>,
    receivers: Vec<Rc<dyn MessageReceiver>>,
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrar")
            .field("methods", &self.receivers.len())
            .finish_non_exhaustive()
    }
}

impl Registrar {
    pub fn new<N, T, TP>(transport: &FlowTransport<N, T, TP>) -> Self
    where
        N: NetworkProvider,
        T: TimeProvider,
        TP: TaskProvider,
    {
        Self {
            core: transport.core().clone(),
            receivers: Vec::new(),
        }
    }

    /// # Errors
    /// `AlreadyRegistered`, `Closed`.
    pub fn register_at<Req, Resp, C>(
        &self,
        token: UID,
        codec: C,
    ) -> Result<MethodStream<Req, Resp, C>, RegisterError>
    where
        Req: DeserializeOwned + 'static,
        C: MessageCodec,
    {
        let mut stream = RequestStream::new(codec);
        stream.register(&self.core, token, OnConflict::Refuse)?;
        Ok(stream.into())
    }

    pub fn collect<Req, Resp, C>(&mut self, codec: C) -> MethodStream<Req, Resp, C>
    where
        Req: DeserializeOwned + 'static,
        C: MessageCodec,
    {
        let stream = RequestStream::new(codec);
        self.receivers.push(stream.receiver());
        stream.into()
    }

    /// The base endpoint of what was collected.
    ///
    /// # Errors
    /// `NoAddress`, `Full`, `Closed`.
    pub fn register_collected(&mut self) -> Result<Endpoint, RegisterError> {
        let receivers = std::mem::take(&mut self.receivers);
        self.core.register_dynamic_run(receivers)
    }

    pub fn adopt<Req, Resp, C>(
        &self,
        mut stream: MethodStream<Req, Resp, C>,
        token: UID,
    ) -> MethodStream<Req, Resp, C>
    where
        Req: DeserializeOwned + 'static,
        C: MessageCodec,
    {
        stream.requests.set_registered(&self.core, token);
        stream
    }
}

/// 64 bits of an interface's path: FNV-1a, which both ends compute alike. Never 0 nor `u64::MAX`,
/// which no interface may have.
#[doc(hidden)]
#[must_use]
pub const fn interface_id(path: &str) -> u64 {
    const OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01B3;
    let bytes = path.as_bytes();
    let mut hash = OFFSET;
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(PRIME);
        index += 1;
    }
    match hash {
        0 | u64::MAX => OFFSET,
        hash => hash,
    }
}

/// A type that can be a request or a response. For `define_interface!` alone.
#[doc(hidden)]
pub trait Message: Serialize + DeserializeOwned + 'static {}

impl<M: Serialize + DeserializeOwned + 'static> Message for M {}

#[doc(hidden)]
#[derive(Debug)]
pub struct Check<M: Message>(PhantomData<M>);

#[doc(hidden)]
impl<M: Message> Check<M> {
    pub const CHECKED: Self = Self(PhantomData);
}

/// Refuses, while compiling, an id that no interface may have.
#[doc(hidden)]
#[must_use]
#[track_caller]
pub const fn checked_interface_id(id: u64) -> u64 {
    assert!(
        id != 0 && id != u64::MAX,
        "an interface id is neither 0 nor u64::MAX, which mark invalid and well-known tokens"
    );
    id
}

/// Declares an interface: methods that are registered, named and called together.
///
/// ```
/// use moonpool::define_interface;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Serialize, Deserialize)]
/// pub struct AddRequest { pub a: i64, pub b: i64 }
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// pub struct AddResponse { pub sum: i64 }
///
/// define_interface! {
///     /// Arithmetic.
///     pub Calculator, id 0xCA1C, {
///         /// The sum of both.
///         add: AddRequest => AddResponse,
///         /// The other number.
///         negate: i64 => i64,
///     }
/// }
/// ```
///
/// The id is the upper half of the methods' tokens, a method's index the lower one: give every
/// interface of a system its own, and add methods at the end only. Without `, id ..,` it is derived
/// from the path (FNV-1a of `crate::module::Name`), so both ends must take the declaration from the
/// same crate and module. 0 and `u64::MAX` are refused.
///
/// # What it generates
/// An uninhabited type of that name, which implements [`Interface`](crate::Interface), with
///
/// | function | gives |
/// | --- | --- |
/// | `serve(&transport, codec)` | `Result<Server<Self, C>, RegisterError>`: one stream per method, registered under the interface's id |
/// | `serve_dynamic(&transport, codec)` | the same under adjacent tokens of the transport's choice, of which a restart repeats none: `base_endpoint()` goes to whoever is to call |
/// | `remote(&transport, address, codec)` | `Client<Self, C>` of the server with that address |
/// | `at(&transport, base, codec)` | `Client<Self, C>` of a base endpoint that was received |
///
/// The server's and client's types have no names of their own: they are
/// [`Server<Calculator>`](crate::Server) and [`Client<Calculator>`](crate::Client), with the codec
/// as a second parameter if it is not [`JsonCodec`](crate::JsonCodec). The server has one public
/// field per method, a [`MethodStream`](crate::MethodStream); the client one function per method,
/// whose [`MethodCall`](crate::MethodCall) is awaited, or sent. Neither carries the providers' types.
///
/// ```
/// # use moonpool::define_interface;
/// # define_interface! { pub Calculator, id 0xCA1C, { add: (i64, i64) => i64, negate: i64 => i64 } }
/// use std::rc::Rc;
/// use moonpool::{
///     FlowTransport, JsonCodec, NetworkAddress, Providers, RegisterError, ReplyError, select,
/// };
///
/// type Transport<P> =
///     FlowTransport<<P as Providers>::Network, <P as Providers>::Time, <P as Providers>::Task>;
///
/// async fn serve<P: Providers>(transport: Rc<Transport<P>>) -> Result<(), RegisterError> {
///     let calculator = Calculator::serve(&transport, JsonCodec)?;
///     loop {
///         select! {
///             Some(((a, b), reply)) = calculator.add.recv() => reply.send(a + b),
///             Some((number, reply)) = calculator.negate.recv() => reply.send(-number),
///             else => return Ok(()),
///         }
///     }
/// }
///
/// async fn sum<P: Providers>(
///     transport: Rc<Transport<P>>,
///     server: NetworkAddress,
/// ) -> Result<i64, ReplyError> {
///     let calculator = Calculator::remote(&transport, server, JsonCodec);
///     calculator.add((1, 2)).await
/// }
/// ```
#[macro_export]
macro_rules! define_interface {
    ($(#[$meta:meta])* $visibility:vis $name:ident $(, id $id:expr,)? {}) => {
        ::core::compile_error!(::core::concat!(
            "interface `", ::core::stringify!($name), "` has no method: `name: Request => Response`"
        ));
    };
    (
        $(#[$meta:meta])*
        $visibility:vis $name:ident, id $id:expr, {
            $($(#[$method_meta:meta])* $method:ident : $request:ty => $response:ty),+ $(,)?
        }
    ) => {
        $crate::__define_interface! {
            [$(#[$meta])*] [$visibility] $name
            [$crate::__private::checked_interface_id($id)]
            $([$(#[$method_meta])*] $method : $request => $response,)+
        }
    };
    (
        $(#[$meta:meta])*
        $visibility:vis $name:ident {
            $($(#[$method_meta:meta])* $method:ident : $request:ty => $response:ty),+ $(,)?
        }
    ) => {
        $crate::__define_interface! {
            [$(#[$meta])*] [$visibility] $name
            [$crate::__private::interface_id(
                ::core::concat!(::core::module_path!(), "::", ::core::stringify!($name))
            )]
            $([$(#[$method_meta])*] $method : $request => $response,)+
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __define_interface {
    (
        [$($meta:tt)*] [$visibility:vis] $name:ident [$id:expr]
        $([$($method_meta:tt)*] $method:ident : $request:ty => $response:ty,)+
    ) => {
        $($meta)*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visibility enum $name {}

        const _: () = {
            use $crate::__private as private;

            // First, so that the compiler begins with what is wrong and not with where it shows.
            const _: u64 = <$name as private::Interface>::ID;
            $(
                const _: private::Check<$request> = private::Check::CHECKED;
                const _: private::Check<$response> = private::Check::CHECKED;
            )+

            #[expect(non_camel_case_types, reason = "methods keep their names")]
            #[derive(Clone, Copy)]
            enum Index {
                $($method),+
            }

            /// The server's side: one stream per method.
            #[derive(Debug)]
            pub struct InterfaceServer<C: private::MessageCodec> {
                $(
                    $($method_meta)*
                    pub $method: private::MethodStream<$request, $response, C>,
                )+
                base: private::UID,
            }

            impl<C: private::MessageCodec> InterfaceServer<C> {
                /// What others call it by; `None` if the transport has no address.
                #[must_use]
                pub fn base_endpoint(&self) -> ::core::option::Option<private::Endpoint> {
                    let endpoints = [$(self.$method.requests().endpoint()),+];
                    let [first, ..] = endpoints;
                    first.map(|first| private::Endpoint::new(first.address, self.base))
                }

                /// Takes in no more requests; those that are queued can still be received.
                pub fn close(&self) {
                    $(self.$method.requests().close();)+
                }
            }

            /// The client's side: one function per method.
            #[derive(Clone, Debug)]
            pub struct InterfaceClient<C: private::MessageCodec> {
                target: private::Target<C>,
            }

            impl<C: private::MessageCodec> InterfaceClient<C> {
                /// Whom it calls.
                #[must_use]
                pub fn base_endpoint(&self) -> private::Endpoint {
                    self.target.base()
                }

                $(
                    $($method_meta)*
                    pub fn $method(
                        &self,
                        request: $request,
                    ) -> private::MethodCall<$request, $response, C> {
                        self.target.call(
                            Index::$method as u64,
                            private::MethodName::new(
                                ::core::stringify!($name),
                                ::core::stringify!($method),
                            ),
                            request,
                        )
                    }
                )+
            }

            impl private::Interface for $name {
                const ID: u64 = $id;
                const NAME: &'static str = ::core::stringify!($name);
                const METHODS: &'static [&'static str] = &[$(::core::stringify!($method)),+];
                type Server<C: private::MessageCodec> = InterfaceServer<C>;
                type Client<C: private::MessageCodec> = InterfaceClient<C>;
            }

            #[allow(dead_code, reason = "a crate may only serve, or only call")]
            impl $name {
                /// Registers the methods under the interface's id.
                ///
                /// # Errors
                /// `AlreadyRegistered` if one of them is, `Closed`.
                $visibility fn serve<N, T, TP, C>(
                    transport: &private::FlowTransport<N, T, TP>,
                    codec: C,
                ) -> ::core::result::Result<
                    <Self as private::Interface>::Server<C>,
                    private::RegisterError,
                >
                where
                    N: private::NetworkProvider,
                    T: private::TimeProvider,
                    TP: private::TaskProvider,
                    C: private::MessageCodec,
                {
                    let registrar = private::Registrar::new(transport);
                    let base = private::UID::new(<Self as private::Interface>::ID, 0);
                    ::core::result::Result::Ok(InterfaceServer {
                        $($method: registrar.register_at(
                            base.adjusted(Index::$method as u64),
                            ::core::clone::Clone::clone(&codec),
                        )?.named(private::MethodName::new(
                            ::core::stringify!($name),
                            ::core::stringify!($method),
                        )),)+
                        base,
                    })
                }

                /// Registers the methods under adjacent tokens of the transport's choice.
                ///
                /// # Errors
                /// `NoAddress` if the transport has none, `Full`, `Closed`.
                $visibility fn serve_dynamic<N, T, TP, C>(
                    transport: &private::FlowTransport<N, T, TP>,
                    codec: C,
                ) -> ::core::result::Result<
                    <Self as private::Interface>::Server<C>,
                    private::RegisterError,
                >
                where
                    N: private::NetworkProvider,
                    T: private::TimeProvider,
                    TP: private::TaskProvider,
                    C: private::MessageCodec,
                {
                    let mut registrar = private::Registrar::new(transport);
                    $(let $method = registrar.collect(::core::clone::Clone::clone(&codec));)+
                    let base = registrar.register_collected()?.token;
                    ::core::result::Result::Ok(InterfaceServer {
                        $($method: registrar.adopt(
                            $method,
                            base.adjusted(Index::$method as u64),
                        ).named(private::MethodName::new(
                            ::core::stringify!($name),
                            ::core::stringify!($method),
                        )),)+
                        base,
                    })
                }

                /// The client of the server with this address.
                $visibility fn remote<N, T, TP, C>(
                    transport: &::std::rc::Rc<private::FlowTransport<N, T, TP>>,
                    address: private::NetworkAddress,
                    codec: C,
                ) -> <Self as private::Interface>::Client<C>
                where
                    N: private::NetworkProvider,
                    T: private::TimeProvider,
                    TP: private::TaskProvider,
                    C: private::MessageCodec,
                {
                    let base = private::UID::new(<Self as private::Interface>::ID, 0);
                    Self::at(transport, private::Endpoint::new(address, base), codec)
                }

                /// The client of whoever serves at this base endpoint.
                $visibility fn at<N, T, TP, C>(
                    transport: &::std::rc::Rc<private::FlowTransport<N, T, TP>>,
                    base: private::Endpoint,
                    codec: C,
                ) -> <Self as private::Interface>::Client<C>
                where
                    N: private::NetworkProvider,
                    T: private::TimeProvider,
                    TP: private::TaskProvider,
                    C: private::MessageCodec,
                {
                    InterfaceClient {
                        target: private::Target::new(transport, base, codec),
                    }
                }
            }
        };
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_id_is_fnv_1a_of_its_path() {
        // Published test vectors of the 64-bit FNV-1a.
        assert_eq!(interface_id(""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(interface_id("a"), 0xAF63_DC4C_8601_EC8C);
        assert_eq!(interface_id("foobar"), 0x8594_4171_F739_67E8);
    }
}
