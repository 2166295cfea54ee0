//! What two releases understand of each other.

use moonpool::foundation::{NetworkConfiguration, SimWorld};
use moonpool::prelude::*;
use moonpool::{Client, CodecError, Server, define_interface};
use moonpool_traits::PostcardCodec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::store::{Transport, listen};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Put {
    key: String,
    value: String,
}

mod next {
    use super::{Deserialize, Serialize};

    // field
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub struct Put {
        pub key: String,
        pub value: String,
        /// Since release 2. Clients of release 1 do not send it, and mean what they always meant.
        #[serde(default)]
        pub expires_after_seconds: Option<u64>,
    }
    // end of field

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub struct PutSwapped {
        pub value: String,
        pub key: String,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub enum Durability {
        Memory,
        Disk,
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Durability {
    Memory,
}

fn old() -> Put {
    Put {
        key: "k".into(),
        value: "v".into(),
    }
}

fn new() -> next::Put {
    next::Put {
        key: "k".into(),
        value: "v".into(),
        expires_after_seconds: Some(60),
    }
}

/// What one release makes of what the other has written.
fn read<T: DeserializeOwned>(
    codec: impl MessageCodec,
    written: &impl Serialize,
) -> Result<T, CodecError> {
    codec.decode(&codec.encode(written)?)
}

#[test]
fn json_takes_a_field_with_a_default_in_both_directions() {
    let at_new: next::Put = read(JsonCodec, &old()).unwrap();
    assert_eq!(
        at_new,
        next::Put {
            expires_after_seconds: None,
            ..new()
        }
    );
    let at_old: Put = read(JsonCodec, &new()).unwrap();
    assert_eq!(at_old, old(), "the field is ignored");
}

#[test]
fn json_knows_fields_by_name_and_not_by_order() {
    let swapped: next::PutSwapped = read(JsonCodec, &old()).unwrap();
    assert_eq!(swapped.key, "k");
}

#[test]
fn json_refuses_a_variant_that_it_does_not_know() {
    assert!(read::<Durability>(JsonCodec, &next::Durability::Disk).is_err());
    assert!(read::<Durability>(JsonCodec, &next::Durability::Memory).is_ok());
}

#[test]
fn postcard_refuses_a_new_field_in_both_directions() {
    assert!(read::<next::Put>(PostcardCodec, &old()).is_err());
    assert!(read::<Put>(PostcardCodec, &new()).is_err());
}

#[test]
fn postcard_refuses_a_variant_that_it_does_not_know() {
    assert!(read::<Durability>(PostcardCodec, &next::Durability::Disk).is_err());
    assert!(read::<Durability>(PostcardCodec, &next::Durability::Memory).is_ok());
}

#[test]
fn postcard_takes_fields_that_changed_places_for_each_other() {
    let swapped: next::PutSwapped = read(PostcardCodec, &old()).unwrap();
    assert_eq!(
        (swapped.key.as_str(), swapped.value.as_str()),
        ("v", "k"),
        "and says nothing"
    );
}

mod first {
    moonpool::define_interface! {
        pub Store, id 0x5701_4E00, {
            get: String => Option<String>,
        }
    }
}

// method
define_interface! {
    /// As in release 1, and one method more at the end.
    Store, id 0x5701_4E00, {
        get: String => Option<String>,
        /// Since release 2: several keys at once.
        get_many: Vec<String> => Vec<Option<String>>,
    }
}

/// Works with servers of both releases.
async fn get_many(
    store: &Client<Store>,
    keys: Vec<String>,
) -> Result<Vec<Option<String>>, ReplyError> {
    match store.get_many(keys.clone()).await {
        // Surely not executed: this server is of release 1, or is just starting.
        Err(ReplyError::EndpointNotFound) => {}
        answer => return answer,
    }
    let mut values = Vec::new();
    for key in keys {
        values.push(store.get(key).await?);
    }
    Ok(values)
}
// end of method

/// A server and a client, each on its own simulated host.
fn in_simulation<F: Future<Output = ()> + 'static>(
    body: impl FnOnce(
        moonpool::foundation::SimProviders,
        std::rc::Rc<Transport<moonpool::foundation::SimProviders>>,
        Client<Store>,
    ) -> F
    + 'static,
) {
    let config = NetworkConfiguration::disabled();
    let world = SimWorld::new_with_network_config_and_seed(config, 3).unwrap();
    let (server, client) = (world.add_process("server"), world.add_process("client"));
    let address = NetworkAddress::new(server.ip(), 4500);
    let (at_server, at_client) = (server.providers(), client.providers());
    let main = async move {
        let transport = listen(&at_server, address).await.unwrap();
        let calling = FlowTransportBuilder::from_providers(&at_client).build();
        body(
            at_server,
            transport,
            Store::remote(&calling, address, JsonCodec),
        )
        .await;
    };
    world.block_on(main).unwrap();
}

#[test]
fn a_client_of_the_next_release_works_with_servers_of_both() {
    in_simulation(async |p, transport, client| {
        let store: Server<first::Store> = first::Store::serve(&transport, JsonCodec).unwrap();
        p.task().spawn_task("release 1", async move {
            while let Some((key, reply)) = store.get.recv().await {
                reply.send(Some(format!("1 {key}")));
            }
        });
        let values = get_many(&client, vec!["a".into(), "b".into()])
            .await
            .unwrap();
        assert_eq!(values, [Some("1 a".to_owned()), Some("1 b".to_owned())]);
    });
    in_simulation(async |p, transport, client| {
        let store = Store::serve(&transport, JsonCodec).unwrap();
        p.task().spawn_task("release 2", async move {
            while let Some((keys, reply)) = store.get_many.recv().await {
                reply.send(keys.into_iter().map(Some).collect());
            }
        });
        let values = get_many(&client, vec!["a".into()]).await.unwrap();
        assert_eq!(values, [Some("a".to_owned())]);
    });
}
