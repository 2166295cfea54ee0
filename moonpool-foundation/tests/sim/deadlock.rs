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
/// Two tasks that send each other bytes for ever, spaced by background sleeps: a pair of transports
/// that keep their connection alive.
fn keepalive_pair(world: &SimWorld) {
    let (a, b) = (world.add_process("a"), world.add_process("b"));
    let network = a.network_provider();
    a.task_provider().spawn_driver("echo", async move {
        let listener = network.bind("a:80").await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        while let Ok(byte) = stream.read_u8().await {
            stream.write_u8(byte).await.unwrap();
        }
    });
    let (network, time) = (b.network_provider(), b.time_provider());
    b.task_provider().spawn_driver("ping", async move {
        time.sleep(Duration::from_secs(1)).await;
        let mut stream = network.connect("a:80").await.unwrap();
        loop {
            time.background_sleep(Duration::from_secs(1)).await;
            stream.write_u8(1).await.unwrap();
            stream.read_u8().await.unwrap();
        }
    });
}

#[test]
fn drivers_that_only_keep_each_other_alive_do_not_hide_a_deadlock() {
    let world = SimWorld::new();
    world.set_time_budget(Some(Duration::from_secs(600)));
    keepalive_pair(&world);
    let error = world.block_on(std::future::pending::<()>()).unwrap_err();
    let SimulationError::Deadlock { at, report } = &error else {
        panic!("{error}");
    };
    let expected = Duration::from_secs(10)..Duration::from_millis(11_100);
    assert!(expected.contains(at), "{at:?}");
    assert!(
        report.contains("task `ping` of `b` waits on sleep"),
        "{report}"
    );
}

#[test]
fn a_background_event_that_wakes_a_task_starts_the_count_anew() {
    let world = SimWorld::new();
    keepalive_pair(&world);
    let time = world.time_provider();
    let slow = world.task_provider().spawn_task("slow", async move {
        for _ in 0..5 {
            time.background_sleep(Duration::from_secs(8)).await;
        }
        time.now()
    });
    let ended = world.block_on(slow).unwrap().unwrap();
    assert_eq!(ended, Duration::from_secs(40));
}

/// What they wait for may be what ends somebody's wait.
#[test]
fn a_driver_that_waits_for_more_than_background_events_is_waited_for() {
    let world = SimWorld::new();
    let (tell, told) = tokio::sync::oneshot::channel();
    let time = world.time_provider();
    world.task_provider().spawn_driver("patient", async move {
        time.background_sleep(Duration::from_secs(5)).await;
        time.sleep(Duration::from_secs(30)).await;
        tell.send(time.now()).unwrap();
    });
    let ended = world.block_on(told).unwrap().unwrap();
    assert_eq!(ended, Duration::from_secs(35));
    let time = world.time_provider();
    world.task_provider().spawn_driver("futile", async move {
        time.background_sleep(Duration::from_secs(5)).await;
        time.sleep(Duration::from_secs(30)).await;
    });
    let error = world.block_on(std::future::pending::<()>()).unwrap_err();
    assert!(
        matches!(error, SimulationError::Deadlock { at, .. } if at == Duration::from_secs(70)),
        "{error}"
    );
}

#[test]
fn traffic_between_drivers_that_never_pauses_does_not_hide_a_deadlock() {
    let world = SimWorld::new();
    world.set_time_budget(Some(Duration::from_secs(100)));
    let (a, b) = (world.add_process("a"), world.add_process("b"));
    let (network, task) = (a.network_provider(), a.task_provider());
    a.task_provider().spawn_driver("acceptor", async move {
        let listener = network.bind("a:80").await.unwrap();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            task.spawn_driver("echo", async move {
                while let Ok(byte) = stream.read_u8().await {
                    stream.write_u8(byte).await.unwrap();
                }
            });
        }
    });
    // No pause at all: a byte is always on its way.
    let network = b.network_provider();
    let time = b.time_provider();
    b.task_provider().spawn_driver("ping", async move {
        time.sleep(Duration::from_secs(1)).await;
        let mut stream = network.connect("a:80").await.unwrap();
        time.background_sleep(Duration::from_secs(1)).await;
        loop {
            stream.write_u8(1).await.unwrap();
            stream.read_u8().await.unwrap();
        }
    });
    let error = world.block_on(std::future::pending::<()>()).unwrap_err();
    let SimulationError::Deadlock { at, .. } = &error else {
        panic!("{error}");
    };
    assert!(*at < Duration::from_secs(13), "{at:?}");
}
