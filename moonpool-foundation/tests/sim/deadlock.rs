//! Deadlocks are exact, and the report says who waits on what.

use std::time::Duration;

use moonpool_foundation::{
    NetworkConfiguration, NetworkProvider, SimWorld, SimulationError, TaskProvider,
    TcpListenerTrait, TimeProvider,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn the_report_lists_every_task_and_what_it_waits_on() {
    let world = SimWorld::new();
    let server = world.add_process("server");
    let client = world.add_process("client");
    let network = server.network_provider();
    server.task_provider().spawn_task("acceptor", async move {
        let listener = network.bind("server:80").await.unwrap();
        let mut streams = Vec::new();
        loop {
            streams.push(listener.accept().await.unwrap());
        }
    });
    let (network, task) = (client.network_provider(), client.task_provider());
    let time = client.time_provider();
    let main = client.task_provider().spawn_task("dialler", async move {
        time.sleep(Duration::from_secs(1)).await;
        let mut quiet = network.connect("server:80").await.unwrap();
        let mut full = network.connect("server:80").await.unwrap();
        task.spawn_task("reader", async move {
            quiet.read_u8().await.unwrap();
        });
        let writer = task.spawn_task("writer", async move {
            full.write_all(&vec![0; 1 << 20]).await.unwrap();
        });
        task.spawn_task("channel", async move {
            let (_keep, receive) = tokio::sync::oneshot::channel::<()>();
            receive.await.unwrap();
        });
        writer.await.unwrap();
    });
    let error = world.block_on(main).unwrap_err();
    assert!(matches!(error, SimulationError::Deadlock { .. }), "{error}");
    let text = error.to_string();
    for line in [
        "task `acceptor` of `server` waits on accept on 10.0.0.1:80",
        "task `reader` of `client` waits on read from 10.0.0.1:80",
        "task `writer` of `client` waits on write to 10.0.0.1:80",
        "task `dialler` of `client` waits on join of task",
        "task `channel` of `client` waits on something that is not the simulation's",
        "main future waits on join of task",
        "spawned at moonpool-foundation/tests/sim/deadlock.rs",
    ] {
        assert!(text.contains(line), "no `{line}` in\n{text}");
    }
}

#[test]
fn a_run_beyond_its_budget_of_virtual_time_ends() {
    let world = SimWorld::new_with_network_config(NetworkConfiguration::disabled()).unwrap();
    world.set_time_budget(Some(Duration::from_secs(60)));
    let time = world.time_provider();
    let error = world
        .block_on(async move {
            loop {
                time.sleep(Duration::from_secs(1)).await;
            }
        })
        .unwrap_err();
    assert!(
        matches!(error, SimulationError::TimeBudget { .. }),
        "{error}"
    );
    assert_eq!(world.now(), Duration::from_secs(60));
}

#[test]
fn a_sleep_for_ever_is_a_deadlock_and_not_a_run_to_the_end_of_time() {
    let world = SimWorld::new();
    let sleep = world.time_provider().sleep(Duration::MAX);
    let error = world.block_on(sleep).unwrap_err();
    assert!(matches!(error, SimulationError::Deadlock { .. }), "{error}");
    assert_eq!(world.now(), Duration::ZERO);
}

#[test]
fn the_report_tells_who_is_paused() {
    let world = SimWorld::new();
    let server = world.add_process("server");
    let listener = server.network_provider();
    server.task_provider().spawn_task("acceptor", async move {
        let listener = listener.bind("server:80").await.unwrap();
        drop(listener.accept().await);
    });
    world.run_until_empty().unwrap();
    world.pause(server.id());
    let error = world.block_on(std::future::pending::<()>()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("task `acceptor` of `server` (paused) waits on accept"),
        "{text}"
    );
}
