//! Code around calls and handlers.

use std::{cell::Cell, rc::Rc};

use moonpool::foundation::{NetworkConfiguration, SimWorld};
use moonpool::prelude::*;
use moonpool::{
    Answered, CallMiddleware, NextCall, NextHandler, OutgoingCall, Refusal, ReplyBody,
    ServeMiddleware, ServedRequest, Serving,
};

use super::store::{Store, listen};

// around
/// Says in every call who makes it.
pub struct CalledBy(pub &'static str);

impl CallMiddleware for CalledBy {
    async fn call(&self, mut call: OutgoingCall, next: NextCall) -> Result<ReplyBody, ReplyError> {
        call.add_metadata("called-by", self.0);
        next.run(call).await
    }
}

/// While it is on, the operator alone is served.
#[derive(Clone, Default)]
pub struct Maintenance(pub Rc<Cell<bool>>);

impl ServeMiddleware for Maintenance {
    async fn serve(
        &self,
        request: ServedRequest<'_>,
        next: NextHandler<'_>,
    ) -> Result<Answered, ReplyError> {
        let mut metadata = request.metadata().iter();
        let is_operator = metadata.any(|pair| pair == ("called-by", b"operator".as_slice()));
        if self.0.get() && !is_operator {
            // Without `next.run()` no handler is called: surely not executed.
            return Err(ReplyError::Refused(Refusal::Overloaded));
        }
        next.run().await
    }
}
// end of around

async fn serve_and_call<P: Providers>(p: P, address: NetworkAddress) {
    let transport = listen(&p, address).await.unwrap();
    let maintenance = Maintenance::default();
    // install
    let client = |called_by| {
        FlowTransportBuilder::from_providers(&p)
            .call_middleware(CalledBy(called_by))
            .build()
    };
    let serving = Serving::new(&transport).middleware(maintenance.clone());
    // end of install
    let store = Store::serve(&transport, JsonCodec).unwrap();
    p.task().spawn_task("store", async move {
        let get = async |_: String, _: &_| Ok(None);
        serving.serve(store.get, get).await;
    });
    let (shop, operator) = (client("shop"), client("operator"));
    let get = async |transport| {
        let store = Store::remote(transport, address, JsonCodec);
        store.get("key".into()).await
    };
    assert_eq!(get(&shop).await, Ok(None));
    maintenance.0.set(true);
    assert_eq!(get(&shop).await, Err(ReplyError::Overloaded));
    assert_eq!(get(&operator).await, Ok(None));
}

#[test]
fn maintenance_keeps_all_but_the_operator_out() {
    let config = NetworkConfiguration::disabled();
    let world = SimWorld::new_with_network_config_and_seed(config, 7).unwrap();
    let process = world.add_process("store");
    let address = NetworkAddress::new(process.ip(), 4500);
    world
        .block_on(serve_and_call(process.providers(), address))
        .unwrap();
}
