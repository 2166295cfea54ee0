//! Partitions: real traffic of a real workload, stopped and going on.

use std::io::ErrorKind;
use std::time::Duration;

use moonpool_foundation::{
    FaultKind, NetworkConfiguration, NetworkProvider, Providers, SimProcess, SimTcpStream,
    SimWorld, TcpListenerTrait, TimeProvider,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SECOND: Duration = Duration::from_secs(1);

struct Hosts {
    world: SimWorld,
    server: SimProcess,
    client: SimProcess,
}

fn hosts(seed: u64) -> Hosts {
    let config = NetworkConfiguration::disabled();
    let world = SimWorld::new_with_network_config_and_seed(config, seed).unwrap();
    let (server, client) = (world.add_process("server"), world.add_process("client"));
    Hosts {
        world,
        server,
        client,
    }
}

async fn connect(server: SimProcess, client: SimProcess) -> (SimTcpStream, SimTcpStream) {
    let listener = server.network_provider().bind("server:80").await.unwrap();
    let dialled = client
        .network_provider()
        .connect("server:80")
        .await
        .unwrap();
    (dialled, listener.accept().await.unwrap().0)
}

impl Hosts {
    fn connected(&self) -> (SimTcpStream, SimTcpStream) {
        let connecting = connect(self.server.clone(), self.client.clone());
        self.world.block_on(connecting).unwrap()
    }

    fn write(&self, stream: &mut SimTcpStream, bytes: &[u8]) -> Result<(), ErrorKind> {
        let written = self.world.block_on(stream.write_all(bytes)).unwrap();
        written.map_err(|error| error.kind())
    }

    /// What arrives within `patience`: bytes, the end, an error, or nothing.
    fn hear(
        &self,
        stream: &mut SimTcpStream,
        patience: Duration,
    ) -> Option<Result<Vec<u8>, ErrorKind>> {
        let mut bytes = [0; 1024];
        let read = stream.read(&mut bytes);
        let time = self.world.time_provider();
        let heard = self.world.block_on(time.timeout(patience, read)).unwrap();
        let read = heard.ok()?.map_err(|error| error.kind());
        Some(read.map(|count| bytes[..count].to_vec()))
    }
}

#[test]
fn a_partition_stops_data_under_way_and_lets_it_arrive_afterwards() {
    let hosts = hosts(1);
    let (mut dialled, mut accepted) = hosts.connected();
    hosts.write(&mut dialled, b"under way").unwrap();
    let began = hosts.world.now();
    hosts
        .world
        .partition_pair(&hosts.client, &hosts.server, 10 * SECOND);
    assert!(hosts.world.is_partitioned(&hosts.client, &hosts.server));
    assert!(
        hosts
            .world
            .is_partitioned(hosts.server.id(), hosts.client.ip())
    );
    hosts.write(&mut dialled, b", and more").unwrap();
    hosts.write(&mut accepted, b"back").unwrap();
    assert_eq!(hosts.hear(&mut accepted, 9 * SECOND), None);
    assert_eq!(hosts.hear(&mut dialled, SECOND / 2), None);
    let mut heard = hosts.hear(&mut accepted, SECOND).unwrap().unwrap();
    if heard.len() < 19 {
        heard.extend(hosts.hear(&mut accepted, SECOND).unwrap().unwrap());
    }
    assert_eq!(heard, b"under way, and more");
    assert_eq!(hosts.hear(&mut dialled, SECOND), Some(Ok(b"back".to_vec())));
    assert!(hosts.world.now() - began < 11 * SECOND);
    assert!(!hosts.world.is_partitioned(&hosts.client, &hosts.server));
    assert_eq!(hosts.world.fault_counts().of(FaultKind::Partition), 1);
}

#[test]
fn a_partition_is_restored_by_call_and_leaves_no_event() {
    let hosts = hosts(2);
    let (mut dialled, mut accepted) = hosts.connected();
    hosts
        .world
        .partition_pair(&hosts.client, &hosts.server, 600 * SECOND);
    hosts.write(&mut dialled, b"held").unwrap();
    assert_eq!(hosts.hear(&mut accepted, 5 * SECOND), None);
    hosts.world.restore_partition(&hosts.server, &hosts.client);
    assert!(!hosts.world.is_partitioned(&hosts.client, &hosts.server));
    assert_eq!(
        hosts.hear(&mut accepted, SECOND),
        Some(Ok(b"held".to_vec()))
    );
    hosts.world.run_until_empty().unwrap();
    assert!(
        hosts.world.now() < 60 * SECOND,
        "a dead event kept the run alive"
    );
}

#[test]
fn bytes_that_stay_unacknowledged_for_fifteen_seconds_end_the_connection() {
    let hosts = hosts(3);
    let (mut dialled, mut accepted) = hosts.connected();
    hosts
        .world
        .partition_pair(&hosts.client, &hosts.server, 40 * SECOND);
    hosts.write(&mut dialled, b"in vain").unwrap();
    let began = hosts.world.now();
    assert_eq!(
        hosts.hear(&mut dialled, 20 * SECOND),
        Some(Err(ErrorKind::TimedOut))
    );
    let waited = hosts.world.now() - began;
    assert!((15 * SECOND..16 * SECOND).contains(&waited), "{waited:?}");
    assert_eq!(
        hosts.write(&mut dialled, b"again"),
        Err(ErrorKind::BrokenPipe)
    );
    // The other end knows nothing of it: no clean end, no error, until it sends and is answered.
    assert_eq!(hosts.hear(&mut accepted, 60 * SECOND), None);
    hosts.write(&mut accepted, b"anybody?").unwrap();
    assert_eq!(
        hosts.hear(&mut accepted, SECOND),
        Some(Err(ErrorKind::ConnectionReset))
    );
}

#[test]
fn a_connection_without_traffic_outlives_a_partition() {
    let hosts = hosts(4);
    let (mut dialled, mut accepted) = hosts.connected();
    hosts
        .world
        .partition_pair(&hosts.client, &hosts.server, 120 * SECOND);
    hosts.world.run_for(121 * SECOND).unwrap();
    hosts.write(&mut dialled, b"still here").unwrap();
    assert_eq!(
        hosts.hear(&mut accepted, SECOND),
        Some(Ok(b"still here".to_vec()))
    );
}

#[test]
fn a_connect_across_a_partition_hangs_until_its_timeout() {
    let hosts = hosts(5);
    let listening = hosts.server.network_provider();
    let listener = hosts.world.block_on(listening.bind("server:80")).unwrap();
    hosts
        .world
        .partition_pair(&hosts.client, &hosts.server, 600 * SECOND);
    let network = hosts.client.network_provider();
    let time = hosts.world.time_provider();
    let mut connecting = std::pin::pin!(network.connect("server:80"));
    let began = hosts.world.now();
    let waited = time.timeout(100 * SECOND, connecting.as_mut());
    assert!(hosts.world.block_on(waited).unwrap().is_err());
    // Nothing of it has reached the server.
    assert!(hosts.world.connections().is_empty());
    let connected = hosts.world.block_on(connecting).unwrap();
    assert_eq!(connected.unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!((hosts.world.now() - began).as_secs(), 127);
    drop(listener);
}

#[test]
fn a_connect_waits_for_the_end_of_a_partition() {
    let hosts = hosts(6);
    let (server, client) = (hosts.server.clone(), hosts.client.clone());
    hosts.world.partition_pair(&client, &server, 5 * SECOND);
    let (mut dialled, mut accepted) = hosts.connected();
    assert!(hosts.world.now() >= 5 * SECOND);
    hosts.write(&mut dialled, b"at last").unwrap();
    assert_eq!(
        hosts.hear(&mut accepted, SECOND),
        Some(Ok(b"at last".to_vec()))
    );
}

#[test]
fn an_answer_that_meets_a_partition_does_not_connect() {
    let hosts = hosts(7);
    let listener = hosts
        .world
        .block_on(hosts.server.network_provider().bind("server:80"))
        .unwrap()
        .unwrap();
    let network = hosts.client.network_provider();
    let time = hosts.world.time_provider();
    let mut connecting = std::pin::pin!(network.connect("server:80"));
    // Step until the connect has arrived and its answer is under way.
    loop {
        let waited = time.timeout(Duration::from_micros(100), connecting.as_mut());
        assert!(hosts.world.block_on(waited).unwrap().is_err(), "too late");
        if !hosts.world.connections().is_empty() {
            break;
        }
    }
    let (server, client) = (hosts.server.clone(), hosts.client.clone());
    hosts
        .world
        .partition_one_way(&server, &client, 600 * SECOND);
    let connected = hosts.world.block_on(connecting).unwrap();
    assert_eq!(connected.unwrap_err().kind(), ErrorKind::TimedOut);
    drop(listener);
    hosts.world.restore_partition(&server, &client);
    hosts.world.run_until_empty().unwrap();
    assert_eq!(
        hosts.world.leftovers(),
        moonpool_foundation::Leftovers::default()
    );
}

#[test]
fn one_way_only_stops_that_way_and_its_acknowledgements() {
    let hosts = hosts(8);
    let (mut dialled, mut accepted) = hosts.connected();
    let (server, client) = (hosts.server.clone(), hosts.client.clone());
    hosts.world.partition_one_way(&server, &client, 60 * SECOND);
    assert!(hosts.world.is_partitioned(&server, &client));
    assert!(!hosts.world.is_partitioned(&client, &server));
    hosts.write(&mut dialled, b"there").unwrap();
    assert_eq!(
        hosts.hear(&mut accepted, SECOND),
        Some(Ok(b"there".to_vec()))
    );
    // It arrived, but the news of that did not.
    assert_eq!(
        hosts.hear(&mut dialled, 30 * SECOND),
        Some(Err(ErrorKind::TimedOut))
    );
    assert!((15..17).contains(&hosts.world.now().as_secs()));
}

#[test]
fn a_one_way_partition_that_ends_in_time_costs_nothing() {
    let hosts = hosts(9);
    let (mut dialled, mut accepted) = hosts.connected();
    let (server, client) = (hosts.server.clone(), hosts.client.clone());
    hosts.world.partition_one_way(&server, &client, 10 * SECOND);
    hosts.write(&mut dialled, b"there").unwrap();
    assert_eq!(
        hosts.hear(&mut accepted, SECOND),
        Some(Ok(b"there".to_vec()))
    );
    assert_eq!(hosts.hear(&mut dialled, 60 * SECOND), None);
    hosts.write(&mut accepted, b"back").unwrap();
    assert_eq!(hosts.hear(&mut dialled, SECOND), Some(Ok(b"back".to_vec())));
}

#[test]
fn all_that_a_process_sends_or_is_sent_is_stopped() {
    let hosts = hosts(10);
    let (mut dialled, mut accepted) = hosts.connected();
    let (server, client) = (hosts.server.clone(), hosts.client.clone());
    hosts.world.partition_send_from(&client, 600 * SECOND);
    assert!(hosts.world.is_partitioned(&client, &server));
    assert!(!hosts.world.is_partitioned(&server, &client));
    hosts.write(&mut dialled, b"x").unwrap();
    assert_eq!(hosts.hear(&mut accepted, SECOND), None);
    hosts.world.restore_process(&client);
    assert_eq!(hosts.hear(&mut accepted, SECOND), Some(Ok(b"x".to_vec())));

    hosts.world.partition_recv_to(&client, 5 * SECOND);
    assert!(hosts.world.is_partitioned(&server, &client));
    assert!(!hosts.world.is_partitioned(&client, &server));
    hosts.write(&mut accepted, b"y").unwrap();
    assert_eq!(hosts.hear(&mut dialled, 4 * SECOND), None);
    assert_eq!(
        hosts.hear(&mut dialled, 2 * SECOND),
        Some(Ok(b"y".to_vec()))
    );
}

#[test]
fn others_and_the_process_itself_are_reached_all_the_while() {
    let hosts = hosts(11);
    let third = hosts.world.add_process("third");
    hosts.world.partition_send_from(&third, 600 * SECOND);
    hosts
        .world
        .partition_pair(&hosts.client, &third, 600 * SECOND);
    hosts.connected();
    let alone = connect(third.clone(), third.clone());
    let listener = third.network_provider();
    let own = hosts.world.block_on(async move {
        drop(alone);
        let listener = listener.bind("third:80").await.unwrap();
        third.network_provider().connect("third:80").await.unwrap();
        listener.accept().await.unwrap();
    });
    assert!(own.is_ok());
}

#[test]
fn a_reset_is_stopped_too() {
    let hosts = hosts(12);
    let (mut dialled, accepted) = hosts.connected();
    hosts.write(&mut dialled, b"never read").unwrap();
    hosts.world.run_for(SECOND).unwrap();
    hosts
        .world
        .partition_pair(&hosts.client, &hosts.server, 5 * SECOND);
    drop(accepted);
    assert_eq!(hosts.hear(&mut dialled, 4 * SECOND), None);
    assert_eq!(
        hosts.hear(&mut dialled, 2 * SECOND),
        Some(Err(ErrorKind::ConnectionReset))
    );
}

#[test]
fn partitions_by_chance_begin_while_processes_talk() {
    let mut config = NetworkConfiguration::disabled();
    config.chaos.partition_probability = 0.2;
    config.chaos.partition_duration = Duration::from_millis(200)..=2 * SECOND;
    let world = SimWorld::new_with_network_config_and_seed(config, 1).unwrap();
    let (server, client) = (world.add_process("server"), world.add_process("client"));
    let time = client.providers().time().clone();
    let mut slowest = Duration::ZERO;
    let longest = world
        .block_on(async move {
            let (mut dialled, mut accepted) = connect(server, client).await;
            for _ in 0..200 {
                let began = time.now();
                dialled.write_all(b"ping").await.unwrap();
                let mut bytes = [0; 4];
                accepted.read_exact(&mut bytes).await.unwrap();
                slowest = slowest.max(time.now() - began);
                time.sleep(Duration::from_millis(500)).await;
            }
            slowest
        })
        .unwrap();
    let fired = world.fault_counts().of(FaultKind::Partition);
    // At most one draw a second: 100 s of traffic.
    assert!((8..45).contains(&fired), "{fired}");
    assert!((SECOND..3 * SECOND).contains(&longest), "{longest:?}");
}
