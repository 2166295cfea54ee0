//! Streams, timers and tasks of one world.

use moonpool_foundation::{
    NetworkConfiguration, NetworkProvider, Providers, SimProviders, SimWorld, TaskProvider,
    TcpListenerTrait, TimeProvider, TraceMode,
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn echo_server(providers: SimProviders) {
    let listener = providers.network().bind("server:80").await.unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        providers.task().spawn_task("echo", async move {
            let mut bytes = [0; 1024];
            loop {
                match stream.read(&mut bytes).await {
                    Ok(0) | Err(_) => return,
                    Ok(n) => stream.write_all(&bytes[..n]).await.unwrap(),
                }
            }
        });
    }
}

fn echo_run(seed: u64) -> (u64, Duration) {
    echo_run_traced(seed, TraceMode::Off)
}

fn echo_run_traced(seed: u64, trace: TraceMode) -> (u64, Duration) {
    let config = NetworkConfiguration::disabled();
    let world = SimWorld::new_with_network_config_and_seed(config, seed).unwrap();
    world.set_trace(trace);
    let server = world.add_process("server").providers();
    let client = world.add_process("client").providers();
    server
        .task()
        .spawn_task("server", echo_server(server.clone()));
    let calls = client.task().spawn_task("client", {
        let client = client.clone();
        async move {
            let mut stream = loop {
                match client.network().connect("server:80").await {
                    Ok(stream) => break stream,
                    Err(_) => client.time().sleep(Duration::from_millis(5)).await,
                }
            };
            for round in 0..10_u8 {
                stream.write_all(&[round; 64]).await.unwrap();
                let mut back = [0; 64];
                stream.read_exact(&mut back).await.unwrap();
                assert_eq!(back, [round; 64]);
            }
        }
    });
    world.block_on(calls).unwrap().unwrap();
    world.run_until_empty().unwrap();
    assert_eq!(world.leftovers().connections, 0);
    (world.digest(), world.now())
}

#[test]
fn a_seed_gives_one_digest_and_another_seed_another() {
    let first: Vec<_> = (0..50).map(echo_run).collect();
    let second: Vec<_> = (0..50).map(echo_run).collect();
    assert_eq!(first, second);
    let mut digests: Vec<_> = first.iter().map(|(digest, _)| *digest).collect();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 50);
}

#[test]
fn a_recorded_run_is_the_same_run() {
    for seed in 0..10 {
        let plain = echo_run(seed);
        assert_eq!(plain, echo_run_traced(seed, TraceMode::Recent));
        assert_eq!(plain, echo_run_traced(seed, TraceMode::Full));
    }
}
