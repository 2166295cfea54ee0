//! Who is woken: the task that asked last, whichever it is and however it asked.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use moonpool_foundation::{
    NetworkConfiguration, NetworkProvider, SimTcpStream, SimWorld, SleepFuture, TaskProvider,
    TcpListenerTrait, TimeProvider,
};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_sleep_that_is_passed_on_wakes_the_task_that_has_it() {
    let world = SimWorld::new();
    let passed: Rc<RefCell<Option<SleepFuture>>> = Rc::default();
    let (time, slot) = (world.time_provider(), Rc::clone(&passed));
    world.task_provider().spawn_task("first", async move {
        let mut sleep = time.sleep(2 * SECOND);
        poll_fn(|cx| {
            assert!(Pin::new(&mut sleep).poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        slot.replace(Some(sleep));
        // It stays: a wake that is still meant for it would be lost.
        std::future::pending::<()>().await;
    });
    let time = world.time_provider();
    let second = world.task_provider().spawn_task("second", async move {
        time.sleep(SECOND).await;
        let sleep = passed.take().unwrap();
        sleep.await;
        time.now()
    });
    assert_eq!(world.block_on(second).unwrap(), Ok(2 * SECOND));
}

/// Asks once for a byte.
async fn ask(stream: &mut SimTcpStream) -> bool {
    let mut byte = [0];
    poll_fn(|cx| {
        let asked = Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
        Poll::Ready(asked.is_ready())
    })
    .await
}

#[test]
fn a_stream_that_is_passed_on_wakes_the_task_that_has_it() {
    let config = NetworkConfiguration::disabled();
    let world = SimWorld::new_with_network_config_and_seed(config, 1).unwrap();
    let (network, time) = (world.network_provider(), world.time_provider());
    world.task_provider().spawn_task("writer", async move {
        let listener = network.bind("127.0.0.1:80").await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        time.sleep(2 * SECOND).await;
        stream.write_all(b"x").await.unwrap();
        std::future::pending::<()>().await;
    });
    let passed: Rc<RefCell<Option<SimTcpStream>>> = Rc::default();
    let (network, time) = (world.network_provider(), world.time_provider());
    let slot = Rc::clone(&passed);
    world.task_provider().spawn_task("first", async move {
        time.sleep(SECOND / 2).await;
        let mut stream = network.connect("127.0.0.1:80").await.unwrap();
        assert!(!ask(&mut stream).await);
        slot.replace(Some(stream));
        std::future::pending::<()>().await;
    });
    let time = world.time_provider();
    let second = world.task_provider().spawn_task("second", async move {
        time.sleep(SECOND).await;
        let mut stream = passed.take().unwrap();
        let mut byte = [0];
        poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut byte)))
            .await
            .unwrap();
        byte
    });
    assert_eq!(world.block_on(second).unwrap(), Ok(*b"x"));
}

#[test]
fn a_sleep_of_another_world_wakes_the_task_that_waits_for_it() {
    let (asking, sleeping) = (SimWorld::new_with_seed(1), SimWorld::new_with_seed(2));
    let time = sleeping.time_provider();
    let waits = asking
        .task_provider()
        .spawn_task("waits", async move { time.sleep(SECOND).await });
    asking.run_until_empty().unwrap();
    sleeping.run_until_empty().unwrap();
    assert_eq!(sleeping.current_time(), SECOND);
    assert_eq!(asking.block_on(waits).unwrap(), Ok(()));
}

#[test]
fn combinators_with_wakers_of_their_own_are_woken_by_those() {
    let world = SimWorld::new();
    let time = world.time_provider();
    let done = world.task_provider().spawn_task("joins", async move {
        let mut sleeps: FuturesUnordered<_> = [3, 1, 2]
            .into_iter()
            .map(|seconds| {
                let sleep = time.sleep(seconds * SECOND);
                async move {
                    sleep.await;
                    seconds
                }
            })
            .collect();
        let mut order = Vec::new();
        while let Some(seconds) = sleeps.next().await {
            order.push((seconds, time.now()));
        }
        order
    });
    let expected = [1, 2, 3].map(|seconds| (seconds, seconds * SECOND));
    assert_eq!(world.block_on(done).unwrap(), Ok(expected.to_vec()));
}
