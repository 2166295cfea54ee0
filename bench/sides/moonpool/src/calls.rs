//! The service that is called, for both worlds and every codec.

use std::rc::Rc;

use bench_common::Sample;
use moonpool::{
    Endpoint, FlowTransport, FlowTransportBuilder, MessageCodec, NetworkAddress, Providers,
    TaskProvider, UID, send_request,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub const TOKEN: UID = UID::new(0xBE7C, 0);

pub type Transport<P> =
    FlowTransport<<P as Providers>::Network, <P as Providers>::Time, <P as Providers>::Task>;

pub fn transport<P: Providers>(providers: &P) -> Rc<Transport<P>> {
    FlowTransportBuilder::from_providers(providers).build()
}

/// Listens, and echoes messages of type `M` for ever.
pub async fn serve<P, M, C>(providers: &P, address: NetworkAddress, codec: C) -> Rc<Transport<P>>
where
    P: Providers,
    M: Serialize + DeserializeOwned + 'static,
    C: MessageCodec,
{
    let builder = FlowTransportBuilder::from_providers(providers).local_address(address);
    let transport = builder.build_listening().await.unwrap();
    echo::<P, M, C>(providers, &transport, codec);
    transport
}

/// Echoes messages of type `M` for ever.
pub fn echo<P, M, C>(providers: &P, transport: &Rc<Transport<P>>, codec: C)
where
    P: Providers,
    M: Serialize + DeserializeOwned + 'static,
    C: MessageCodec,
{
    let requests = transport.register_handler::<M, _>(TOKEN, codec);
    let serving = Rc::clone(transport);
    providers.task().spawn_task("service", async move {
        while let Some((request, reply)) =
            requests.recv_with_transport::<_, _, _, M>(&serving).await
        {
            reply.send(request);
        }
    });
}

/// Calls one after the other.
pub async fn call<P: Providers, C: MessageCodec>(
    transport: &Transport<P>,
    server: NetworkAddress,
    count: u64,
    codec: C,
) {
    let endpoint = Endpoint::new(server, TOKEN);
    for _ in 0..count {
        let reply = send_request(transport, &endpoint, Sample::new(), codec.clone()).unwrap();
        let sample: Sample = reply.await.unwrap();
        assert_eq!(sample.id, 1_234_567);
    }
}

/// `window` callers on one transport, each calling one after the other; `count` calls in all.
pub async fn call_many<P: Providers, C: MessageCodec>(
    providers: &P,
    transport: &Rc<Transport<P>>,
    server: NetworkAddress,
    (count, window): (u64, u64),
    codec: C,
) {
    let caller = |_| {
        let (transport, codec) = (Rc::clone(transport), codec.clone());
        providers.task().spawn_task("caller", async move {
            call::<P, C>(&transport, server, count / window, codec).await;
        })
    };
    let callers: Vec<_> = (0..window).map(caller).collect();
    for caller in callers {
        caller.await.unwrap();
    }
}
