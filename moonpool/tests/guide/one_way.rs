//! Messages that nobody answers.

use moonpool::foundation::{NetworkConfiguration, SimWorld};
use moonpool::prelude::*;
use moonpool::{Client, NotSent, define_interface};

use super::store::listen;

// one way
define_interface! {
    /// What is going on.
    pub Pulse, id 0x5701_4E04, {
        /// A user came. Each is counted.
        came: String => (),
        /// How busy a host is. The next one comes soon.
        load: u32 => (),
    }
}

pub fn report(pulse: &Client<Pulse>, user: String, load: u32) -> Result<(), NotSent<String>> {
    pulse.came(user).tell()?;
    if let Err(not_sent) = pulse.load(load).tell_unreliable() {
        tracing::debug!(%not_sent, "the next one will be");
    }
    Ok(())
}
// end of one way

#[test]
fn reports_arrive_without_being_answered() {
    let config = NetworkConfiguration::disabled();
    let world = SimWorld::new_with_network_config_and_seed(config, 7).unwrap();
    let [server, client] = ["server", "client"].map(|name| world.add_process(name));
    let address = NetworkAddress::new(server.ip(), 4500);
    let (server, client) = (server.providers(), client.providers());
    let main = async move {
        let transport = listen(&server, address).await.unwrap();
        let served = Pulse::serve(&transport, JsonCodec).unwrap();
        let own = FlowTransportBuilder::from_providers(&client).build();
        let pulse = Pulse::remote(&own, address, JsonCodec);
        report(&pulse, "one".to_owned(), 1).unwrap();
        let (user, reply) = served.came.recv().await.unwrap();
        assert_eq!((user.as_str(), reply.expects_answer()), ("one", false));
        report(&pulse, "two".to_owned(), 2).unwrap();
        // The first had no connection to go on.
        let (load, _reply) = served.load.recv().await.unwrap();
        assert_eq!(load, 2);
        let (user, _reply) = served.came.recv().await.unwrap();
        assert_eq!(user, "two");
    };
    world.block_on(main).unwrap();
}
