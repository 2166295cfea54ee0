//! Calls on behalf of a caller.

use std::{cell::Cell, rc::Rc, time::Duration};

use moonpool::foundation::{NetworkConfiguration, SimWorld};
use moonpool::prelude::*;
use moonpool::{Client, MethodStream, Serving, define_interface};

use super::store::{Store, listen};

define_interface! {
    /// Answers for a store elsewhere.
    Front, id 0x5701_4E01, {
        get: String => Option<String>,
    }
}

// nested
async fn forward<T: TimeProvider, TP: TaskProvider>(
    serving: Serving<T, TP>,
    gets: MethodStream<String, Option<String>, JsonCodec>,
    store: Client<Store>,
) {
    let get = async move |key, caller: &_| {
        let call = store.get(key).timeout(Duration::from_secs(2));
        // For 2 s, and no longer than the caller waits.
        call.within(caller).await
    };
    serving.serve(gets, get).await;
}
// end of nested

#[test]
fn a_nested_call_ends_with_the_time_of_its_caller() {
    let config = NetworkConfiguration::disabled();
    let world = SimWorld::new_with_network_config_and_seed(config, 7).unwrap();
    let [back, front, client] = ["back", "front", "client"].map(|name| world.add_process(name));
    let address = |host: &moonpool::foundation::SimProcess| NetworkAddress::new(host.ip(), 4500);
    let (at_back, at_front) = (address(&back), address(&front));
    let (back, front, client) = (back.providers(), front.providers(), client.providers());
    let seen = Rc::new(Cell::new(None));
    let remaining = seen.clone();
    let main = async move {
        let back = listen(&back, at_back).await.unwrap();
        let store = Store::serve(&back, JsonCodec).unwrap();
        let front_transport = listen(&front, at_front).await.unwrap();
        let gets = Front::serve(&front_transport, JsonCodec).unwrap().get;
        let behind = Store::remote(&front_transport, at_back, JsonCodec);
        let serving = Serving::new(&front_transport);
        front
            .task()
            .spawn_task("front", forward(serving, gets, behind));
        let transport = FlowTransportBuilder::from_providers(&client).build();
        let calls = Front::remote(&transport, at_front, JsonCodec);
        let call = calls
            .get("key".into())
            .timeout(Duration::from_millis(300))
            .send()
            .unwrap();
        let (_key, reply) = store.get.recv().await.unwrap();
        seen.set(reply.remaining());
        assert_eq!(call.await, Err(ReplyError::Timeout));
        // The handler in front is dropped with its caller, and what it called for with it.
        reply.cancelled().await;
    };
    world.block_on(main).unwrap();
    let remaining = remaining.get().unwrap();
    assert!(remaining < Duration::from_millis(300) && remaining > Duration::from_millis(200));
}
