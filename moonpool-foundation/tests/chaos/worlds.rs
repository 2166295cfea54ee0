//! Two hosts and a connection between them.

use std::io::ErrorKind;
use std::time::Duration;

use moonpool_foundation::{
    LatencyModel, NetworkConfiguration, NetworkProvider, Providers, SimConnection, SimProcess,
    SimProviders, SimTcpStream, SimWorld, TaskProvider, TcpListenerTrait, TimeProvider,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Segments of exactly a millisecond, connects of two, and no fault.
pub(crate) fn quiet() -> NetworkConfiguration {
    NetworkConfiguration {
        bind_latency: LatencyModel::fixed(Duration::ZERO),
        accept_latency: LatencyModel::fixed(Duration::ZERO),
        connect_latency: LatencyModel::fixed(2 * MILLISECOND),
        read_latency: LatencyModel::fixed(Duration::ZERO),
        write_latency: LatencyModel::fixed(MILLISECOND),
        ..NetworkConfiguration::disabled()
    }
}

/// A server and a client that are connected.
pub(crate) struct Pair {
    pub(crate) world: SimWorld,
    pub(crate) server: SimProcess,
    pub(crate) client: SimProcess,
    /// The client's end.
    pub(crate) dialled: Option<SimTcpStream>,
    /// The server's end.
    pub(crate) accepted: Option<SimTcpStream>,
    pub(crate) connection: SimConnection,
}

impl Pair {
    pub(crate) fn new(config: NetworkConfiguration, seed: u64) -> Self {
        Self::new_with(config, seed, |_| {})
    }

    /// The same, prepared before anything happens in it.
    pub(crate) fn new_with(
        config: NetworkConfiguration,
        seed: u64,
        prepare: impl FnOnce(&SimWorld),
    ) -> Self {
        let world = SimWorld::new_with_network_config_and_seed(config, seed).unwrap();
        prepare(&world);
        let server = world.add_process("server");
        let client = world.add_process("client");
        let (accepting, connecting) = (server.network_provider(), client.network_provider());
        let (dialled, accepted) = world
            .block_on(async move {
                let listener = accepting.bind("server:80").await.unwrap();
                let dialled = connecting.connect("server:80").await.unwrap();
                let (accepted, _) = listener.accept().await.unwrap();
                (dialled, accepted)
            })
            .unwrap();
        let [connection] = world.connections()[..] else {
            panic!("one connection is open");
        };
        Self {
            world,
            server,
            client,
            dialled: Some(dialled),
            accepted: Some(accepted),
            connection,
        }
    }

    pub(crate) fn dialled(&mut self) -> SimTcpStream {
        self.dialled.take().unwrap()
    }

    pub(crate) fn accepted(&mut self) -> SimTcpStream {
        self.accepted.take().unwrap()
    }

    pub(crate) fn time(&self) -> moonpool_foundation::SimTimeProvider {
        self.world.time_provider()
    }

    /// Lets the client write all of `bytes`, now.
    pub(crate) fn client_writes(&mut self, bytes: &[u8]) -> Result<(), ErrorKind> {
        let mut stream = self.dialled();
        let bytes = bytes.to_vec();
        let (stream, result) = self
            .world
            .block_on(async move {
                let result = stream.write_all(&bytes).await;
                (stream, result.map_err(|error| error.kind()))
            })
            .unwrap();
        self.dialled = Some(stream);
        result
    }

    /// What the server's next read gives, and when.
    pub(crate) fn server_reads(&mut self) -> (Result<Vec<u8>, ErrorKind>, Duration) {
        let mut stream = self.accepted();
        let (stream, result) = self
            .world
            .block_on(async move {
                let result = next_read(&mut stream).await;
                (stream, result)
            })
            .unwrap();
        self.accepted = Some(stream);
        (result, self.world.now())
    }

    /// What the client's next read gives, and when.
    pub(crate) fn client_reads(&mut self) -> (Result<Vec<u8>, ErrorKind>, Duration) {
        std::mem::swap(&mut self.dialled, &mut self.accepted);
        let read = self.server_reads();
        std::mem::swap(&mut self.dialled, &mut self.accepted);
        read
    }

    /// Lets the server write all of `bytes`, now.
    pub(crate) fn server_writes(&mut self, bytes: &[u8]) -> Result<(), ErrorKind> {
        std::mem::swap(&mut self.dialled, &mut self.accepted);
        let written = self.client_writes(bytes);
        std::mem::swap(&mut self.dialled, &mut self.accepted);
        written
    }

    /// Whether the server can read bytes within `duration`.
    pub(crate) fn server_hears_within(&mut self, duration: Duration) -> bool {
        let time = self.time();
        let mut stream = self.accepted();
        let (stream, heard) = self
            .world
            .block_on(async move {
                let heard = time.timeout(duration, next_read(&mut stream)).await;
                (stream, matches!(heard, Ok(Ok(bytes)) if !bytes.is_empty()))
            })
            .unwrap();
        self.accepted = Some(stream);
        heard
    }
}

/// Up to 64 KiB; nothing at the end.
pub(crate) async fn next_read(stream: &mut SimTcpStream) -> Result<Vec<u8>, ErrorKind> {
    let mut bytes = vec![0; 64 << 10];
    let count = stream
        .read(&mut bytes)
        .await
        .map_err(|error| error.kind())?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Everything up to the end, and how that looked.
pub(crate) async fn read_all(stream: &mut SimTcpStream) -> (Vec<u8>, Result<(), ErrorKind>) {
    let mut bytes = Vec::new();
    loop {
        match next_read(stream).await {
            Ok(read) if read.is_empty() => return (bytes, Ok(())),
            Ok(read) => bytes.extend(read),
            Err(kind) => return (bytes, Err(kind)),
        }
    }
}

/// Bytes that tell their places.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(byte_at).collect()
}

pub(crate) fn byte_at(place: usize) -> u8 {
    let mixed = (place as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed.to_be_bytes()[0]
}

/// A server that keeps reading every connection it accepts.
pub(crate) fn start_sink(server: &SimProcess) {
    let providers = server.providers();
    let network = providers.network().clone();
    let tasks = providers.task().clone();
    providers.task().spawn_task("sink", async move {
        let listener = network.bind("server:80").await.unwrap();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tasks.spawn_task("reader", async move {
                let (_bytes, _end) = read_all(&mut stream).await;
            });
        }
    });
}

/// A world with a sink on "server", and a client's providers.
pub(crate) fn with_sink(config: NetworkConfiguration, seed: u64) -> (SimWorld, SimProviders) {
    let world = SimWorld::new_with_network_config_and_seed(config, seed).unwrap();
    start_sink(&world.add_process("server"));
    let client = world.add_process("client").providers();
    world.run_for(SECOND).unwrap();
    (world, client)
}
